"""Interaction: exact answers of models whose make is known, and every formula beside its own loop."""

import itertools

import jax
import numpy as np
import pytest

from mmjax import datasets, fusion
from mmjax.encoders import FeatureMLP
from mmjax.errors import UsageError
from mmjax.evaluation.measures import emap as emap_module
from mmjax.evaluation.measures import interactions
from mmjax.evaluation.measures.emap import background, emap, emap_outputs
from mmjax.evaluation.measures.interactions import measure, perceptual, shapley
from mmjax.evaluation.measures.item_scores import item_scorer, share_of_ties
from mmjax.evaluation.measures.mixing import Probe
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.tasks import Classification
from tests.experiment.small import arrays


def take(values, rows):
    """The values ``[seeds, n, ...]`` of these items, ``[n]`` or of each seed ``[seeds, n]``."""
    rows = np.asarray(rows)
    return values[:, rows] if rows.ndim == 1 else values[np.arange(len(values))[:, None], rows]


def additive(n, names, *, classes=3, seeds=2, scale=15.0, whole=False, seed=0):
    """Logits that are a float32 sum of one term a modality; an absent one adds nothing. ``whole``: ties abound."""
    rng = np.random.default_rng(seed)
    terms = {m: rng.normal(0, scale, (seeds, n, classes)).astype(np.float32) for m in names}
    if whole:
        terms = {m: np.float32(0.1) * rng.integers(-1, 2, (seeds, n, classes)).astype(np.float32) for m in names}

    def mixed(rows):
        total = np.zeros((), np.float32)
        for name in names:
            taken = np.asarray(rows[name])
            total = total + np.where(taken[..., None] >= 0, take(terms[name], np.maximum(taken, 0)), np.float32(0))
        return total

    return mixed, rng.integers(0, classes, n)


def crossed(n, names, *, classes=3, seeds=2, seed=0):
    """Logits with terms of every order."""
    rng = np.random.default_rng(seed)
    values = {m: rng.normal(size=(seeds, n + 1, classes)).astype(np.float32) for m in names}  # -1: a value of its own

    def mixed(rows):
        parts = [take(values[m], rows[m]) for m in names]
        return np.stack([*parts, 2 * np.prod(parts, axis=0)]).sum(0)

    return mixed, rng.integers(0, classes, n)


def slow_emap(mixed, names, n, numbers):
    """The formula of C3 as it is written, one mixture at a time."""

    def f(items):
        return mixed({m: np.array([items[m]]) for m in names})[:, 0].astype(np.float64)

    pairs = list(itertools.product(numbers, numbers))
    centre = np.mean([f({o: j if o == m else k for o in names}) for m in names for j, k in pairs], axis=0)
    found = []
    for i in range(n):
        terms = [np.mean([f({o: i if o == m else j for o in names}) for j in numbers], axis=0) for m in names]
        found.append(sum(terms) - (len(names) - 1) * centre)
    return np.stack(found, axis=1)


@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("whole", [False, True], ids=["any logits", "many ties"])
def test_an_additive_model_has_no_gap_whatever_the_background(names, whole):
    mixed, target = additive(60, names, whole=whole)
    own = mixed({m: np.arange(60) for m in names})
    for numbers in ([5], [3, 3, 9], np.arange(60), *(background(60, d, items=17) for d in range(3))):
        projected = emap_outputs(mixed, names, 60, np.asarray(numbers))
        assert np.abs(projected - own).max() < 1e-6 * np.abs(own).max()
    for items in (1, 2, 13, 60):
        found = emap(mixed, names, target, items=items, draws=4)
        np.testing.assert_array_equal(found.gap, np.zeros((2, 4)))
        assert found.items == items


def test_a_trained_kind_of_additive_model_has_no_gap():
    """Linear after the encoders, so additive: through the compiled programs of a probe."""
    batch = arrays().splits["test"]
    model = Multimodal({m: FeatureMLP(4, (8,)) for m in ("left", "right")}, fusion.Concat(4), ClassificationHead(3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch.streams))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: rng.normal(size=(2, *a.shape)).astype(a.dtype), shapes)
    mixed = Probe(model, Classification(3), variables, chunk=32, mixtures=256).mixed(batch)
    found = emap(mixed, ("left", "right"), batch.target, items=7)
    np.testing.assert_array_equal(found.gap, np.zeros((2, 2)))
    np.testing.assert_array_equal(found.score[:, 0], share_of_ties(mixed(_own(batch.size)), batch.target).mean(1))


