"""Significance: intervals over seeds and test items, paired tests of a gain, and the verdict from them.

Plain functions on NumPy arrays, in float64; random ones take a seed. Scores are per item and higher is better: 1 for a
right answer, or minus an absolute error.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.statistics.crossed import (
    MIN_GROUPS,
    Estimate,
    crossed_estimate,
    logit_bounds,
    sum_by_unit,
    t_bounds,
)
from mmjax.typing import Float, Shaped

__all__ = [
    "FLIPS",
    "MIN_GROUPS",
    "Gain",
    "Interval",
    "SmallestGain",
    "Verdict",
    "bootstrap_counts",
    "crossed_interval",
    "detectable_gain",
    "holm",
    "mcnemar",
    "paired_gain",
    "seed_interval",
    "smallest_gain",
    "smallest_p",
    "verdict",
]

FLIPS = 10_000
_BLOCK = 4_000_000  # numbers of a resampling matrix held at once (32 MB)


class Interval(NamedTuple):
    """Bounds, and the sampling unit beside the seeds: ``group`` or, with too few groups, ``item``."""

    lower: float
    upper: float
    unit: str


@dataclasses.dataclass(frozen=True)
class Gain:
    """Gain of a method over another, in units of the score.

    Attributes:
      mean: over seeds and items.
      standard_error: of the mean, seeds crossed with units.
      freedom: degrees of freedom of the standard error.
      lower, upper: 95 % interval.
      lower90, upper90: 90 % interval, that of two one-sided tests at 5 %.
      p_permutation: two-sided, sign flips over units of the mean over seeds: variance of the test items.
      p_t: two-sided, paired t over seeds: variance of the seeds; None if the gain does not vary over seeds.
      p_both: two-sided, t of the mean over its standard error: both; None if that is zero.
      unit: ``group`` or ``item``: the sampling unit, whose signs are flipped.
    """

    mean: float
    standard_error: float
    freedom: float
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
        """The largest of the three: a gain must hold for other items, other seeds, and both.

        The first two cover one source of variance each: with variance of seeds alone and no true gain, the permutation
        test is below 0.05 in two of three runs of five seeds; with equal variances of seeds and units both are too
        small.
        """
        return max(p for p in (self.p_permutation, self.p_t, self.p_both) if p is not None)

    def bounds(self, level: float) -> tuple[float, float]:
        """The interval of a level."""
        lower, upper = t_bounds(Estimate(self.mean, self.standard_error, self.freedom), level)
        return float(lower), float(upper)


@dataclasses.dataclass(frozen=True)
class SmallestGain:
    """The gain over the best of several references.

    Attributes:
      place: index of the reference with the smallest gain.
      mean: over that one; if anything too small, since the best of several is selected.
      lower, upper: 95 % interval of the smallest true gain.
      lower90, upper90: 90 % interval likewise.
      p: two-sided, that the method is neither better than all of them nor worse than one.
    """

    place: int
    mean: float
    lower: float
    upper: float
    lower90: float
    upper90: float
    p: float


class Verdict(NamedTuple):
    """``better``, ``worse``, ``equivalent``, ``inconclusive``, ``too few seeds``, or None.

    Attributes:
      trivial: better or worse, but by less than the margin.
    """

    name: str | None
    trivial: bool = False


def seed_interval(values: Float[np.ndarray, " seeds"] | Sequence[float], level: float = 0.95) -> tuple | None:
    """``mean +- t s / sqrt(S)``, (lower, upper); None for fewer than three seeds."""
    from scipy.special import stdtrit

    values = np.asarray(values, np.float64)
    if values.size < 3:
        return None
    half = stdtrit(values.size - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def crossed_interval(
    scores: Shaped[np.ndarray, "seeds items"],
    groups: Shaped[np.ndarray, " items"],
    *,
    level: float = 0.95,
    share: bool = False,
) -> Interval:
    """Interval of the mean over new seeds and new test items.

    Args:
      groups: the group of each item; with fewer than 10 groups items are the sampling unit.
      share: whether the score is a share between 0 and 1, whose interval is computed on the logit.

    Raises:
      UsageError: shapes that do not fit.
    """
    sums, sizes, unit = sum_by_unit(np.asarray(scores), groups)
    estimate = crossed_estimate(sums, sizes)
    lower, upper = logit_bounds(estimate, len(sizes), level) if share else t_bounds(estimate, level)
    return Interval(float(lower), float(upper), unit)


def paired_gain(
    scores: Shaped[np.ndarray, "seeds items"],
    reference: Shaped[np.ndarray, "seeds items"],
    groups: Shaped[np.ndarray, " items"],
    *,
    flips: int = FLIPS,
    seed: int = 0,
) -> Gain:
    """The gain of a method over a reference on the same seeds and items, with its intervals and tests.

    Args:
      flips: draws of the permutation test; if there are at most as many sign patterns, all are enumerated.

    Raises:
      UsageError: shapes that do not fit.
    """
    scores, reference = np.asarray(scores, np.float64), np.asarray(reference, np.float64)
    if scores.shape != reference.shape:
        raise UsageError(f"{scores.shape=} must be {reference.shape=}, the same seeds and items")
    difference = scores - reference
    sums, sizes, unit = sum_by_unit(difference, groups)
    mean, error, freedom = (float(value) for value in crossed_estimate(sums, sizes))
    (lower, upper), (lower90, upper90) = (t_bounds(Estimate(mean, error, freedom), level) for level in (0.95, 0.9))
    return Gain(
        mean=mean,
        standard_error=error,
        freedom=freedom,
        lower=float(lower),
        upper=float(upper),
        lower90=float(lower90),
        upper90=float(upper90),
        p_permutation=_sign_flip(sums.mean(0), flips, seed),
        p_t=_paired_t(difference.mean(1)),
        p_both=_t_test(mean, error, freedom),
        unit=unit,
    )


def smallest_gain(gains: Sequence[Gain], p: Sequence[float] | None = None) -> SmallestGain:
    """The gain over the best of several references, from the gains over each of them.

    *Better* than all of them needs every test: the largest p counts, without correction (intersection-union test,
    Berger 1982). *Worse* than at least one of them needs any test: the smallest p and the upper bounds are corrected
    for their number (Bonferroni).

    Args:
      gains: one or more.
      p: two-sided, of each; None = their own.
    """
    count = len(gains)
    each = [gain.p for gain in gains] if p is None else list(p)
    above = max(value if gain.mean > 0 else 1.0 for gain, value in zip(gains, each, strict=True))
    below = count * min(value if gain.mean < 0 else 1.0 for gain, value in zip(gains, each, strict=True))
    place = min(range(count), key=lambda number: gains[number].mean)
    return SmallestGain(
        place=place,
        mean=gains[place].mean,
        lower=min(gain.lower for gain in gains),
        upper=min(gain.bounds(1 - 0.05 / count)[1] for gain in gains),
        lower90=min(gain.lower90 for gain in gains),
        upper90=min(gain.bounds(1 - 0.1 / count)[1] for gain in gains),
        p=min(1.0, above, below),
    )


def detectable_gain(gains: Sequence[Gain], comparisons: int, power: float = 0.8) -> float:
    """The true gain over the best reference that would be called better with this probability.

    ``(t(1 - 0.05 / 2k) + t(power)) * standard error`` over each reference, with k comparisons, as in the first step of
    Holm's correction, minus the distance of the reference from the best one; the largest over the references.
    """
    from scipy.special import stdtrit

    def one(gain: Gain) -> float:
        freedom = min(gain.freedom, 1e9)
        return gain.standard_error * float(stdtrit(freedom, 1 - 0.025 / comparisons) + stdtrit(freedom, power))

    least = min(gain.mean for gain in gains)
    return max(one(gain) - (gain.mean - least) for gain in gains)


def smallest_p(units: int, flips: int = FLIPS) -> float:
    """The smallest p of the permutation test, and so of any gain."""
    return 2.0 ** (1 - units) if _enumerable(units, flips) else 1 / (1 + flips)


def bootstrap_counts(draws: int, units: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Counts of each unit in each bootstrap draw, in blocks of ``[draws, units]``."""
    return _blocks(_counts, draws, units, seed)


