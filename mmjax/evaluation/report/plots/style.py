"""What all plots share: a sheet in inches, type, a colour for each kind of row, axes, legends, bytes without a date."""

import contextlib
import functools
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.evaluation.protocol import CONTROLS
from mmjax.evaluation.report import kinds
from mmjax.evaluation.report.cells import Unit
from mmjax.typing import Mapping

__all__ = ["WIDTH", "Look", "Sheet", "dress", "focus", "in_scope", "known_ends", "label", "marker_of", "own_limits",
           "png", "point", "scale", "sections", "short_names", "styled", "wrapped_legend"]  # fmt: skip

WIDTH = 3.4  # inches
DPI = 300
BLUE, ORANGE, GREY, FAINT = "#1f5fa8", "#d9660d", "#6b6b6b", "#e9edf2"
KIND_COLORS = {"baseline": "#6b6b6b", "fusion": "#1f5fa8", "control": "#aa3377"}
KIND_PALE = {"baseline": "#cfcfcf", "fusion": "#a9c6e8", "control": "#e6c3d6"}
KIND_MARKERS = {"baseline": "s", "fusion": "o", "control": "X"}
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
DASHED, DOTTED = (0, (4, 2)), (0, (1, 2))
STYLE: dict[Any, Any] = {
    "font.size": 7, "font.family": "DejaVu Sans", "savefig.dpi": DPI,
    "legend.fontsize": 7, "legend.frameon": False, "legend.columnspacing": 1.2, "legend.borderaxespad": 0.2,
    "axes.titlesize": 7, "axes.titlepad": 3, "axes.linewidth": 0.5, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": FAINT, "grid.linewidth": 0.6,
    "xtick.major.width": 0.5, "ytick.major.width": 0.5, "xtick.major.size": 2, "ytick.major.size": 2,
}  # fmt: skip
LATE_MEAN = ("mean of logits", "logit mean")
NO_FUSION = ("single", "matched", *LATE_MEAN, "prior-corrected product", *CONTROLS)
BEST = 3


class Look(NamedTuple):
    """How one row's line looks: never by colour alone."""

    color: str
    dash: Any
    marker: str


SINGLE, LATE = Look(KIND_COLORS["baseline"], (0, (4, 1.5)), "s"), Look("#08306b", (0, (1, 1.2)), "^")
FUSIONS = (Look("#1f5fa8", "-", "o"), Look("#56b4e9", "-", "D"), Look("#6a5acd", (0, (7, 1)), "v"))  # shades of blue


@contextlib.contextmanager
def _own_style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Draws in the style of this package, whatever the user's own settings are, and leaves those alone."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with _own_style():
            figure = draw(*args, **kwargs)
            for axes in figure.axes if figure is not None else ():
                axes.tick_params(labelsize=7, width=0.5, length=2)  # ticks are made when drawn, outside this style
        return figure

    return wrapper


def png(figure: Any) -> bytes:
    """PNG without a date or a version in it, so that the same numbers give the same bytes.

    With a palette of 256 colours: a third of the size, and no difference that an eye sees.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with _own_style():
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    palette, buffer = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE), io.BytesIO()
    palette.save(buffer, format="PNG", dpi=(DPI, DPI), optimize=True)
    return buffer.getvalue()


class Sheet:
    """A figure as wide as a column, whose parts are placed in inches from its upper left corner."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.height = height
        self.figure: Any = Figure(figsize=(WIDTH, height))

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes whose frame begins there and is so large."""
        bottom = (self.height - top - height) / self.height
        return self.figure.add_axes((left / WIDTH, bottom, width / WIDTH, height / self.height))

    def legend(self, handles: Sequence[Any], ncols: int = 2, *, top: float | None = None, bottom: float = 0, **options):
        """A legend in the middle, so far from the upper edge or, without a ``top``, from the lower one."""
        y = bottom / self.height if top is None else 1 - top / self.height
        side = "lower" if top is None else "upper"
        self.figure.legend(handles=handles, loc=f"{side} center", bbox_to_anchor=(0.5, y), ncols=ncols, **options)


def dress(
    axes: Any, xlabel: str = "", ylabel: str = "", *, grid: str = "", bins: Mapping[str, int] | None = None, pad=True
) -> None:
    """Labels, a grid along ``x``, ``y`` or ``both``, and at most so many ticks an axis."""
    axes.set_xlabel(xlabel, labelpad=1.5)
    axes.set_ylabel(ylabel, labelpad=2)
    for axis, number in (bins or {}).items():
        axes.locator_params(axis=axis, nbins=number)
    if pad:
        axes.tick_params(pad=1.5)
    if grid:
        axes.grid(axis=grid)


def point(marker: str, size: float, color: str, label: str, **options: Any) -> Any:
    """What stands in a legend for points."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", marker=marker, markersize=size, color=color, label=label, **options)


def marker_of(kind: str, size: float) -> Any:
    """What stands in a legend for the points of a kind of row."""
    return point(KIND_MARKERS[kind], size, KIND_COLORS[kind], kind)


def scale(summary: Mapping[str, Any]) -> float:
    """What numbers are multiplied by: shares become percent."""
    return Unit.of(summary).factor


