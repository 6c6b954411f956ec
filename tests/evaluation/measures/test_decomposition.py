"""The decomposition: gates whose answer is known, an independent solver, and the facts of the synthetic suite."""

import itertools

import numpy as np
import pytest

from mmjax import datasets
from mmjax.errors import UsageError
from mmjax.evaluation.measures.decomposition import (
    decompose,
    joint_counts,
    mutual_information,
    predicted_classes,
    quantise,
)

BITS = np.array(list(itertools.product((0, 1), repeat=3)))  # three independent fair bits
U, V, R = BITS.T


def pair(a, b):
    return np.stack([a, b], axis=1)


AND = 0.75 * np.log2(4 / 3)  # 0.311
GATES = {
    "xor": (U, V, U ^ V, (0, 0, 0, 1)),
    "and": (U, V, U & V, (AND, 0, 0, 0.5)),
    "copied modality": (U, U, U, (1, 0, 0, 0)),
    "first alone": (U, V, U, (0, 1, 0, 0)),
    "second alone": (U, V, V, (0, 0, 1, 0)),
    "both alone": (U, V, 2 * U + V, (0, 1, 1, 0)),
    "shared bit and xor": (pair(U, R), pair(V, R), 2 * R + (U ^ V), (1, 0, 0, 1)),
    "nothing": (U, V, R, (0, 0, 0, 0)),
    "one target": (U, V, np.zeros(8, int), (0, 0, 0, 0)),
    "one value": (U, np.zeros(8, int), U ^ V, (0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_have_their_atoms(name):
    x1, x2, y, expected = GATES[name]
    found = decompose(joint_counts(x1, x2, y))
    np.testing.assert_allclose(found[:4], expected, atol=2e-9)
    assert found.gap < 1e-9 and min(found[:4]) >= 0
    assert sum(found[:4]) == pytest.approx(found.information, abs=1e-12)


def slowly(p, rounds=400):
    """Least H(y) - H_Q(y | x1, x2) by alternating divergence minimisation (Banerjee et al. 2018), in bits."""
    p = p / p.sum()
    first, second, prior = p.sum(1), p.sum(0), p.sum((0, 1))
    q = first[:, None] * second[None] / prior
    for _ in range(rounds):
        q = np.broadcast_to(q.sum(-1, keepdims=True), q.shape).copy()
        for _ in range(60):
            q *= (first / q.sum(1))[:, None]
            q *= (second / q.sum(0))[None]
    return (q * np.log2(q / q.sum(-1, keepdims=True))).sum() - prior @ np.log2(prior)


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 2, 3), (3, 4, 2)])
def test_an_independent_solver_finds_the_same(shape):
    for seed in range(3):
        p = np.random.default_rng(seed).gamma(1.0, size=shape)
        found = decompose(p)
        least = found.information - found.synergy
        assert least - 1e-9 < slowly(p) < least + 1e-5  # it comes down to the optimum, in the end very slowly
        one, two = mutual_information(p.sum(1)), mutual_information(p.sum(0))
        assert found.redundancy + found.unique1 == pytest.approx(one, abs=1e-12)
        assert found.redundancy + found.unique2 == pytest.approx(two, abs=1e-12)
        assert found.information == pytest.approx(mutual_information(p.reshape(-1, shape[2])), abs=1e-12)


def test_no_other_joint_with_these_pairs_does_better():
    rng = np.random.default_rng(3)
    p = rng.gamma(0.5, size=(3, 3, 2))
    p /= p.sum()
    found = decompose(p)
    for _ in range(20):  # mass goes round in a square: pairs with y stay
        (i, k), (j, l), y = rng.choice(3, 2, False), rng.choice(3, 2, False), rng.integers(2)
        q = p.copy()
        moved = rng.uniform(0, min(q[i, j, y], q[k, l, y]))
        q[[i, k], [j, l], y] -= moved
        q[[i, k], [l, j], y] += moved
        assert decompose(q)[:3] == pytest.approx(found[:3], abs=3e-9)  # they are the pairs' alone
        assert mutual_information(q.reshape(-1, 2)) >= found.information - found.synergy - 1e-9


