"""The report of a work directory: tables, page, LaTeX and plots, the same bytes whenever it is made."""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.report.cells import NONE, decimal, gain
from mmjax.evaluation.report.columns import Column
from mmjax.evaluation.report.frame import Frame, Line, make_frame
from mmjax.evaluation.report.html import format_html
from mmjax.evaluation.report.latex import format_latex
from mmjax.evaluation.report.summary import summarise
from mmjax.evaluation.store.damage import check_undamaged
from mmjax.evaluation.store.records import RecordStore
from mmjax.files import replace_file, write_json
from mmjax.typing import Mapping

__all__ = ["format_markdown", "format_table", "write_report"]

MAIN = ("paper", "target", "ours", "interval", "selected", "gain", "p", "verdict")
SHORT = ("paper", "ours", "selected", "gain", "verdict")
UNVERIFIED = (
    "**Not verified**: these results were made before their files had digests; a change to them may not be seen."
)
WIDE = 120  # characters of a line behind the scores

Cells = Sequence[str]


def write_report(workdir: str | os.PathLike) -> str:
    """Writes ``table.json``, ``table.md``, ``table.tex``, ``report.html`` and ``plots/*.png`` from what is on disk, and
    returns the markdown.

    The page alone shows what a clock measured, from ``timing.json``.

    Raises:
      UsageError: as ``summarise``; a damaged file, by name.
    """
    from mmjax.evaluation.report.plots import write_plots

    workdir, store = pathlib.Path(workdir), RecordStore(workdir)
    check_undamaged(store)
    summary = summarise(workdir)
    frame = make_frame(summary, store.timing())
    text = format_markdown(frame)
    write_json(workdir / "table.json", summary)
    replace_file(workdir / "table.md", text.encode())
    replace_file(workdir / "table.tex", format_latex(frame).encode())
    plots = write_plots(workdir, summary)
    records = [record for row in summary["rows"] for record in store.records(row["name"])]
    replace_file(workdir / "report.html", format_html(frame, records, plots).encode())
    return text


def format_markdown(frame: Frame) -> str:
    """The tables with their legend; columns are padded, so that they read as plain text too.

    What was found stands first; interaction, robustness, calibration and cost in tables of their own below, each as
    narrow as a terminal.
    """
    summary = frame.summary
    main = [column for column in frame.columns if column.key in MAIN]
    behind = [column for column in frame.columns if column.key not in (*MAIN, "over_each")]
    parts = [f"# {summary['title']}", *_warning(summary), *filter(None, [summary["note"]]), *frame.facts]
    for title, lines in frame.blocks:
        parts += [f"## {title}", *_narrow(_head(main), [_texts(line, main) for line in lines], wide=math.inf)]
    if frame.notes:
        parts.append("\n".join(f"[{number}] {note}  " for number, note in enumerate(frame.notes, 1)))
    for title, lines in frame.blocks:
        if tables := _narrow(_head(behind), [_texts(line, behind) for line in lines if line.done]):
            parts += [f"## {title}: behind the scores", *tables]
    parts += [*_gains_over_each(frame), *_decisions(summary)]
    legend = [f"* **{column.title}**: {column.meaning}" for column in frame.columns if column.key != "over_each"]
    legend += [f"* Best single modality, {title}: {_escape(text)}." for title, text in frame.best_singles]
    return "\n\n".join([*parts, "## What the columns say", "\n".join(legend)]) + "\n"


def format_table(summary: Mapping[str, Any]) -> str:
    """The main columns as plain text, for a terminal."""
    frame = make_frame(summary)
    columns = [column for column in frame.columns if column.key in SHORT]
    blocks = [(title, [_texts(line, columns) for line in lines]) for title, lines in frame.blocks]
    head = _head(columns)
    widths = _widths([head, *(line for _, lines in blocks for line in lines)])

    def padded(cells: Cells) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()

    lines = [summary["title"], *_warning(summary), "", padded(head), "  ".join("-" * width for width in widths)]
    for title, block in blocks:
        lines += [f"{title}:", *map(padded, block)]
    return "\n".join(lines) + "\n"


