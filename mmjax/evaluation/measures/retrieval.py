"""From similarities to ranks, recall and average precision, with several right answers and ties.

Ties never help: a wrong candidate that is as similar as a right one stands before it (``ties="last"``), so that
constant embeddings score nothing. Recall at k and the mean reciprocal rank are those of ``mmjax.evaluation.scores``,
from the ranks found here.
"""

from typing import Literal

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.scores import ranking, score
from mmjax.typing import Bool, Float, Int

__all__ = ["Ties", "average_precisions", "mean_average_precision", "median_rank", "recall", "retrieval_ranks"]

Ties = Literal["last", "mean", "first"]
"""Where a right candidate stands among equally similar wrong ones: after all, half of them, or none."""


def retrieval_ranks(
    similarity: Float[np.ndarray, "queries candidates"],
    positive: Bool[np.ndarray, "queries candidates"] | None = None,
    *,
    ties: Ties = "last",
) -> Float[np.ndarray, " queries"]:
    """Place of the best right candidate of each query, counted from 0: how many wrong ones stand before it.

    Args:
      positive: which candidates are right; None = candidate i of query i.
      ties: see ``Ties``.

    Raises:
      UsageError: a query without a right candidate, a similarity that is NaN, or other shapes.

    Example:
      >>> retrieval_ranks(np.array([[0.9, 0.5, 0.5], [0.2, 0.2, 0.1]]), np.array([[0, 1, 1], [0, 1, 0]]) > 0)
      array([1., 1.])
    """
    values, right = _checked(similarity, positive)
    best = np.where(right, values, -np.inf).max(1, keepdims=True)
    before, equal = ((values > best) & ~right).sum(1), ((values == best) & ~right).sum(1)
    if ties not in ("last", "mean", "first"):
        raise UsageError(f"ties are last, mean or first, got {ties!r}")
    return before + {"last": 1.0, "mean": 0.5, "first": 0.0}[ties] * equal


def recall(ranks: Float[np.ndarray, " queries"], k: int) -> float:
    """Share of queries with a right candidate among the first k, of 1, 5 and 10 (``recall@k`` of the scores).

    Example:
      >>> recall(np.array([0.0, 3.0, 7.0, 20.0]), 5)
      0.5
    """
    return float(score(f"recall@{k}").of(np.asarray(ranks)[None], np.asarray(ranks))[0])


def median_rank(ranks: Float[np.ndarray, " queries"]) -> float:
    """Median place of the best right candidate, counted from 1 as in papers.

    Example:
      >>> median_rank(np.array([0.0, 3.0, 7.0]))
      4.0
    """
    return float(np.median(ranks)) + 1


def average_precisions(
    similarity: Float[np.ndarray, "queries candidates"], positive: Bool[np.ndarray, "queries candidates"] | None = None
) -> Float[np.ndarray, " queries"]:
    """Mean over the right candidates of a query of the precision at the place of each, over the whole ranking.

    Candidates that are equally similar share a place, the last of theirs.

    Args:
      positive: as for ``retrieval_ranks``, as are the errors.

    Example:
      >>> average_precisions(np.array([[0.9, 0.5, 0.4]]), np.array([[True, False, True]])).round(4)  # (1 + 2/3) / 2
      array([0.8333])
    """
    return ranking.average_precisions(*_checked(similarity, positive))


def mean_average_precision(
    similarity: Float[np.ndarray, "queries candidates"],
    query: Int[np.ndarray, " queries"],
    candidate: Int[np.ndarray, " candidates"],
) -> float:
    """Mean of ``average_precisions``, where the candidates of a query's class are right, as of Wikipedia (Rasiwasia et
    al. 2010).

    Args:
      query: classes of the queries.
      candidate: classes of the candidates.

    Example:
      >>> round(mean_average_precision(np.array([[0.9, 0.5, 0.4]]), np.array([1]), np.array([1, 0, 1])), 4)
      0.8333
    """
    return float(average_precisions(similarity, np.asarray(query)[:, None] == np.asarray(candidate)[None]).mean())


def _checked(similarity: np.ndarray, positive: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(similarity, np.float64)
    if values.ndim != 2 or np.isnan(values).any():
        raise UsageError(f"similarities are [queries, candidates] without NaN, got {values.shape}")
    right = np.eye(*values.shape) > 0 if positive is None else np.asarray(positive, bool)
    if right.shape != values.shape:
        raise UsageError(f"positive has the shape of the similarities, {values.shape}, got {right.shape}")
    if not right.any(1).all():
        raise UsageError(f"query {int(np.flatnonzero(~right.any(1))[0])} has no right candidate")
    return values, right