def test_order_names_and_scale_do_not_matter():
    p = np.random.default_rng(4).gamma(0.4, size=(3, 4, 3))
    found = decompose(p)
    swapped = decompose(1e6 * p.swapaxes(0, 1)[::-1, :, [2, 0, 1]])
    expected = (found.redundancy, found.unique2, found.unique1, found.synergy, found.information)
    assert swapped[:5] == pytest.approx(expected, abs=3e-9)
    padded = np.zeros((5, 4, 4))
    padded[1:4, :, 1:] = p  # values that never occur
    assert decompose(padded)[:5] == pytest.approx(found[:5], abs=3e-9)


def test_sparse_counts_are_solved_too():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        p = rng.poisson(10.0 ** rng.uniform(-1.3, 0.5), (5, 6, 4))
        found = decompose(p)
        assert found.gap < 1e-9 and min(found[:4]) >= 0
        assert sum(found[:4]) == pytest.approx(found.information, abs=1e-9)


@pytest.mark.parametrize(
    "bits", [{}, {"redundancy": 2, "unique": (1, 0), "synergy": 0}, {"redundancy": 0, "unique": 0}]
)
def test_the_synthetic_suite_has_the_bits_it_was_given(bits):
    dataset = datasets.load("synthetic", sizes=(256, 8, 8), **bits)
    batch, facts = dataset.splits["train"], dataset.facts
    found = decompose(joint_counts(*(batch.streams[m].values[:, 0] for m in "ab"), batch.target))
    expected = (facts["redundancy"], facts["unique"]["a"], facts["unique"]["b"], facts["synergy"])
    np.testing.assert_allclose(found[:4], expected, atol=2e-9)


def test_counts_classes_and_bins():
    counts = joint_counts(np.array([5, 5, 9]), np.array([[0.5, 1], [0.5, 1], [0.5, 2]]), np.array(["no", "yes", "no"]))
    np.testing.assert_array_equal(counts, [[[1, 1], [0, 0]], [[0, 0], [1, 0]]])
    np.testing.assert_array_equal(predicted_classes(np.array([[[0.0, 2, 1], [3, 3, 0]]])), [[1, 0]])
    values = np.random.default_rng(0).normal(size=100)
    numbers = quantise(values, 4)
    np.testing.assert_array_equal(np.bincount(numbers), [25] * 4)
    assert (np.diff(numbers[np.argsort(values)]) >= 0).all()
    centres = np.array([[0, 0], [9, 0], [0, 9.0]])
    kind = np.arange(30) % 3
    found = quantise(centres[kind] + 0.1 * values[:60].reshape(30, 2), 3)
    assert mutual_information(joint_counts(found, kind, kind).sum(2)) == pytest.approx(np.log2(3))
    assert set(quantise(np.ones(5), 3)) == {0}


def test_a_model_that_copies_is_redundant():
    """Predictions of two models of the same modality, as an evaluation makes them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 3))
    said = predicted_classes(logits)
    target = np.where(rng.random(500) < 0.8, said, rng.integers(0, 3, 500))
    found = decompose(joint_counts(said, predicted_classes(3 * logits + 1), target))
    assert found.redundancy == pytest.approx(found.information, abs=2e-9) and found.information > 0.4
    np.testing.assert_allclose(found[1:4], 0, atol=2e-9)


def test_wrong_tables_are_refused():
    for joint in (np.ones((2, 2)), -np.ones((2, 2, 2)), np.zeros((2, 2, 2)), np.full((2, 2, 2), np.nan)):
        with pytest.raises(UsageError, match="from 0 up"):
            decompose(joint)
    with pytest.raises(UsageError, match="quantise"):
        decompose(np.ones((4000, 2, 2)))
    with pytest.raises(UsageError, match="same length"):
        joint_counts(U, V, U[:3])
    with pytest.raises(UsageError, match="number of items, 8; got 9"):
        quantise(U, 9)
