"""Plots of a table at the width of a column: each row with its intervals, and the learning curves."""

import io
import pathlib
import textwrap
from typing import Any, NamedTuple

import numpy as np

from mmjax.evaluation.records import RecordStore, replace_file
from mmjax.typing import Mapping

__all__ = ["write_plots"]

WIDTH = 3.4  # inches
COLUMNS = 3
BLUE, PALE, ORANGE, GREY, FAINT = "#1f5fa8", "#a9c6e8", "#d9660d", "#6b6b6b", "#e9edf2"
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "font.family": "DejaVu Sans",
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "savefig.dpi": 300,
}


def write_plots(workdir: pathlib.Path, summary: Mapping[str, Any]) -> None:
    """Writes ``plots/rows.png`` and ``plots/learning_curves.png``, as far as there is something to show."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own style must not change the plots
        matplotlib.rcParams.update(STYLE)
        if any(row["status"] == "done" for row in summary["rows"]):
            _save(rows_figure(summary), workdir / "plots" / "rows.png")
        if (figure := curves_figure(summary, RecordStore(workdir))) is not None:
            _save(figure, workdir / "plots" / "learning_curves.png")


def _majority_fits(summary: Mapping[str, Any]) -> bool:
    """Whether the axis shows the majority class: not where that would squeeze all rows into a corner."""
    means = [row["mean"] for row in summary["rows"] if row.get("status") == "done"]
    if summary["majority"] is None or not means:
        return False
    return min(means) - summary["majority"] <= max(means) - min(means) + 0.02


def rows_figure(summary: Mapping[str, Any]) -> Any:
    """Each row's mean with its intervals, top to bottom as in the table, beside what the paper says."""
    from matplotlib.figure import Figure

    lines = _lines(summary)
    line_height, gap, top, bottom = 0.115, 0.05, 0.06, 0.8  # inches
    heights = [line_height * len(text.split("\n")) + gap for text, _, _ in lines]
    total = sum(heights) + top + bottom
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.add_axes((0.445, bottom / total, 0.535, sum(heights) / total))
    scale = _scale(summary)
    drawn = []
    for (text, kind, row), height, start in zip(lines, heights, np.cumsum([0, *heights])):
        middle = start + height / 2
        heading = kind == "heading"
        x = -0.82 if heading else -0.03
        axes.text(
            x, middle, text, transform=axes.get_yaxis_transform(), va="center", linespacing=1.05,
            ha="left" if heading else "right", weight="bold" if heading else "normal",
        )  # fmt: skip
        if heading:
            continue
        axes.axhline(middle, color=FAINT, linewidth=0.6, zorder=0)
        if row.get("status") == "done":
            _draw_row(axes, row, middle, scale)
            drawn += [row["mean"], *(row["interval"] or ()), *(row["seed_interval"] or ())]
        if row["paper"] is not None:
            axes.plot(row["paper"]["value"], middle, "D", markersize=3.4, markerfacecolor="white",
                      markeredgecolor=ORANGE, markeredgewidth=0.9, zorder=4)  # fmt: skip
            drawn.append(row["paper"]["value"] / scale)
        if row.get("test_selected") is not None:
            drawn.append(row["test_selected"])
    if _majority_fits(summary):
        axes.axvline(scale * summary["majority"], color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
        drawn.append(summary["majority"])
    margin = 0.04 * (max(drawn) - min(drawn)) + 1e-3
    axes.set_xlim(scale * (min(drawn) - margin), scale * (max(drawn) + margin))
    axes.set_ylim(sum(heights), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(_label(summary), labelpad=2)
    handles = _handles(summary)
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False,
                  handlelength=2.0, columnspacing=1.2, labelspacing=0.35, borderaxespad=0.2)  # fmt: skip
    return figure


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str, dict]]:
    """What stands under each other: headings, rows with something to show, published rows."""
    lines: list[tuple[str, str, dict]] = []
    shown = [row for row in summary["rows"] if row["status"] == "done" or row["paper"] is not None]
    for section, rows in _sections(shown):
        if section:
            lines.append((textwrap.fill(section, 44), "heading", {}))
        lines += [(textwrap.fill(name, 27), "row", row) for name, row in zip(_short_names(rows), rows)]
    if summary["references"]:
        lines.append(("published, not run here", "heading", {}))
        lines += [(textwrap.fill(paper["name"], 27), "row", {"paper": paper}) for paper in summary["references"]]
    return lines


def _sections(rows: list[dict]) -> list[tuple[str, list[dict]]]:
    sections: dict[str, list[dict]] = {}
    for row in rows:
        sections.setdefault(row["section"], []).append(row)
    return list(sections.items())


def _short_names(rows: list[dict]) -> list[str]:
    """Names without the words that all rows of a section end in: its heading says them."""
    words = [row["name"].split(" ") for row in rows]
    shared = 0
    while min(map(len, words)) > shared + 1 and len({tuple(name[-shared - 1 :]) for name in words}) == 1:
        shared += 1
    return [" ".join(name[: len(name) - shared]) if len(rows) > 1 else " ".join(name) for name in words]


def _draw_row(axes: Any, row: Mapping[str, Any], y: float, scale: float) -> None:
    if row["test_selected"] is not None:
        axes.plot(scale * row["test_selected"], y, "|", markersize=5.5, color=GREY, markeredgewidth=0.9, zorder=2.8)
    if row["interval"] is not None:
        axes.plot(scale * np.array(row["interval"]), (y, y), color=BLUE, linewidth=0.9, zorder=3)
    if row["seed_interval"] is not None:
        axes.plot(scale * np.array(row["seed_interval"]), (y, y), color=PALE, linewidth=4.5,
                  solid_capstyle="butt", zorder=2.5)  # fmt: skip
    axes.plot(scale * row["mean"], y, "o", markersize=2.8, color=BLUE, zorder=5)


