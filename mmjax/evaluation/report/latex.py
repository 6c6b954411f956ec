"""The table for a paper: LaTeX with booktabs, everything escaped, the legend below it."""

import re
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.report.frame import Frame
from mmjax.evaluation.report.templating import load_template

__all__ = ["COLUMNS", "escape_latex", "format_latex"]

COLUMNS = ("paper", "target", "ours", "interval", "gain", "p", "verdict", "emap", "kept_missing", "kept_noise", "ece",
           "ece_scaled", "alc", "params", "flops")  # fmt: skip
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "`": r"\textasciigrave{}", "–": "--",
    "—": "---", "−": "$-$", "±": r"$\pm$", "→": r"$\rightarrow$", "←": r"$\leftarrow$", "×": r"$\times$",
    "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "Δ": r"$\Delta$", "φ": r"$\varphi$", "ρ": r"$\rho$",
    "σ": r"$\sigma$", "²": "$^2$", "\u00a0": "~", "\u2019": "'", "\n": " ",
}  # fmt: skip
DELIMITERS = {
    "variable_start_string": "<<", "variable_end_string": ">>", "block_start_string": "<%", "block_end_string": "%>",
    "comment_start_string": "<#", "comment_end_string": "#>",
}  # fmt: skip


def format_latex(frame: Frame, keys: Sequence[str] = COLUMNS) -> str:
    r"""A ``table*`` environment for ``\usepackage{booktabs}``; ``\input`` it.

    Args:
      keys: the columns to show, of those of ``mmjax.evaluation.report.columns``, as far as the table has them.
    """
    summary = frame.summary
    missing = ", ".join(summary.get("missing_parts") or ()) or "a part of the protocol"
    warning = f" Non-conforming: it lacks {missing}." * (summary.get("conforming") is False)
    return load_template("table.tex", finalize=escape_latex, **DELIMITERS).render(
        frame=frame,
        caption=" ".join([summary["title"] + ".", *frame.facts]) + warning,
        label=re.sub(r"[^A-Za-z0-9]+", "-", summary["table"]).strip("-"),
        columns=[column for column in frame.columns if column.key in keys],
    )


def escape_latex(value: Any) -> str:
    """Text that LaTeX prints as it is; line breaks become spaces."""
    return "".join(SPECIAL.get(letter, letter) for letter in str(value))
