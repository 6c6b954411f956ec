"""Learning curves: the primary metric on validation over the epochs, a panel for each trained row."""

import textwrap
from typing import Any, NamedTuple

import numpy as np

from mmjax.evaluation.report.kinds import KINDS, kind_of
from mmjax.evaluation.report.plots.style import (
    FAINT,
    KIND_COLORS,
    ORANGE,
    WIDTH,
    label,
    own_limits,
    scale,
    sections,
    short_names,
    styled,
)
from mmjax.evaluation.store.records import RecordStore
from mmjax.typing import Mapping

__all__ = ["curves_figure"]

COLUMNS = 3


@styled
def curves_figure(summary: Mapping[str, Any], store: RecordStore) -> Any:
    """The primary metric on validation over the epochs, a panel for each trained row; None where there is none."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    key, factor = f"validation/{summary['primary']}", scale(summary)
    curves = {}
    for row in summary["rows"]:
        history = store.history(row["name"]) if row["status"] == "done" else None
        if history is not None and key in history:
            curves[row["name"]] = factor * np.asarray(history[key], np.float64)
    if not curves:
        return None
    strips = _strips([row for row in summary["rows"] if row["name"] in curves])
    panel, gap, top, bottom, left, between = 0.62, 0.1, 0.46, 0.1, 0.33, 0.3  # inches
    ticks = 0.14  # below the last strip of a section
    total = top + bottom + sum(panel + gap + strip.above + ticks * strip.last for strip in strips)
    width = (WIDTH - left - 0.06 - between * (COLUMNS - 1)) / COLUMNS
    limits = dict(zip(curves, own_limits([_drawn(curve) for curve in curves.values()], factor)))
    figure = Figure(figsize=(WIDTH, total))
    figure.text(0.5, 1 - 0.04 / total, f"validation {label(summary)}: mean and s.d. over seeds,\ndots: epochs chosen; "
                "each panel with its own axis", ha="center", va="top", linespacing=1.1)  # fmt: skip
    kinds = {kind_of(row) for row in summary["rows"] if row["name"] in curves}
    handles = [Line2D([], [], color=KIND_COLORS[kind], linewidth=1.4, label=kind) for kind in KINDS if kind in kinds]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1 - 0.27 / total), ncols=3, frameon=False,
                  handlelength=1.4, columnspacing=1.2, borderaxespad=0)  # fmt: skip
    upper = total - top
    for strip in strips:
        if strip.heading:
            figure.text(0.01, (upper - 0.03) / total, strip.heading, weight="bold", va="top")
        upper -= strip.above + panel
        for column, (title, row) in enumerate(strip.panels):
            x = left + column * (width + between)
            axes = figure.add_axes((x / WIDTH, upper / total, width / WIDTH, panel / total))
            _draw_curve(axes, row, curves[row["name"]])
            axes.set_title(title, fontsize=7, pad=2, linespacing=1.05)
            axes.set_ylim(*limits[row["name"]])
            axes.locator_params(axis="y", nbins=3)
            axes.locator_params(axis="x", nbins=4, integer=True)
            axes.tick_params(pad=1.5, labelbottom=column >= strip.labelled)
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
            axes.set_axisbelow(True)
            if strip is strips[-1]:
                axes.set_xlabel("epoch", labelpad=1)
        upper -= gap + ticks * strip.last
    return figure


class _Strip(NamedTuple):
    """Panels side by side.

    Attributes:
      above: inches for titles and heading.
      last: of its section.
      labelled: the first column whose epochs stand below it, because no panel does.
    """

    heading: str
    panels: list[tuple[str, dict]]
    above: float
    last: bool
    labelled: int


def _strips(rows: list[dict]) -> list[_Strip]:
    strips = []
    for section, members in sections(rows):
        titles = ["\n".join(textwrap.wrap(name, 17)) for name in short_names(members)]
        panels = list(zip(titles, members))
        for start in range(0, len(panels), COLUMNS):
            some = panels[start : start + COLUMNS]
            heading = "" if start else textwrap.fill(section, 50)
            lines = 1 + max(title.count("\n") for title, _ in some)
            above = 0.115 * lines + 0.04 + (0.15 * (1 + heading.count("\n")) if heading else 0)
            below = max(0, min(COLUMNS, len(panels) - start - COLUMNS))
            strips.append(_Strip(heading, some, above, not below, below))
    return strips


def _drawn(curve: np.ndarray) -> tuple[float, float]:
    """From the lowest to the highest mean, s.d. included."""
    spread = curve.std(1, ddof=1) if curve.shape[1] > 1 else np.zeros(len(curve))
    mean = curve.mean(1)
    return float(np.nanmin(mean - spread)), float(np.nanmax(mean + spread))


def _draw_curve(axes: Any, row: Mapping[str, Any], curve: np.ndarray) -> None:
    color = KIND_COLORS[kind_of(row)]
    epochs, mean = np.arange(1, len(curve) + 1), curve.mean(1)
    if curve.shape[1] > 1:
        spread = curve.std(1, ddof=1)
        axes.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    axes.plot(epochs, mean, color=color, linewidth=1.0)
    chosen = np.array([epoch for epoch in row["epochs"] if epoch is not None and epoch <= len(curve)], int)
    axes.plot(chosen, mean[chosen - 1], "o", markersize=2.2, color=ORANGE, alpha=0.8, markeredgewidth=0)
    axes.set_xlim(1 - 0.02 * len(curve), len(curve) * 1.02)
