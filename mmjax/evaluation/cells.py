"""How a number stands in a table: units, digits, signs, and what it is sorted by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmjax.typing import Mapping

__all__ = ["NONE", "Cell", "brackets", "count", "gain", "minus", "paper", "value"]

NONE = "–"


class Cell(NamedTuple):
    """What stands in the table, and the number or word it is sorted by (None = at the end)."""

    text: str = NONE
    order: float | str | None = None


def value(summary: Mapping[str, Any], number: float | None, sign: bool = False) -> str:
    """In the units of the table: percent with one decimal, or the target's own with three."""
    if number is None:
        return NONE
    factor, digits = (100, 1) if summary["primary"] == "accuracy" else (1, 3)
    return minus(f"{number * factor + 0.0:{'+' if sign else ''}.{digits}f}")


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
    least = 1 if summary["primary"] == "accuracy" else 3
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


def minus(text: str) -> str:
    """The minus sign instead of a hyphen, which breaks lines."""
    return text.replace("-", "−")