def label(summary: Mapping[str, Any]) -> str:
    """The metric with its unit, for an axis."""
    unit = Unit.of(summary)
    return f"{unit.name if unit.name != summary['primary'] else unit.label} (%)" if unit.percent else unit.label


def focus(
    values: Sequence[float] | np.ndarray, ends: Sequence[Sequence[float]], higher_is_better: bool = True
) -> tuple[float, float]:
    """The ends of an axis that shows where most rows differ.

    Few values far behind the rest would squeeze it into a corner: where a gap of more than 30 % of the range has at
    most 30 % of the rows behind it, the axis begins at the gap, and what lies beyond is to be marked at its edge.

    Args:
      values: of the rows.
      ends: of each row's interval, empty where there is none.
    """
    sign = 1 if higher_is_better else -1
    points = sign * np.asarray(values, np.float64)
    drawn = [sign * np.array([value, *more], np.float64) for value, more in zip(values, ends, strict=True)]
    lows = np.array([some.min() for some in drawn])
    ordered = np.sort(points)
    gaps = np.diff(ordered)[: int(0.3 * len(points))]  # behind each at most that many
    start = lows.min()
    if len(gaps) and gaps.max() > 0.3 * np.ptp(points):
        start = ordered[gaps.argmax() + 1]
        while (within := lows[points >= start].min()) < start:  # whose mean is shown has its interval shown
            start = within
    best = max(some.max() for some in drawn)
    margin = 0.04 * (best - start) + 1e-3
    low, high = sorted((float(sign * (start - margin)), float(sign * (best + margin))))
    return low, high


def own_limits(drawn: Sequence[tuple[float, float]], factor: float = 1) -> list[tuple[float, float]]:
    """The ends of each panel's axis from the lowest and highest value drawn on it.

    None is shorter than an eighth of the longest, so that noise does not look like a difference, and with a ``factor``
    of 100 (shares in percent) none goes on above 100.
    """
    least = max(high - low for low, high in drawn) / 8
    limits = []
    for low, high in drawn:
        length = max(high - low, least)
        margin = 0.06 * length + 1e-3
        end = (low + high + length) / 2 + margin
        if factor == 100 and high <= 100:
            end = min(end, 100 + margin)
        limits.append((end - length - 2 * margin, end))
    return limits


def known_ends(curve: Mapping[str, Any]) -> np.ndarray | None:
    """The intervals of a curve, ``[points, 2]``; None where a point has none (fewer than three seeds)."""
    ends = curve.get("interval")
    return None if not ends or any(end is None for end in ends) else np.asarray(ends, np.float64)


def sections(rows: list[dict]) -> list[tuple[str, list[dict]]]:
    """Rows by section; the title of the only one may be empty."""
    return kinds.sections(rows, untitled="")


def short_names(rows: list[dict]) -> list[str]:
    """Names without the words that all rows of a section end in: its heading says them."""
    words = [row["name"].split(" ") for row in rows]
    shared = 0
    if len(rows) > 1:
        while min(map(len, words)) > shared + 1 and len({tuple(name[-shared - 1 :]) for name in words}) == 1:
            shared += 1
    return [" ".join(name[: len(name) - shared]) for name in words]


def wrapped_legend(looks: Mapping[str, Look]) -> tuple[list[Any], float]:
    """Handles of a legend of two columns, in the order single modality, mean of logits, fusions; its height, inches."""
    from matplotlib.lines import Line2D

    order = (SINGLE, LATE, *FUSIONS)
    names = sorted(looks, key=lambda name: order.index(looks[name]) if looks[name] in order else len(order))
    texts = [textwrap.fill(name, 27) for name in names]
    handles = [
        Line2D([], [], color=look.color, linestyle=look.dash, marker=look.marker, markersize=3, linewidth=1, label=text)
        for look, text in zip((looks[name] for name in names), texts)
    ]
    half = -(-len(texts) // 2)
    heights = [sum(0.137 + 0.115 * text.count("\n") for text in column) for column in (texts[:half], texts[half:])]
    return handles, 0.05 + max(heights)


def in_scope(summary: Mapping[str, Any], rows: list[dict], field: str) -> list[tuple[dict, Look]]:
    """The rows of a section that a plot of lines shows, and how: more lines would hide each other.

    Its best single modality, the mean of logits, the three best trained fusions, each by validation among the rows of
    which ``field`` was measured; it is not of linear models on statistics.
    """
    sign = 1 if summary["higher_is_better"] else -1
    measured = [row for row in rows if row.get("status") == "done" and row.get(field)]
    alone = sorted((row for row in measured if row["single"]), key=lambda row: -sign * row["validation"])
    chosen = [(row, SINGLE) for row in alone[:1]]
    chosen += [(row, LATE) for row in measured if row.get("role") in LATE_MEAN][:1]
    fusions = [row for row in measured if len(row["streams"] or ()) > 1 and row.get("role") not in NO_FUSION]
    if any(row.get("kind") == "model" for row in fusions):  # what is fitted on validation looks best there
        fusions = [row for row in fusions if row.get("kind") == "model"]
    fusions.sort(key=lambda row: -sign * row["validation"])  # stable: ties stay in the order of the table
    return chosen + list(zip(fusions[:BEST], FUSIONS))
