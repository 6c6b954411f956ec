"""Each row of a table with its intervals, beside what the paper says."""

import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.report.cells import value as printed
from mmjax.evaluation.report.kinds import KINDS, best_rows, kind_of
from mmjax.evaluation.report.plots import style
from mmjax.typing import Mapping

__all__ = ["rows_figure"]

BAND = "#ffe9a8"  # behind the best row


@style.styled
def rows_figure(summary: Mapping[str, Any]) -> Any:
    """Each row's mean with its intervals, top to bottom as in the table, beside what the paper says.

    A row too far behind the others for the axis stands at its edge as an arrow with its mean.
    """
    lines, low_high = _lines(summary), _limits(summary)
    handles = _handles(summary, low_high)
    heights = [0.115 * len(text.split("\n")) + 0.05 for text, _, _ in lines]  # inches
    sheet = style.Sheet(sum(heights) + 0.06 + 0.36 + 0.15 * -(-len(handles) // 2))
    axes = sheet.axes(0.445 * style.WIDTH, 0.06, 0.515 * style.WIDTH, sum(heights))
    axes.set_xlim(*low_high)
    axes.set_ylim(sum(heights), 0)
    for (text, kind, row), height, start in zip(lines, heights, np.cumsum([0, *heights])):
        middle = start + height / 2
        heading = kind == "heading"
        x = -0.85 if heading else -0.03
        axes.text(
            x, middle, text, transform=axes.get_yaxis_transform(), va="center", linespacing=1.05,
            ha="left" if heading else "right", weight="bold" if kind in ("heading", "best") else "normal",
        )  # fmt: skip
        if heading:
            continue
        axes.axhline(middle, color=style.FAINT, linewidth=0.6, zorder=0.5)
        if kind == "best":
            axes.axhspan(start, start + height, color=BAND, linewidth=0, zorder=0)
        outside = [] if row.get("status") != "done" else _draw_row(axes, summary, row, middle, kind == "best")
        if row["paper"] is not None and low_high[0] <= row["paper"]["value"] <= low_high[1]:
            axes.plot(row["paper"]["value"], middle, "D", markersize=3.4, markerfacecolor="white",
                      markeredgecolor=style.ORANGE, markeredgewidth=0.9, zorder=4)  # fmt: skip
        elif row["paper"] is not None:
            outside.append(f"paper {row['paper']['value']:g}")
        if outside:
            _mark_outside(axes, row, middle, ", ".join(outside), summary["higher_is_better"])
    _, floor = _floor(summary)
    if floor is not None and low_high[0] <= floor <= low_high[1]:
        axes.axvline(floor, color=style.GREY, linewidth=0.7, linestyle=style.DASHED, zorder=1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    style.dress(axes, bins={"x": 5}, pad=False)
    axes.set_xlabel(style.label(summary), labelpad=2)
    sheet.legend(handles, handlelength=2.0, labelspacing=0.35)
    return sheet.figure


def _limits(summary: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of the axis, in its units."""
    factor, values, ends = style.scale(summary), [], []
    for row in summary["rows"]:
        if row.get("status") == "done":
            values.append(factor * row["mean"])
            both = [*(row["interval"] or ()), *(row["seed_interval"] or ())]
            ends.append([factor * end for end in [*both, row["test_selected"]] if end is not None])
    values += [row["paper"]["value"] for row in summary["rows"] if row["paper"]]
    values += [paper["value"] for paper in summary["references"]]
    ends += [[]] * (len(values) - len(ends))
    low, high = style.focus(values, ends, summary["higher_is_better"])
    _, floor = _floor(summary)
    if floor is not None:  # shown where that does not squeeze all rows into a corner
        room = 0.25 * (high - low)
        if 0 <= low - floor <= room:
            low = floor - 0.04 * (high - low)
        elif 0 <= floor - high <= room:
            high = floor + 0.04 * (high - low)
    return low, high


def _floor(summary: Mapping[str, Any]) -> tuple[str, float | None]:
    """What ignoring the input reaches, in the units of the axis: the majority class, or the best constant score."""
    factor = style.scale(summary)
    if summary["majority"] is not None:
        return "majority class", factor * summary["majority"]
    constants = [one for one in summary.get("known") or () if not one["name"].startswith("Bayes accuracy")]
    if not constants:
        return "", None
    best = (max if summary["higher_is_better"] else min)(constants, key=lambda one: one["value"])
    return best["name"], factor * best["value"]


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str, dict]]:
    """What stands under each other: headings, rows with something to show, published rows."""
    lines: list[tuple[str, str, dict]] = []
    shown = [row for row in summary["rows"] if row["status"] == "done" or row["paper"] is not None]
    for section, rows in style.sections(shown):
        if section:
            lines.append((textwrap.fill(section, 44), "heading", {}))
        best = best_rows(rows, summary["higher_is_better"])
        lines += [
            (textwrap.fill(name, 24 if row["name"] in best else 27), "best" if row["name"] in best else "row", row)
            for name, row in zip(style.short_names(rows), rows)
        ]
    if summary["references"]:
        lines.append(("published, not run here", "heading", {}))
        lines += [(textwrap.fill(paper["name"], 27), "row", {"paper": paper}) for paper in summary["references"]]
    return lines


def _draw_row(axes: Any, summary: Mapping[str, Any], row: Mapping[str, Any], y: float, best: bool) -> list[str]:
    """Draws the row where the axis holds its mean; elsewhere says its mean."""
    kind, factor = kind_of(row), style.scale(summary)
    mean = factor * row["mean"]
    low, high = axes.get_xlim()
    if not low <= mean <= high:
        return [printed(summary, row["mean"])]
    color = style.KIND_COLORS[kind]
    if row["test_selected"] is not None:
        axes.plot(factor * row["test_selected"], y, "|", markersize=5.5, color="black", markeredgewidth=0.7, zorder=2.8)
    if row["interval"] is not None:
        axes.plot(factor * np.array(row["interval"]), (y, y), color=color, linewidth=0.9, zorder=3)
    if row["seed_interval"] is not None:
        axes.plot(factor * np.array(row["seed_interval"]), (y, y), color=style.KIND_PALE[kind], linewidth=4.5,
                  solid_capstyle="butt", zorder=2.5)  # fmt: skip
    axes.plot(mean, y, style.KIND_MARKERS[kind], markersize=4.2 if best else 2.8, color=color, zorder=5,
              markeredgecolor="black" if best else color, markeredgewidth=0.7 if best else 0)  # fmt: skip
    return []


def _mark_outside(axes: Any, row: Mapping[str, Any], y: float, text: str, higher_is_better: bool) -> None:
    """An arrow at the worse edge of the axis, and what lies beyond."""
    low, high = axes.get_xlim()
    color = style.KIND_COLORS[kind_of(row)] if row.get("status") == "done" else style.ORANGE
    edge, marker, align = (low, "<", "left") if higher_is_better else (high, ">", "right")
    axes.plot(edge, y, marker, markersize=2.8, color=color, markeredgewidth=0, clip_on=False, zorder=5)
    axes.annotate(text, (edge, y), xytext=(4 if higher_is_better else -4, 0), textcoords="offset points", ha=align,
                  va="center", color=color, zorder=5)  # fmt: skip


def _handles(summary: Mapping[str, Any], limits: tuple[float, float]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    unit = "items" if summary["unit"] == "item" else f"{summary['group']}s"
    done = [row for row in summary["rows"] if row.get("status") == "done"]
    handles: list[Any] = [style.marker_of(kind, 3.2) for kind in KINDS if kind in map(kind_of, done)]
    if best_rows(done, summary["higher_is_better"]):
        word = "highest" if summary["higher_is_better"] else "lowest"
        handles.append(Patch(facecolor=BAND, edgecolor=BAND, label=f"{word} of its section"))
    if any(row["seed_interval"] for row in done):
        colors, ends = (style.KIND_PALE["fusion"], style.KIND_COLORS["fusion"]), ("seeds", f"seeds and {unit}")
        handles += [
            Line2D([], [], color=color, linewidth=width, solid_capstyle="butt", label=f"95 %, {of}")
            for color, width, of in zip(colors, (4.5, 0.9), ends)
        ]
    papers = [row["paper"] for row in summary["rows"] if row["paper"]] + summary["references"]
    if papers:
        text = "paper" if any(paper["checked"] for paper in papers) else "paper (unchecked)"
        handles.append(style.point("D", 3.4, style.ORANGE, text, markerfacecolor="white"))
    if any(row.get("test_selected") is not None for row in summary["rows"]):
        handles.append(style.point("|", 5, "black", "epoch chosen on test"))
    name, floor = _floor(summary)
    if floor is not None and limits[0] <= floor <= limits[1]:
        handles.append(Line2D([], [], color=style.GREY, linewidth=0.7, linestyle=style.DASHED, label=name))
    elif floor is not None:
        number = printed(summary, floor / style.scale(summary))
        handles.append(style.point("$←$" if floor < limits[0] else "$→$", 6, style.GREY, f"{name}: {number}"))
    return handles
