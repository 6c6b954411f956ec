"""The report of a work directory: tables, page, LaTeX and plots, the same bytes whenever it is made."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.report import columns as table
from mmjax.evaluation.report.cells import NONE, absence, gain, paper
from mmjax.evaluation.report.html import format_html
from mmjax.evaluation.report.latex import format_latex
from mmjax.evaluation.report.summary import summarise
from mmjax.evaluation.store.damage import check_undamaged
from mmjax.evaluation.store.records import RecordStore
from mmjax.files import replace_file
from mmjax.typing import Mapping

__all__ = ["format_markdown", "format_table", "summarise", "write_report"]

MAIN = ("paper", "target", "ours", "interval", "selected", "gain", "p", "verdict")
SHORT = ("paper", "ours", "selected", "gain", "verdict")
UNVERIFIED = (
    "**Not verified**: these results were made before their files had digests; a change to them may not be seen."
)
WIDE = 120  # characters of a line behind the scores


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
    text = format_markdown(summary)
    replace_file(workdir / "table.json", (json.dumps(summary, sort_keys=True, indent=1) + "\n").encode())
    replace_file(workdir / "table.md", text.encode())
    replace_file(workdir / "table.tex", format_latex(summary).encode())
    plots = write_plots(workdir, summary)
    records = [record for row in summary["rows"] for record in store.records(row["name"])]
    replace_file(workdir / "report.html", format_html(summary, records, plots, store.timing()).encode())
    return text


def format_markdown(summary: Mapping[str, Any]) -> str:
    """The tables with their legend; columns are padded, so that they read as plain text too.

    What was found stands first; interaction, robustness, calibration and cost in tables of their own below, each as
    narrow as a terminal.
    """
    columns = table.columns(summary)
    main = [column for column in columns if column.key in MAIN]
    behind = [column for column in columns if column.key not in (*MAIN, "over_each")]
    parts = [f"# {summary['title']}", *_warning(summary), *filter(None, [summary["note"]]), *table.facts(summary)]
    parts += _markdown_tables(_blocks(summary, main), main)
    if notes := table.notes(summary):
        parts.append("\n".join(f"[{number}] {note}" + "  " for note, number in notes.items()))
    parts += _behind(summary, behind)
    parts += _gains_over_each(summary)
    parts += _decisions(summary)
    legend = [f"* **{column.title}**: {column.meaning}" for column in columns if column.key != "over_each"]
    legend += [f"* Best single modality, {title}: {_escape(text)}." for title, text in table.best_singles(summary)]
    return "\n\n".join([*parts, "## What the columns say\n\n" + "\n".join(legend)]) + "\n"


def format_table(summary: Mapping[str, Any]) -> str:
    """The main columns as plain text, for a terminal."""
    columns = [column for column in table.columns(summary) if column.key in SHORT]
    blocks = _blocks(summary, columns)
    head = ["row", *(column.title for column in columns)]
    widths = _widths(head, [row for _, rows in blocks for row in rows])

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()

    lines = [summary["title"], *_warning(summary), "", line(head), "  ".join("-" * width for width in widths)]
    for title, rows in blocks:
        lines += [f"{title}:", *(line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _gains_over_each(summary: Mapping[str, Any]) -> list[str]:
    """A table a section: fusions down, single modalities across."""
    parts = []
    for title, rows in table.sections(summary):
        fused = [row for row in rows if row["status"] == "done" and row.get("gains")]
        names = list(dict.fromkeys(name for row in fused for name in row["gains"]))
        if len(names) < 2:
            continue
        head = ["row", *(_escape(f"over {name}") for name in names)]
        lines = [
            [_name(summary, row), *(gain(summary, row["gains"].get(name)).text for name in names)] for row in fused
        ]
        parts += [f"## {title}: gain over each single modality", *_narrow(head, lines)]
    return parts


def _decisions(summary: Mapping[str, Any]) -> list[str]:
    """What two single modalities' decisions say of the target, in bits."""
    if not (cells := summary.get("decisions")):
        return []
    head = ["modalities", "both tell", "only the first", "only the second", "only together", "in all"]
    lines = [
        [" and ".join(_escape(name) for name in cell["modalities"])]
        + [f"{bits:.3f}" for bits in (cell["redundancy"], *cell["unique"], cell["synergy"], cell["information"])]
        for cell in cells
    ]
    widths = _widths(head, lines)
    said = (
        "Bits of partial information (BROJA: Bertschinger et al. 2014) that the predicted classes of two single "
        f"modalities hold on the class, mean over {cells[0]['seeds']} seeds. Biased upwards on few items, most of all "
        "the last two columns; what the models' decisions hold, not what the modalities do."
    )
    title = "## What the single modalities' decisions share"
    return [title, said, "\n".join([_line(head, widths), _rule(widths), *(_line(line, widths) for line in lines)])]


