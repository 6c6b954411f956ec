"""Ranks and average precision: by hand, with several right answers and ties, and against scikit-learn."""

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.measures.retrieval import (
    average_precisions,
    mean_average_precision,
    median_rank,
    recall,
    retrieval_ranks,
)

SIMILARITY = np.array([[0.9, 0.8, 0.1, 0.5], [0.3, 0.3, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]])
RIGHT = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1]], bool)


def test_ranks_by_hand():
    np.testing.assert_array_equal(retrieval_ranks(SIMILARITY, RIGHT), [1, 2, 0])
    np.testing.assert_array_equal(retrieval_ranks(SIMILARITY, RIGHT, ties="mean"), [1, 1, 0])
    np.testing.assert_array_equal(retrieval_ranks(SIMILARITY, RIGHT, ties="first"), [1, 0, 0])
    np.testing.assert_array_equal(retrieval_ranks(SIMILARITY), [0, 2, 1])  # candidate i of query i
    constant = retrieval_ranks(np.zeros((10, 10)))
    assert (constant == 9).all() and recall(constant, 5) == 0  # collapsed embeddings score nothing
    ranks = retrieval_ranks(SIMILARITY, RIGHT)
    assert recall(ranks, 1) == pytest.approx(1 / 3) and recall(ranks, 5) == 1 and median_rank(ranks) == 2


def test_average_precision_by_hand():
    # Right ones at places 2 and 3; tied at place 3 of 3; at places 1 and 4.
    np.testing.assert_allclose(average_precisions(SIMILARITY, RIGHT), [(1 / 2 + 2 / 3) / 2, 1 / 3, (1 + 2 / 4) / 2])
    assert mean_average_precision(SIMILARITY[:1], np.array([1]), np.array([0, 1, 0, 1])) == pytest.approx(7 / 12)


def test_average_precision_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(20, 30)).round(1)  # with ties
    query, candidate = rng.integers(0, 4, 20), rng.integers(0, 4, 30)
    expected = [sklearn.average_precision_score(candidate == c, row) for c, row in zip(query, similarity)]
    assert mean_average_precision(similarity, query, candidate) == pytest.approx(np.mean(expected))


def test_what_does_not_fit_is_said():
    with pytest.raises(UsageError, match="query 1 has no right candidate"):
        retrieval_ranks(SIMILARITY, np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], bool))
    with pytest.raises(UsageError, match="query 4 has no right candidate"):
        retrieval_ranks(np.zeros((5, 4)))
    with pytest.raises(UsageError, match="without NaN"):
        retrieval_ranks(np.full((2, 2), np.nan))
    with pytest.raises(UsageError, match=r"shape of the similarities, \(3, 4\), got \(3, 3\)"):
        average_precisions(SIMILARITY, RIGHT[:, :3])
    with pytest.raises(UsageError, match="ties are last, mean or first, got 'best'"):
        retrieval_ranks(SIMILARITY, RIGHT, ties="best")
    with pytest.raises(UsageError, match="no score 'recall@3'"):
        recall(np.zeros(3), 3)
