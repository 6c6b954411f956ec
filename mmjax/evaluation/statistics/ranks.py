"""Methods across data sets: average ranks, Friedman's test, and the critical difference of Nemenyi (Demsar 2006).

Scores of different data sets have different scales, so only their order within a data set counts. A data set is one
observation, whatever its numbers of seeds and items.
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
    """Comparison of methods across data sets.

    Attributes:
      methods: names, in the order of the columns.
      datasets: number of data sets.
      ranks: mean rank of each method; 1 = best.
      chi2, p_chi2: Friedman's statistic and its p by the chi-square distribution, an approximation for more than 10
        data sets and 5 methods; None without a test.
      f, p_f: Iman and Davenport's (1980) version of it, less conservative; likewise approximate.
      p: of the same statistic by permutation of the ranks within each data set, valid for any number of data sets.
      critical_difference: smallest difference of mean ranks that is significant (Nemenyi 1963).
      cliques: groups of methods without significant differences, as indices into ``methods``, best first.
      note: limits due to few data sets; else empty.
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
    """The methods that all data sets have scores of: their names, the data sets' names, and the scores.

    Args:
      tables: by data set, the score of each method; None = no score.
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
    """Rank of each method in each data set, 1 = best; ties share their mean rank.

    Args:
      higher_is_better: for all data sets, or one for each.

    Raises:
      UsageError: not a table of finite numbers.
    """
    from scipy.stats import rankdata

    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise UsageError(f"ranks need a score of every method on every data set [datasets, methods], got {scores}")
    sign = np.where(np.broadcast_to(higher_is_better, len(scores)), -1.0, 1.0)[:, None]
    return rankdata(sign * scores, axis=1)


def critical_difference(methods: int, datasets: int, level: float = 0.05) -> float:
    """Smallest significant difference of mean ranks of ``k`` methods, ``q sqrt(k (k + 1) / 6N)`` (Nemenyi 1963)."""
    from scipy.stats import studentized_range

    q = studentized_range.isf(level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def cliques(ranks: Sequence[float], difference: float) -> tuple[tuple[int, ...], ...]:
    """Maximal groups of two or more methods whose mean ranks differ by less than ``difference``, best first."""
    order = np.argsort(ranks, kind="stable")
    ordered = np.asarray(ranks, np.float64)[order]
    groups, reached = [], 0
    for start in range(len(order)):
        stop = int(np.searchsorted(ordered, ordered[start] + difference - 1e-12, side="left"))
        if stop > max(reached, start + 1):  # else a subset of the last one
            groups.append(tuple(int(place) for place in order[start:stop]))
            reached = stop
    return tuple(groups)


def compare(
    scores: Float[np.ndarray, "datasets methods"] | Sequence[Sequence[float]],
    methods: Sequence[str],
    *,
    higher_is_better: Any = True,
    level: float = 0.05,
    permutations: int = 10_000,
    seed: int = 0,
) -> Ranks:
    """Friedman's test that all methods are equal across data sets (Friedman 1937), and which pairs differ.

    Args:
      scores: ``[datasets, methods]``, means over seeds.
      methods: names of the columns.
      higher_is_better: for all data sets, or one for each.
      level: of the critical difference.

    Raises:
      UsageError: another number of scores than names, or fewer than two methods.
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
    """Friedman's chi-square, corrected for ties, and Iman and Davenport's F, each with its p."""
    from scipy.special import chdtrc, fdtrc
    from scipy.stats import friedmanchisquare

    datasets, count = ranked.shape
    if np.ptp(ranked, axis=1).max() == 0:  # all equal everywhere
        return 0.0, 1.0, 0.0, 1.0
    if count > 2:
        chi2 = float(friedmanchisquare(*ranked.T).statistic)
    else:  # SciPy needs three methods; for two it is the sign test's statistic
        difference = ranked[:, 0] - ranked[:, 1]
        chi2 = float(difference.sum() ** 2 / (difference**2).sum())
    p_chi2 = float(chdtrc(count - 1, chi2))
    rest = datasets * (count - 1) - chi2
    if rest <= 1e-9 * chi2:  # the same order everywhere: F is infinite
        return chi2, p_chi2, None, 0.0
    f = (datasets - 1) * chi2 / rest
    return chi2, p_chi2, f, float(fdtrc(count - 1, (count - 1) * (datasets - 1), f))


def _permutation(ranked: np.ndarray, permutations: int, seed: int) -> float:
    """Share of permutations within data sets whose mean ranks vary as much, the observed one included."""
    draw = np.random.default_rng(seed)
    datasets, count = ranked.shape
    middle = datasets * (count + 1) / 2
    observed = ((ranked.sum(0) - middle) ** 2).sum()
    extreme, left = 0, permutations
    while left:
        height = min(left, max(1, _BLOCK // ranked.size))
        sums = draw.permuted(np.broadcast_to(ranked, (height, datasets, count)), axis=2).sum(1)
        extreme += int((((sums - middle) ** 2).sum(1) >= observed - 1e-9).sum())
        left -= height
    return (1 + extreme) / (1 + permutations)
