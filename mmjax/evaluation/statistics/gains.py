"""Gains of the rows of a table over each single modality of their section, and the verdict on each fusion."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.evaluation.protocol import CONTROLS
from mmjax.evaluation.scores import Score
from mmjax.evaluation.scores.classes import right
from mmjax.evaluation.statistics import significance
from mmjax.typing import Float, Mapping, Shaped

__all__ = ["Scored", "add_gains", "best_singles", "gain_cell", "value_interval"]


UNTESTED: Mapping[str, Any] = {"p_holm": None, "verdict": None, "trivial": False, "below": [], "detectable": None}


class Scored(NamedTuple):
    """A finished row's seeds and its scores on test, ``[seeds, items]``; higher is better."""

    seeds: Sequence[int]
    scores: Float[np.ndarray, "seeds items"]


def add_gains(
    rows: Sequence[dict[str, Any]],
    scored: Mapping[str, Scored],
    groups: Shaped[np.ndarray, " items"],
    *,
    metric: Score,
) -> dict[str, Any]:
    """Writes ``best_single``, ``gains`` and ``gain`` into the rows; returns the power of the table as a whole.

    ``gains`` has a cell for each single modality of the row's section (of a row with ``versus``: for the row named
    there alone), ``gain`` is the smallest of them with its verdict: ``better`` than all, ``worse`` than at least one.
    Holm's correction is for the number of rows that have a gain.
    Controls are not hypotheses about fusion: their gain is that over the best single modality on validation, without
    a verdict, and they do not count in the correction.

    Args:
      rows: of the summary, with ``validation`` in the units of the metric.
      scored: of the finished rows.
      metric: the table's; gains within its margin are negligible.
    """
    best = best_singles(rows, metric.sign, by=lambda row: row["section"])
    tested: list[tuple[dict[str, Any], list[significance.Gain], significance.SmallestGain]] = []
    for row in rows:
        champion = best.get(row["section"])
        row |= {"best_single": row is champion, "gain": None, "gains": {}}
        if row["name"] not in scored or (len(row["streams"]) < 2 and not row.get("versus")):
            continue
        if row.get("versus"):
            alone = [one for one in rows if one["name"] == row["versus"] and one["name"] in scored]
        elif champion is not None:
            alone = [
                one for one in rows if one["single"] and one["section"] == row["section"] and one["name"] in scored
            ]
        else:
            continue
        pairs = {}
        for one in alone:
            if pair := _compare(scored[row["name"]], scored[one["name"]], groups, metric):
                pairs[one["name"]] = pair
        row["gains"] = {name: _cell(name, *pair) for name, pair in pairs.items()}
        name = row.get("versus") or (champion or row)["name"]
        if not pairs or (row["role"] in CONTROLS and name not in pairs):
            continue
        if row["role"] in CONTROLS:
            row["gain"] = row["gains"][name] | UNTESTED
            continue
        names, gains = list(pairs), [pair[1] for pair in pairs.values()]
        smallest = significance.smallest_gain(gains, [pair[2] for pair in pairs.values()])
        fewest = min((pair[0] for pair in pairs.values()), key=len)
        bounds = {name: getattr(smallest, name) for name in ("mean", "lower", "upper", "lower90", "upper90", "p")}
        row["gain"] = row["gains"][names[smallest.place]] | bounds | {"seeds": fewest}
        tested.append((row, gains, smallest))
    for (row, gains, smallest), p in zip(tested, significance.holm([smallest.p for _, _, smallest in tested])):
        cell, count = row["gain"], len(gains)
        verdict = significance.verdict(smallest, float(p), len(cell["seeds"]), metric.margin)
        below = [name for name, gain in zip(row["gains"], gains) if gain.bounds(1 - 0.05 / count)[1] < 0]
        cell |= {"p_holm": float(p), "verdict": verdict.name, "trivial": verdict.trivial}
        cell |= {"below": below if verdict.name == "worse" else []}
        cell["detectable"] = significance.detectable_gain(gains, len(tested)) if len(cell["seeds"]) > 2 else None
    return _power([row["gain"] for row, _, _ in tested], groups)


def gain_cell(
    ours: Scored, theirs: Scored, name: str, groups: Shaped[np.ndarray, " items"], metric: Score
) -> dict[str, Any] | None:
    """The paired gain over another row as data, without a verdict; None if they share no seed."""
    pair = _compare(ours, theirs, groups, metric)
    return _cell(name, *pair) if pair else None


def value_interval(
    scores: Float[np.ndarray, "seeds items"], groups: Shaped[np.ndarray, " items"], metric: Score
) -> significance.Interval:
    """The interval of the metric's mean over seeds, of other seeds and other items, in the units of the metric.

    Args:
      scores: contributions of items, higher is better.
    """
    interval = significance.crossed_interval(scores, groups, share=metric.is_share)
    lower, upper = sorted((metric.sign * interval.lower, metric.sign * interval.upper))
    return interval._replace(lower=lower, upper=upper)


def _power(cells: Sequence[Mapping[str, Any]], groups: np.ndarray) -> dict[str, Any]:
    """Number of comparisons, the smallest attainable corrected p, and the detectable gain."""
    if not cells:
        return {"comparisons": 0, "smallest_p": None, "detectable_gain": None}
    units = np.unique(groups).size
    units = units if units >= significance.MIN_GROUPS else len(groups)
    least = min(1.0, len(cells) * significance.smallest_p(units))
    gains = [cell["detectable"] for cell in cells if cell["detectable"] is not None]
    shown = float(np.median(gains)) if gains and least < 0.05 else None
    return {"comparisons": len(cells), "smallest_p": least, "detectable_gain": shown}


def best_singles(
    rows: Sequence[dict[str, Any]], sign: int, *, by: Callable[[Mapping[str, Any]], str]
) -> dict[str, dict[str, Any]]:
    """The finished row of one modality with the best validation score, the first of ties, for each value of ``by`` (its
    section, its modality).
    """
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["status"] == "done" and row["single"]:
            champion = best.setdefault(by(row), row)
            if sign * row["validation"] > sign * champion["validation"]:
                best[by(row)] = row
    return best


def _compare(
    ours: Scored, theirs: Scored, groups: np.ndarray, metric: Score
) -> tuple[list[int], significance.Gain, float] | None:
    """The common seeds, the paired gain over them, and its p (McNemar's for accuracies of one seed)."""
    seeds = [seed for seed in ours.seeds if seed in theirs.seeds]
    if not seeds:
        return None
    scores, reference = (one.scores[[list(one.seeds).index(seed) for seed in seeds]] for one in (ours, theirs))
    gain = significance.paired_gain(scores, reference, groups)
    exact = len(seeds) == 1 and metric.items is right
    return seeds, gain, significance.mcnemar(scores[0], reference[0]) if exact else gain.p


def _cell(name: str, seeds: list[int], gain: significance.Gain, p: float) -> dict[str, Any]:
    return {"over": name, "seeds": seeds, **dataclasses.asdict(gain), "p": p}