def _handles(summary: Mapping[str, Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    unit = "items" if summary["unit"] == "item" else f"{summary['group']}s"
    dot: dict[str, Any] = {"marker": "o", "markersize": 2.8, "markerfacecolor": BLUE, "markeredgecolor": BLUE}
    if any(row.get("seed_interval") for row in summary["rows"]):
        bar: dict[str, Any] = {"color": PALE, "linewidth": 4.5, "solid_capstyle": "butt"}
        handles = [
            Line2D([], [], **bar, **dot, label="mean, 95 % over seeds"),
            Line2D([], [], color=BLUE, linewidth=0.9, label=f"95 %, seeds and {unit}"),
        ]
    else:
        handles = [Line2D([], [], linestyle="", **dot, label="mean over seeds")]
    papers = [row["paper"] for row in summary["rows"] if row["paper"]] + summary["references"]
    if papers:
        label = "paper" if any(paper["checked"] for paper in papers) else "paper (unchecked)"
        handles.append(
            Line2D([], [], linestyle="", marker="D", markersize=3.4, color=ORANGE, markerfacecolor="white", label=label)
        )
    if any(row.get("test_selected") is not None for row in summary["rows"]):
        handles.append(Line2D([], [], linestyle="", marker="|", markersize=5, color=GREY, label="epoch chosen on test"))
    if _majority_fits(summary):
        handles.append(Line2D([], [], color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), label="majority class"))
    elif summary["majority"] is not None:
        label = f"majority class: {_scale(summary) * summary['majority']:.1f}"
        handles.append(Line2D([], [], linestyle="", marker="$←$", markersize=6, color=GREY, label=label))
    return handles


def curves_figure(summary: Mapping[str, Any], store: RecordStore) -> Any:
    """The primary metric on validation over the epochs, a panel for each trained row; None where there is none."""
    from matplotlib.figure import Figure

    key, scale = f"validation/{summary['primary']}", _scale(summary)
    curves = {}
    for row in summary["rows"]:
        history = store.history(row["name"]) if row["status"] == "done" else None
        if history is not None and key in history:
            curves[row["name"]] = scale * np.asarray(history[key], np.float64)
    if not curves:
        return None
    strips = _strips([row for row in summary["rows"] if row["name"] in curves])
    panel, gap, top, bottom, left, between = 0.62, 0.1, 0.3, 0.1, 0.36, 0.13  # inches
    ticks = 0.14  # below the last strip of a section
    total = top + bottom + sum(panel + gap + strip.above + ticks * strip.last for strip in strips)
    width = (WIDTH - left - 0.06 - between * (COLUMNS - 1)) / COLUMNS
    limits = _limits(list(curves.values()))
    figure = Figure(figsize=(WIDTH, total))
    figure.text(0.5, 1 - 0.04 / total, f"validation {_label(summary)}: mean and s.d. over seeds,\ndots: epochs chosen",
                ha="center", va="top", linespacing=1.1)  # fmt: skip
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
            axes.set_ylim(*limits)
            axes.locator_params(axis="y", nbins=4)
            axes.locator_params(axis="x", nbins=4, integer=True)
            axes.tick_params(pad=1.5, labelleft=column == 0, labelbottom=column >= strip.labelled)
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
    for section, members in _sections(rows):
        titles = ["\n".join(textwrap.wrap(name, 18)) for name in _short_names(members)]
        panels = list(zip(titles, members))
        for start in range(0, len(panels), COLUMNS):
            some = panels[start : start + COLUMNS]
            heading = "" if start else textwrap.fill(section, 50)
            lines = 1 + max(title.count("\n") for title, _ in some)
            above = 0.115 * lines + 0.04 + (0.15 * (1 + heading.count("\n")) if heading else 0)
            below = max(0, min(COLUMNS, len(panels) - start - COLUMNS))
            strips.append(_Strip(heading, some, above, not below, below))
    return strips


def _limits(curves: list[np.ndarray]) -> tuple[float, float]:
    """From the worst to the best mean of any row, s.d. included."""
    spreads = [curve.std(1, ddof=1) if curve.shape[1] > 1 else 0.0 for curve in curves]
    lows = [np.nanmin(curve.mean(1) - spread) for curve, spread in zip(curves, spreads)]
    highs = [np.nanmax(curve.mean(1) + spread) for curve, spread in zip(curves, spreads)]
    margin = 0.05 * (max(highs) - min(lows)) + 1e-9
    return min(lows) - margin, max(highs) + margin


def _draw_curve(axes: Any, row: Mapping[str, Any], curve: np.ndarray) -> None:
    epochs, mean = np.arange(1, len(curve) + 1), curve.mean(1)
    if curve.shape[1] > 1:
        spread = curve.std(1, ddof=1)
        axes.fill_between(epochs, mean - spread, mean + spread, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(epochs, mean, color=BLUE, linewidth=1.0)
    chosen = np.array([epoch for epoch in row["epochs"] if epoch is not None and epoch <= len(curve)], int)
    axes.plot(chosen, mean[chosen - 1], "o", markersize=2.2, color=ORANGE, alpha=0.8, markeredgewidth=0)
    axes.set_xlim(1 - 0.02 * len(curve), len(curve) * 1.02)


def _scale(summary: Mapping[str, Any]) -> float:
    return 100 if summary["primary"] == "accuracy" else 1


def _label(summary: Mapping[str, Any]) -> str:
    return "accuracy (%)" if summary["primary"] == "accuracy" else "mean absolute error"


def _save(figure: Any, path: pathlib.Path) -> None:
    """PNG without a date or a version in it, so that the same numbers give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    replace_file(path, buffer.getvalue())
