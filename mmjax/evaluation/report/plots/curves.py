"""Learning curves: the primary metric on validation over the epochs, a panel for each trained row."""

import textwrap
from typing import Any, NamedTuple

import numpy as np

from mmjax.evaluation.report.kinds import KINDS, kind_of
from mmjax.evaluation.report.plots import style
from mmjax.evaluation.store.records import RecordStore
from mmjax.typing import Mapping

__all__ = ["curves_figure"]

COLUMNS = 3


@style.styled
def curves_figure(summary: Mapping[str, Any], store: RecordStore) -> Any:
    """The primary metric on validation over the epochs, a panel for each trained row; None where there is none."""
    from matplotlib.lines import Line2D

    key, factor = f"validation/{summary['primary']}", style.scale(summary)
    curves = {}
    for row in summary["rows"]:
        history = store.history(row["name"]) if row["status"] == "done" else None
        if history is not None and key in history:
            curves[row["name"]] = factor * np.asarray(history[key], np.float64)
    if not curves:
        return None
    rows = [row for row in summary["rows"] if row["name"] in curves]
    strips = _strips(rows)
    panel, gap, top, bottom, left, between = 0.62, 0.1, 0.46, 0.1, 0.33, 0.3  # inches
    ticks = 0.14  # below the last strip of a section
    sheet = style.Sheet(top + bottom + sum(panel + gap + strip.above + ticks * strip.last for strip in strips))
    width = (style.WIDTH - left - 0.06 - between * (COLUMNS - 1)) / COLUMNS
    limits = dict(zip(curves, style.own_limits([_drawn(curve) for curve in curves.values()], factor)))
    caption = f"validation {style.label(summary)}: mean and s.d. over seeds,"
    caption += "\ndots: epochs chosen; each panel with its own axis"
    sheet.figure.text(0.5, 1 - 0.04 / sheet.height, caption, ha="center", va="top", linespacing=1.1)
    handles = [Line2D([], [], color=style.KIND_COLORS[kind], linewidth=1.4, label=kind) for kind in KINDS
               if kind in map(kind_of, rows)]  # fmt: skip
    sheet.legend(handles, 3, top=0.27, handlelength=1.4, borderaxespad=0)
    upper = top
    for strip in strips:
        if strip.heading:
            y = 1 - (upper + 0.03) / sheet.height
            sheet.figure.text(0.01, y, strip.heading, weight="bold", va="top")
        for column, (title, row) in enumerate(strip.panels):
            axes = sheet.axes(left + column * (width + between), upper + strip.above, width, panel)
            _draw_curve(axes, row, curves[row["name"]])
            axes.set_title(title, pad=2, linespacing=1.05)
            axes.set_ylim(*limits[row["name"]])
            axes.locator_params(axis="x", integer=True)
            style.dress(axes, grid="y", bins={"y": 3, "x": 4})
            axes.tick_params(labelbottom=column >= strip.labelled)
            if strip is strips[-1]:
                axes.set_xlabel("epoch", labelpad=1)
        upper += strip.above + panel + gap + ticks * strip.last
    return sheet.figure


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
    for section, members in style.sections(rows):
        titles = ["\n".join(textwrap.wrap(name, 17)) for name in style.short_names(members)]
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
    color = style.KIND_COLORS[kind_of(row)]
    epochs, mean = np.arange(1, len(curve) + 1), curve.mean(1)
    if curve.shape[1] > 1:
        spread = curve.std(1, ddof=1)
        axes.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    axes.plot(epochs, mean, color=color, linewidth=1.0)
    chosen = np.array([epoch for epoch in row["epochs"] if epoch is not None and epoch <= len(curve)], int)
    axes.plot(chosen, mean[chosen - 1], "o", markersize=2.2, color=style.ORANGE, alpha=0.8, markeredgewidth=0)
    axes.set_xlim(1 - 0.02 * len(curve), len(curve) * 1.02)