def mcnemar(right: Shaped[np.ndarray, " items"], reference: Shaped[np.ndarray, " items"]) -> float:
    """Exact two-sided p of McNemar's test for one seed, from the items that only one of both gets right."""
    from scipy.special import bdtr

    right, reference = np.asarray(right, bool), np.asarray(reference, bool)
    only, other = int((right & ~reference).sum()), int((reference & ~right).sum())
    return float(min(1.0, 2 * bdtr(min(only, other), only + other, 0.5))) if only + other else 1.0


def holm(p: Sequence[float]) -> np.ndarray:
    """P-values with Holm's (1979) correction, in the same order."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1)))
    return corrected


def verdict(gain: Gain | SmallestGain, p: float, seeds: int, delta: float | None = 0.01) -> Verdict:
    """The verdict on a gain.

    Args:
      p: of the gain, corrected for the number of comparisons.
      seeds: number of seeds; fewer than 5 allow no verdict.
      delta: gains within ``[-delta, delta]`` are negligible; None = no margin, so nothing is ``equivalent``.
    """
    if seeds < 5:
        return Verdict("too few seeds" if seeds > 2 else None)
    within = delta is not None and -delta <= gain.lower90 and gain.upper90 <= delta
    if gain.lower > 0 and p < 0.05:
        return Verdict("better", within)
    if gain.upper < 0 and p < 0.05:
        return Verdict("worse", within)
    return Verdict("equivalent" if within else "inconclusive")


def _sign_flip(sums: np.ndarray, flips: int, seed: int) -> float:
    """Two-sided p of sign flips of the units' sums; ties within rounding count as extreme."""
    threshold = abs(sums.sum()) - 1e-9 * max(np.abs(sums).sum(), 1e-300)
    nonzero = sums[np.abs(sums) > 1e-12 * np.abs(sums).max(initial=0)]
    if _enumerable(len(nonzero), flips):
        return float((np.abs(_all_signs(len(nonzero)) @ nonzero) >= threshold).mean())
    extreme = sum(int((np.abs(signs @ sums) >= threshold).sum()) for signs in _blocks(_signs, flips, len(sums), seed))
    return (1 + extreme) / (1 + flips)