def _own(n):
    return {"left": np.arange(n), "right": np.arange(n)}


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_emap_is_its_formula(names):
    mixed, _ = crossed(7, names)
    numbers = np.array([1, 2, 6])
    expected = slow_emap(mixed, names, 7, numbers)
    found = emap_outputs(mixed, names, 7, numbers)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    if len(names) > 1:
        assert np.abs(found - mixed({m: np.arange(7) for m in names})).max() > 0.1


def test_two_modalities_and_all_items_are_hessel_and_lees_formula():
    mixed, target = crossed(9, "ab")
    pairs = np.array(list(itertools.product(range(9), range(9)))).T
    table = mixed({"a": pairs[0], "b": pairs[1]}).astype(np.float64).reshape(2, 9, 9, 3)
    expected = table.mean(2) + table.mean(1) - table.mean((1, 2))[:, None]
    np.testing.assert_allclose(emap_outputs(mixed, "ab", 9, np.arange(9)), expected, atol=1e-12)
    found = emap(mixed, "ab", target)
    right = lambda outputs: (outputs.argmax(-1) == target).mean(-1)  # noqa: E731
    np.testing.assert_allclose(found.score, np.repeat(right(expected)[:, None], 2, 1))
    diagonal = table[:, range(9), range(9)]
    np.testing.assert_allclose(found.gap, np.repeat((right(diagonal) - right(expected))[:, None], 2, 1))


def test_chunks_are_small_and_change_nothing(monkeypatch):
    mixed, _ = crossed(40, "ab")
    rows_seen = []

    def watched(rows):
        rows_seen.append(len(rows["a"]))
        return mixed(rows)

    numbers = np.arange(0, 40, 2)
    expected = emap_outputs(watched, "ab", 40, numbers)
    monkeypatch.setattr(interactions, "_ROWS", 60)
    monkeypatch.setattr(emap_module, "_ROWS", 60)
    monkeypatch.setattr(emap_module, "_FIRST_ROWS", 60)
    rows_seen.clear()
    np.testing.assert_array_equal(emap_outputs(watched, "ab", 40, numbers), expected)
    assert max(rows_seen) == 60 and sum(rows_seen) == 2 * 40 * 20


def xor():
    """The balanced cells of XOR, and a model that solves it in outputs with rounding of their own."""
    batch = datasets.load("synthetic", redundancy=0, unique=0, synergy=1, sizes=(8, 8, 64)).splits["test"]
    bits = {m: np.unique(s.values[:, 0], axis=0, return_inverse=True)[1].ravel() for m, s in batch.streams.items()}
    sign = 1 if batch.target[(bits["a"] == 0) & (bits["b"] == 0)][0] else -1

    def mixed(rows):
        product = np.ones(len(rows["a"]), np.float32)
        for name in ("a", "b"):
            taken = np.asarray(rows[name])
            product = product * np.where(taken >= 0, 2 * bits[name][np.maximum(taken, 0)] - 1, 0).astype(np.float32)
        wobble = 1 + 1e-7 * (np.asarray(rows["a"]) % 3)
        one = (product * sign * wobble * 3.7).astype(np.float32)
        return np.stack([-one, one], axis=-1)[None]

    return mixed, np.asarray(batch.target), bits


def test_xor_with_balanced_cells_loses_exactly_fifty_points():
    mixed, target, bits = xor()
    own = mixed({"a": np.arange(64), "b": np.arange(64)})
    np.testing.assert_array_equal(share_of_ties(own, target), np.ones((1, 64)))
    found = emap(mixed, "ab", target)
    np.testing.assert_array_equal(found.gap, np.full((1, 2), 0.5))
    np.testing.assert_array_equal(found.score, np.full((1, 2), 0.5))
    cells = 2 * bits["a"] + bits["b"]
    balanced = np.concatenate([np.flatnonzero(cells == cell)[:3] for cell in range(4)])  # a J of twelve
    projected = emap_outputs(mixed, "ab", 64, balanced)
    np.testing.assert_array_equal(share_of_ties(projected, target, 1e-5), np.full((1, 64), 0.5))
    found = measure(mixed, "ab", target, rule="null")
    np.testing.assert_array_equal(found["shapley/values"], [[0.25, 0.25]])  # half of what both add together
    np.testing.assert_array_equal(found["shapley/worth"], [[0.5], [1.0]])


def test_ties_share_the_point():
    outputs = np.array([[[1.0, 1, 0], [1, 1, 1], [0, 1, 2], [2, 0, 2.0]]])
    np.testing.assert_allclose(share_of_ties(outputs, np.array([0, 2, 2, 1])), [[0.5, 1 / 3, 1, 0]])
    np.testing.assert_allclose(share_of_ties(outputs, np.array([0, 2, 1, 1]), [1.0]), [[1 / 3, 1 / 3, 0.5, 0]])
    np.testing.assert_allclose(share_of_ties(np.array([[1.0, -2]]), np.array([3, -2.5])), [[-2, -0.5]])