def _warning(summary: Mapping[str, Any]) -> list[str]:
    """What the protocol asks for and the table lacks; whether its files were without digests."""
    warnings = [] if summary.get("verified", True) else [UNVERIFIED]
    if orphans := summary.get("orphans"):
        warnings.append(f"Its records also hold rows that are not in this table: {'; '.join(map(_escape, orphans))}.")
    if summary["conforming"]:
        return warnings
    return warnings + ["**Non-conforming**: the protocol also asks for " + "; ".join(summary["missing_parts"]) + "."]


def _gains_over_each(frame: Frame) -> list[str]:
    """A table a section: fusions down, single modalities across."""
    parts = []
    for title, lines in frame.blocks:
        fused = [line for line in lines if line.done and line.row.get("gains") and not line.row.get("versus")]
        names = list(dict.fromkeys(name for line in fused for name in line.row["gains"]))
        if len(names) > 1:
            head = ["row", *(_escape(f"over {name}") for name in names)]
            cells = [
                [_escape(line.label), *(gain(frame.summary, line.row["gains"].get(name)).text for name in names)]
                for line in fused
            ]
            parts += [f"## {title}: gain over each single modality", *_narrow(head, cells)]
    return parts


def _decisions(summary: Mapping[str, Any]) -> list[str]:
    """What two single modalities' decisions say of the target, in bits."""
    if not (cells := summary.get("decisions")):
        return []
    head = ["modalities", "both tell", "only the first", "only the second", "only together", "in all"]
    lines = [
        [" and ".join(_escape(name) for name in cell["modalities"])]
        + [decimal(bits, 3) for bits in (cell["redundancy"], *cell["unique"], cell["synergy"], cell["information"])]
        for cell in cells
    ]
    explanation = (
        "Bits of partial information (BROJA: Bertschinger et al. 2014) that the predicted classes of two single "
        f"modalities hold on the class, mean over {cells[0]['seeds']} seeds. Biased upwards on few items, most of all "
        "the last two columns; what the models' decisions hold, not what the modalities do."
    )
    return ["## What the single modalities' decisions share", explanation, _markdown(head, lines)]


def _head(columns: Sequence[Column]) -> list[str]:
    return ["row", *(column.title for column in columns)]


def _texts(line: Line, columns: Sequence[Column]) -> list[str]:
    cells = [line.cell(column) for column in columns]
    return [_escape(line.label), *(cell.note or cell.text for cell in cells)]


def _narrow(head: Cells, rows: Sequence[Cells], wide: float = WIDE) -> list[str]:
    """Tables that are at most ``wide`` wide, as far as a single column is, without columns and rows that are empty."""
    name, *widths = _widths([head, *rows])
    runs: list[list[int]] = [[]]
    for place in range(1, len(head)):
        if all(row[place] == NONE for row in rows):
            continue
        taken = name + 4 + sum(widths[other - 1] + 3 for other in (*runs[-1], place))
        if runs[-1] and taken > wide:
            runs.append([])
        runs[-1].append(place)
    parts = []
    for run in filter(None, runs):
        lines = [[row[place] for place in (0, *run)] for row in rows]
        kept = [line for line in lines if set(line[1:]) != {NONE}]
        parts.append(_markdown([head[place] for place in (0, *run)], kept))
    return parts


def _markdown(head: Cells, rows: Sequence[Cells]) -> str:
    """A table, each column as wide as it must be."""
    widths = _widths([head, *rows])
    rule = "|" + "|".join("-" * (w + 2) if place == 0 else "-" * (w + 1) + ":" for place, w in enumerate(widths)) + "|"
    first, *rest = (
        "| " + " | ".join(c.rjust(w) if place else c.ljust(w) for place, (c, w) in enumerate(zip(cells, widths))) + " |"
        for cells in (head, *rows)
    )
    return "\n".join([first, rule, *rest])


def _widths(rows: Sequence[Cells]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows)]


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
