"""How sure a number is: intervals over seeds and test items, paired tests of a gain, and the verdict they allow.

Plain functions on NumPy arrays, in float64; the random ones take a seed and give the same numbers every time. Scores
are per item and higher is better: 1 for a right answer, or minus an absolute error.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Float, Shaped

__all__ = [
    "MIN_GROUPS",
    "Gain",
    "Interval",
    "Verdict",
    "bootstrap_counts",
    "hierarchical_interval",
    "holm",
    "mcnemar",
    "paired_gain",
    "seed_interval",
    "verdict",
]

MIN_GROUPS = 10  # a bootstrap over fewer has no honest width
_BLOCK = 4_000_000  # numbers of a resampling matrix held at once (32 MB)


class Interval(NamedTuple):
    """Bounds, and what was resampled beside the seeds: ``group`` or, with too few groups, ``item``."""

    lower: float
    upper: float
    unit: str


@dataclasses.dataclass(frozen=True)
class Gain:
    """What a method gains over another, in units of the score.

    Attributes:
      mean: over seeds and items.
      lower, upper: 95 % interval, bootstrap over seeds and units.
      lower90, upper90: 90 % interval, that of two one-sided tests at 5 %.
      p_permutation: two-sided, sign flips over units of the mean over seeds: chance in the test items.
      p_t: two-sided, paired t over seeds: chance in the seeds; None where the gain does not vary over seeds.
      p_both: two-sided, t of the mean over a standard error of both sources, seeds and units; None likewise.
      unit: ``group`` or ``item``, what was resampled and flipped.
    """

    mean: float
    lower: float
    upper: float
    lower90: float
    upper90: float
    p_permutation: float
    p_t: float | None
    p_both: float | None
    unit: str

    @property
    def p(self) -> float:
        """The largest of the three: a gain must survive other items and other seeds, and both at once.

        The first two see one source of chance each: with luck in the seeds alone and no true gain, the permutation test
        by itself is below 0.05 in two of three runs of five seeds, and where the luck of seeds and of units weighs
        alike both are too small together.
        """
        return max(p for p in (self.p_permutation, self.p_t, self.p_both) if p is not None)


class Verdict(NamedTuple):
    """``better``, ``worse``, ``equivalent``, ``inconclusive``, ``too few seeds``, or None.

    Attributes:
      trivial: better or worse, but by less than the margin.
    """

    name: str | None
    trivial: bool = False


def seed_interval(values: Float[np.ndarray, " seeds"] | Sequence[float], level: float = 0.95) -> tuple | None:
    """``mean +- t s / sqrt(S)``, (lower, upper); None for one or two seeds, which allow a value only."""
    from scipy.special import stdtrit

    values = np.asarray(values, np.float64)
    if values.size < 3:
        return None
    half = stdtrit(values.size - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def hierarchical_interval(
    scores: Shaped[np.ndarray, "seeds items"],
    groups: Shaped[np.ndarray, " items"],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean over seeds and groups (Bouthillier et al. 2021).

    A draw takes seeds with replacement and, once for all of them, groups with replacement: all seeds are tested on the
    same items, so drawing groups anew for each seed would average the chance in the items away.

    Args:
      groups: the group of each item; with fewer than 10 of them items are drawn instead.

    Raises:
      UsageError: shapes that do not fit.
    """
    sums, sizes, unit = _by_unit(np.asarray(scores), groups)
    lower, upper = np.quantile(_bootstrap(sums, sizes, draws, seed), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(lower), float(upper), unit)


def paired_gain(
    scores: Shaped[np.ndarray, "seeds items"],
    reference: Shaped[np.ndarray, "seeds items"],
    groups: Shaped[np.ndarray, " items"],
    *,
    draws: int = 2000,
    flips: int = 10_000,
    seed: int = 0,
) -> Gain:
    """The gain of a method over a reference on the same seeds and items, with its intervals and tests.

    Raises:
      UsageError: shapes that do not fit.
    """
    scores, reference = np.asarray(scores, np.float64), np.asarray(reference, np.float64)
    if scores.shape != reference.shape:
        raise UsageError(f"{scores.shape=} must be {reference.shape=}, the same seeds and items")
    difference = scores - reference
    sums, sizes, unit = _by_unit(difference, groups)
    lower, lower90, upper90, upper = np.quantile(_bootstrap(sums, sizes, draws, seed), [0.025, 0.05, 0.95, 0.975])
    return Gain(
        mean=float(difference.mean()),
        lower=float(lower),
        upper=float(upper),
        lower90=float(lower90),
        upper90=float(upper90),
        p_permutation=_sign_flip(sums.mean(0), flips, seed),
        p_t=_paired_t(difference.mean(1)),
        p_both=_crossed_t(sums, sizes),
        unit=unit,
    )