def test_one_modality_has_no_interaction_and_all_of_the_worth():
    mixed, target = crossed(30, "a")
    found = measure(mixed, "a", target)
    assert not found["emap/gap"].any()
    none, everything = found["shapley/worth"]
    np.testing.assert_allclose(found["shapley/values"][:, 0], everything - none)


@pytest.mark.parametrize("rule", ["permutation", "null"])
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_shapley_values_sum_to_the_total_and_are_the_mean_over_orders(names, rule):
    mixed, target = crossed(40, names)
    found = shapley(mixed, names, target, rule=rule, draws=3)
    worth = found.worth
    assert len(worth) == 2 ** len(names) and found.modalities == tuple(names)
    np.testing.assert_allclose(found.values.sum(1), worth[tuple(names)] - worth[()], atol=1e-12)
    np.testing.assert_allclose(np.abs(found.shares).sum(1), 1)
    gains = {name: [] for name in names}
    for order in itertools.permutations(names):
        for place, name in enumerate(order):
            gains[name].append(worth[tuple(sorted(order[: place + 1]))] - worth[tuple(sorted(order[:place]))])
    np.testing.assert_allclose(found.values, np.stack([np.mean(gains[m], 0) for m in names], 1), atol=1e-12)


def test_worth_of_a_subset_by_hand():
    mixed, target = crossed(25, "abc")
    here, gone = np.arange(25), np.full(25, -1)
    blanked = mixed({"a": here, "b": gone, "c": here}).argmax(-1) == target
    np.testing.assert_allclose(shapley(mixed, "abc", target, rule="null").worth["a", "c"], blanked.mean(-1))
    draws = [np.random.default_rng((5, draw)).permutation(25) for draw in range(2)]
    found = shapley(mixed, "abc", target, draws=2, seed=5).worth
    permuted = [mixed({"a": p, "b": here, "c": p}).argmax(-1) == target for p in draws]
    np.testing.assert_allclose(found["b",], np.mean(permuted, (0, 2)))


def test_an_ignored_modality_gets_exactly_nothing():
    mixed, target = additive(50, "ab")
    heedless = lambda rows: mixed({"a": rows["a"], "b": rows["a"]})  # noqa: E731
    np.testing.assert_array_equal(perceptual(heedless, "ab", target).values[:, 1], 0)
    for rule in ("permutation", "null"):
        found = shapley(heedless, "ab", target, rule=rule)
        np.testing.assert_array_equal(found.values[:, 1], 0)
        np.testing.assert_array_equal(np.abs(found.shares[:, 0]), 1)


def test_perceptual_score_by_hand():
    mixed, target = crossed(30, "ab")
    here = np.arange(30)
    clean = (mixed({"a": here, "b": here}).argmax(-1) == target).mean(-1)
    draws = [np.random.default_rng((2, draw)).permutation(30) for draw in range(4)]
    accuracy = [(mixed({"a": p, "b": here}).argmax(-1) == target).mean(-1) for p in draws]
    found = perceptual(mixed, "ab", target, draws=4, seed=2)
    np.testing.assert_allclose(found.values[:, 0], (clean - np.mean(accuracy, 0)) / clean)


def test_perceptual_score_of_errors_and_of_nothing():
    truth = np.linspace(-1, 1, 20)
    found = perceptual(lambda rows: truth[None, rows["a"]] + 0.1, "ab", truth)  # minus the mean absolute error
    assert found.values[0, 0] > 1 and found.values[0, 1] == 0
    never = lambda rows: np.tile([[[1.0, 0.0]]], (1, len(rows["a"]), 1))  # noqa: E731
    assert perceptual(never, "ab", np.ones(8, int)).values.tolist() == [[0, 0]]


def test_infinite_outputs_are_bounded_and_do_not_set_the_tolerance():
    log = np.array([[0.0, -np.inf], [-0.001, -6.9], [-np.inf, -np.inf]], np.float32)
    found = emap(lambda rows: log[None, rows["a"]], "ab", np.array([0, 1, 1]))
    np.testing.assert_allclose(found.score, np.full((1, 2), 0.5))
    assert not found.gap.any()
    with pytest.raises(UsageError, match="NaN"):
        emap(lambda rows: np.full((1, len(rows["a"]), 2), np.nan), "ab", np.zeros(3, int))


