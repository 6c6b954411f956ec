"""Reliability diagrams: how often a row is right when it is so sure."""

import textwrap
from typing import Any

import numpy as np

from mmjax.evaluation.report.kinds import kind_of
from mmjax.evaluation.report.plots import style
from mmjax.typing import Mapping

__all__ = ["reliability_diagrams", "reliability_figure"]

COLUMNS = 2
PANELS = 4


def reliability_diagrams(summary: Mapping[str, Any], rows: list[dict]) -> dict[str, dict[str, Any]]:
    """The diagrams of the rows in scope, by name; empty for none."""
    chosen = [row for row, _ in style.in_scope(summary, rows, "calibration") if row["calibration"].get("reliability")]
    return {
        name: {**cell["reliability"], "ece": cell.get("ece"), "ece_interval": cell.get("ece_interval"), "kind": kind}
        for name, cell, kind in (
            (name, row["calibration"], kind_of(row))
            for name, row in zip(style.short_names(chosen[:PANELS]), chosen[:PANELS])
        )
    }


@style.styled
def reliability_figure(diagrams: Mapping[str, Mapping[str, Any]]) -> Any:
    """A panel for each row; None where there is nothing to show.

    Args:
      diagrams: by name ``confidence``, ``accuracy`` and ``share`` of the items, ``[bins]`` in [0, 1] (None for
        an empty bin), and optionally ``ece``, ``ece_interval`` and the row's ``kind``.
    """
    if not diagrams:
        return None
    titles = [_title(name, diagram) for name, diagram in diagrams.items()]
    columns = min(COLUMNS, len(diagrams))
    left, between, right, below = 0.4, 0.16, 0.08, 0.36  # inches
    above = 0.1 + 0.11 * (1 + max(title.count("\n") for title in titles))
    side = min(1.4, (style.WIDTH - left - right - between * (columns - 1)) / columns)
    sheet = style.Sheet(-(-len(diagrams) // columns) * (side + above) + below)
    lowest = _lowest(diagrams)
    for place, (title, diagram) in enumerate(zip(titles, diagrams.values())):
        row, column = divmod(place, columns)
        axes = sheet.axes(left + column * (side + between), row * (side + above) + above, side, side)
        lowest_of_column = place + columns >= len(diagrams)
        _draw(axes, diagram)
        axes.set_title(title, linespacing=1.05)
        axes.set_xlim(lowest, 102)
        axes.set_ylim(lowest, 102)
        style.dress(axes, "confidence (%)" * lowest_of_column, "accuracy (%)" * (column == 0), grid="both",
                    bins={"both": 5})  # fmt: skip
        axes.tick_params(labelleft=column == 0, labelbottom=lowest_of_column)
    return sheet.figure


def _draw(axes: Any, diagram: Mapping[str, Any]) -> None:
    confidence, accuracy, share = (
        np.array([np.nan if v is None else v for v in diagram[key]], np.float64) * 100
        for key in ("confidence", "accuracy", "share")
    )
    axes.plot((0, 100), (0, 100), color=style.GREY, linewidth=0.7, linestyle=style.DASHED, zorder=1)
    low, high = np.minimum(confidence, accuracy), np.maximum(confidence, accuracy)
    axes.vlines(confidence, low, high, color=style.ORANGE, linewidth=1.0, zorder=2)
    size = 6 + 14 * np.nan_to_num(share) / max(np.nanmax(share), 1e-9)
    color = style.KIND_COLORS[diagram.get("kind") or "fusion"]
    axes.scatter(confidence, accuracy, s=size, color=color, linewidths=0, zorder=3)


def _title(name: str, diagram: Mapping[str, Any]) -> str:
    """The name, and below it the error, clear of the points."""
    text = textwrap.fill(name, 30)
    if diagram.get("ece") is None:
        return text
    ends = [f"{100 * end:.1f}" for end in diagram.get("ece_interval") or ()]
    return f"{text}\nECE {100 * diagram['ece']:.1f}" + f" [{', '.join(ends)}]" * bool(ends)


def _lowest(diagrams: Mapping[str, Mapping[str, Any]]) -> float:
    """The same start for both axes of every panel, a ten below what is drawn."""
    values = [v for d in diagrams.values() for key in ("confidence", "accuracy") for v in d[key] if v is not None]
    return max(-2.0, 10 * np.floor(10 * np.nanmin(values)) - 2)
