"""Lines of a section's rows: what is left as modalities go missing or become noisy, and what more examples bring."""

import re
import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.report.plots import style
from mmjax.evaluation.report.plots.style import Look
from mmjax.typing import Mapping

__all__ = ["efficiency_figure", "efficiency_lines", "sweep_figure", "sweep_panels"]

COLUMNS = 2
SCALES = {"noise": "severity", "missing": "share of items that lack it"}
LEGEND: dict[str, Any] = {"handlelength": 2.6, "columnspacing": 1.0, "labelspacing": 0.4, "borderaxespad": 0.1}


def sweep_panels(summary: Mapping[str, Any], rows: list[dict], kind: str) -> dict[str, dict[str, Any]]:
    """The curves of ``noise`` or ``missing`` of the rows in scope, by the modality that is changed; empty for none."""
    chosen = [one for one in style.in_scope(summary, rows, "robustness") if one[0]["robustness"].get(kind)]
    panels: dict[str, dict[str, Any]] = {}
    for name, (row, look) in zip(style.short_names([row for row, _ in chosen]), chosen):
        for target, curve in row["robustness"][kind].items():
            new: dict[str, Any] = {
                "scale": curve.get("scale") or SCALES[kind],
                "lines": {},
                "chance": summary.get("chance"),
            }
            panels.setdefault(target, new)["lines"][name] = (curve, look)
    return {target: panels[target] for target in sorted(panels, key=lambda target: (target == "all", target))}


@style.styled
def sweep_figure(panels: Mapping[str, Mapping[str, Any]], metric: str, factor: float = 100) -> Any:
    """A panel for each changed modality with an axis of its own, a line for each row; None where there is nothing.

    Args:
      panels: by modality ``{"scale": what severity 0 to 1 means, "lines": {name: (curve, look)}, "chance": value}``; a
        curve has ``levels``, ``mean`` and, or None, ``interval``, as in ``table.json``.
      metric: label of the vertical axis, with its unit.
      factor: what the values are multiplied by.
    """
    if not panels:
        return None
    looks = {name: look for panel in panels.values() for name, (_, look) in panel["lines"].items()}
    labels = [textwrap.fill(_axis(panel["scale"]), 27) for panel in panels.values()]
    columns = min(COLUMNS, len(panels))
    handles, legend = style.wrapped_legend(looks)
    high, above, below = 0.95, 0.2, 0.22 + 0.11 * (1 + max(text.count("\n") for text in labels))  # inches
    left, between = 0.4, 0.32
    width = (style.WIDTH - left - 0.08 - between * (columns - 1)) / columns
    sheet = style.Sheet(-(-len(panels) // columns) * (high + above + below) + 0.04 + legend)
    all_limits = style.own_limits([_drawn(panel, factor) for panel in panels.values()], factor)
    for place, ((target, panel), label, limits) in enumerate(zip(panels.items(), labels, all_limits)):
        row, column = divmod(place, columns)
        axes = sheet.axes(left + column * (width + between), row * (high + above + below) + above, width, high)
        for curve, look in panel["lines"].values():
            every = max(1, len(curve["levels"]) // 5)
            ends = _draw(axes, np.asarray(curve["levels"]), curve, look, factor, markersize=2.6, markevery=every)
            if ends is not None:
                axes.fill_between(curve["levels"], *ends, color=look.color, alpha=0.1, linewidth=0)
        if panel.get("chance") is not None and limits[0] <= factor * panel["chance"] <= limits[1]:
            chance = factor * panel["chance"]
            axes.axhline(chance, color=style.GREY, linewidth=0.6, linestyle=style.DOTTED, zorder=0)
            axes.text(0.01, chance, "chance", color=style.GREY, va="bottom", transform=axes.get_yaxis_transform())
        axes.set_title("all modalities" if target == "all" else target, weight="bold")
        axes.set_ylim(*limits)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        style.dress(axes, label, metric if column == 0 else "", grid="y", bins={"y": 5})
        axes.xaxis.label.set_linespacing(1.05)
    sheet.legend(handles, **LEGEND)
    return sheet.figure


def efficiency_lines(summary: Mapping[str, Any], rows: list[dict]) -> dict[str, tuple[dict[str, Any], Look]]:
    """The curves of the rows in scope, by name; empty for none.

    A row's ``data_efficiency`` holds ``n`` (training examples), ``mean`` and ``interval``, in the order of ``n``.
    """
    chosen = style.in_scope(summary, rows, "data_efficiency")
    names = style.short_names([row for row, _ in chosen])
    return {name: (row["data_efficiency"], look) for name, (row, look) in zip(names, chosen)}


@style.styled
def efficiency_figure(lines: Mapping[str, tuple[Mapping[str, Any], Look]], metric: str, factor: float = 100) -> Any:
    """A line for each row, on a logarithmic axis of examples; None where there is nothing to show.

    Args:
      lines: by name the curve (``n``, ``mean`` and, or None, ``interval``) and its look; where one has the look of a
        single modality, a dotted line marks what it reaches on all data.
      metric: label of the vertical axis, with its unit.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    if not lines:
        return None
    handles, legend = style.wrapped_legend({name: look for name, (_, look) in lines.items()})
    sheet = style.Sheet(1.7 + 0.4 + legend + 0.08)
    axes = sheet.axes(0.42, 0.08, style.WIDTH - 0.52, 1.7)
    axes.set_xscale("log")
    for number, (curve, look) in enumerate(lines.values()):
        beside = 1.025 ** (number - (len(lines) - 1) / 2) * np.asarray(curve["n"])  # so that intervals stay apart
        if (ends := _draw(axes, beside, curve, look, factor, markersize=3.2)) is not None:
            axes.vlines(beside, *ends, color=look.color, linewidth=0.8)
        if look == style.SINGLE:
            axes.axhline(factor * curve["mean"][-1], color=look.color, linewidth=0.7, linestyle=style.DOTTED, zorder=0)
    axes.set_xticks(sorted({n for curve, _ in lines.values() for n in curve["n"]}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    style.dress(axes, "training examples (logarithmic)", metric, grid="y", bins={"y": 6})
    sheet.legend(handles, **LEGEND)
    return sheet.figure


def _draw(axes: Any, x: np.ndarray, curve: Mapping[str, Any], look: Look, factor: float, **markers: Any) -> Any:
    """Draws the means and returns the ends of their intervals, ``[2, points]``, or None."""
    axes.plot(x, factor * np.asarray(curve["mean"], np.float64), color=look.color, linestyle=look.dash, linewidth=1.0,
              marker=look.marker, markeredgewidth=0, **markers)  # fmt: skip
    return None if (ends := style.known_ends(curve)) is None else factor * ends.T


def _axis(scale: str) -> str:
    """What grows along the axis, and what its ends mean."""
    text = scale.replace(" → ", "\u00a0→\u00a0").replace("^2", "²").replace(" -", " −")
    text = re.sub(r"N\(.*\)", lambda formula: formula[0].replace(" ", "\u00a0"), text)
    if text.startswith("each at"):
        return "severity of each"
    return text if text.startswith(("share", "severity")) else f"severity: {text}"


def _drawn(panel: Mapping[str, Any], factor: float) -> tuple[float, float]:
    """The lowest and the highest value of a panel, intervals included."""
    values: list[Any] = []
    for curve, _ in panel["lines"].values():
        ends = style.known_ends(curve)
        values += [curve["mean"], [] if ends is None else ends.ravel()]
    drawn = factor * np.concatenate(values)
    return float(drawn.min()), float(drawn.max())
