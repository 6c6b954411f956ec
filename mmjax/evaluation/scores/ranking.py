"""Areas under curves of ranked items, with a weight an item, for many draws of weights at once."""

from typing import Any

import numpy as np

from mmjax.typing import Bool, Float

__all__ = ["auroc", "average_precision"]


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


def _tied(score: Any) -> tuple[np.ndarray, np.ndarray]:
    """The order of the scores, lowest first, and where in it a new value begins."""
    order = np.argsort(score, kind="stable")
    values = np.asarray(score)[order]
    return order, np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