def test_the_same_numbers_every_time():
    mixed, target = crossed(30, "ab")
    once, twice, other = (measure(mixed, names, target, seed=s) for names, s in (("ab", 0), ("ba", 0), ("ab", 1)))
    assert all(np.array_equal(once[key], twice[key]) for key in once)
    assert not np.array_equal(once["perceptual/values"], other["perceptual/values"])
    assert once["emap/gap"].shape == (2, 2) and once["emap/items"] == 30 and str(once["shapley/rule"]) == "permutation"
    drawn = [background(500, draw) for draw in range(2)]
    assert all(len(set(numbers)) == 200 and max(numbers) < 500 for numbers in drawn)
    assert not set(drawn[0]) & set(drawn[1])  # as few as can be
    assert set(drawn[0]) & set(background(500, 1, model=1))


def passes_of(measured):
    """The number of mixtures of each call that a measure makes."""
    mixed, target = crossed(40, "abc")
    counts = []

    def watched(rows):
        counts.append(max(np.shape(row)[-1] for row in rows.values()))
        return mixed(rows)

    measured(watched, target)
    return sum(counts)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_on_backgrounds_of_its_own_each_model_has_the_projection_of_these_items_alone(names):
    mixed, target = crossed(30, names)
    found = emap(mixed, names, target, items=8, draws=3, everywhere=False)
    for model, draw in itertools.product(range(2), range(3)):
        drawn = background(30, draw, items=8, model=model)
        own = lambda rows, drawn=drawn, model=model: mixed({m: drawn[r] for m, r in rows.items()})[[model]]  # noqa: E731
        expected = slow_emap(own, names, 8, np.arange(8))
        score = (expected.argmax(-1) == target[drawn]).mean()
        assert found.score[model, draw] == pytest.approx(score)
        clean = (mixed({m: drawn for m in names})[model].argmax(-1) == target[drawn]).mean()
        assert found.gap[model, draw] == pytest.approx(clean - score)


def test_no_mixture_is_asked_for_twice():
    """One grid of pairs serves both terms of two modalities; permuting one modality serves its Shapley value too."""
    two = passes_of(lambda mixed, target: emap(lambda r: mixed({**r, "c": r["a"]}), "ab", target, items=9, draws=1))
    assert two == 40 + 2 * 40 * 9
    alone = lambda mixed, target: emap(  # noqa: E731
        lambda r: mixed({**r, "c": r["a"]}), "ab", target, items=9, draws=1, everywhere=False
    )
    assert passes_of(alone) == 40 + 9 * 9
    everything = passes_of(lambda mixed, target: measure(mixed, "abc", target))
    projected = 40 + 3 * 40 * 40
    assert everything == projected + 40 + 10 * 40 * 6  # each subset but all and none, ten permutations


def test_a_score_of_ones_own_is_used():
    mixed, target = crossed(20, "ab")
    score = lambda outputs, target: -np.abs(outputs[..., 0] - target)  # noqa: E731
    rows = {"a": np.arange(20), "b": np.arange(20)}
    found = shapley(mixed, "ab", target, score=score)
    np.testing.assert_allclose(found.worth["a", "b"], score(mixed(rows).astype(float), target).mean(-1))
    np.testing.assert_allclose(item_scorer(mixed, target, score)(rows).mean(-1), found.worth["a", "b"])
    np.testing.assert_allclose(
        emap(mixed, "ab", target, score=score).gap + emap(mixed, "ab", target, score=score).score,
        np.repeat(found.worth["a", "b"][:, None], 2, 1),
    )


def test_wrong_arguments_are_said():
    mixed, target = crossed(6, "ab")
    with pytest.raises(UsageError, match="at least one modality"):
        emap(mixed, (), target)
    with pytest.raises(UsageError, match="numbers of the 6 items"):
        emap_outputs(mixed, "ab", 6, np.array([6]))
    with pytest.raises(UsageError, match="'null', got 'zero'"):
        shapley(mixed, "ab", target, rule="zero")
    with pytest.raises(UsageError, match="draws must be at least 1, got 0"):
        perceptual(mixed, "ab", target, draws=0)


def test_on_the_background_alone_the_gap_of_an_additive_model_is_still_zero():
    rng = np.random.default_rng(5)
    parts, target = rng.normal(size=(2, 3, 60, 4)), rng.integers(0, 4, 60)  # [modality, seeds, items, classes]

    def mixed(rows):
        return np.float32(sum(take(part, rows[name]) for part, name in zip(parts, ("a", "b"))))

    found = emap(mixed, ("a", "b"), target, items=20, everywhere=False)
    np.testing.assert_array_equal(found.gap, 0)
    drawn = np.stack([background(60, 1, items=20, model=model) for model in range(3)])
    right = (mixed({"a": drawn, "b": drawn}).argmax(-1) == target[drawn]).mean(-1)
    np.testing.assert_allclose(found.score[:, 1], right)
