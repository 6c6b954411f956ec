"""Charts of interpretation: weights of modalities and removal curves; each takes arrays and returns a ``Figure``."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.evaluation.report.plots.style import BLUE, DPI, GREY, ORANGE, PALETTE, WIDTH, styled
from mmjax.typing import Mapping

__all__ = ["add_title", "modality_chart", "png", "removal_chart"]


def png(figure: Any) -> bytes:
    """The figure as PNG in full colour (a palette would quantise its colour scale), without a date."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def add_title(figure: Any, title: str) -> None:
    """Centred at the top edge."""
    if title:
        figure.text(0.5, 1 - 0.04 / figure.get_figheight(), title, ha="center", va="top")


@styled
def modality_chart(
    weights: Mapping[str, Any], *, labels: Sequence[str] | None = None, title: str = "", name: str = "weight"
) -> Any:
    """A stacked bar of the modalities' weights for each example.

    Args:
      weights: by modality ``[examples]``, from 0 up.
      labels: of the examples; None = their numbers.
      name: of the weight, with its unit.
    """
    from matplotlib.figure import Figure

    values = {key: np.asarray(value, np.float64) for key, value in sorted(weights.items())}
    count = len(next(iter(values.values())))
    labels = [str(i + 1) for i in range(count)] if labels is None else list(labels)
    longest = max(len(label) for label in labels)
    left = min(0.12 + 0.055 * longest, 1.6)
    height = 0.15 * count + 0.62 + 0.16 * bool(title)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((left / WIDTH, 0.32 / height, (WIDTH - left - 0.12) / WIDTH, 0.15 * count / height))
    start = np.zeros(count)
    for number, (key, value) in enumerate(values.items()):
        colour, hatch = PALETTE[number % len(PALETTE)], ("", "////", "....", "xxxx", "\\\\\\\\", "++")[number % 6]
        axes.barh(
            range(count), value, 0.72, left=start, color=colour, label=key, hatch=hatch, edgecolor="white", linewidth=0
        )
        start = start + value
    axes.set_yticks(range(count), labels)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlim(0, max(start.max(), 1e-9))
    axes.set_xlabel(name, labelpad=1)
    figure.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1 - 0.15 * bool(title) / height), ncols=len(values), frameon=False,
        handlelength=1.6, handleheight=1.0, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
    add_title(figure, title)
    return figure


@styled
def removal_chart(
    fraction: Any, deletion: Any, insertion: Any, random: Any, *, title: str = "", name: str = "score"
) -> Any:
    """Deletion and insertion beside random order: means over examples, bands of two standard errors, areas in the
    legend.

    Args:
      fraction: ``[points]``.
      deletion: ``[points, examples]``, and so ``insertion``.
      random: ``[draws, points, examples]``: removal in random order; reversed it is an insertion.
      name: of the score, with its unit.
    """
    from matplotlib.figure import Figure

    fraction, random = np.asarray(fraction), np.asarray(random).mean(0)
    height = 2.0 + 0.16 * bool(title)
    figure = Figure(figsize=(WIDTH, height))
    panels = (
        ("deletion", "removed", deletion, random, BLUE),
        ("insertion", "put back", insertion, random[::-1], ORANGE),
    )
    shared = None
    for column, (kind, done, curve, chance, colour) in enumerate(panels):
        x = 0.4 + column * 1.54
        axes = figure.add_axes((x / WIDTH, 0.6 / height, 1.36 / WIDTH, 1.22 / height), sharey=shared)
        shared = shared or axes
        lines = (("ranked", curve, colour, "-"), ("random", chance, GREY, (0, (4, 1.5))))
        for label, values, ink, dash in lines:
            values = np.asarray(values)
            mean = values.mean(1)
            error = 2 * values.std(1, ddof=1) / np.sqrt(values.shape[1]) if values.shape[1] > 1 else 0 * mean
            axes.fill_between(100 * fraction, mean - error, mean + error, color=ink, alpha=0.18, linewidth=0)
            area = np.trapezoid(mean, fraction)
            axes.plot(100 * fraction, mean, color=ink, linewidth=1.1, linestyle=dash, label=f"{label}, area {area:.2f}")
        axes.set_title(kind, pad=3)
        axes.set_xlim(0, 100)
        axes.set_xticks((0, 50, 100), ("0", "50", "100 "))  # away from the neighbour's 0
        axes.xaxis.get_majorticklabels()[-1].set_horizontalalignment("right")
        axes.set_xlabel(f"input {done} (%)", labelpad=1)
        axes.tick_params(labelleft=column == 0)
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False, handlelength=2, borderpad=0,
            borderaxespad=0, labelspacing=0.2,
        )  # fmt: skip
        if column == 0:
            axes.set_ylabel(name, labelpad=2)
    add_title(figure, title)
    return figure
