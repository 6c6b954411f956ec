"""Data efficiency: the score against the number of training examples."""

from typing import Any

import numpy as np

from mmjax.evaluation.report.plots.style import (
    FAINT,
    LEGEND,
    SINGLE,
    WIDTH,
    Look,
    in_scope,
    known_ends,
    short_names,
    styled,
    wrapped_legend,
)
from mmjax.typing import Mapping

__all__ = ["efficiency_figure", "efficiency_lines"]


def efficiency_lines(summary: Mapping[str, Any], rows: list[dict]) -> dict[str, tuple[dict[str, Any], Look]]:
    """The curves of the rows in scope, by name; empty for none.

    A row's ``data_efficiency`` holds ``n`` (training examples), ``mean`` and ``interval``, in the order of ``n``.
    """
    chosen = in_scope(summary, rows, "data_efficiency")
    names = short_names([row for row, _ in chosen]) if chosen else []
    return {name: (row["data_efficiency"], look) for name, (row, look) in zip(names, chosen)}


@styled
def efficiency_figure(lines: Mapping[str, tuple[Mapping[str, Any], Look]], metric: str, factor: float = 100) -> Any:
    """A line for each row, on a logarithmic axis of examples; None where there is nothing to show.

    Args:
      lines: by name the curve (``n``, ``mean`` and, or None, ``interval``) and its look; where one has the look of a
        single modality, a dotted line marks what it reaches on all data.
      metric: label of the vertical axis, with its unit.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    if not lines:
        return None
    handles, legend = wrapped_legend({name: look for name, (_, look) in lines.items()})
    plot, left, below = 1.7, 0.42, 0.4  # inches
    total = plot + below + legend + 0.08
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.add_axes((left / WIDTH, (below + legend) / total, 1 - (left + 0.1) / WIDTH, plot / total))
    axes.set_xscale("log")
    sizes = sorted({n for curve, _ in lines.values() for n in curve["n"]})
    for number, (curve, look) in enumerate(lines.values()):
        mean = factor * np.asarray(curve["mean"], np.float64)
        beside = 1.025 ** (number - (len(lines) - 1) / 2) * np.asarray(curve["n"])  # so that intervals stay apart
        if (ends := known_ends(curve)) is not None:
            low, high = factor * ends.T
            axes.vlines(beside, low, high, color=look.color, linewidth=0.8)
        axes.plot(beside, mean, color=look.color, linestyle=look.dash, marker=look.marker, markersize=3.2,
                  linewidth=1.0, markeredgewidth=0)  # fmt: skip
        if look == SINGLE:
            axes.axhline(mean[-1], color=look.color, linewidth=0.7, linestyle=(0, (1, 2)), zorder=0)
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("training examples (logarithmic)", labelpad=1.5)
    axes.set_ylabel(metric, labelpad=2)
    axes.locator_params(axis="y", nbins=6)
    axes.tick_params(pad=1.5)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(handles=handles, **LEGEND)
    return figure
