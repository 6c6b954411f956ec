"""Each row of a table with its intervals, beside what the paper says."""

import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.plots.style import (
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    PALE,
    WIDTH,
    label,
    scale,
    sections,
    short_names,
    styled,
)
from mmjax.typing import Mapping

__all__ = ["rows_figure"]


def _majority_fits(summary: Mapping[str, Any]) -> bool:
    """Whether the axis shows the majority class: not where that would squeeze all rows into a corner."""
    means = [row["mean"] for row in summary["rows"] if row.get("status") == "done"]
    if summary["majority"] is None or not means:
        return False
    return min(means) - summary["majority"] <= max(means) - min(means) + 0.02


@styled
def rows_figure(summary: Mapping[str, Any]) -> Any:
    """Each row's mean with its intervals, top to bottom as in the table, beside what the paper says."""
    from matplotlib.figure import Figure

    lines = _lines(summary)
    line_height, gap, top, bottom = 0.115, 0.05, 0.06, 0.8  # inches
    heights = [line_height * len(text.split("\n")) + gap for text, _, _ in lines]
    total = sum(heights) + top + bottom
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.add_axes((0.445, bottom / total, 0.535, sum(heights) / total))
    factor = scale(summary)
    drawn = []
    for (text, kind, row), height, start in zip(lines, heights, np.cumsum([0, *heights])):
        middle = start + height / 2
        heading = kind == "heading"
        x = -0.82 if heading else -0.03
        axes.text(
            x, middle, text, transform=axes.get_yaxis_transform(), va="center", linespacing=1.05,
            ha="left" if heading else "right", weight="bold" if heading else "normal",
        )  # fmt: skip
        if heading:
            continue
        axes.axhline(middle, color=FAINT, linewidth=0.6, zorder=0)
        if row.get("status") == "done":
            _draw_row(axes, row, middle, factor)
            drawn += [row["mean"], *(row["interval"] or ()), *(row["seed_interval"] or ())]
        if row["paper"] is not None:
            axes.plot(row["paper"]["value"], middle, "D", markersize=3.4, markerfacecolor="white",
                      markeredgecolor=ORANGE, markeredgewidth=0.9, zorder=4)  # fmt: skip
            drawn.append(row["paper"]["value"] / factor)
        if row.get("test_selected") is not None:
            drawn.append(row["test_selected"])
    if _majority_fits(summary):
        axes.axvline(factor * summary["majority"], color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
        drawn.append(summary["majority"])
    margin = 0.04 * (max(drawn) - min(drawn)) + 1e-3
    axes.set_xlim(factor * (min(drawn) - margin), factor * (max(drawn) + margin))
    axes.set_ylim(sum(heights), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(label(summary), labelpad=2)
    handles = _handles(summary)
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False,
                  handlelength=2.0, columnspacing=1.2, labelspacing=0.35, borderaxespad=0.2)  # fmt: skip
    return figure


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str, dict]]:
    """What stands under each other: headings, rows with something to show, published rows."""
    lines: list[tuple[str, str, dict]] = []
    shown = [row for row in summary["rows"] if row["status"] == "done" or row["paper"] is not None]
    for section, rows in sections(shown):
        if section:
            lines.append((textwrap.fill(section, 44), "heading", {}))
        lines += [(textwrap.fill(name, 27), "row", row) for name, row in zip(short_names(rows), rows)]
    if summary["references"]:
        lines.append(("published, not run here", "heading", {}))
        lines += [(textwrap.fill(paper["name"], 27), "row", {"paper": paper}) for paper in summary["references"]]
    return lines


def _draw_row(axes: Any, row: Mapping[str, Any], y: float, factor: float) -> None:
    if row["test_selected"] is not None:
        axes.plot(factor * row["test_selected"], y, "|", markersize=5.5, color=GREY, markeredgewidth=0.9, zorder=2.8)
    if row["interval"] is not None:
        axes.plot(factor * np.array(row["interval"]), (y, y), color=BLUE, linewidth=0.9, zorder=3)
    if row["seed_interval"] is not None:
        axes.plot(factor * np.array(row["seed_interval"]), (y, y), color=PALE, linewidth=4.5,
                  solid_capstyle="butt", zorder=2.5)  # fmt: skip
    axes.plot(factor * row["mean"], y, "o", markersize=2.8, color=BLUE, zorder=5)


def _handles(summary: Mapping[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    unit = "items" if summary["unit"] == "item" else f"{summary['group']}s"
    dot: dict[str, Any] = {"marker": "o", "markersize": 2.8, "markerfacecolor": BLUE, "markeredgecolor": BLUE}
    if any(row.get("seed_interval") for row in summary["rows"]):
        bar: dict[str, Any] = {"color": PALE, "linewidth": 4.5, "solid_capstyle": "butt"}
        handles = [
            Line2D([], [], **bar, **dot, label="mean, 95 % over seeds"),
            Line2D([], [], color=BLUE, linewidth=0.9, label=f"95 %, seeds and {unit}"),
        ]
    else:
        handles = [Line2D([], [], linestyle="", **dot, label="mean over seeds")]
    papers = [row["paper"] for row in summary["rows"] if row["paper"]] + summary["references"]
    if papers:
        text = "paper" if any(paper["checked"] for paper in papers) else "paper (unchecked)"
        handles.append(
            Line2D([], [], linestyle="", marker="D", markersize=3.4, color=ORANGE, markerfacecolor="white", label=text)
        )
    if any(row.get("test_selected") is not None for row in summary["rows"]):
        handles.append(Line2D([], [], linestyle="", marker="|", markersize=5, color=GREY, label="epoch chosen on test"))
    if _majority_fits(summary):
        handles.append(Line2D([], [], color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), label="majority class"))
    elif summary["majority"] is not None:
        text = f"majority class: {scale(summary) * summary['majority']:.1f}"
        handles.append(Line2D([], [], linestyle="", marker="$←$", markersize=6, color=GREY, label=text))
    return handles
