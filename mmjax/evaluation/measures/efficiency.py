"""Data efficiency: nested subsets of train, and the area, data saved and power law of scores over their sizes.

Hyper-parameters are those of the whole train split at every size. Apply views that fit statistics on train
(standardising, whitening) after ``subset``, or statistics of all of train leak into the small subset.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.datasets import views
from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream
from mmjax.typing import Float, Shaped

__all__ = [
    "FRACTIONS",
    "DataSaved",
    "PowerLaw",
    "area_under_curve",
    "data_saved",
    "feasible",
    "fit_power_law",
    "labelled_items",
    "subset",
]

FRACTIONS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Default shares of train of a curve."""

_AHEAD = 8  # groups of mixed classes among which the next is chosen
_EXPONENTS = np.geomspace(0.01, 10.0, 1501)


def labelled_items(dataset: Dataset, split: str = "train") -> int:
    """Number of labelled items of a split with positive weight; the ``n`` of a curve."""
    batch = dataset.splits[split]
    return int((np.asarray(batch.index)[np.asarray(batch.weight) > 0] >= 0).sum())


def subset(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """The data set with about ``fraction`` of its train split; the other splits stay whole.

    Takes whole groups: class by class where each group has one class, else in an order that keeps class shares near
    those of train. With one seed, a smaller fraction is a subset of a larger one.

    Args:
      fraction: of the labelled items, in (0, 1]; 1 gives the data set itself.
      seed: of the order of groups.

    Raises:
      UsageError: a fraction out of range, or one that leaves a class fewer than 2 items.
    """
    rows, fewest = _chosen(dataset, fraction, seed)
    if rows.all():
        return dataset
    if fewest < 2:
        raise UsageError(
            f"{dataset.card.name}: {100 * fraction:g} % of train leaves a class {fewest} items; 2 are needed, "
            f"use one of {[f'{100 * other:g} %' for other in feasible(dataset, seed=seed)]}"
        )
    return views.subset(dataset, "train", rows)


def feasible(dataset: Dataset, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> tuple[float, ...]:
    """The fractions, ascending, that leave each class 2 items and take more items than the fraction before."""
    result: list[float] = []
    size = 0
    for fraction in sorted(fractions):
        rows, fewest = _chosen(dataset, fraction, seed)
        if rows.all() or (fewest >= 2 and rows.sum() > size):
            result.append(fraction)
        size = int(rows.sum())
    return tuple(result)


def _chosen(dataset: Dataset, fraction: float, seed: int) -> tuple[np.ndarray, int]:
    """Mask of the rows taken from train, and the item count of their smallest class."""
    if not 0 < fraction <= 1:
        raise UsageError(f"a fraction of train is above 0 and at most 1, got {fraction}")
    batch = dataset.splits["train"]
    group, counts = _units(batch, dataset.card.num_classes, dataset.card.name)
    taken = _depths(counts, seed) < fraction if fraction < 1 else np.ones(len(counts), bool)
    classes = counts[:, counts.sum(0) > 0]
    fewest = int(classes[taken].sum(0).min()) if classes.size else 0
    if fraction == 1:
        return np.ones(batch.size, bool), fewest
    return (group >= 0) & taken[group], fewest


def _units(batch: Batch, num_classes: int | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row (-1 = no labelled item with weight), and item counts ``[groups, classes]``."""
    index, groups = np.asarray(batch.index), np.asarray(batch.group)
    labelled = (index >= 0).reshape(batch.size, -1) & (np.asarray(batch.weight) > 0)[:, None]
    groups = groups.reshape(batch.size, -1)
    first = groups[np.arange(batch.size), labelled.argmax(1)]
    if (labelled & (groups != first[:, None])).any():
        raise UsageError(f"{name}: an example holds items of several groups, so no subset of whole groups can hold it")
    used = labelled.any(1)
    names, number = np.unique(first[used], return_inverse=True)
    group = np.full(batch.size, -1)
    group[used] = number.reshape(-1)
    label = np.zeros(labelled.shape, np.int64)
    if num_classes is not None and not isinstance(batch.target, Stream) and np.shape(batch.target) == index.shape:
        label = np.where(labelled, np.asarray(batch.target).reshape(labelled.shape), 0).astype(np.int64)
    width = int(label.max(initial=0)) + 1
    cells = (np.broadcast_to(group[:, None], labelled.shape) * width + label)[labelled]
    return group, np.bincount(cells, minlength=len(names) * width).reshape(len(names), width)


def _depths(counts: np.ndarray, seed: int) -> np.ndarray:
    """The fraction above which each group is taken: its midpoint on the cumulative scale of items."""
    order = np.random.RandomState(seed).permutation(len(counts))
    if ((counts > 0).sum(1) <= 1).all():
        stratum = counts.argmax(1)
        orders = [order[stratum[order] == value] for value in np.unique(stratum)]
    else:
        orders = [_balanced(counts, order)]
    depths, sizes = np.empty(len(counts)), counts.sum(1)
    for chosen in orders:
        depths[chosen] = (np.cumsum(sizes[chosen]) - sizes[chosen] / 2) / sizes[chosen].sum()
    return depths


def _balanced(counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Greedy reordering: of the next few groups, takes the one that brings class shares nearest to those of train."""
    shares = counts.sum(0) / counts.sum()
    pending, total, result = order.tolist(), np.zeros(counts.shape[1]), []
    while pending:
        after = total + counts[pending[:_AHEAD]]
        best = int((((after / after.sum(1, keepdims=True)) - shares) ** 2).sum(1).argmin())
        result.append(pending.pop(best))
        total = after[best]
    return np.array(result)


def area_under_curve(items: Shaped[np.ndarray, " points"] | Sequence[int], scores: Any) -> Float[np.ndarray, "..."]:
    """Area under the scores over log10 of the number of items, divided by the range of the latter: a mean score.

    The area under the learning curve (ALC) of Guyon et al. (2011) on this scale; 0 to 1 for an accuracy.

    Args:
      items: in increasing order.
      scores: ``[..., points]``.

    Raises:
      UsageError: fewer than two sizes, or sizes that do not increase.
    """
    place, scores = np.log10(np.asarray(items, np.float64)), np.asarray(scores, np.float64)
    if place.size < 2 or scores.shape[-1:] != place.shape or not (np.diff(place) > 0).all():
        raise UsageError(f"an area needs scores at two or more increasing sizes, got {items} and {scores.shape=}")
    return np.trapezoid(scores, place, axis=-1) / (place[-1] - place[0])


class DataSaved(NamedTuple):
    """The smallest fraction where the fused method reaches the single modality's score at 100 %, and the share saved.

    Both are None if no fraction does.
    """

    fraction: float | None
    saved: float | None


def data_saved(
    fractions: Sequence[float], fused: Float[np.ndarray, " points"] | Sequence[float], single: float
) -> DataSaved:
    """Share of the data that the fused method saves at the score that the best single modality has with all of it.

    Args:
      fractions: in increasing order.
      fused: its score at each, higher is better.
      single: the single modality's at 100 %.
    """
    for fraction, score in zip(fractions, fused, strict=True):
        if score >= single:
            return DataSaved(float(fraction), 1 - float(fraction))
    return DataSaved(None, None)


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """``error(n) = a n^-b + c`` (Hestness et al. 2017).

    Attributes:
      a, b, c: not negative; where ``a`` is 0 the error does not fall and ``b`` is arbitrary.
      lower, upper: interval of b; None with fewer than 5 points, 0 or infinity if unbounded.
    """

    a: float
    b: float
    c: float
    lower: float | None
    upper: float | None

    def __call__(self, items: Any) -> Any:
        """The error at a number of items."""
        return self.a * np.asarray(items, np.float64) ** -self.b + self.c


def fit_power_law(
    items: Shaped[np.ndarray, " points"] | Sequence[int],
    errors: Float[np.ndarray, " points"] | Sequence[float],
    *,
    sd: Sequence[float] | None = None,
    level: float = 0.95,
) -> PowerLaw:
    """Least squares of ``a n^-b + c``: ``a`` and ``c`` in closed form for each ``b`` from 0.01 to 10.

    The interval of ``b`` holds the values whose squared error is not significantly larger (profile likelihood with F;
    Bates & Watts 1988, section 6.1); the covariance at the optimum is too coarse for 5 points and 3 parameters.

    Args:
      items: number of training items at each point.
      errors: mean over seeds.
      sd: standard deviation of each error, up to a common factor; None = equal.

    Raises:
      UsageError: fewer than 3 sizes, negative or non-finite numbers.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import fdtri

    n, y = np.asarray(items, np.float64), np.asarray(errors, np.float64)
    weight = np.ones_like(y) if sd is None else np.asarray(sd, np.float64) ** -2.0
    if n.shape != y.shape or weight.shape != y.shape or np.unique(n).size < 3:
        raise UsageError(f"a power law needs errors at 3 sizes or more, got {items} and {errors}")
    if not ((n > 0).all() and (y >= 0).all() and np.isfinite(y).all() and np.isfinite(weight).all()):
        raise UsageError(f"sizes are above 0, errors at least 0 and deviations above 0, got {items}, {errors} and {sd}")
    middle = math.exp(np.log(n).mean())
    x = n / middle

    def profile(exponents: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _linear(x ** -np.atleast_1d(exponents)[:, None], y, weight / weight.sum())

    losses = profile(_EXPONENTS)[2]
    best = int(losses.argmin())
    bounds = _EXPONENTS[max(best - 1, 0)], _EXPONENTS[min(best + 1, len(_EXPONENTS) - 1)]
    b = float(minimize_scalar(lambda e: profile(e)[2][0], bounds=bounds, method="bounded", options={"xatol": 1e-9}).x)
    scale, c, least = (float(part[0]) for part in profile(b))
    lower = upper = None
    free = len(y) - 3
    if free >= 2:
        allowed = least * (1 + fdtri(1, free, level) / free) + 1e-14 * (y**2).mean()
        possible = [*np.flatnonzero(losses <= allowed), best]
        low, high = min(possible) - 1, max(possible) + 1  # the nearest excluded values
        lower = 0.0 if low < 0 else float(_EXPONENTS[low])
        upper = float("inf") if high == len(_EXPONENTS) else float(_EXPONENTS[high])
    return PowerLaw(scale * middle**b, b, c, lower, upper)


def _linear(u: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best ``a u + c`` with a, c >= 0 for each row of ``u``, and its weighted mean squared error."""
    mean_u, mean_y = u @ weight, y @ weight
    spread = ((u - mean_u[:, None]) ** 2) @ weight
    slope = ((u - mean_u[:, None]) * (y - mean_y)) @ weight / np.maximum(spread, 1e-300)
    through = (u * y) @ weight / ((u**2) @ weight)
    flat = np.zeros_like(slope)
    pairs = [(slope, mean_y - slope * mean_u), (through, flat), (flat, flat + mean_y)]
    losses = [np.where((a < 0) | (c < 0), np.inf, ((a[:, None] * u + c[:, None] - y) ** 2) @ weight) for a, c in pairs]
    which = np.argmin(losses, axis=0)[None]
    a, c = (np.take_along_axis(np.stack(part), which, 0)[0] for part in zip(*pairs))
    return a, c, np.take_along_axis(np.stack(losses), which, 0)[0]
