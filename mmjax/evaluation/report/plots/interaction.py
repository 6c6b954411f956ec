"""What rows owe to the interplay of modalities, and to each of them."""

import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.report.kinds import KINDS, kind_of
from mmjax.evaluation.report.plots import style
from mmjax.typing import Mapping

__all__ = ["interaction_bars", "interaction_figure"]

MODALITIES = ("#e69f00", "#009e73", "#56b4e9", "#d55e00", "#f0e442", "#8c6d31")  # no colour of a kind of row
HATCHES = ("", "////", "....", "xxxx", "----", "oooo")


def interaction_bars(rows: list[dict]) -> dict[str, dict[str, Any]]:
    """EMAP gap and Shapley values of the rows where they were measured, by name; empty for none."""
    measured = [row for row in rows if row.get("interaction") and len(row["streams"] or ()) > 1]
    return {
        name: {"emap": cell.get("emap"), "shapley": cell.get("shapley") or {}, "kind": kind_of(row)}
        for name, row, cell in zip(style.short_names(measured), measured, (row["interaction"] for row in measured))
    }


@style.styled
def interaction_figure(bars: Mapping[str, Mapping[str, Any]], factor: float = 100) -> Any:
    """Left the EMAP gap, right the Shapley value of each modality with its share; one alone where the other was
    measured of no row (sentences have no EMAP), None where there is nothing to show.

    Args:
      bars: by row ``{"kind", "emap": {"gap", "interval"} or None, "shapley": {modality: {"value",
        "share", "interval"}}}``.
      factor: 100 for shares, which are then shown in points.
    """
    from matplotlib.patches import Patch

    modalities = sorted({modality for cell in bars.values() for modality in cell["shapley"]})
    with_gaps = any(cell["emap"] for cell in bars.values())
    if not modalities and not with_gaps:
        return None
    colors = {name: (MODALITIES[n % 6], HATCHES[n % 6]) for n, name in enumerate(modalities)}
    names = [textwrap.fill(name, 18) for name in bars]
    bar, gap = 0.1, 0.09  # inches
    heights = [max(bar * max(1, len(cell["shapley"])), 0.115 * (1 + name.count("\n"))) + gap
               for name, cell in zip(names, bars.values())]  # fmt: skip
    total = sum(heights)
    legend = (0.2 if with_gaps else 0) + (0.16 * -(-len(modalities) // 4) + 0.03 if modalities else 0)
    above, below = 0.2, 0.36 + legend
    sheet = style.Sheet(total + above + below)
    left, wide, between = 1.1, 0.85 if with_gaps else 0.0, 0.14 if with_gaps else 0.0
    right = style.WIDTH - left - wide - between - 0.34  # room for the last share
    gaps: Any = sheet.axes(left, above, wide if modalities else wide + between + right, total) if with_gaps else None
    shares: Any = sheet.axes(left + wide + between, above, right, total) if modalities else None
    first = gaps if with_gaps else shares
    for name, cell, start, tall in zip(names, bars.values(), np.cumsum([0, *heights]), heights):
        middle = start + tall / 2
        first.text(-0.05 if with_gaps else -0.02, middle, name, transform=first.get_yaxis_transform(), ha="right",
                   va="center", linespacing=1.05)  # fmt: skip
        if emap := cell["emap"]:
            look = style.KIND_COLORS[cell["kind"]], ""
            _bar(gaps, middle, emap["gap"], emap.get("interval"), 1.3 * bar, look, factor)
            gaps.plot(factor * emap["gap"], middle, "o", markersize=2.4, color="black", zorder=5)
        elif with_gaps:
            gaps.text(0, middle, "not measured", color=style.GREY, ha="center", va="center", zorder=4,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        for slot, (modality, value) in enumerate(sorted(cell["shapley"].items())):
            place = middle + (slot - (len(cell["shapley"]) - 1) / 2) * bar
            look = colors[modality]
            end = _bar(shares, place, value["value"], value.get("interval"), 0.85 * bar, look, factor)
            if value.get("share") is not None:
                text = f"{round(100 * value['share'])} %".replace("-", "−")
                shares.annotate(text, (end, place), xytext=(2, 0), textcoords="offset points", va="center",
                                annotation_clip=False)  # fmt: skip
    for axes, title in ((gaps, "EMAP gap"), (shares, "Shapley value (share)")):
        if axes is not None:
            axes.axvline(0, color=style.GREY, linewidth=0.6, zorder=3)
            axes.set_ylim(total, 0)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_title(title, weight="bold")
            style.dress(axes, "points" if factor == 100 else "units of the metric", grid="x", bins={"x": 4})
    there = {cell["kind"] for cell in bars.values()}
    handles = [Patch(facecolor=style.KIND_COLORS[kind], label=f"EMAP gap, {kind}") for kind in KINDS if kind in there]
    if with_gaps:
        sheet.legend(handles, 3, bottom=legend - 0.2, handlelength=1.2)
    if modalities:
        handles = [Patch(facecolor=color, hatch=hatch, edgecolor="white", linewidth=0, label=modality)
                   for modality, (color, hatch) in colors.items()]  # fmt: skip
        sheet.legend(handles, 4, handlelength=1.6)
    return sheet.figure


def _bar(
    axes: Any, y: float, value: float, interval: Any, height: float, look: tuple[str, str], factor: float
) -> float:
    """Draws a bar, in a colour with a hatch, with its interval and returns where both end on the right."""
    color, hatch = look
    axes.barh(y, factor * value, height, color=color, hatch=hatch, edgecolor="white", linewidth=0, zorder=2)
    if interval:
        axes.plot(factor * np.array(interval), (y, y), color="black", linewidth=0.8, zorder=4)
    return max(0, factor * value, *(factor * bound for bound in interval or ()))
