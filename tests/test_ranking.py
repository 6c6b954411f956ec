"""Ranks among a whole split: by hand, beside NumPy, and the same from parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.evaluation.measures.retrieval import retrieval_ranks
from mmjax.evaluation.scores import score
from mmjax.metrics import compute, merge
from mmjax.ranking import DIRECTIONS, Sides, right_ranks
from mmjax.stream import Stream


def draw(rows=9, slots=3, dim=4, seed=0, holes=True):
    rng = np.random.default_rng(seed)

    def side(count):
        values = rng.normal(size=(rows, count, dim)).astype(np.float32)
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
        mask = rng.uniform(size=(rows, count)) < (0.7 if holes else 2)
        values[~mask] = np.nan
        return Stream(values, mask)

    return Sides(side(1), side(slots))


def by_loops(queries, candidates):
    """Places by the definition, one query and one candidate at a time."""
    places = {}
    for row, slot in np.argwhere(queries.mask):
        products = {
            tuple(at): float(np.dot(queries.values[row, slot], candidates.values[tuple(at)]))
            for at in np.argwhere(candidates.mask)
        }
        own = [value for (owner, _), value in products.items() if owner == row]
        wrong = [value for (owner, _), value in products.items() if owner != row]
        places[row, slot] = sum(value >= max(own) for value in wrong) if own else len(products)
    return places


def kept(sides):
    """As a task keeps them: zeros where nothing is, both sides of one number of slots."""
    slots = max(sides.first.mask.shape[1], sides.second.mask.shape[1])
    whole = [np.where(s.mask[..., None], s.values, 0) for s in (sides.first, sides.second)]
    return np.stack([np.pad(v, [(0, 0), (0, slots - v.shape[1]), (0, 0)]) for v in whole], axis=1)


def test_places_follow_the_definition():
    sides = draw()
    for queries, candidates in ((sides.first, sides.second), (sides.second, sides.first)):
        found = np.asarray(right_ranks(queries, candidates))
        expected = by_loops(queries, candidates)
        assert len(expected) > 4 and len(set(expected.values())) > 2
        assert {at: found[at] for at in expected} == expected


def test_places_are_those_of_the_measures():
    sides = draw(holes=False)
    products = np.einsum("id,jkd->ijk", sides.first.values[:, 0], sides.second.values)
    own = np.repeat(np.eye(9, dtype=bool), 3, axis=1)
    expected = retrieval_ranks(products.reshape(9, -1), own)
    np.testing.assert_array_equal(np.asarray(right_ranks(sides.first, sides.second))[:, 0], expected)
    backward = retrieval_ranks(products.reshape(9, -1).T, own.T)
    np.testing.assert_array_equal(np.asarray(right_ranks(sides.second, sides.first)).reshape(-1), backward)


def test_equal_embeddings_find_nothing():
    same = Stream(np.ones((4, 1, 2), np.float32), np.ones((4, 1), bool))
    assert np.asarray(right_ranks(same, same)).tolist() == [[3]] * 4


def test_metrics_by_hand():
    photos = np.eye(3, dtype=np.float32)[:, None]
    texts = np.asarray([[[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [0.6, 0, 0.8]], [[0, 0, 1], [0, 0, 1]]], np.float32)
    mask = np.ones((3, 2), bool)
    found = Sides(Stream(photos, mask[:, :1]), Stream(texts, mask)).compute()
    # forward: the second photograph has a wrong text as near as its own; backward: places 0 1, 0 2, 0 0 of 6 texts
    assert float(found["recall@1_forward"]) == pytest.approx(2 / 3) and float(found["recall@5_forward"]) == 1
    assert float(found["recall@1_backward"]) == pytest.approx(4 / 6) and float(found["recall@5_backward"]) == 1
    assert float(found["median_rank_forward"]) == 1 and float(found["median_rank_backward"]) == 1
    assert float(found["rsum"]) == pytest.approx(100 * (4 + 4 / 3))


def test_a_split_in_parts_is_the_split():
    whole = draw(rows=12)
    parts = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 4]), whole) for i in (0, 4, 8)]
    total = merge(merge({"ranks": parts[0]}, {"ranks": parts[1]}), {"ranks": parts[2]})
    expected = whole.compute()
    for name, value in compute(total).items():
        assert float(value) == float(expected[name]), name


@pytest.mark.parametrize("slots", [1, 3])
def test_scores_of_what_is_kept_are_the_metrics(slots):
    sides = draw(rows=15, slots=slots)
    found, outputs = sides.compute(), kept(sides)[None]
    for name in ("rsum", *(f"recall@{k}_{way}" for way in DIRECTIONS for k in (1, 5, 10))):
        assert score(name).of(outputs, None)[0] == pytest.approx(float(found[name]), rel=1e-6), name
    for way in DIRECTIONS:
        assert score(f"median_rank_{way}").of(outputs, None)[0] == float(found[f"median_rank_{way}"])


def test_resampled_scores_are_those_of_repeated_queries():
    sides = draw(rows=10)
    outputs = kept(sides)[None]
    draws = np.random.default_rng(1).multinomial(10, [0.1] * 10, 3)
    for way, queries, candidates in (("forward", sides.first, sides.second), ("backward", sides.second, sides.first)):
        places = by_loops(queries, candidates)
        for name, function in (
            (f"recall@1_{way}", lambda x: (x < 1).mean()),
            (f"median_rank_{way}", lambda x: 1 + np.median(x)),
        ):
            resampled = score(name).resampled(outputs, None, draws)[0]
            for weight, value in zip(draws, resampled):
                some = np.concatenate([[place] * weight[row] for (row, _), place in places.items()])
                assert value == pytest.approx(function(some)), name


def test_mean_average_precision_by_hand_and_beside_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(3)
    outputs = rng.normal(size=(1, 20, 2, 1, 5)).astype(np.float32)
    label, unshared = rng.integers(0, 3, 20), rng.uniform(size=20) < 0.4
    products = outputs[0, :, 0, 0] @ outputs[0, :, 1, 0].T
    forward = np.asarray([average_precision_score(label == label[i], products[i]) for i in range(20)])
    backward = np.asarray([average_precision_score(label == label[i], products[:, i]) for i in range(20)])
    target = {"label": label, "unshared": unshared}
    assert score("map_forward").of(outputs, label)[0] == pytest.approx(forward.mean(), rel=1e-6)
    assert score("map_backward").of(outputs, target)[0] == pytest.approx(backward.mean(), rel=1e-6)
    assert score("map").of(outputs, target)[0] == pytest.approx((forward.mean() + backward.mean()) / 2, rel=1e-6)
    assert score("map_forward_unshared").of(outputs, target)[0] == pytest.approx(forward[unshared].mean(), rel=1e-6)
    # by hand: right answers at places 1 and 3 of 3
    one = np.asarray([[[[1.0, 0]], [[1.0, 0]]], [[[1, 0]], [[0.8, 0]]], [[[1, 0]], [[0.6, 0]]]])[None]
    assert score("map_forward").of(one, np.asarray([0, 1, 0]))[0] == pytest.approx((2 * (1 + 2 / 3) / 2 + 1 / 2) / 3)
