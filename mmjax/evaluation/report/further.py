"""Further scores of a table beside its primary one: means, and intervals, gains and verdicts of those it judges by."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.evaluation.report.cells import Cell, Column, Row, decimal, gain, value
from mmjax.evaluation.scores import Score
from mmjax.evaluation.scores import score as find_score
from mmjax.evaluation.statistics.gains import Scored, add_gains, value_interval
from mmjax.typing import Mapping

__all__ = ["add_judged", "further_columns"]


def add_judged(
    rows: Sequence[dict[str, Any]],
    logits: Mapping[str, tuple[Sequence[int], np.ndarray]],
    targets: tuple[Any, np.ndarray],
    *,
    names: Sequence[str],
    primary: Score,
) -> None:
    """Writes ``judged`` into the finished rows: by name of a score its ``mean``, ``interval`` and ``gain``.

    Rows are compared as by the primary score, which has chosen epochs and the best single modality on validation.
    Holm's correction is for the gains by one score: a claim that looks among scores for one has to correct for that.

    Args:
      rows: of the summary.
      logits: seeds and test outputs of the finished rows.
      targets: of test, and the groups of its items.
    """
    target, groups = targets
    for name in names:
        score = find_score(name)
        scored = {row: Scored(seeds, score.per_item(outputs, target)) for row, (seeds, outputs) in logits.items()}
        # the best of validation is that of the primary score, in whichever direction this one counts
        turn = primary.sign * score.sign
        copies = [{**row, **({"validation": turn * row["validation"]} if "validation" in row else {})} for row in rows]
        add_gains(copies, scored, groups, metric=score)
        for row, copy in zip(rows, copies):
            if row["name"] not in scored:
                continue
            values = score.sign * scored[row["name"]].scores
            interval = value_interval(scored[row["name"]].scores, groups, score)
            ends = [interval.lower, interval.upper] if len(values) > 2 else None
            cell = {"mean": values.mean(), "interval": ends, "gain": copy["gain"]}
            row.setdefault("judged", {})[name] = cell


def further_columns(summary: Mapping[str, Any]) -> list[Column]:
    """The mean of each further score in its own unit and, where the table judges by it, interval, gain and verdict."""
    columns, judged = [], summary.get("judged", ())
    for one in summary.get("also", ()):
        columns.append(_mean(one))
        if one["name"] in judged:
            columns += _judged({**summary, "score": one, "metric_name": one["name"]})
    return columns


def _mean(one: Mapping[str, Any]) -> Column:
    def cell(row: Row) -> Cell:
        number = (row.get("metrics") or {}).get(one["name"])
        return Cell() if number is None else Cell(decimal(number * one["factor"], one["digits"]), number)

    meaning = f"{one['convention'][:1].upper()}{one['convention'][1:]}; mean over seeds."
    title = f"{one['name']} {one['unit']}".rstrip()  # labels are too long to stand side by side
    return Column(one["name"], title, "result", meaning, ("metrics",), cell)


def _judged(summary: Mapping[str, Any]) -> list[Column]:
    """``summary``: of a table whose score this one is, so that numbers are printed in its unit."""
    name = summary["metric_name"]

    def interval(row: Row) -> Cell:
        ends = ((row.get("judged") or {}).get(name) or {}).get("interval")
        return Cell(" to ".join(value(summary, end) for end in ends), ends[0]) if ends else Cell()

    def gained(row: Row) -> Cell:
        cell = ((row.get("judged") or {}).get(name) or {}).get("gain")
        shown = gain(summary, cell)
        if not cell:
            return shown
        said = f", {cell['verdict']}" if cell.get("verdict") and len(cell["seeds"]) > 2 else ""
        return Cell(f"{shown.text}{said}", shown.order)

    return [
        Column(f"interval_{name}", f"{name}, interval", "result", "95 % interval, as that of the table's score.",
               ("judged",), interval),
        Column(f"gain_{name}", f"{name}, gain", "gain", "Over the row that the gain by the table's score is over, with "
               "its 95 % interval and verdict; p is corrected for the gains by this score alone (Holm).", ("judged",),
               gained),
    ]  # fmt: skip
