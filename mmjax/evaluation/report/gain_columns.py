"""The columns of gains: over single modalities, or over the rows that a table names where none can be asked alone."""

from typing import Any

from mmjax.evaluation.protocol import CONTROLS
from mmjax.evaluation.report.cells import Cell, Column, Row, Unit, decimal, gain, value
from mmjax.typing import Mapping

__all__ = ["gain_columns", "unit_of_tests"]

SINGLE = ("a single modality", "every single modality, each time")
ROW = ("the row it is compared with", "the row it is compared with,")
"""What a gain is over, in the texts on p and on verdicts."""


def unit_of_tests(summary: Mapping[str, Any]) -> str:
    """What intervals and tests draw."""
    plain = summary["unit"] == "item" or summary["groups"] == summary["items"]["test"]
    return "test items" if plain else f"groups of test items ({summary['group']})"


def gain_columns(summary: Mapping[str, Any]) -> list[Column]:
    """Those over single modalities or, where rows name others, over those."""
    if any(row.get("versus") for row in summary["rows"]):
        return _gains_over_rows(summary)
    best = {row["section"]: row["name"] for row in summary["rows"] if row.get("best_single")}

    def over_single(row: Row) -> Cell:
        if row.get("best_single"):
            return Cell("best single")
        shown = gain(summary, cell := row.get("gain"))
        if not cell or cell["over"] == best.get(row["section"]):
            return shown
        return Cell(f"{shown.text} over {cell['over']}", shown.order)

    def over_each(row: Row) -> Cell:
        cells = row.get("gains") or {}
        text = "; ".join(f"{name} {gain(summary, cell).text}" for name, cell in cells.items())
        return Cell(text, min(cell["mean"] for cell in cells.values())) if cells else Cell()

    return [
        Column("gain", "gain over best single", "gain", "Over the single modality of the same section over which it "
               "is smallest, same seeds, same items; that one is named where it is not the best single modality on "
               "validation. In brackets the 95 % interval of the smallest true gain. Of a control: over the best "
               "single modality on validation.", ("gain",), over_single),
        Column("over_each", "gain over each single", "gain", "Over each single modality of the section, with its 95 % "
               "interval.", ("gains",), over_each),
        Column("p", "p", "gain", _meaning_of_p(summary, SINGLE), ("gain",), _p),
        Column("verdict", "verdict", "gain", _meaning_of_verdict(summary, SINGLE), ("gain",), _verdict),
        Column("gain_late_mean", "gain over late mean", "gain", "Over the mean of the single modalities' logits, which "
               "needs no training of its own.", ("gain_late_mean",),
               lambda row: gain(summary, row.get("gain_late_mean"))),
        Column("gain_ensemble", "gain over ensemble", "gain",
               "Over an ensemble of the best single modality, as many members "
               "as there are modalities: what more models of one modality give without any fusion.", ("gain_ensemble",),
               lambda row: gain(summary, row.get("gain_ensemble"))),
    ]  # fmt: skip


def _p(row: Row) -> Cell:
    cell = row.get("gain")
    if not cell or len(cell["seeds"]) < 3:
        return Cell()
    control = row.get("role") in CONTROLS and cell.get("p_holm") is None
    number = cell.get("p") if control else cell.get("p_holm")
    if number is None:
        return Cell()
    text = "<0.001" if number < 0.001 else decimal(number, 3)
    return Cell(f"({text})" if control else text, number)


def _verdict(row: Row) -> Cell:
    cell = row.get("gain")
    if not cell or not cell.get("verdict") or len(cell["seeds"]) < 3:
        return Cell()
    return Cell(cell["verdict"] + ", trivial" * bool(cell.get("trivial")), cell["verdict"])


def _gains_over_rows(summary: Mapping[str, Any]) -> list[Column]:
    """Where no modality can be asked alone: gains over the rows that the table names."""

    def over(row: Row) -> Cell:
        cell = row.get("gain")
        shown = gain(summary, cell)
        return Cell(f"{shown.text} over {cell['over']}", shown.order) if cell else shown

    return [
        Column("gain", "gain over an earlier row", "gain", "Over the row that is named, same seeds, same items; in "
               "brackets the 95 % interval of the true gain.", ("gain", "versus"), over),
        Column("p", "p", "gain", _meaning_of_p(summary, ROW), ("gain",), _p),
        Column("verdict", "verdict", "gain", _meaning_of_verdict(summary, ROW), ("gain",), _verdict),
    ]  # fmt: skip


def _meaning_of_p(summary: Mapping[str, Any], opponent: tuple[str, str]) -> str:
    count = summary.get("comparisons")
    count = count if count is not None else sum(bool(row.get("gain")) for row in summary["rows"])
    several = (
        "Of several single modalities the largest counts for `better`, the smallest times their number for `worse`. "
    ) * (opponent is SINGLE)
    text = (
        f"Of no gain over {opponent[0]}: the largest of a sign-flip permutation test over {unit_of_tests(summary)} "
        "(all patterns of signs, or 10,000 draws where there are more), a paired t-test over seeds, and a t-test whose "
        f"standard error has both sources. {several}Corrected for {count} comparisons (Holm); in brackets that of a "
        "control, which is no comparison of the table and not corrected."
    )
    if not Unit.of(summary).is_mean:
        text += (
            " The metric is of the whole set: what an item adds to it is its jackknife pseudo-value, with which "
            "intervals and tests are approximate."
        )
    if summary.get("smallest_p") is None:
        return text
    return text + f" The smallest p that a row of this table can get is {summary['smallest_p']:.2g}."


def _meaning_of_verdict(summary: Mapping[str, Any], opponent: tuple[str, str]) -> str:
    unit = Unit.of(summary)
    near = bool(unit.near)
    trivial = f" (`trivial`: yet within {unit.near})" * near
    margin = f"`equivalent`: the 90 % interval of the gain lies within {unit.near} of zero; " * near
    one = "than at least one of them, " * (opponent is SINGLE)
    text = (
        f"`better`: than {opponent[1]} with a 95 % interval above zero and p < 0.05; `worse`: {one}likewise{trivial}; "
        f"{margin}`inconclusive`: none of these. Fewer than 5 seeds allow no verdict. In simulated tables "
        "without any difference fewer than 5 % have a `better`, and fewer than 5 % a `worse` (benchmarks/verdicts.md)."
    )
    if summary.get("detectable_gain") is not None:
        size = value(summary, summary["detectable_gain"]) + (" points" if unit.percent else "")
        return text + (
            f" This table finds a true gain of {size} over {opponent[0]} with 80 % probability, if that row alone "
            "has one: (t(1 - 0.05/2k) + t(0.8)) times its standard error, k the number of comparisons; median over "
            "rows."
        )
    if (summary.get("smallest_p") or 0) >= 0.05:
        return text + " With so few units and so many rows no gain whatever can get one here."
    return text
