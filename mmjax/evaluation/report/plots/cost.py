"""Cost against accuracy: what a point more costs, and which rows nobody beats at their price."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.evaluation.report.kinds import KINDS, kind_of
from mmjax.evaluation.report.plots import style
from mmjax.typing import Mapping

__all__ = ["cost_figure", "cost_points", "pareto_front"]

AXES = {"flops": "FLOPs of one example's forward pass", "params": "trained parameters"}
LETTERS = "abcdefghijkl"


def cost_points(summary: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Rows with a known cost above zero: ``name``, ``cost``, ``score``, ``interval``, ``kind``.

    A row that combines others costs what they do together, an ensemble as many times its member as there are models.
    """
    prices = {row["name"]: (row.get("cost") or {}).get(kind) or row.get(kind) for row in summary["rows"]}
    points = []
    for row in summary["rows"]:
        models = len(summary["streams"]) if row.get("role") == "ensemble control" else 1
        parts = [prices.get(name) or 0 for name in row.get("members") or []] * models
        cost = sum(parts) if parts and all(parts) else prices[row["name"]]
        if row["status"] != "done" or not cost:
            continue
        points.append(
            {"name": row["name"], "cost": cost, "score": row["mean"], "interval": row["interval"], "kind": kind_of(row)}
        )
    return points


def pareto_front(cost: Sequence[float] | np.ndarray, score: Sequence[float] | np.ndarray) -> list[int]:
    """Places of the points that no other beats: none is as cheap and better, or cheaper and as good; by cost.

    Of equal points the first stands for all.
    """
    order = sorted(range(len(cost)), key=lambda i: (cost[i], -score[i], i))
    front: list[int] = []
    for i in order:
        if not front or score[i] > score[front[-1]]:
            front.append(i)
    return front


@style.styled
def cost_figure(
    points: Sequence[Mapping[str, Any]], kind: str, metric: str, factor: float = 100, higher_is_better: bool = True
) -> Any:
    """Points, their Pareto front as a staircase, and the names on it; None for fewer than two points.

    A letter stands above its point, at the end of a line; a point too far behind the others for the axis is an arrow at
    its edge.

    Args:
      points: as ``cost_points`` gives them.
      kind: ``flops`` or ``params``.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if len(points) < 2:
        return None
    cost = np.array([point["cost"] for point in points], np.float64)
    score = factor * np.array([point["score"] for point in points], np.float64)
    ends = [[factor * end for end in point["interval"] or ()] for point in points]
    front = pareto_front(cost, score if higher_is_better else -score)
    some = np.linspace(0, len(front) - 1, min(len(front), len(LETTERS))).round().astype(int)
    letters = {front[i]: letter for i, letter in zip(some, LETTERS)}
    digits = 1 if factor == 100 else 3
    names = "\n".join(
        textwrap.fill(f"{letter}  {points[i]['name']}: {score[i]:.{digits}f}", 62, subsequent_indent="    ")
        for i, letter in letters.items()
    )
    plot, left, below, above = 1.75, 0.42, 0.36, 0.52  # inches
    sheet = style.Sheet(plot + below + above + 0.12 * (1 + names.count("\n")) + 0.06)
    axes = sheet.axes(left, above, style.WIDTH - left - 0.18, plot)
    axes.set_xscale("log")
    axes.plot(cost[front], score[front], color=style.ORANGE, linewidth=0.9, drawstyle="steps-post", zorder=2)
    low, high = style.focus(score, [end if i in front else [] for i, end in enumerate(ends)], higher_is_better)
    axes.set_ylim(low, high)
    shown = np.clip(score, low, high)
    for place, point in enumerate(points):
        color, marker = style.KIND_COLORS[point["kind"]], style.KIND_MARKERS[point["kind"]]
        on_front, beyond = place in front, shown[place] != score[place]
        if on_front and ends[place]:
            axes.plot(cost[[place, place]], ends[place], color=color, linewidth=0.6, zorder=2)
        if beyond:
            marker = "v" if higher_is_better else "^"
        axes.plot(cost[place], shown[place], marker, markersize=4.0 if on_front else 3.0, color=color, zorder=3,
                  clip_on=False, alpha=1 if on_front or beyond else 0.55, markeredgewidth=0.7 if on_front else 0,
                  markeredgecolor="black" if on_front else color)  # fmt: skip
    beside = (cost.max() / cost.min()) ** 0.08 if cost.max() > cost.min() else 2
    axes.set_xlim(cost.min() / beside, cost.max() * beside)
    _name_points(axes, letters, cost, shown)
    low, high = axes.get_xlim()
    logarithmic = LogLocator(subs=(1,) if high > 200 * low else (1, 2, 5), numticks=12)
    # Of rows that cost about the same few or none of these lie in the plot, or they are subdivided until they overlap.
    axes.xaxis.set_major_locator(logarithmic if high > 3 * low else MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(_short_count))
    axes.xaxis.set_minor_formatter(NullFormatter())
    style.dress(axes, AXES[kind], metric, grid="both", bins={"y": 6}, pad=False)
    handles = [style.marker_of(name, 3.6) for name in KINDS if any(point["kind"] == name for point in points)]
    handles.append(Line2D([], [], color=style.ORANGE, linewidth=0.9, label="Pareto front"))
    sheet.legend(handles, 4, top=0, handlelength=1.2, handletextpad=0.4, columnspacing=1.0)
    sheet.figure.text(left / style.WIDTH, 0.04 / sheet.height, names, va="bottom", linespacing=1.2)
    return sheet.figure


def _name_points(axes: Any, letters: Mapping[int, str], cost: np.ndarray, score: np.ndarray) -> None:
    """Letters in one line above the plot, in the order of their points, each joined to its own by a line.

    The lines rise straight from the points and bend only above the plot, so that none crosses another.
    """
    start, end = np.log(axes.get_xlim())
    places = list(letters)
    at = (np.log(cost[places]) - start) / (end - start)
    slots = _apart(at, 0.055)
    low, high = axes.get_ylim()
    heights = (score[places] - low) / (high - low)
    for place, x, slot, height in zip(places, at, slots, heights):
        axes.plot((x, x, slot), (height, 1.01, 1.09), transform=axes.transAxes, color=style.GREY, linewidth=0.5,
                  linestyle=(0, (1, 1)), clip_on=False, zorder=1.5)  # fmt: skip
        axes.annotate(letters[place], (slot, 1.1), xycoords="axes fraction", weight="bold", ha="center", va="bottom",
                      annotation_clip=False)  # fmt: skip


def _apart(at: np.ndarray, gap: float) -> np.ndarray:
    """Places in [0, 1], in the same order, at least a gap apart and otherwise near where they were.

    The nearest by least squares: isotonic regression of the places less their share of the gaps.
    """
    from scipy.optimize import isotonic_regression

    steps = gap * np.arange(len(at))
    return np.clip(isotonic_regression(at - steps).x, 0, max(1 - steps[-1], 0)) + steps


def _short_count(value: float, _: Any) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"
