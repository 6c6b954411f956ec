"""Areas under curves of ranked items, with a weight an item, for many draws of weights at once."""

from typing import Any

import numpy as np

from mmjax.typing import Bool, Float

__all__ = ["auroc", "average_precision", "average_precisions"]


def auroc(
    score: Float[np.ndarray, " items"], positive: Bool[np.ndarray, " items"], weight: Float[np.ndarray, "draws items"]
) -> Float[np.ndarray, " draws"]:
    """Share of pairs of a positive and a negative item in which the positive one scores higher; a tie counts half.

    That is the area under the ROC curve (Hanley & McNeil 1982). NaN where a draw has no positive or no negative item.
    """
    order, starts = _tied(score)
    weight = np.asarray(weight, np.float64)[:, order]
    right = np.asarray(positive)[order]
    up = np.add.reduceat(weight * right, starts, axis=1)
    down = np.add.reduceat(weight * ~right, starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(1) * down.sum(1)
    wins = (up * (below + 0.5 * down)).sum(1)
    return np.divide(wins, pairs, out=np.full(len(weight), np.nan), where=pairs > 0)


def average_precision(
    score: Float[np.ndarray, " items"], positive: Bool[np.ndarray, " items"], weight: Float[np.ndarray, "draws items"]
) -> Float[np.ndarray, " draws"]:
    """Sum over thresholds of the gain in recall times the precision there; tied items share a threshold.

    NaN where a draw has no positive item.
    """
    order, starts = _tied(-np.asarray(score, np.float64))
    weight = np.asarray(weight, np.float64)[:, order]
    up = np.add.reduceat(weight * np.asarray(positive)[order], starts, axis=1)
    retrieved = np.cumsum(np.add.reduceat(weight, starts, axis=1), axis=1)
    precision = np.cumsum(up, axis=1) / np.maximum(retrieved, 1e-300)
    total = up.sum(1)
    return np.divide((up * precision).sum(1), total, out=np.full(len(weight), np.nan), where=total > 0)


def average_precisions(
    similarity: Float[np.ndarray, "queries candidates"], positive: Bool[np.ndarray, "queries candidates"]
) -> Float[np.ndarray, " queries"]:
    """``average_precision`` of each query among its candidates, all of weight 1; all queries at once.

    NaN of a query without a right candidate.
    """
    order = np.argsort(-np.asarray(similarity, np.float64), axis=1, kind="stable")
    values, right = (np.take_along_axis(np.asarray(x), order, axis=1) for x in (similarity, positive))
    places = np.arange(order.shape[1])
    ends = np.where(np.diff(values, axis=1, append=np.nan) != 0, places, order.shape[1])  # of runs of equal ones
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    precision = np.take_along_axis(np.cumsum(right, axis=1), last, axis=1) / (last + 1)
    count = right.sum(1)
    return np.divide((right * precision).sum(1), count, out=np.full(len(order), np.nan), where=count > 0)


def _tied(score: Any) -> tuple[np.ndarray, np.ndarray]:
    """The order of the scores, lowest first, and where in it a new value begins."""
    order = np.argsort(score, kind="stable")
    values = np.asarray(score)[order]
    return order, np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