def _warning(summary: Mapping[str, Any]) -> list[str]:
    """What the protocol asks for and the table lacks; whether its files were without digests."""
    said = [] if summary.get("verified", True) else [UNVERIFIED]
    if orphans := summary.get("orphans"):
        said.append(f"Its records also hold rows that are not in this table: {'; '.join(map(_escape, orphans))}.")
    if summary["conforming"]:
        return said
    return said + ["**Non-conforming**: the protocol also asks for " + "; ".join(summary["missing_parts"]) + "."]


def _blocks(summary: Mapping[str, Any], columns: Sequence[table.Column]) -> list[tuple[str, list[list[str]]]]:
    """Titles and cells: what ignoring the input reaches, the rows, and published numbers that nothing here ran."""

    def only(**cells: str) -> list[str]:
        return [cells.get(column.key, NONE) for column in columns]

    blocks = [("Known without training", [[name, *only(ours=cell.text)] for name, cell in table.bounds(summary)])]
    for title, rows in table.sections(summary):
        lines = []
        for row in rows:
            name = _name(summary, row)
            if row["status"] == "done":
                lines.append([name, *(column.cell(row).text for column in columns)])
            else:
                known = {column.key: column.cell(row).text for column in columns if column.key in ("paper", "target")}
                lines.append([name, *only(ours=absence(row), **known)])
        blocks.append((title, lines))
    published = [
        [
            _escape(one["name"]),
            *only(paper=paper(summary, one).text, ours="not run", target=one.get("cannot_run") or NONE),
        ]
        for one in summary["references"]
    ]
    return [(title, rows) for title, rows in (*blocks, ("Published, not run here", published)) if rows]


def _behind(summary: Mapping[str, Any], columns: Sequence[table.Column]) -> list[str]:
    parts = []
    for title, rows in _done(summary, columns):
        if tables := _narrow(["row", *(column.title for column in columns)], rows):
            parts += [f"## {title}: behind the scores", *tables]
    return parts


def _narrow(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Tables that are at most ``WIDE`` wide, as far as a single column is, without columns and rows that are empty."""
    name, *widths = _widths(head, rows)
    runs: list[list[int]] = [[]]
    for place in range(1, len(head)):
        if all(row[place] == NONE for row in rows):
            continue
        taken = name + 4 + sum(widths[other - 1] + 3 for other in (*runs[-1], place))
        if runs[-1] and taken > WIDE:
            runs.append([])
        runs[-1].append(place)
    parts = []
    for run in filter(None, runs):
        lines = [[row[place] for place in (0, *run)] for row in rows]
        kept = [line for line in lines if set(line[1:]) != {NONE}]
        parts.append(_markdown([head[place] for place in (0, *run)], kept))
    return parts


def _done(summary: Mapping[str, Any], columns: Sequence[table.Column]) -> list[tuple[str, list[list[str]]]]:
    blocks = []
    for title, rows in table.sections(summary):
        lines = [
            [_name(summary, row), *(column.cell(row).text for column in columns)]
            for row in rows
            if row["status"] == "done"
        ]
        blocks.append((title, lines))
    return [(title, rows) for title, rows in blocks if rows]


def _name(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return _escape(" ".join([row["name"], *table.row_label(summary, row)]))


def _markdown_tables(blocks: Sequence[tuple[str, list[list[str]]]], columns: Sequence[table.Column]) -> list[str]:
    """A table for each block, of the columns that say something there."""
    head = ["row", *(column.title for column in columns)]
    parts = []
    for title, rows in blocks:
        shown = [place for place in range(len(head)) if not place or any(row[place] != NONE for row in rows)]
        table_of = _markdown([head[place] for place in shown], [[row[place] for place in shown] for row in rows])
        parts.append(f"## {title}\n\n{table_of}")
    return parts


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, each column as wide as it must be."""
    widths = _widths(head, rows)
    return "\n".join([_line(head, widths), _rule(widths), *(_line(row, widths) for row in rows)])


def _widths(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]


def _rule(widths: Sequence[int]) -> str:
    return "|" + "|".join("-" * (w + 2) if place == 0 else "-" * (w + 1) + ":" for place, w in enumerate(widths)) + "|"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.rjust(w) if place else cell.ljust(w) for place, (cell, w) in enumerate(zip(cells, widths))]
    return "| " + " | ".join(padded) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