def bootstrap_counts(draws: int, units: int, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each unit is taken in each draw with replacement: blocks of ``[draws, units]``, few rows at a time."""
    return _blocks(_counts, draws, units, seed)


def mcnemar(right: Shaped[np.ndarray, " items"], reference: Shaped[np.ndarray, " items"]) -> float:
    """Exact two-sided p of McNemar's test: of one seed, from the items that only one of both gets right."""
    from scipy.special import bdtr

    right, reference = np.asarray(right, bool), np.asarray(reference, bool)
    only, other = int((right & ~reference).sum()), int((reference & ~right).sum())
    return float(min(1.0, 2 * bdtr(min(only, other), only + other, 0.5))) if only + other else 1.0


def holm(p: Sequence[float]) -> np.ndarray:
    """P-values corrected for their number (Holm 1979), in the order given."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1)))
    return corrected


def verdict(gain: Gain, p: float, seeds: int, delta: float | None = 0.01) -> Verdict:
    """What may be said of a gain.

    Args:
      p: of the gain, corrected for the number of comparisons.
      seeds: number of seeds; fewer than 5 allow no verdict, fewer than 3 not even an interval.
      delta: a gain within ``[-delta, delta]`` does not matter; None = no such margin, so nothing is ``equivalent``.
    """
    if seeds < 5:
        return Verdict("too few seeds" if seeds > 2 else None)
    within = delta is not None and -delta <= gain.lower90 and gain.upper90 <= delta
    if gain.lower > 0 and p < 0.05:
        return Verdict("better", within)
    if gain.upper < 0 and p < 0.05:
        return Verdict("worse", within)
    return Verdict("equivalent" if within else "inconclusive")


def _by_unit(scores: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Sums of the scores ``[seeds, units]``, numbers of items ``[units]``, and what a unit is."""
    groups = np.asarray(groups)
    if scores.ndim != 2 or groups.shape != scores.shape[1:]:
        raise UsageError(f"scores must be [seeds, items] and groups [items], got {scores.shape=} and {groups.shape=}")
    _, which = np.unique(groups, return_inverse=True)
    sizes = np.bincount(which)
    if len(sizes) < MIN_GROUPS:
        return scores.astype(np.float64), np.ones(scores.shape[1]), "item"
    return np.stack([np.bincount(which, row) for row in scores]), sizes.astype(np.float64), "group"


def _bootstrap(sums: np.ndarray, sizes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of resampled seeds and units, ``[draws]``."""
    seeds, units = sums.shape
    of_seeds = np.concatenate(list(_blocks(_counts, draws, seeds, seed + 1)))
    means, start = [], 0
    for of_units in _blocks(_counts, draws, units, seed):
        stop = start + len(of_units)
        means.append((of_seeds[start:stop] * (of_units @ sums.T)).sum(1) / seeds / (of_units @ sizes))
        start = stop
    return np.concatenate(means)


def _sign_flip(sums: np.ndarray, flips: int, seed: int) -> float:
    """Two-sided p of sign flips of the units' sums; a tie is no less extreme, whatever the rounding."""
    threshold = abs(sums.sum()) - 1e-9 * max(np.abs(sums).sum(), 1e-300)
    extreme = sum(int((np.abs(signs @ sums) >= threshold).sum()) for signs in _blocks(_signs, flips, len(sums), seed))
    return (1 + extreme) / (1 + flips)


def _paired_t(differences: np.ndarray) -> float | None:
    from scipy.special import stdtr

    spread = differences.std(ddof=1) if differences.size > 1 else 0.0
    if spread <= 1e-12:
        return None
    return float(2 * stdtr(differences.size - 1, -abs(differences.mean()) * np.sqrt(differences.size) / spread))


def _crossed_t(sums: np.ndarray, sizes: np.ndarray) -> float | None:
    """Two-sided p of the mean of seeds crossed with units, degrees of freedom by Satterthwaite (1946).

    The variance of the mean over seeds and that over units (of unequal size: linearised) are added. Both hold what
    seeds and units do together, so that the sum is, if anything, too large.
    """
    from scipy.special import stdtr

    seeds, units = sums.shape
    by_seed, total = sums.sum(1) / sizes.sum(), sizes.sum()
    if seeds < 2 or units < 2 or by_seed.std(ddof=1) <= 1e-12:
        return None
    mean = by_seed.mean()
    left = sums.mean(0) - mean * sizes
    of_seeds, of_units = by_seed.var(ddof=1) / seeds, units / (units - 1) * (left**2).sum() / total**2
    freedom = (of_seeds + of_units) ** 2 / (of_seeds**2 / (seeds - 1) + of_units**2 / (units - 1))
    return float(2 * stdtr(freedom, -abs(mean) / np.sqrt(of_seeds + of_units)))


def _blocks(make, rows: int, width: int, seed: int):
    """A matrix ``[rows, width]`` of float64 in blocks; the rows of a table share it, so small ones are kept."""
    height = max(1, _BLOCK // width)
    for number, start in enumerate(range(0, rows, height)):
        shape = (min(height, rows - start), width)
        kept = make if rows * width <= 4 * _BLOCK else make.__wrapped__
        yield kept(*shape, seed, number).astype(np.float64)


@functools.lru_cache(maxsize=16)
def _counts(rows: int, width: int, seed: int, block: int) -> np.ndarray:
    """How often each of ``width`` things is drawn, ``width`` times with replacement."""
    drawn = np.random.default_rng((seed, block)).integers(0, width, (rows, width))
    flat = (drawn + width * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * width).reshape(rows, width).astype(np.uint16)


@functools.lru_cache(maxsize=16)
def _signs(rows: int, width: int, seed: int, block: int) -> np.ndarray:
    return 2 * np.random.default_rng((seed, block)).integers(0, 2, (rows, width), np.int8) - 1
