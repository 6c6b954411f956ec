"""Scores of several numbers an item, each with units of its own: plain means over them."""

from typing import Any

import numpy as np

from mmjax.evaluation.scores.score import Score
from mmjax.evaluation.scores.values import moments_of, pearson_of

__all__ = ["SCORES"]


def _absolute(outputs: Any, target: Any) -> np.ndarray:
    return np.abs(np.asarray(outputs, np.float64) - np.asarray(target, np.float64)).mean(-1)


def _squares(outputs: Any, target: Any) -> np.ndarray:
    """1, t, t^2 and e^2 of each score, ``[items, scores * 4]``: centred target and error in units of spread."""
    target = np.asarray(target, np.float64)
    centred = target - target.mean(0)
    spread = centred.std(0)
    real = spread > 1e-9 * np.maximum(np.abs(target).max(0), 1e-300)
    scale = np.where(real, spread, np.inf)  # a constant has no spread to explain
    t, e = centred / scale, (np.asarray(outputs, np.float64) - target) / scale
    return np.stack([np.ones_like(t), t, t * t, e * e], axis=-1).reshape(len(t), -1)


def _r2(sums: Any) -> np.ndarray:
    sums = np.asarray(sums)
    n, t, tt, ee = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 4), -1, 0)
    total = tt - t * t / np.maximum(n, 1)
    defined = total > 1e-12 * n
    return _mean(1 - np.divide(ee, total, out=np.full_like(ee, np.nan), where=defined))


def _moments(outputs: Any, target: Any) -> np.ndarray:
    """Those of each score, ``[items, scores * 6]``."""
    pairs = zip(np.asarray(outputs).T, np.asarray(target).T, strict=True)
    return np.concatenate([moments_of(p, t) for p, t in pairs], axis=1)


def _pearson(sums: Any) -> np.ndarray:
    sums = np.asarray(sums)
    return _mean(pearson_of(sums.reshape(*sums.shape[:-1], -1, 6)))


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the scores of which the metric is defined; NaN where it is of none."""
    defined = np.isfinite(values)
    total, count = np.where(defined, values, 0).sum(-1), defined.sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


SCORES = (
    Score(
        "scores_r2",
        "share of the variance of each score that is explained, 1 - squared error / variance of the items scored; "
        "plain mean over the scores that vary",
        "R² (mean of scores)",
        "vectors",
        states=_squares,
        value=_r2,
    ),
    Score(
        "scores_mae",
        "mean absolute error, plain mean over the scores",
        "mean absolute error",
        "vectors",
        higher_is_better=False,
        items=_absolute,
    ),
    Score(
        "scores_pearson",
        "Pearson's correlation of prediction and target of each score, plain mean over those for which it is defined",
        "Pearson's r (mean of scores)",
        "vectors",
        states=_moments,
        value=_pearson,
    ),
)