def _enumerable(units: int, flips: int) -> bool:
    """Whether there are at most ``flips`` sign patterns, up to a global sign."""
    return units <= flips.bit_length() and 2 ** max(units - 1, 0) <= flips


@functools.lru_cache(maxsize=16)
def _all_signs(units: int) -> np.ndarray:
    """All sign patterns that begin with plus, ``[2**(units - 1), units]``; negation does not change the statistic."""
    numbers = np.arange(2 ** max(units - 1, 0))[:, None]
    return 1.0 - 2 * ((numbers >> np.arange(units)) & 1)[:, ::-1]


def _paired_t(differences: np.ndarray) -> float | None:
    spread = differences.std(ddof=1) if differences.size > 1 else 0.0
    if spread <= 1e-12:
        return None
    return _t_test(differences.mean(), spread / np.sqrt(differences.size), differences.size - 1)


def _t_test(mean: float, error: float, freedom: float) -> float | None:
    from scipy.special import stdtr

    return float(2 * stdtr(min(freedom, 1e9), -abs(mean) / error)) if error > 1e-12 else None


def _blocks(make, rows: int, width: int, seed: int):
    """A matrix ``[rows, width]`` of float64 in blocks; small ones are cached, since the rows of a table share them."""
    height = max(1, _BLOCK // width)
    for number, start in enumerate(range(0, rows, height)):
        shape = (min(height, rows - start), width)
        block = make if rows * width <= 4 * _BLOCK else make.__wrapped__
        yield block(*shape, seed, number).astype(np.float64)


@functools.lru_cache(maxsize=16)
def _counts(rows: int, width: int, seed: int, block: int) -> np.ndarray:
    """Counts of ``width`` draws with replacement from ``width`` units, for each row."""
    draws = np.random.default_rng((seed, block)).integers(0, width, (rows, width))
    flat = (draws + width * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * width).reshape(rows, width).astype(np.uint16)


@functools.lru_cache(maxsize=16)
def _signs(rows: int, width: int, seed: int, block: int) -> np.ndarray:
    return 2 * np.random.default_rng((seed, block)).integers(0, 2, (rows, width), np.int8) - 1
