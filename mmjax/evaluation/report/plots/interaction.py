"""What rows owe to the interplay of modalities, and to each of them."""

import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.report.kinds import KINDS, kind_of
from mmjax.evaluation.report.plots.style import FAINT, GREY, KIND_COLORS, WIDTH, short_names, styled
from mmjax.typing import Mapping

__all__ = ["interaction_bars", "interaction_figure"]

MODALITIES = ("#e69f00", "#009e73", "#56b4e9", "#d55e00", "#f0e442", "#8c6d31")  # no colour of a kind of row
HATCHES = ("", "////", "....", "xxxx", "----", "oooo")


def interaction_bars(rows: list[dict]) -> dict[str, dict[str, Any]]:
    """EMAP gap and Shapley values of the rows where they were measured, by name; empty for none."""
    measured = [row for row in rows if row.get("interaction") and len(row["streams"] or ()) > 1]
    if not measured:
        return {}
    bars = {}
    for name, row in zip(short_names(measured), measured):
        cell = row["interaction"]
        bars[name] = {"emap": cell.get("emap"), "shapley": cell.get("shapley") or {}, "kind": kind_of(row)}
    return bars


@styled
def interaction_figure(bars: Mapping[str, Mapping[str, Any]], factor: float = 100) -> Any:
    """Left the EMAP gap, right the Shapley value of each modality with its share; None where there is nothing to show.

    Args:
      bars: by row ``{"kind", "emap": {"gap", "interval"} or None, "shapley": {modality: {"value",
        "share", "interval"}}}``.
      factor: 100 for shares, which are then shown in points.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not bars:
        return None
    modalities = sorted({modality for cell in bars.values() for modality in cell["shapley"]})
    names = {name: textwrap.fill(name, 18) for name in bars}
    bar, gap = 0.1, 0.09  # inches
    heights = [max(bar * max(1, len(cell["shapley"])), 0.115 * (1 + names[name].count("\n"))) + gap
               for name, cell in bars.items()]  # fmt: skip
    starts = np.cumsum([0, *heights])
    legend = 0.2 + (0.16 * -(-len(modalities) // 4) + 0.03 if modalities else 0)
    above, below = 0.2, 0.36 + legend
    total = sum(heights) + above + below
    figure = Figure(figsize=(WIDTH, total))
    left, wide, between = 1.1, 0.85, 0.14
    right = WIDTH - left - wide - between - 0.34  # room for the last share
    y, height = below / total, sum(heights) / total
    gaps = figure.add_axes((left / WIDTH, y, (wide if modalities else wide + between + right) / WIDTH, height))
    shares = figure.add_axes(((left + wide + between) / WIDTH, y, right / WIDTH, height)) if modalities else None
    unit = "points" if factor == 100 else "units of the metric"
    for (name, cell), start, tall in zip(bars.items(), starts, heights):
        middle = start + tall / 2
        gaps.text(-0.05, middle, names[name], transform=gaps.get_yaxis_transform(), ha="right", va="center",
                  linespacing=1.05)  # fmt: skip
        if cell["emap"]:
            color = KIND_COLORS[cell["kind"]]
            _bar(gaps, middle, cell["emap"]["gap"], cell["emap"].get("interval"), 1.3 * bar, color, "", factor)
            gaps.plot(factor * cell["emap"]["gap"], middle, "o", markersize=2.4, color="black", zorder=5)
        else:
            gaps.text(0, middle, "not measured", color=GREY, ha="center", va="center", zorder=4,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        for slot, modality in enumerate(sorted(cell["shapley"])):
            number = modalities.index(modality)
            if shares is None:
                continue
            value = cell["shapley"][modality]
            place = middle + (slot - (len(cell["shapley"]) - 1) / 2) * bar
            end = _bar(shares, place, value["value"], value.get("interval"), 0.85 * bar, MODALITIES[number % 6],
                       HATCHES[number % 6], factor)  # fmt: skip
            if value.get("share") is not None:
                shares.annotate(f"{round(100 * value['share'])} %".replace("-", "−"), (end, place), xytext=(2, 0),
                                textcoords="offset points", va="center", ha="left", annotation_clip=False)  # fmt: skip
    for axes, title, xlabel in ((gaps, "EMAP gap", unit), (shares, "Shapley value (share)", unit)):
        if axes is None:
            continue
        axes.axvline(0, color=GREY, linewidth=0.6, zorder=3)
        axes.set_ylim(sum(heights), 0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(title, pad=3, weight="bold")
        axes.set_xlabel(xlabel, labelpad=1.5)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(pad=1.5)
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
    kinds = {cell["kind"] for cell in bars.values()}
    handles = [Patch(facecolor=KIND_COLORS[kind], label=f"EMAP gap, {kind}") for kind in KINDS if kind in kinds]
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, (legend - 0.2) / total), ncols=3,
                  frameon=False, handlelength=1.2, columnspacing=1.2, borderaxespad=0.2)  # fmt: skip
    if modalities:
        handles = [
            Patch(facecolor=MODALITIES[n % 6], hatch=HATCHES[n % 6], edgecolor="white", linewidth=0, label=modality)
            for n, modality in enumerate(modalities)
        ]
        figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=4, frameon=False,
                      handlelength=1.6, columnspacing=1.2, borderaxespad=0.2)  # fmt: skip
    return figure


def _bar(
    axes: Any, y: float, value: float, interval: Any, height: float, color: str, hatch: str, factor: float
) -> float:
    """Draws a bar with its interval and returns where both end on the right."""
    axes.barh(y, factor * value, height, color=color, hatch=hatch, edgecolor="white", linewidth=0, zorder=2)
    if interval:
        axes.plot(factor * np.array(interval), (y, y), color="black", linewidth=0.8, zorder=4)
    return max(0, factor * value, *(factor * bound for bound in interval or ()))
