"""Scores of a number an item: errors in its units, and correlations."""

from typing import Any

import numpy as np

from mmjax.evaluation.scores.score import Score

__all__ = ["SCORES", "moments_of", "pearson_of"]


def _absolute(outputs: Any, target: Any) -> np.ndarray:
    return np.abs(np.asarray(outputs, np.float64) - np.asarray(target, np.float64))


def _squared(outputs: Any, target: Any) -> np.ndarray:
    return np.square(np.asarray(outputs, np.float64) - np.asarray(target, np.float64))


def moments_of(outputs: Any, target: Any) -> np.ndarray:
    """1, p, t, p^2, t^2 and p t of each item ``[items, 6]``, about the mean of all items and in units of their spread.

    Centred, since raw sums of squares lose precision with a large mean; scaled, to tell real spread from rounding.
    """
    parts = []
    for values in (np.asarray(outputs, np.float64), np.asarray(target, np.float64)):
        centred = values - values.mean()
        spread = centred.std()
        real = spread > 1e-9 * max(np.abs(values).max(), 1e-300)
        parts.append(centred / spread if real else np.zeros_like(centred))
    p, t = parts
    return np.stack([np.ones_like(p), p, t, p * p, t * t, p * t], axis=1)


def pearson_of(sums: Any) -> np.ndarray:
    """Pearson's correlation from sums ``[..., 6]`` of ``moments_of``; NaN with a constant."""
    n, p, t, pp, tt, pt = np.moveaxis(np.asarray(sums), -1, 0)
    covariance = n * pt - p * t
    spread = np.maximum(n * pp - p * p, 0) * np.maximum(n * tt - t * t, 0)
    defined = spread > 1e-12 * n**4
    return np.divide(covariance, np.sqrt(spread), out=np.full_like(covariance, np.nan), where=defined)


def _ranks(outputs: Any, target: Any) -> np.ndarray:
    from scipy.stats import rankdata

    return moments_of(rankdata(outputs), rankdata(target))


SCORES = (
    Score("mae", "mean absolute error", "mean absolute error", "values", higher_is_better=False, items=_absolute),
    Score("mse", "mean squared error", "mean squared error", "values", higher_is_better=False, items=_squared),
    Score(
        "pearson",
        "Pearson's correlation of prediction and target over all items",
        "Pearson's r",
        "values",
        states=moments_of,
        value=pearson_of,
    ),
    Score(
        "spearman",
        "Pearson's correlation of the ranks, taken once over all items",
        "Spearman's rho",
        "values",
        states=_ranks,
        value=pearson_of,
    ),
)
