"""Standard errors of scores over crossed seeds and test items: every seed is tested on the same items.

Seeds and units (groups of items, or items) are two crossed samples. With ``x[s, u]`` the contribution of unit ``u`` to
the score of seed ``s``, the variance of the mean is that over seeds plus that over units minus that of the residual,
which both include (Cornfield & Tukey 1956; as two-way clustering: Cameron, Gelbach & Miller 2011).
``benchmarks/verdicts.md`` reports the coverage of its intervals.
"""

from typing import Any, NamedTuple

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Float, Shaped

__all__ = ["MIN_GROUPS", "Estimate", "crossed_estimate", "logit_bounds", "sum_by_unit", "t_bounds"]

MIN_GROUPS = 10  # fewer are no sample: items are the units instead


class Estimate(NamedTuple):
    """A mean over seeds and units, its standard error, and the degrees of freedom of that: floats, or arrays."""

    mean: Any
    standard_error: Any
    freedom: Any


def sum_by_unit(
    scores: Shaped[np.ndarray, "seeds items"], groups: Shaped[np.ndarray, " items"]
) -> tuple[Float[np.ndarray, "seeds units"], Float[np.ndarray, " units"], str]:
    """Sums of the scores and numbers of items by unit, and the unit: ``group``, or ``item`` if groups are few.

    Raises:
      UsageError: shapes that do not match.
    """
    groups = np.asarray(groups)
    if scores.ndim != 2 or groups.shape != scores.shape[1:]:
        raise UsageError(f"scores must be [seeds, items] and groups [items], got {scores.shape=} and {groups.shape=}")
    _, which = np.unique(groups, return_inverse=True)
    sizes = np.bincount(which)
    if len(sizes) < MIN_GROUPS:
        return scores.astype(np.float64), np.ones(scores.shape[1]), "item"
    return np.stack([np.bincount(which, row) for row in scores]), sizes.astype(np.float64), "group"


def crossed_estimate(sums: Float[np.ndarray, "*batch seeds units"], sizes: Float[np.ndarray, " units"]) -> Estimate:
    """Mean score with its standard error over seeds and units; degrees of freedom by Satterthwaite (1946).

    The variance is at least the larger of those over seeds and over units. For one seed, or equal seeds, it is the
    variance over units alone.

    Args:
      sums: of the scores of each unit's items.
      sizes: numbers of items of each unit.
    """
    seeds, units = sums.shape[-2:]
    share = sizes / sizes.sum()
    parts = np.asarray(sums, np.float64) / sizes.sum()
    by_seed = parts.sum(-1)
    residual = parts - by_seed[..., None] * share  # linearised: units differ in size
    by_unit = residual.mean(-2)
    correction, freedom_units = _unit_freedom(share) if units > 1 else (0.0, 1.0)
    of_units = correction * (by_unit**2).sum(-1)
    if seeds > 1:
        of_seeds = by_seed.var(-1, ddof=1) / seeds
        of_both = correction * ((residual - by_unit[..., None, :]) ** 2).sum((-2, -1)) / (seeds * (seeds - 1))
    else:
        of_seeds = of_both = np.zeros_like(of_units)
    variance = np.maximum(of_seeds + of_units - of_both, np.maximum(of_seeds, of_units))
    terms = of_units**2 / freedom_units + (of_seeds**2 + of_both**2 / freedom_units) / max(seeds - 1, 1)
    least = min(max(seeds - 1, 1), freedom_units) if seeds > 1 else freedom_units
    freedom = np.maximum(np.where(terms > 0, variance**2 / np.maximum(terms, 1e-300), np.inf), least)
    return Estimate(by_seed.mean(-1), np.sqrt(variance), freedom)


def t_bounds(estimate: Estimate, level: float = 0.95) -> tuple[Any, Any]:
    """Lower and upper bound: the mean plus and minus Student's t times the standard error."""
    half = _quantile(estimate.freedom, (1 + level) / 2) * estimate.standard_error
    return estimate.mean - half, estimate.mean + half


def logit_bounds(estimate: Estimate, units: int, level: float = 0.95) -> tuple[Any, Any]:
    """Bounds of a share, computed on its logit: they stay in [0, 1] and are wider on the side of 1/2.

    A share of exactly 0 or 1 has no standard error: its bound is Clopper and Pearson's for that many units.
    """
    from scipy.special import expit

    mean = np.asarray(estimate.mean, np.float64)
    inside = (mean > 1e-12) & (mean < 1 - 1e-12)
    share = np.where(inside, mean, 0.5)
    half = _quantile(estimate.freedom, (1 + level) / 2) * estimate.standard_error / (share * (1 - share))
    centre = np.log(share / (1 - share))
    least = ((1 - level) / 2) ** (1 / units)
    lower = np.where(inside, expit(centre - half), np.where(mean > 0.5, least, 0.0))
    upper = np.where(inside, expit(centre + half), np.where(mean > 0.5, 1.0, 1 - least))
    return lower[()], upper[()]


def _unit_freedom(share: np.ndarray) -> tuple[float, float]:
    """Correction of the variance over units of unequal size, and its degrees of freedom (Bell & McCaffrey 2002).

    Both depend on how the variance of a unit's sum grows with its size: linearly for independent items, quadratically
    for group effects. A mixture, two to one by simulation, is assumed; with equal sizes it makes no difference.
    """
    assumed = (2 * share + share**2 / (share**2).sum()) / 3
    total, own, cross, square = 1.0, (share * share).sum(), (share * assumed).sum(), (assumed * assumed).sum()
    # the residuals (I - w 1')x of sums with variances a have the covariance  B = diag(a) - w a' - a w' + w w'
    trace = total - 2 * cross + own * total
    trace_of_square = square - 4 * (share * assumed**2).sum() + 2 * total * (share**2 * assumed).sum()
    trace_of_square += 2 * cross**2 + 2 * own * square - 4 * total * cross * own + (total * own) ** 2
    return float(total / trace), float(trace**2 / trace_of_square)


def _quantile(freedom: Any, probability: float) -> Any:
    from scipy.special import ndtri, stdtrit

    finite = np.isfinite(freedom)
    return np.where(finite, stdtrit(np.where(finite, freedom, 1.0), probability), ndtri(probability))[()]
