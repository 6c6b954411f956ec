"""Methods across data sets: average ranks, Friedman's test, and the critical difference of Nemenyi (Demsar 2006).

Scores of different data sets are not of one scale, so only their order within a data set counts. A data set is one
observation, however many seeds and items stand behind its score.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Float, Mapping

__all__ = ["Ranks", "average_ranks", "cliques", "compare", "critical_difference", "in_common"]

_BLOCK = 2_000_000  # ranks permuted at once


@dataclasses.dataclass(frozen=True)
class Ranks:
    """How methods compare across data sets.

    Attributes:
      methods: their names, in the order given.
      datasets: number of data sets.
      ranks: mean rank of each method; 1 = best.
      chi2, p_chi2: Friedman's statistic and its p by the chi-square distribution, which needs more than 10 data sets
        and 5 methods to be near; None where there is no test.
      f, p_f: Iman and Davenport's (1980) version of it, less conservative; likewise approximate.
      p: of the same statistic by permutation of the ranks within each data set, right for any number of them.
      critical_difference: two methods whose mean ranks differ by this much or more differ (Nemenyi 1963).
      cliques: groups of methods, by their place in ``methods``, best first, that do not differ: the bars of the plot.
      note: what the number of data sets does not allow to say; else empty.
    """

    methods: tuple[str, ...]
    datasets: int
    ranks: tuple[float, ...]
    chi2: float | None
    p_chi2: float | None
    f: float | None
    p_f: float | None
    p: float | None
    critical_difference: float | None
    cliques: tuple[tuple[int, ...], ...]
    note: str = ""


def in_common(
    tables: Mapping[str, Mapping[str, float | None]],
) -> tuple[tuple[str, ...], tuple[str, ...], Float[np.ndarray, "datasets methods"]]:
    """The methods that every data set has a score of: their names, the data sets' names, and the scores.

    Args:
      tables: of each data set the score of each method; None = it has none.
    """
    every = [{name for name, score in scores.items() if score is not None} for scores in tables.values()]
    shared = set.intersection(*every) if every else set()
    # in the order of the first table
    methods = tuple(name for name in next(iter(tables.values()), {}) if name in shared)
    scores = [[scores[name] for name in methods] for scores in tables.values()]
    return methods, tuple(tables), np.array(scores, np.float64).reshape(len(tables), len(methods))


def average_ranks(
    scores: Float[np.ndarray, "datasets methods"] | Sequence[Sequence[float]], *, higher_is_better: Any = True
) -> Float[np.ndarray, "datasets methods"]:
    """Rank of each method in each data set, 1 = best; equal scores share the mean of their ranks.

    Args:
      higher_is_better: one answer, or one for each data set.

    Raises:
      UsageError: scores that are no table of numbers: a method is missing somewhere.
    """
    from scipy.stats import rankdata

    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise UsageError(f"ranks need a score of every method on every data set [datasets, methods], got {scores}")
    sign = np.where(np.broadcast_to(higher_is_better, len(scores)), -1.0, 1.0)[:, None]
    return rankdata(sign * scores, axis=1)


def critical_difference(methods: int, datasets: int, level: float = 0.05) -> float:
    """Difference of mean ranks from which on two of ``k`` methods differ, ``q sqrt(k (k + 1) / 6N)`` (Nemenyi 1963)."""
    from scipy.stats import studentized_range

    q = studentized_range.isf(level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def cliques(ranks: Sequence[float], difference: float) -> tuple[tuple[int, ...], ...]:
    """Largest groups of two or more methods whose mean ranks differ by less than ``difference``, best first."""
    order = np.argsort(ranks, kind="stable")
    ordered = np.asarray(ranks, np.float64)[order]
    found, reached = [], 0
    for start in range(len(order)):
        stop = int(np.searchsorted(ordered, ordered[start] + difference - 1e-12, side="left"))
        if stop > max(reached, start + 1):  # otherwise a part of the last one
            found.append(tuple(int(place) for place in order[start:stop]))
            reached = stop
    return tuple(found)


def compare(
    scores: Float[np.ndarray, "datasets methods"] | Sequence[Sequence[float]],
    methods: Sequence[str],
    *,
    higher_is_better: Any = True,
    level: float = 0.05,
    permutations: int = 10_000,
    seed: int = 0,
) -> Ranks:
    """Friedman's test that all methods are alike across data sets (Friedman 1937), and which pairs differ.

    Args:
      scores: ``[datasets, methods]``, means over seeds.
      methods: names of the columns.
      higher_is_better: one answer, or one for each data set.
      level: of the critical difference.

    Raises:
      UsageError: scores that do not fit the names, or fewer than two methods.
    """
    ranked = average_ranks(scores, higher_is_better=higher_is_better)
    datasets, count = ranked.shape
    if count != len(methods) or count < 2:
        raise UsageError(f"two methods or more are compared, each with a name; got scores of {count} and {methods}")
    mean = tuple(ranked.mean(0).tolist())
    if datasets < 2:
        note = f"too few data sets: {datasets}; ranks only"
        return Ranks(tuple(methods), datasets, mean, None, None, None, None, None, None, (), note)
    chi2, p_chi2, f, p_f = _friedman(ranked)
    difference = critical_difference(count, datasets, level)
    return Ranks(
        methods=tuple(methods),
        datasets=datasets,
        ranks=mean,
        chi2=chi2,
        p_chi2=p_chi2,
        f=f,
        p_f=p_f,
        p=_permutation(ranked, permutations, seed),
        critical_difference=difference,
        cliques=cliques(mean, difference),
        note=_note(count, datasets, difference),
    )


def _note(count: int, datasets: int, difference: float) -> str:
    if difference >= count - 1:
        return (
            f"too few data sets: with {datasets}, two methods differ from {difference:.2f} ranks on, and mean ranks "
            f"are {count - 1} apart at most, so no two methods can be told apart"
        )
    if datasets <= 10:
        return f"few data sets: {datasets}; only large differences can be seen, and p is that of the permutations"
    return ""


def _friedman(ranked: np.ndarray) -> tuple[float, float, float | None, float]:
    """Friedman's chi-square, corrected for ties, and the F that Iman and Davenport make of it, each with its p."""
    from scipy.special import chdtrc, fdtrc
    from scipy.stats import friedmanchisquare

    datasets, count = ranked.shape
    if np.ptp(ranked, axis=1).max() == 0:  # all equal everywhere
        return 0.0, 1.0, 0.0, 1.0
    if count > 2:
        chi2 = float(friedmanchisquare(*ranked.T).statistic)
    else:  # SciPy asks for three methods; of two it is the sign test's statistic
        difference = ranked[:, 0] - ranked[:, 1]
        chi2 = float(difference.sum() ** 2 / (difference**2).sum())
    p_chi2 = float(chdtrc(count - 1, chi2))
    rest = datasets * (count - 1) - chi2
    if rest <= 1e-9 * chi2:  # the same order everywhere: F is infinite
        return chi2, p_chi2, None, 0.0
    f = (datasets - 1) * chi2 / rest
    return chi2, p_chi2, f, float(fdtrc(count - 1, (count - 1) * (datasets - 1), f))


def _permutation(ranked: np.ndarray, permutations: int, seed: int) -> float:
    """Share of permutations within the data sets whose mean ranks spread as far, the observed one counted in."""
    draw = np.random.default_rng(seed)
    datasets, count = ranked.shape
    middle = datasets * (count + 1) / 2
    found = ((ranked.sum(0) - middle) ** 2).sum()
    extreme, left = 0, permutations
    while left:
        height = min(left, max(1, _BLOCK // ranked.size))
        drawn = draw.permuted(np.broadcast_to(ranked, (height, datasets, count)), axis=2).sum(1)
        extreme += int((((drawn - middle) ** 2).sum(1) >= found - 1e-9).sum())
        left -= height
    return (1 + extreme) / (1 + permutations)
