"""What is left of each row as one modality, or all, go missing or become noisy."""

import re
import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.report.plots.style import (
    FAINT,
    GREY,
    LEGEND,
    WIDTH,
    Look,
    in_scope,
    known_ends,
    own_limits,
    short_names,
    styled,
    wrapped_legend,
)
from mmjax.typing import Mapping

__all__ = ["sweep_figure", "sweep_panels"]

COLUMNS = 2
SCALES = {"noise": "severity", "missing": "share of items that lack it"}


def sweep_panels(summary: Mapping[str, Any], rows: list[dict], kind: str) -> dict[str, dict[str, Any]]:
    """The curves of ``noise`` or ``missing`` of the rows in scope, by the modality that is changed; empty for none."""
    chosen = [(row, look) for row, look in in_scope(summary, rows, "robustness") if row["robustness"].get(kind)]
    names = short_names([row for row, _ in chosen]) if chosen else []
    panels: dict[str, dict[str, Any]] = {}
    for name, (row, look) in zip(names, chosen):
        for target, curve in row["robustness"][kind].items():
            panel = panels.setdefault(target, {"scale": curve.get("scale") or SCALES[kind], "lines": {}})
            panel["lines"][name] = (curve, look)
    ordered = sorted(panels, key=lambda target: (target == "all", target))
    if summary.get("chance") is not None:
        panels = {target: {**panel, "chance": summary["chance"]} for target, panel in panels.items()}
    return {target: panels[target] for target in ordered}


@styled
def sweep_figure(panels: Mapping[str, Mapping[str, Any]], metric: str, factor: float = 100) -> Any:
    """A panel for each changed modality with an axis of its own, a line for each row; None where there is nothing.

    Args:
      panels: by modality ``{"scale": what severity 0 to 1 means, "lines": {name: (curve, look)}, "chance": value}``; a
        curve has ``levels``, ``mean`` and, or None, ``interval``, as in ``table.json``.
      metric: label of the vertical axis, with its unit.
      factor: what the values are multiplied by.
    """
    from matplotlib.figure import Figure

    if not panels:
        return None
    looks = {name: look for panel in panels.values() for name, (_, look) in panel["lines"].items()}
    labels = {target: textwrap.fill(_axis(panel["scale"]), 27) for target, panel in panels.items()}
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    lines = 1 + max(text.count("\n") for text in labels.values())
    handles, legend = wrapped_legend(looks)
    high, above, below = 0.95, 0.2, 0.22 + 0.11 * lines  # inches
    total = rows * (high + above + below) + 0.04 + legend
    left, between = 0.4, 0.32
    width = (WIDTH - left - 0.08 - between * (columns - 1)) / columns
    figure = Figure(figsize=(WIDTH, total))
    for place, ((target, panel), limits) in enumerate(zip(panels.items(), own_limits(_drawn(panels, factor), factor))):
        row, column = divmod(place, columns)
        bottom = total - (row + 1) * (high + above + below) + below
        x = left + column * (width + between)
        axes = figure.add_axes((x / WIDTH, bottom / total, width / WIDTH, high / total))
        for curve, look in panel["lines"].values():
            _draw(axes, curve, look, factor)
        if panel.get("chance") is not None and limits[0] <= factor * panel["chance"] <= limits[1]:
            axes.axhline(factor * panel["chance"], color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
            axes.text(0.01, factor * panel["chance"], "chance", color=GREY, va="bottom", ha="left",
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_title("all modalities" if target == "all" else target, pad=3, weight="bold")
        axes.set_xlabel(labels[target], labelpad=1.5, linespacing=1.05)
        axes.set_ylim(*limits)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.locator_params(axis="y", nbins=5)
        axes.tick_params(pad=1.5)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        if column == 0:
            axes.set_ylabel(metric, labelpad=2)
    figure.legend(handles=handles, **LEGEND)
    return figure


def _draw(axes: Any, curve: Mapping[str, Any], look: Look, factor: float) -> None:
    levels, mean = np.asarray(curve["levels"], np.float64), factor * np.asarray(curve["mean"], np.float64)
    if (ends := known_ends(curve)) is not None:
        low, high = factor * ends.T
        axes.fill_between(levels, low, high, color=look.color, alpha=0.1, linewidth=0)
    every = max(1, len(levels) // 5)
    axes.plot(levels, mean, color=look.color, linestyle=look.dash, linewidth=1.0, marker=look.marker, markersize=2.6,
              markevery=every, markeredgewidth=0)  # fmt: skip


def _axis(scale: str) -> str:
    """What grows along the axis, and what its ends mean."""
    text = scale.replace(" → ", "\u00a0→\u00a0").replace("^2", "²").replace(" -", " −")
    text = re.sub(r"N\(.*\)", lambda formula: formula[0].replace(" ", "\u00a0"), text)
    if text.startswith("each at"):
        return "severity of each"
    return text if text.startswith(("share", "severity")) else f"severity: {text}"


def _drawn(panels: Mapping[str, Mapping[str, Any]], factor: float) -> list[tuple[float, float]]:
    """The lowest and the highest value of each panel, intervals included."""
    limits = []
    for panel in panels.values():
        values: list[Any] = []
        for curve, _ in panel["lines"].values():
            ends = known_ends(curve)
            values += [curve["mean"], curve["mean"] if ends is None else ends.ravel()]
        drawn = factor * np.concatenate(values)
        limits.append((float(drawn.min()), float(drawn.max())))
    return limits
