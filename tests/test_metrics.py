"""Metrics against scikit-learn and NumPy; states of parts merge to the state of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mmjax.metrics import Confusion, Mean, Moments, compute, merge

RNG = np.random.default_rng(0)
N = 40
LOGITS = RNG.normal(size=(N, 3)).astype(np.float32)
CLASS = RNG.integers(0, 3, N).astype(np.int32)
SCORE = RNG.normal(size=N).astype(np.float32)
TRUE = (0.5 * SCORE + RNG.normal(size=N)).astype(np.float32)
WEIGHT = RNG.integers(0, 2, N).astype(np.float32)
REAL = WEIGHT > 0


def states(part=slice(None)):
    logits = np.where(REAL[:, None], LOGITS, np.nan).astype(np.float32)[part]
    score = np.where(REAL, SCORE, np.nan).astype(np.float32)[part]
    target = np.where(REAL, CLASS, -7).astype(np.int32)[part]
    logits, score, target, true, weight = map(jnp.asarray, (logits, score, target, TRUE[part], WEIGHT[part]))
    return {
        "mean": Mean.of(score, weight),
        "confusion": Confusion.of(logits, target, weight),
        "moments": Moments.of(score, true, weight),
    }


@pytest.mark.parametrize("parts", [[slice(None)], [slice(0, 7), slice(7, 8), slice(8, N)]])
def test_equal_the_definitions_however_the_items_are_divided(parts):
    found = compute(merge(*(states(part) for part in parts)))
    predicted, actual = LOGITS.argmax(1)[REAL], CLASS[REAL]
    expected = {
        "mean": SCORE[REAL].mean(),
        "accuracy": accuracy_score(actual, predicted),
        "f1_macro": f1_score(actual, predicted, average="macro"),
        "f1_weighted": f1_score(actual, predicted, average="weighted"),
        "mae": np.abs(SCORE - TRUE)[REAL].mean(),
        "pearson": np.corrcoef(SCORE[REAL], TRUE[REAL])[0, 1],
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_a_class_that_never_occurs_is_left_out_of_the_macro_mean():
    logits, target = jnp.eye(4)[jnp.array([0, 1, 1])], jnp.array([0, 1, 0])
    found = compute({"confusion": Confusion.of(logits, target, jnp.ones(3))})
    assert float(found["f1_macro"]) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_a_tie_goes_to_the_first_class_and_nothing_has_no_mean():
    one = jnp.ones(1)
    state = Confusion.of(jnp.zeros((1, 3)), jnp.zeros(1, jnp.int32), one)
    assert float(compute({"c": state})["accuracy"]) == 1
    assert np.isnan(compute({"m": Mean.of(one, 0 * one)})["m"])


def test_states_of_seeds_compute_at_once():
    stacked = jax.tree.map(lambda a, b: np.stack([a, b]), states(), states(slice(0, 20)))
    both = jax.vmap(compute)(stacked)
    np.testing.assert_allclose(both["accuracy"][1], compute(states(slice(0, 20)))["accuracy"], rtol=1e-6)


class TestCorrelation:
    def moments(self, prediction, target, parts=1, weight=None):
        weight = np.ones(len(prediction), np.float32) if weight is None else weight
        pieces = zip(*(np.array_split(np.float32(x), parts) for x in (prediction, target, weight)))
        found = compute({"m": merge(*(Moments.of(*map(jnp.asarray, piece)) for piece in pieces))})
        return {name: float(value) for name, value in found.items()}

    @pytest.mark.parametrize("mean", [0.0, 2000.0, -30000.0])
    @pytest.mark.parametrize("parts", [1, 7])
    def test_is_that_of_float64_however_far_the_mean_is_from_0(self, mean, parts):
        rng = np.random.default_rng(1)
        target = (mean + rng.normal(size=500)).astype(np.float32)
        prediction = (target + rng.normal(size=500)).astype(np.float32)
        expected = np.corrcoef(prediction.astype(np.float64), target.astype(np.float64))[0, 1]
        found = self.moments(prediction, target, parts)
        assert found["pearson"] == pytest.approx(expected, abs=2e-5) and 0.6 < expected < 0.8
        assert found["mae"] == pytest.approx(np.abs(prediction - target).mean(), rel=1e-5)

    @pytest.mark.parametrize("parts", [1, 3])
    def test_of_a_constant_there_is_none(self, parts):
        target = np.random.default_rng(2).normal(size=100)
        for constant in (0.0, 0.1, 2000.1):
            assert np.isnan(self.moments(np.full(100, constant), target, parts)["pearson"])
            assert np.isnan(self.moments(target, np.full(100, constant), parts)["pearson"])
        nearly = np.nextafter(np.full(100, 2000.1, np.float32), np.float32(3000) * (target > 0).astype(np.float32))
        assert len(set(nearly.tolist())) == 2  # two neighbours: the rounding of one number
        assert np.isnan(self.moments(nearly, target, parts)["pearson"])
        assert np.isnan(self.moments(target[:1], target[:1])["pearson"])

    def test_weights_count_and_empty_parts_do_not(self):
        rng = np.random.default_rng(3)
        target, weight = 50 + rng.normal(size=40), rng.integers(0, 3, 40)
        prediction = target + rng.normal(size=40)
        weight[:10] = 0  # the whole first part
        prediction[:10] = np.nan
        repeated = np.repeat(np.arange(40), weight)
        expected = np.corrcoef(prediction[repeated], target[repeated])[0, 1]
        assert self.moments(prediction, target, 4, weight)["pearson"] == pytest.approx(expected, abs=1e-5)

    def test_a_prediction_that_is_no_number_makes_no_number(self):
        found = self.moments([1.0, np.nan, 2.0], [1.0, 2.0, 3.0])
        assert np.isnan(found["mae"]) and np.isnan(found["pearson"])


def test_logits_that_are_no_numbers_are_no_class():
    logits = jnp.zeros((3, 2)).at[1, 0].set(jnp.nan)
    for weight, right in [(jnp.ones(3), np.nan), (jnp.array([1.0, 0.0, 1.0]), 1.0)]:
        state = Confusion.of(logits, jnp.zeros(3, jnp.int32), weight)
        np.testing.assert_equal(float(compute({"c": state})["accuracy"]), right)


def test_the_state_of_many_classes_grows_with_their_number_not_with_its_square():
    def states(classes):
        logits = jax.ShapeDtypeStruct((7, classes), jnp.float32)
        return jax.eval_shape(Confusion.of, logits, jnp.zeros(7, jnp.int32), jnp.ones(7))

    sizes = [sum(leaf.size for leaf in jax.tree.leaves(states(classes))) for classes in (10, 1000)]
    assert sizes == [30, 3000]
