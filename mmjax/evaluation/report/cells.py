"""How a number stands in a table: units, digits, signs, and what it is sorted by."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mmjax.evaluation.scores import score
from mmjax.typing import Mapping

__all__ = ["NONE", "Cell", "Column", "Row", "Unit", "absence", "brackets", "count", "decimal", "gain", "paper", "value"]

NONE = "–"


class Cell(NamedTuple):
    """What stands in the table, the number or word it is sorted by (None = at the end), and what more is to be said."""

    text: str = NONE
    order: float | str | None = None
    note: str = ""


Row = Mapping[str, Any]
"""A row of ``table.json``."""


class Column(NamedTuple):
    """One column.

    Attributes:
      key: short name, a word.
      title: its heading.
      group: what it belongs to; a page can hide a group.
      meaning: one or two sentences for the legend.
      fields: the fields of a row in ``table.json`` that the cell is made of.
      cell: of a finished row.
    """

    key: str
    title: str
    group: str
    meaning: str
    fields: tuple[str, ...]
    cell: Callable[[Row], Cell]


@dataclasses.dataclass(frozen=True)
class Unit:
    """The primary metric of a table as it is printed.

    Attributes:
      name: with its convention.
      label: in words.
      factor: from a stored number to the printed one.
      digits: of the printed one.
      percent: whether it is a share in percent, of which differences are points.
      higher_is_better: else an error.
      margin: a difference that does not matter, in stored units; None = none is known.
      is_mean: whether it is a mean over items.
    """

    name: str
    label: str
    factor: float
    digits: int
    percent: bool
    higher_is_better: bool
    margin: float | None
    is_mean: bool

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> "Unit":
        """That of ``table.json``; tables of older versions name a metric and do not describe it."""
        one = summary.get("score") or score(summary["primary"]).describe()
        name = summary.get("metric_name") or one["name"]
        label = one["label"] if name == one["name"] else f"{one['label']} ({name})"
        kept = {key: one[key] for key in ("factor", "digits", "higher_is_better", "margin", "is_mean")}
        return cls(name=name, label=label, percent=one["unit"] == "%", **kept)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of items, whose interval is taken on the logit."""
        return self.percent and self.is_mean

    @property
    def heading(self) -> str:
        """At the beginning of a sentence."""
        text = self.label[:1].upper() + self.label[1:]
        if self.percent:
            return f"{text} in percent"
        return text if self.higher_is_better else f"{text} (lower is better; a gain above zero is a smaller error)"

    @property
    def short(self) -> str:
        """The name with what is to be known of its numbers."""
        return f"{self.name} %" if self.percent else self.name + ", lower is better" * (not self.higher_is_better)

    @property
    def points(self) -> str:
        """Behind a difference."""
        return " points" if self.percent else f" {self.name}"

    @property
    def near(self) -> str:
        """The difference that does not matter, empty where none is known."""
        if self.margin is None:
            return ""
        size = f"{self.margin * self.factor:.6g}"
        return "1 point" if self.percent and size == "1" else size + self.points


def absence(row: Mapping[str, Any]) -> str:
    """Why a row has no number."""
    if row["status"] == "not defined":
        return "not defined: the metric has no value in some seed (a correlation with a constant)"
    return "not run: name it with --rows" if row["extra"] else "not run"


def decimal(number: float, digits: int, sign: bool = False) -> str:
    """So many digits behind the point, and a minus sign instead of a hyphen, which breaks lines; zero, also what is
    rounded to it, has no sign.

    Example:
      >>> decimal(-1.25, 1), decimal(0.31, 1, sign=True), decimal(-0.04, 1), decimal(0.04, 1, sign=True)
      ('−1.2', '+0.3', '0.0', '0.0')
    """
    text = f"{number:z.{digits}f}"
    if sign and float(text) > 0:
        text = "+" + text
    return text.replace("-", "−")


def value(summary: Mapping[str, Any], number: float | None, sign: bool = False) -> str:
    """In the units of the table: those of its metric."""
    if number is None:
        return NONE
    unit = Unit.of(summary)
    return decimal(number * unit.factor, unit.digits, sign)


def gain(summary: Mapping[str, Any], cell: Mapping[str, Any] | None) -> Cell:
    """A gain with its interval, where there are seeds enough for one."""
    if not cell or cell.get("mean") is None:
        return Cell()
    ends = (cell.get("lower"), cell.get("upper")) if len(cell.get("seeds", ())) > 2 else None
    return Cell(value(summary, cell["mean"], sign=True) + brackets(summary, ends), cell["mean"])


def paper(summary: Mapping[str, Any], published: Mapping[str, Any] | None) -> Cell:
    """Published numbers are in the units of the table already, and keep the digits they were published with."""
    if published is None:
        return Cell()
    least = Unit.of(summary).digits
    decimals = len(repr(float(published["value"])).partition(".")[2])
    text = f"{published['value']:.{least}f}" if decimals <= least else repr(float(published["value"]))
    return Cell(text + " (unchecked)" * (not published["checked"]), published["value"])


def count(number: float) -> str:
    """Three digits and a letter for thousands, millions, billions."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def brackets(summary: Mapping[str, Any], ends: Sequence[float | None] | None) -> str:
    """An interval of a difference, behind it."""
    if ends is None or None in ends:
        return ""
    return " [" + ", ".join(value(summary, end, sign=True) for end in ends) + "]"
