"""The table for a paper: LaTeX with booktabs, everything escaped, the legend below it."""

import re
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.report import columns as table
from mmjax.evaluation.report.cells import NONE, absence, paper
from mmjax.typing import Mapping

__all__ = ["COLUMNS", "escape_latex", "format_latex"]

COLUMNS = ("paper", "target", "ours", "interval", "gain", "p", "verdict", "emap", "kept_missing", "kept_noise", "ece",
           "ece_scaled", "alc", "params", "flops")  # fmt: skip
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "`": r"\textasciigrave{}", "–": "--",
    "—": "---", "−": "$-$", "±": r"$\pm$", "→": r"$\rightarrow$", "←": r"$\leftarrow$", "×": r"$\times$",
    "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "Δ": r"$\Delta$", "φ": r"$\varphi$", "ρ": r"$\rho$",
    "σ": r"$\sigma$", "²": "$^2$", "\u00a0": "~", "\u2019": "'",
}  # fmt: skip


def format_latex(summary: Mapping[str, Any], keys: Sequence[str] = COLUMNS) -> str:
    r"""A ``table*`` environment for ``\usepackage{booktabs}``; ``\input`` it.

    Args:
      keys: the columns to show, of those of ``mmjax.evaluation.report.columns``, as far as the table has them.
    """
    shown = [column for column in table.columns(summary) if column.key in keys]
    bodies = [(escape_latex(title), rows) for title, rows in _bodies(summary, shown) if rows]
    width = 1 + len(shown)
    lines = [
        r"\begin{table*}",
        r"\centering",
        r"\caption{" + _caption(summary) + "}",
        r"\label{tab:" + re.sub(r"[^A-Za-z0-9]+", "-", summary["table"]).strip("-") + "}",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{@{}l" + "r" * len(shown) + "@{}}",
        r"\toprule",
        _line(["row", *(escape_latex(column.title) for column in shown)]),
    ]
    for title, rows in bodies:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{@{{}}l}}{{\textit{{{title}}}}} \\", *map(_line, rows)]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip", r"\begin{minipage}{\linewidth}"]
    lines += [*_notes(summary, shown), r"\end{minipage}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; line breaks become spaces."""
    return "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split("\n")))


def _bodies(summary: Mapping[str, Any], shown: Sequence[table.Column]) -> list[tuple[str, list[list[str]]]]:
    """Sections with their rows of cells, all escaped."""

    def only(**cells: str) -> list[str]:
        return [escape_latex(cells.get(column.key, NONE)) for column in shown]

    bodies = [
        ("Known without training", [[escape_latex(name), *only(ours=c.text)] for name, c in table.bounds(summary)])
    ]
    for title, rows in table.sections(summary):
        lines = []
        for row in rows:
            name = escape_latex(" ".join([row["name"], *table.row_label(summary, row)]))
            if row["status"] == "done":
                lines.append([name, *(escape_latex(column.cell(row).text) for column in shown)])
            else:
                said = {column.key: column.cell(row).text for column in shown if column.key in ("paper", "target")}
                lines.append([name, *only(ours=absence(row).partition(":")[0], **said)])
        bodies.append((title, lines))
    published = []
    for one in summary["references"]:
        said = {"target": "cannot run"} if one.get("cannot_run") else {}
        published.append([escape_latex(one["name"]), *only(paper=paper(summary, one).text, ours="not run", **said)])
    return [*bodies, ("Published, not run here", published)]


def _caption(summary: Mapping[str, Any]) -> str:
    missing = ", ".join(summary.get("missing_parts") or ())
    warning = f" Non-conforming: it lacks {missing or 'a part of the protocol'}."
    sentences = [summary["title"] + ".", *table.facts(summary)]
    return escape_latex(" ".join(sentences) + warning * (summary.get("conforming") is False))


def _notes(summary: Mapping[str, Any], shown: Sequence[table.Column]) -> list[str]:
    parts = [escape_latex(summary["note"])] if summary["note"] else []
    parts += [rf"{escape_latex(f'[{number}] {note}')}" for note, number in table.notes(summary).items()]
    parts += [rf"\textbf{{{escape_latex(column.title)}}}: {_code(column.meaning)}" for column in shown]
    return [part + r" \par" for part in parts]


def _code(text: str) -> str:
    """Escaped, with what stands between backquotes in a typewriter's letters."""
    parts = text.split("`")
    return "".join(rf"\texttt{{{escape_latex(p)}}}" if place % 2 else escape_latex(p) for place, p in enumerate(parts))


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
