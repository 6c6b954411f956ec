"""The one table that markdown, LaTeX and page show: its columns, its lines of cells, and what stands around them."""

import dataclasses
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from mmjax.evaluation.report.cells import Cell, Unit, absence, paper, value
from mmjax.evaluation.report.columns import CLOCK, Column, columns
from mmjax.evaluation.report.kinds import best_rows, kind_of, sections, usual_seeds
from mmjax.evaluation.statistics.significance import MIN_GROUPS
from mmjax.typing import Mapping

__all__ = ["Frame", "Line", "make_frame"]


class Line(NamedTuple):
    """A line of the table.

    Attributes:
      name: of the row, or of a value that is known without training, or published.
      cells: by the key of their column; one that is not there is empty.
      marks: what stands behind the name: the number of its note, of its seeds, that it breaks a rule.
      row: of ``table.json``, empty for what is none.
      place: of that row; None = no row of this table.
      kind: of the row, as ``kind_of``.
      best: whether it is the best of its section on test.
    """

    name: str
    cells: Mapping[str, Cell]
    marks: Sequence[str] = ()
    row: Mapping[str, Any] = MappingProxyType({})
    place: int | None = None
    kind: str = ""
    best: bool = False

    @property
    def done(self) -> bool:
        """Whether the row has run."""
        return self.row.get("status") == "done"

    @property
    def label(self) -> str:
        """The name with its marks."""
        return " ".join([self.name, *self.marks])

    def cell(self, column: Column) -> Cell:
        """What stands in a column."""
        return self.cells.get(column.key, Cell())


@dataclasses.dataclass(frozen=True)
class Frame:
    """A table with every cell as it is printed.

    Attributes:
      summary: what ``table.json`` holds.
      columns: without those of a clock.
      clocks: the columns that a clock measured: only the page shows them.
      blocks: titles with their lines: what ignoring the input reaches, the rows by section, and published numbers that
        nothing here ran.
      facts: what a reader must know before the table: data, metric, seeds, and what limits the conclusions.
      notes: of the rows, in the order of their numbers.
      best_singles: of each section the single modality that validation chose, with the one ahead of it on test.
    """

    summary: Mapping[str, Any]
    columns: Sequence[Column]
    clocks: Sequence[Column]
    blocks: Sequence[tuple[str, Sequence[Line]]]
    facts: Sequence[str]
    notes: Sequence[str]
    best_singles: Sequence[tuple[str, str]]


def make_frame(summary: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> Frame:
    """The table of what ``table.json`` and, as far as it is given, ``timing.json`` hold."""
    every = columns(summary, timing)
    notes = list(dict.fromkeys(row["notes"] for row in summary["rows"] if row["notes"]))
    places = {row["name"]: place for place, row in enumerate(summary["rows"])}
    seeds = usual_seeds(summary)
    bounds = [("chance", summary["chance"]), ("majority class of the test items", summary["majority"])]
    bounds += [(one["name"], one["value"]) for one in summary.get("known", ())]
    constants = [Line(name, {"ours": Cell(value(summary, x), x)}) for name, x in bounds if x is not None]
    blocks = [("Known without training", constants)]
    for title, rows in sections(summary["rows"]):
        best = best_rows(rows, summary["higher_is_better"])
        lines = [
            Line(
                name=row["name"],
                cells=_cells(row, every),
                marks=_marks(row, notes, seeds),
                row=row,
                place=places[row["name"]],
                kind=kind_of(row),
                best=row["name"] in best,
            )
            for row in rows
        ]
        blocks.append((title, lines))
    blocks.append(("Published, not run here", [_published(summary, one) for one in summary["references"]]))
    return Frame(
        summary=summary,
        columns=[column for column in every if column.group != CLOCK],
        clocks=[column for column in every if column.group == CLOCK],
        blocks=[(title, lines) for title, lines in blocks if lines],
        facts=_facts(summary),
        notes=notes,
        best_singles=_best_singles(summary),
    )


def _cells(row: Mapping[str, Any], every: Sequence[Column]) -> dict[str, Cell]:
    if row["status"] == "done":
        return {column.key: column.cell(row) for column in every}
    why = absence(row)
    cells = {column.key: column.cell(row) for column in every if column.key in ("paper", "target")}
    return cells | {"ours": Cell(why.partition(":")[0], note=why)}


def _published(summary: Mapping[str, Any], one: Mapping[str, Any]) -> Line:
    cells = {"paper": paper(summary, one), "ours": Cell("not run")}
    if reason := one.get("cannot_run"):
        cells["target"] = Cell("cannot run", "cannot run", reason)
    return Line(one["name"], cells)


def _marks(row: Mapping[str, Any], notes: Sequence[str], seeds: int) -> list[str]:
    marks = [f"[{notes.index(row['notes']) + 1}]"] if row["notes"] else []
    if row["status"] == "done":
        if (own := len(row["seeds"])) != seeds:
            marks.append(f"({own} seed{'s' * (own > 1)})")
        marks += ["(non-conforming)"] * (not row["conforming"])
    return marks


ANSWERS = {
    "values": "a number",
    "labels": "any number of labels, each with a logit of its own",
    "ranks": "a place among candidates",
    "tokens": "a class for every step of an item",
    "other": "what the task keeps of its outputs",
}
"""What an item's answer is, by the kind of outputs; without one class an item some of the report is not defined."""


def _facts(summary: Mapping[str, Any]) -> list[str]:
    data, items, seeds = summary["dataset"], summary["items"], usual_seeds(summary)
    of = "" if summary["groups"] == items["test"] else f" in {summary['groups']} groups ({summary['group']})"
    split = f", split {data['split_id']}" if data["split_id"] else ""
    facts = [
        f"Data: {data['name']} {data['version']}{split}; {items['test']:,} test items{of}, {items['validation']:,} for "
        f"validation. {Unit.of(summary).heading}, {seeds} seed{'s' * (seeds != 1)} a row unless a row says otherwise."
    ]
    if summary["groups_cross"]:
        facts.append(f"The published split is used as it is: groups ({summary['group']}) stand in both train and test.")
    if summary["unit"] == "item":
        facts.append(
            f"Fewer than {MIN_GROUPS} test groups ({summary['group']}): intervals and tests draw items instead and "
            "speak for these groups only."
        )
    if answer := ANSWERS.get((summary.get("score") or {}).get("outputs", "classes")):
        facts.append(
            "Left out, since they are of probabilities of one class an item: calibration, what the single modalities' "
            f"decisions share, and decision-level rules other than a mean. The answer here is {answer}."
        )
    return facts


def _best_singles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    sign = 1 if summary["higher_is_better"] else -1
    singles = []
    for title, rows in sections(summary["rows"]):
        alone = [row for row in rows if row["status"] == "done" and row["single"]]
        for row in (one for one in alone if one.get("best_single")):
            ahead = max(alone, key=lambda one: sign * one["mean"])
            lead = sign * (ahead["mean"] - row["mean"])
            more = f", chosen on validation; on test {ahead['name']} is ahead by {value(summary, lead)}" * (lead > 0)
            singles.append((title, row["name"] + more))
    return singles
