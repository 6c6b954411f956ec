"""The report of a work directory: ``table.json``, ``table.md`` and the plots, the same bytes whenever it is made."""

import collections
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.records import replace_file
from mmjax.evaluation.significance import MIN_GROUPS
from mmjax.evaluation.summary import summarise
from mmjax.typing import Mapping

__all__ = ["format_markdown", "format_table", "summarise", "write_report"]

HEAD = (
    "row", "paper", "ours", "95 % interval", "epoch by test", "gain over best single", "p", "verdict", "ECE",
    "ECE scaled", "params", "FLOPs",
)  # fmt: skip
SHORT = ("row", "paper", "ours", "epoch by test", "gain over best single", "verdict")
NONE = "–"


def write_report(workdir: str | os.PathLike) -> str:
    """Writes ``table.json``, ``table.md`` and ``plots/*.png`` from what is on disk, and returns the markdown.

    Raises:
      UsageError: as ``summarise``.
    """
    from mmjax.evaluation.plots import write_plots

    workdir = pathlib.Path(workdir)
    summary = summarise(workdir)
    text = format_markdown(summary)
    replace_file(workdir / "table.json", (json.dumps(summary, sort_keys=True, indent=1) + "\n").encode())
    replace_file(workdir / "table.md", text.encode())
    write_plots(workdir, summary)
    return text


def format_markdown(summary: Mapping[str, Any]) -> str:
    """The table with its legend; columns are padded, so that it reads as plain text too."""
    usual = _usual_seeds(summary)
    tables = _tables(summary, usual)
    widths = [max(len(row[column]) for row in [HEAD, *(r for _, rows in tables for r in rows)]) for column in range(12)]
    parts = [f"# {summary['title']}", *_preface(summary, usual)]
    rule = "|" + "|".join(_rule(place, width) for place, width in enumerate(widths)) + "|"
    for title, rows in tables:
        lines = [f"## {title}\n", _line(HEAD, widths), rule]
        parts.append("\n".join([*lines, *(_line(row, widths) for row in rows)]))
    if notes := _notes(summary):
        parts.append("\n".join(f"[{number}] {note}" + "  " for note, number in notes.items()))
    parts.append("## What the columns say\n\n" + "\n".join(f"* {line}" for line in _legend(summary)))
    return "\n\n".join(parts) + "\n"


