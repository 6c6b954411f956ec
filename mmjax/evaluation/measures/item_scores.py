"""Scores per item of a model's outputs, as interaction measures use them; higher is better, ties are shared."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures.mixing import Mixed
from mmjax.evaluation.measures.necessity import Rows
from mmjax.evaluation.scores import Score as Metric
from mmjax.evaluation.scores.classes import right
from mmjax.typing import Float, Shaped

__all__ = [
    "Score",
    "check_counts",
    "finite",
    "item_scorer",
    "items_of",
    "mean_score",
    "score_of",
    "share_of_ties",
    "sorted_names",
    "tie_tolerant",
]

_FLOOR = 1e4  # nats, as in calibration: an output may be -inf, a mean of outputs may not
_TOLERANCE = 1e-6  # of the largest output: what rounding of float32 leaves apart is a tie

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``score(outputs [seeds, n, ...], target [n, ...]) -> [seeds, n]``, or ``[seeds, 1]`` of a metric of the whole set."""


def share_of_ties(
    outputs: Shaped[np.ndarray, "seeds n ..."], target: Shaped[np.ndarray, " n"], tolerance: Any = 0.0
) -> Float[np.ndarray, "seeds n"]:
    """1 for a right answer, 1/k if the target is one of k tied classes; minus the absolute error of outputs
    ``[seeds, n]``.

    Args:
      tolerance: outputs closer to the highest than this are tied with it; a number, or one per seed.
    """
    outputs, target = np.asarray(outputs, np.float64), np.asarray(target)
    if outputs.ndim == 2:
        return -np.abs(outputs - target)
    top = outputs >= outputs.max(-1, keepdims=True) - np.reshape(tolerance, (-1, 1, 1))
    return np.take_along_axis(top, target[None, :, None], -1)[..., 0] / top.sum(-1)


def score_of(metric: Metric) -> Score | None:
    """The score of a table's metric; None = ``share_of_ties`` for shares of right answers."""
    if metric.items is right:
        return None
    return metric.per_item if metric.is_mean else lambda outputs, target: metric.worth(outputs, target)[:, None]


def item_scorer(
    mixed: Mixed, target: Shaped[np.ndarray, " n"], score: Score = share_of_ties
) -> Callable[[Rows], np.ndarray]:
    """Scores ``[seeds, n]`` as a function of item numbers, as ``gate`` takes it."""
    return lambda rows: score(finite(mixed(rows)), target)


def sorted_names(modalities: Iterable[str]) -> tuple[str, ...]:
    """Modalities sorted, each once.

    Raises:
      UsageError: there is none.
    """
    names = tuple(sorted(set(modalities)))
    if not names:
        raise UsageError("at least one modality is needed, got none")
    return names


def check_counts(**counts: int) -> None:
    """Passes if each count is at least 1.

    Raises:
      UsageError: one is not.
    """
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} must be at least 1, got {count}")


def finite(outputs: Any) -> np.ndarray:
    """Outputs in float64, infinities clipped to 1e4.

    Raises:
      UsageError: there is a NaN.
    """
    outputs = np.asarray(outputs, np.float64)
    if np.isnan(outputs).any():
        raise UsageError("the outputs hold NaN: no score can be made of them")
    return np.nan_to_num(outputs, posinf=_FLOOR, neginf=-_FLOOR) if np.isinf(outputs).any() else outputs


def tie_tolerant(outputs: np.ndarray) -> Score:
    """``share_of_ties`` with a tolerance for rounding, relative to each seed's largest output."""
    sizes = np.abs(outputs).reshape(len(outputs), -1)
    tolerance = _TOLERANCE * np.where(sizes < _FLOOR, sizes, 0).max(1)
    return lambda outputs, target: share_of_ties(outputs, target, tolerance)


def mean_score(score: Score, outputs: np.ndarray, target: np.ndarray) -> Float[np.ndarray, " seeds"]:
    """Mean over items."""
    return np.asarray(score(outputs, target), np.float64).mean(-1)


def items_of(target: Any) -> int:
    """Number of items of a target: an array, or a tree of such."""
    return len(jax.tree.leaves(target)[0])
