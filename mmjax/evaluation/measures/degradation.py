"""Curves of scores under growing noise or absence: area, retention, effective robustness, harmful fusion.

Curves are arrays ``[levels, ...]`` of scores where higher is better, over severities or missing rates from 0 to 1.
Plain NumPy in float64; trailing axes (such as seeds) are kept.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Mapping

__all__ = ["ALL", "LEVELS", "area", "effective_robustness", "harmful", "multibench", "retention", "worst_drop"]

LEVELS = tuple(level / 10 for level in range(11))
ALL = "all"
"""The target for all modalities at once."""


def area(curve: Any, levels: Sequence[float] = LEVELS) -> Any:
    """Area under a curve ``[levels, ...]`` by trapezoids: the mean score over severities 0 to 1.

    Raises:
      UsageError: levels that do not rise from 0 to 1, or as many as points.
    """
    return np.trapezoid(_curve(curve, levels), np.asarray(levels, np.float64), axis=0)


def retention(curve: Any, chance: float, levels: Sequence[float] = LEVELS) -> Any:
    """Mean share of the score above chance that is retained, ``(area - chance) / (curve[0] - chance)``: at most 1 if
    noise never helps, NaN where the clean score is not above chance.

    Raises:
      UsageError: as ``area``.
    """
    left, clean = area(curve, levels) - chance, _curve(curve, levels)[0] - chance
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(clean > 0, left / clean, np.nan)[()]


def effective_robustness(curve: Any, reference: Any, levels: Sequence[float] = LEVELS) -> Any:
    """How much less a curve falls than a reference, on average (after Taori et al. 2020 and MultiBench).

    Args:
      reference: curve of the mean of logits of the single-modality models under the same noise.

    Raises:
      UsageError: as ``area``.
    """
    curve, reference = _curve(curve, levels), _curve(reference, levels)
    return area((curve - curve[0]) - (reference - reference[0]), levels)


def worst_drop(curves: Mapping[str, Any]) -> tuple[str, float]:
    """The modality whose full noise lowers the score most, and by how much; ``curves`` ``[levels]`` by modality.

    Raises:
      UsageError: no modality.
    """
    drops = {name: float(np.asarray(c)[0] - np.asarray(c)[-1]) for name, c in sorted(curves.items()) if name != ALL}
    if not drops:
        raise UsageError("worst_drop needs the curve of at least one modality, got none")
    worst = max(drops, key=drops.__getitem__)
    return worst, drops[worst]


def harmful(
    curves: Mapping[str, Any], singles: Mapping[str, float], chosen_by: Mapping[str, float] | None = None
) -> list[str]:
    """Modalities whose full noise puts the row below the best of the other single modalities: harmful fusion.

    Args:
      curves: of the row, ``[levels]`` by noisy modality.
      singles: clean score of the single-modality model of each modality of the row.
      chosen_by: validation scores by which the best single is chosen; None = ``singles``.

    Raises:
      UsageError: a modality without a single-modality score.
    """
    chosen_by, names = chosen_by or singles, sorted(set(curves) - {ALL})
    if missing := [name for name in names if name not in singles or name not in chosen_by]:
        raise UsageError(
            f"no single-modality score of {missing[0]!r}; there are {sorted(set(singles) & set(chosen_by))}"
        )
    result = []
    for name in names:
        rest = [other for other in names if other != name]
        if rest and np.asarray(curves[name])[-1] < singles[max(rest, key=chosen_by.__getitem__)]:
            result.append(name)
    return result


def multibench(curves: Mapping[str, Any], reference: Any) -> dict[str, dict[str, float]]:
    """MultiBench's relative and effective robustness of every method (Liang et al. 2021, ``robustness.py``).

    Relative is the trapezoid area with steps of 0.1; effective the *sum* over levels of the curve minus the reference
    shifted to the same start. Both are rescaled within the pool ``curves``, the worst method to 0 and the best to 1;
    NaN in a pool of equals. MultiBench's reference is a trained late fusion.

    Args:
      curves: ``[levels]`` by method, higher is better.

    Raises:
      UsageError: curves of other lengths than the reference.
    """
    reference = np.asarray(reference, np.float64)
    raw: dict[str, dict[str, float]] = {"relative": {}, "effective": {}}
    for name, values in curves.items():
        curve = np.asarray(values, np.float64)
        if curve.shape != reference.shape or curve.ndim != 1:
            raise UsageError(f"the curve of {name!r} must be [levels] as the reference's, got {curve.shape}")
        raw["relative"][name] = float(np.trapezoid(curve, dx=0.1))
        raw["effective"][name] = float((curve - (reference + curve[0] - reference[0])).sum())
    return {name: {kind: _in_pool(values, name) for kind, values in raw.items()} for name in curves}


def _curve(curve: Any, levels: Sequence[float]) -> np.ndarray:
    curve, places = np.asarray(curve, np.float64), np.asarray(levels, np.float64)
    if curve.ndim < 1 or len(curve) != len(places):
        raise UsageError(f"a curve is [levels, ...] with {len(places)} levels, got {curve.shape}")
    if places[0] != 0 or places[-1] != 1 or not (np.diff(places) > 0).all():
        raise UsageError(f"levels rise from 0 to 1, got {list(levels)}")
    return curve


def _in_pool(values: Mapping[str, float], name: str) -> float:
    low, high = min(values.values()), max(values.values())
    return (values[name] - low) / (high - low) if high > low else math.nan