def format_table(summary: Mapping[str, Any]) -> str:
    """The main columns as plain text, for a terminal."""
    usual = _usual_seeds(summary)
    places = [HEAD.index(name) for name in SHORT]
    short = [(title, [[row[place] for place in places] for row in rows]) for title, rows in _tables(summary, usual)]
    widths = [max(len(row[c]) for row in [SHORT, *(r for _, rows in short for r in rows)]) for c in range(len(SHORT))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()

    lines = [summary["title"], "", line(SHORT), "  ".join("-" * width for width in widths)]
    for title, rows in short:
        lines += [f"{title}:", *(line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _sections(summary: Mapping[str, Any]) -> list[tuple[str, list[dict]]]:
    """Rows by section, both in the order of the table."""
    sections: dict[str, list[dict]] = {}
    for row in summary["rows"]:
        sections.setdefault(row["section"], []).append(row)
    return list(sections.items())


def _tables(summary: Mapping[str, Any], usual: int) -> list[tuple[str, list[list[str]]]]:
    """Titles and cells: what ignoring the input reaches, the rows, and published numbers that nothing here ran."""
    blank = [NONE] * (len(HEAD) - 3)
    ignorant = [("chance", summary["chance"]), ("majority class of the test items", summary["majority"])]
    ignorant += [(known["name"], known["value"]) for known in summary["known"]]
    bounds = [[name, NONE, _value(summary, value), *blank] for name, value in ignorant if value is not None]
    published = [[_escape(p["name"]), _paper(summary, p), "not run", *blank] for p in summary["references"]]
    tables = [("Known without training", bounds)]
    for title, rows in _sections(summary):
        tables.append((title or "Methods", [_cells(summary, row, usual) for row in rows]))
    return [(title, rows) for title, rows in (*tables, ("Published, not run here", published)) if rows]


def _usual_seeds(summary: Mapping[str, Any]) -> int:
    counts = collections.Counter(len(row["seeds"]) for row in summary["rows"] if row["status"] == "done")
    return max(counts, key=lambda n: (counts[n], n)) if counts else len(summary["seeds"])


def _cells(summary: Mapping[str, Any], row: Mapping[str, Any], usual: int) -> list[str]:
    name = _escape(row["name"])
    if row["notes"]:
        name += f" [{_notes(summary)[row['notes']]}]"
    paper = _paper(summary, row["paper"])
    if row["status"] != "done":
        return [name, paper, "not run: name it with --rows" if row["extra"] else "not run", *[NONE] * 9]
    if len(row["seeds"]) != usual:
        name += f" ({len(row['seeds'])} seed{'s' * (len(row['seeds']) > 1)})"
    name += " (non-conforming)" * (not row["conforming"])
    ours = _value(summary, row["mean"])
    if row["half_width"]:  # zero where nothing varies with the seed
        ours += f" ± {_value(summary, row['half_width'])}"
    interval = NONE if row["interval"] is None else " to ".join(_value(summary, bound) for bound in row["interval"])
    calibration = row["calibration"] or {}
    return [
        name,
        paper,
        ours,
        interval,
        _value(summary, row["test_selected"]),
        *_gain_cells(summary, row),
        _percent(calibration.get("ece")),
        _percent(calibration.get("ece_scaled")),
        _count(row["params"] or None),
        _count(row["flops"]),
    ]


def _gain_cells(summary: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Gain, p and verdict."""
    gain = row["gain"]
    if gain is None:
        return ["best single" if row["best_single"] else NONE, NONE, NONE]
    text = _value(summary, gain["mean"], sign=True)
    if len(gain["seeds"]) < 3:
        return [text, NONE, NONE]
    text += f" [{_value(summary, gain['lower'], sign=True)}, {_value(summary, gain['upper'], sign=True)}]"
    p = "<0.001" if gain["p_holm"] < 0.001 else f"{gain['p_holm']:.3f}"
    return [text, p, gain["verdict"] + ", trivial" * gain["trivial"]]


def _preface(summary: Mapping[str, Any], usual: int) -> list[str]:
    data, items = summary["dataset"], summary["items"]
    parts = [summary["note"]] if summary["note"] else []
    # A group of one item is the item: then there is nothing more to say of groups.
    of = "" if summary["groups"] == items["test"] else f" in {summary['groups']} groups ({summary['group']})"
    split = f", split {data['split_id']}" if data["split_id"] else ""
    parts.append(
        f"Data: {data['name']} {data['version']}{split}; {items['test']:,} test items{of}, {items['validation']:,} for "
        f"validation. {_metric(summary)}, {usual} seed{'s' * (usual != 1)} a row unless a row says otherwise."
    )
    if summary["groups_cross"]:
        parts.append(f"The published split is used as it is: groups ({summary['group']}) stand in both train and test.")
    if summary["unit"] == "item":
        parts.append(
            f"Fewer than {MIN_GROUPS} test groups ({summary['group']}): intervals and tests draw items instead and "
            "speak for these groups only."
        )
    return parts


def _legend(summary: Mapping[str, Any]) -> list[str]:
    plain = summary["unit"] == "item" or summary["groups"] == summary["items"]["test"]
    unit = "test items" if plain else f"groups of test items ({summary['group']})"
    compared = sum(row["gain"] is not None for row in summary["rows"] if row["status"] == "done")
    accuracy = summary["primary"] == "accuracy"
    margin = " (`trivial`: yet within 1 point); `equivalent`: the 90 % interval of the gain lies within 1 point of zero"
    papers = [row["paper"] for row in summary["rows"] if row["paper"]] + summary["references"]
    sources = "; ".join(dict.fromkeys(paper["source"] for paper in papers))
    lines = [
        "**paper**: the published number. `unchecked`: recalled, not yet compared with the paper itself."
        + f" From: {sources}." * bool(sources),
        "**ours**: mean over seeds ± half the 95 % interval over seeds (t); the epoch is chosen on validation. The "
        "interval shows what the chance in training does, on these test items; a row "
        "without ± gives the same with every seed.",
        f"**95 % interval**: bootstrap over seeds and {unit}: what other seeds and other test data of the kind would "
        "give. Wider, and the one to judge by.",
        "**epoch by test**: the same runs with each seed's epoch chosen on the test set. No result: it shows what that "
        "choice adds to a published number.",
        "**gain over best single**: over the single modality of the same section with the best validation score, same "
        f"seeds, same items; in brackets the 95 % interval over seeds and {unit}.",
        f"**p**: of no gain: the larger of a sign-flip permutation test over {unit} (10,000 flips) and a paired t-test "
        f"over seeds, corrected for {compared} comparisons (Holm).",
        "**verdict**: `better` or `worse`: the 95 % interval excludes zero and p < 0.05"
        f"{margin * accuracy}; `inconclusive`: neither. Fewer than 5 seeds allow none.",
    ]
    if accuracy:
        lines.append(
            "**ECE**, **ECE scaled**: expected calibration error in points (15 bins of equal mass), as trained and, "
            "scaled, with a temperature fitted on validation. Biased upwards on few items; scores of an SVM are "
            "read as logits."
        )
    lines.append("**params**, **FLOPs**: trained parameters; operations of one example's forward pass (– not counted).")
    for title, rows in _sections(summary):
        for row in rows:
            if row["best_single"]:
                lines.append(f"Best single modality{f', {title}' if title else ''}: {_escape(row['name'])}.")
    return lines


def _notes(summary: Mapping[str, Any]) -> dict[str, int]:
    """The rows' notes, numbered in their order; equal ones once."""
    distinct = dict.fromkeys(row["notes"] for row in summary["rows"] if row["notes"])
    return {note: number for number, note in enumerate(distinct, 1)}


def _metric(summary: Mapping[str, Any]) -> str:
    if summary["primary"] == "accuracy":
        return "Accuracy in percent"
    return "Mean absolute error (lower is better; a gain above zero is a smaller error)"


def _value(summary: Mapping[str, Any], value: float | None, sign: bool = False) -> str:
    """In the units of the table: percent with one decimal, or the target's own with three."""
    if value is None:
        return NONE
    scale, digits = (100, 1) if summary["primary"] == "accuracy" else (1, 3)
    return f"{value * scale + 0.0:{'+' if sign else ''}.{digits}f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _paper(summary: Mapping[str, Any], paper: Mapping[str, Any] | None) -> str:
    """Published numbers are in the units of the table already, and keep the digits they were published with."""
    if paper is None:
        return NONE
    least = 1 if summary["primary"] == "accuracy" else 3
    decimals = len(repr(float(paper["value"])).partition(".")[2])
    text = f"{paper['value']:.{least}f}" if decimals <= least else repr(float(paper["value"]))
    return text + " (unchecked)" * (not paper["checked"])


def _count(value: float | None) -> str:
    if value is None:
        return NONE
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in _pairs(cells, widths)]
    return "| " + " | ".join(padded) + " |"


def _pairs(cells: Sequence[str], widths: Sequence[int]) -> Any:
    return enumerate(zip(cells, widths))


def _rule(place: int, width: int) -> str:
    return "-" * (width + 2) if place == 0 else "-" * (width + 1) + ":"
