"""Reliability diagrams: how often a row is right when it is so sure."""

import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.report.kinds import kind_of
from mmjax.evaluation.report.plots.style import FAINT, GREY, KIND_COLORS, ORANGE, WIDTH, in_scope, short_names, styled
from mmjax.typing import Mapping

__all__ = ["reliability_diagrams", "reliability_figure"]

COLUMNS = 2
PANELS = 4


def reliability_diagrams(summary: Mapping[str, Any], rows: list[dict]) -> dict[str, dict[str, Any]]:
    """The diagrams of the rows in scope, by name; empty for none."""
    chosen = [row for row, _ in in_scope(summary, rows, "calibration") if row["calibration"].get("reliability")]
    chosen = chosen[:PANELS]
    names = short_names(chosen) if chosen else []
    return {
        name: {**cell["reliability"], "ece": cell.get("ece"), "ece_interval": cell.get("ece_interval"), "kind": kind}
        for name, cell, kind in ((name, row["calibration"], kind_of(row)) for name, row in zip(names, chosen))
    }


@styled
def reliability_figure(diagrams: Mapping[str, Mapping[str, Any]]) -> Any:
    """A panel for each row; None where there is nothing to show.

    Args:
      diagrams: by name ``confidence``, ``accuracy`` and ``share`` of the items, ``[bins]`` in [0, 1] (None for
        an empty bin), and optionally ``ece``, ``ece_interval`` and the row's ``kind``.
    """
    from matplotlib.figure import Figure

    if not diagrams:
        return None
    titles = {name: _title(name, diagram) for name, diagram in diagrams.items()}
    columns = min(COLUMNS, len(diagrams))
    rows = -(-len(diagrams) // columns)
    left, between, right, below = 0.4, 0.16, 0.08, 0.36  # inches
    above = 0.1 + 0.11 * (1 + max(title.count("\n") for title in titles.values()))
    side = min(1.4, (WIDTH - left - right - between * (columns - 1)) / columns)
    total = rows * (side + above) + below
    lowest = _lowest(diagrams)
    figure = Figure(figsize=(WIDTH, total))
    for place, (name, diagram) in enumerate(diagrams.items()):
        row, column = divmod(place, columns)
        x, y = left + column * (side + between), total - (row + 1) * (side + above)
        axes = figure.add_axes((x / WIDTH, y / total, side / WIDTH, side / total))
        bottom_of_column = place + columns >= len(diagrams)
        _draw(axes, diagram)
        axes.set_title(titles[name], pad=3, linespacing=1.05)
        axes.set_xlim(lowest, 102)
        axes.set_ylim(lowest, 102)
        axes.locator_params(nbins=5)
        axes.tick_params(pad=1.5, labelleft=column == 0, labelbottom=bottom_of_column)
        axes.set_axisbelow(True)
        if column == 0:
            axes.set_ylabel("accuracy (%)", labelpad=2)
        if bottom_of_column:
            axes.set_xlabel("confidence (%)", labelpad=1.5)
    return figure


def _draw(axes: Any, diagram: Mapping[str, Any]) -> None:
    confidence, accuracy, share = (
        np.array([np.nan if v is None else v for v in diagram[key]], np.float64) * 100
        for key in ("confidence", "accuracy", "share")
    )
    axes.plot((0, 100), (0, 100), color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.vlines(confidence, np.minimum(confidence, accuracy), np.maximum(confidence, accuracy), color=ORANGE,
                linewidth=1.0, zorder=2)  # fmt: skip
    size = 6 + 14 * np.nan_to_num(share) / max(np.nanmax(share), 1e-9)
    axes.scatter(
        confidence, accuracy, s=size, color=KIND_COLORS[diagram.get("kind") or "fusion"], linewidths=0, zorder=3
    )


def _title(name: str, diagram: Mapping[str, Any]) -> str:
    """The name, and below it the error, clear of the points."""
    text = textwrap.fill(name, 30)
    if diagram.get("ece") is None:
        return text
    ends = diagram.get("ece_interval")
    return f"{text}\nECE {100 * diagram['ece']:.1f}" + (
        " [{:.1f}, {:.1f}]".format(*(100 * e for e in ends)) if ends else ""
    )


def _lowest(diagrams: Mapping[str, Mapping[str, Any]]) -> float:
    """The same start for both axes of every panel, a ten below what is drawn."""
    values = [v for d in diagrams.values() for key in ("confidence", "accuracy") for v in d[key] if v is not None]
    return max(-2.0, 10 * np.floor(10 * np.nanmin(values)) - 2)
