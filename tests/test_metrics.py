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
