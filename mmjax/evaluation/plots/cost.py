"""Cost against accuracy: what a point more costs, and which rows nobody beats at their price."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.evaluation.plots.style import CONTROLS, FAINT, GREY, ORANGE, WIDTH, styled
from mmjax.typing import Mapping

__all__ = ["cost_figure", "cost_points", "pareto_front"]

AXES = {"flops": "FLOPs of one example's forward pass", "params": "trained parameters"}
KINDS = {"single modality": ("s", GREY), "fusion": ("o", "#0072b2"), "control": ("X", "#cc79a7")}
NAMED = 8


def cost_points(summary: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Rows with a known cost above zero: ``name``, ``cost``, ``score``, ``interval``, ``kind``.

    A row that combines others costs what they do together, an ensemble as many times its member as there are models.
    """
    known = {row["name"]: (row.get("cost") or {}).get(kind) or row.get(kind) for row in summary["rows"]}
    points = []
    for row in summary["rows"]:
        models = len(summary["streams"]) if row.get("role") == "ensemble control" else 1
        parts = [known.get(name) or 0 for name in row.get("members") or []] * models
        cost = sum(parts) if parts and all(parts) else known[row["name"]]
        if row["status"] != "done" or not cost:
            continue
        single = len(row["streams"] or ()) == 1
        what = "control" if row.get("role") in CONTROLS else "single modality" if single else "fusion"
        points.append(
            {"name": row["name"], "cost": cost, "score": row["mean"], "interval": row["interval"], "kind": what}
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


@styled
def cost_figure(
    points: Sequence[Mapping[str, Any]], kind: str, metric: str, factor: float = 100, higher_is_better: bool = True
) -> Any:
    """Points, their Pareto front as a staircase, and the names on it; None for fewer than two points.

    Args:
      points: as ``cost_points`` gives them.
      kind: ``flops`` or ``params``.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if len(points) < 2:
        return None
    cost = np.array([point["cost"] for point in points], np.float64)
    score = factor * np.array([point["score"] for point in points], np.float64)
    front = pareto_front(cost, score if higher_is_better else -score)
    named = (
        front if len(front) <= NAMED else [front[i] for i in np.linspace(0, len(front) - 1, NAMED).round().astype(int)]
    )
    letters = {place: "abcdefgh"[number] for number, place in enumerate(named)}
    names = [textwrap.fill(f"{letters[i]}  {points[i]['name']}", 62, subsequent_indent="    ") for i in named]
    lines = sum(1 + name.count("\n") for name in names)
    plot, left, below, above = 1.75, 0.42, 0.36, 0.24  # inches
    total = plot + below + above + 0.12 * lines + 0.06
    figure = Figure(figsize=(WIDTH, total))
    box = (left / WIDTH, (total - above - plot) / total, 1 - (left + 0.18) / WIDTH, plot / total)
    axes = figure.add_axes(box)
    axes.set_xscale("log")
    axes.plot(cost[front], score[front], color=ORANGE, linewidth=0.9, drawstyle="steps-post", zorder=2)
    kinds = [name for name in KINDS if any(point["kind"] == name for point in points)]
    for place, point in enumerate(points):
        marker, color = KINDS[point["kind"]]
        on_front = place in front
        if on_front and point["interval"]:
            axes.plot(cost[[place, place]], factor * np.array(point["interval"]), color=color, linewidth=0.6, zorder=2)
        axes.plot(cost[place], score[place], marker, markersize=4.0 if on_front else 3.0, color=color, zorder=3,
                  alpha=1 if on_front else 0.55, markeredgewidth=0.7 if on_front else 0,
                  markeredgecolor="black" if on_front else color)  # fmt: skip
    _name_points(axes, letters, cost, score)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if high > 200 * low else (1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(_short_count))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(AXES[kind], labelpad=1.5)
    axes.set_ylabel(metric, labelpad=2)
    axes.margins(x=0.08, y=0.1)
    axes.locator_params(axis="y", nbins=6)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    handles = [
        Line2D([], [], linestyle="", marker=KINDS[k][0], markersize=3.6, color=KINDS[k][1], label=k) for k in kinds
    ]
    handles.append(Line2D([], [], color=ORANGE, linewidth=0.9, label="Pareto front"))
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False,
                  handlelength=1.2, handletextpad=0.4, columnspacing=1.0, borderaxespad=0.2)  # fmt: skip
    figure.text(left / WIDTH, 0.04 / total, "\n".join(names), va="bottom", linespacing=1.2)
    return figure


def _name_points(axes: Any, letters: Mapping[int, str], cost: np.ndarray, score: np.ndarray) -> None:
    """Letters above the staircase; below it where one would stand on the letter before."""
    close = np.log(cost.max() / cost.min()) / 20
    last, was_above = -np.inf, False
    for place, letter in letters.items():
        above = not (was_above and np.log(cost[place]) - last < close)
        axes.annotate(letter, (cost[place], score[place]), xytext=(-3, 3) if above else (3, -3),
                      textcoords="offset points", weight="bold", zorder=4, ha="right" if above else "left",
                      va="baseline" if above else "top")  # fmt: skip
        last, was_above = np.log(cost[place]), above


def _short_count(value: float, _: Any) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"
