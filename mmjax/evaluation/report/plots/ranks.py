"""The critical-difference plot of methods ranked over data sets (Demsar 2006, figure 1)."""

import textwrap
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.report.plots.style import GREY, ORANGE, WIDTH, Sheet, styled
from mmjax.evaluation.statistics.ranks import cliques as runs_of
from mmjax.typing import Mapping

__all__ = ["critical_difference_figure"]


@styled
def critical_difference_figure(
    ranks: Mapping[str, float], critical_difference: float | None, cliques: Sequence[Sequence[str]] | None = None
) -> Any:
    """Methods on a line by average rank, the best at the left; bars join those that no test tells apart.

    Args:
      ranks: average rank by method; 1 is best.
      critical_difference: of average ranks (Nemenyi); None = too few data sets for one, so nothing is joined.
      cliques: groups of methods to join; None = every largest group whose ranks differ by less than the critical
        difference.
    """
    order = sorted(ranks, key=lambda name: (ranks[name], name))
    if cliques is None:
        runs = runs_of([ranks[name] for name in order], critical_difference or 0.0)
        cliques = [[order[place] for place in run] for run in runs]
    groups = [group for group in cliques if len(group) > 1]
    worst = max(len(order), 2)
    left, right = 1.12, WIDTH - 1.12  # inches; names stand outside
    half = -(-len(order) // 2)
    names = {name: textwrap.fill(name, 17) for name in order}
    step = 0.14 + 0.105 * max(text.count("\n") for text in names.values())
    axis, joined = 0.56 if critical_difference is not None else 0.3, 0.09  # inches from the top; between bars
    first = axis + 0.1 + joined * len(groups)
    sheet = Sheet(first + step * half + 0.02)
    axes = sheet.axes(0, 0, WIDTH, sheet.height)  # in which a unit is an inch
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(sheet.height, 0)
    axes.axis("off")

    def place(rank: float) -> float:
        return left + (rank - 1) / (worst - 1) * (right - left)

    axes.plot((left, right), (axis, axis), color="black", linewidth=0.8)
    every = 1 if worst < 10 else 2 if worst <= 20 else 5  # numbers of two digits need room
    for rank in range(1, worst + 1):
        labelled = (rank - 1) % every == 0
        axes.plot((place(rank),) * 2, (axis - (0.05 if labelled else 0.03), axis), color="black", linewidth=0.6)
        if labelled:
            axes.text(place(rank), axis - 0.07, str(rank), ha="center", va="bottom")
    axes.text(left - 0.08, axis, "average rank", ha="right", va="center", color=GREY)
    if critical_difference is not None:
        shown = min(critical_difference, worst - 1)
        start, end, y = place(1), place(1 + shown), 0.2
        axes.plot((start, end), (y, y), color=ORANGE, linewidth=1.2)
        for x in (start, end) if shown == critical_difference else (start,):
            axes.plot((x, x), (y - 0.035, y + 0.035), color=ORANGE, linewidth=1.2)
        text = f"critical difference {critical_difference:.2f}"
        axes.text((start + end) / 2, y - 0.05, text, ha="center", va="bottom")
    for number, name in enumerate(order):
        on_left = number < half
        row = number if on_left else len(order) - 1 - number
        level, x, edge = first + step * (row + 0.5), place(ranks[name]), left - 0.08 if on_left else right + 0.08
        axes.plot((x, x, edge), (axis, level, level), color=GREY, linewidth=0.6, zorder=1)
        axes.plot(x, axis, "o", markersize=2.8, color="black", zorder=4)
        text = f"{names[name]} {ranks[name]:.1f}" if on_left else f"{ranks[name]:.1f} {names[name]}"
        axes.text(edge + (-0.04 if on_left else 0.04), level, text, ha="right" if on_left else "left", va="center",
                  linespacing=1.0)  # fmt: skip
    for number, group in enumerate(groups):
        level = axis + 0.11 + joined * number
        low, high = (place(pick(ranks[name] for name in group)) for pick in (min, max))
        axes.plot((low - 0.03, high + 0.03), (level, level), color="black", linewidth=2.4, solid_capstyle="butt",
                  zorder=3)  # fmt: skip
    return sheet.figure
