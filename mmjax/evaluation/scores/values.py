"""Scores of a number an item: errors in its own units, and correlations."""

from typing import Any

import numpy as np

from mmjax.evaluation.scores.score import Score

__all__ = ["SCORES"]


def _absolute(outputs: Any, target: Any) -> np.ndarray:
    return np.abs(np.asarray(outputs, np.float64) - np.asarray(target, np.float64))


def _squared(outputs: Any, target: Any) -> np.ndarray:
    return np.square(np.asarray(outputs, np.float64) - np.asarray(target, np.float64))


def _moments(outputs: Any, target: Any) -> np.ndarray:
    """1, p, t, p^2, t^2 and p t of each item ``[items, 6]``, about the mean of all items and in units of their spread.

    Moved, since raw sums of squares lose every digit where the mean is large; scaled, so that a spread of rounding is
    told from a real one.
    """
    parts = []
    for values in (np.asarray(outputs, np.float64), np.asarray(target, np.float64)):
        left = values - values.mean()
        spread = left.std()
        parts.append(left / spread if spread > 1e-9 * max(np.abs(values).max(), 1e-300) else np.zeros_like(left))
    p, t = parts
    return np.stack([np.ones_like(p), p, t, p * p, t * t, p * t], axis=1)


def _pearson(sums: Any) -> np.ndarray:
    n, p, t, pp, tt, pt = np.moveaxis(np.asarray(sums), -1, 0)
    covariance = n * pt - p * t
    spread = np.maximum(n * pp - p * p, 0) * np.maximum(n * tt - t * t, 0)
    defined = spread > 1e-12 * n**4
    return np.divide(covariance, np.sqrt(spread), out=np.full_like(covariance, np.nan), where=defined)


def _ranks(outputs: Any, target: Any) -> np.ndarray:
    from scipy.stats import rankdata

    return _moments(rankdata(outputs), rankdata(target))


SCORES = (
    Score("mae", "mean absolute error", "mean absolute error", "values", higher_is_better=False, items=_absolute),
    Score("mse", "mean squared error", "mean squared error", "values", higher_is_better=False, items=_squared),
    Score(
        "pearson",
        "Pearson's correlation of prediction and target over all items",
        "Pearson's r",
        "values",
        states=_moments,
        value=_pearson,
    ),
    Score(
        "spearman",
        "Pearson's correlation of the ranks, taken once over all items",
        "Spearman's rho",
        "values",
        states=_ranks,
        value=_pearson,
    ),
)
