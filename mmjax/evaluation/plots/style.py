"""What all plots share: column width, type, colours that the colour-blind can tell apart, bytes without a date."""

import functools
import io
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mmjax.typing import Mapping

__all__ = [
    "WIDTH",
    "Look",
    "in_scope",
    "known_ends",
    "label",
    "png",
    "scale",
    "sections",
    "short_names",
    "styled",
    "wrapped_legend",
]

WIDTH = 3.4  # inches
DPI = 300
BLUE, PALE, ORANGE, GREY, FAINT = "#1f5fa8", "#a9c6e8", "#d9660d", "#6b6b6b", "#e9edf2"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "font.family": "DejaVu Sans",
    "legend.fontsize": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "savefig.dpi": DPI,
}
LEGEND: dict[str, Any] = {
    "loc": "lower center", "bbox_to_anchor": (0.5, 0), "ncols": 2, "frameon": False, "handlelength": 2.6,
    "columnspacing": 1.0, "labelspacing": 0.4, "borderaxespad": 0.1,
}  # fmt: skip
CONTROLS = ("shuffled control", "ensemble control")
LATE_MEAN = ("mean of logits", "logit mean")
NO_FUSION = ("single", "matched", *LATE_MEAN, "prior-corrected product", *CONTROLS)
BEST = 3


class Look(NamedTuple):
    """How one row's line looks: never by colour alone."""

    color: str
    dash: Any
    marker: str


SINGLE, LATE = Look(GREY, (0, (4, 1.5)), "s"), Look("#000000", (0, (1, 1.2)), "^")
FUSIONS = tuple(Look(color, "-", marker) for color, marker in zip(PALETTE, "oDvPXp"))


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Draws in the style of this package, whatever the user's own settings are, and leaves those alone."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            figure = draw(*args, **kwargs)
            for axes in figure.axes if figure is not None else ():
                axes.tick_params(labelsize=7, width=0.5, length=2)  # ticks are made when drawn, outside this style
        return figure

    return wrapper


def png(figure: Any) -> bytes:
    """PNG without a date or a version in it, so that the same numbers give the same bytes.

    With a palette of 256 colours: a third of the size, and no difference that an eye sees.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    drawn, buffer = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        FigureCanvasAgg(figure)
        figure.savefig(drawn, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    image = Image.open(drawn).convert("RGB")
    palette = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(buffer, format="PNG", dpi=(DPI, DPI), optimize=True)
    return buffer.getvalue()


def scale(summary: Mapping[str, Any]) -> float:
    """What numbers are multiplied by: shares become percent."""
    return 100 if summary["primary"] == "accuracy" else 1


def label(summary: Mapping[str, Any]) -> str:
    """The metric with its unit, for an axis."""
    if summary["primary"] == "accuracy":
        return f"{summary.get('metric_name') or 'accuracy'} (%)"
    return "mean absolute error" if summary["primary"] == "mae" else summary["primary"]


def known_ends(curve: Mapping[str, Any]) -> np.ndarray | None:
    """The intervals of a curve, ``[points, 2]``; None where a point has none (fewer than three seeds)."""
    ends = curve.get("interval")
    return None if not ends or any(end is None for end in ends) else np.asarray(ends, np.float64)


def sections(rows: list[dict]) -> list[tuple[str, list[dict]]]:
    """Rows by section, both in the order of the table."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["section"], []).append(row)
    return list(found.items())


def short_names(rows: list[dict]) -> list[str]:
    """Names without the words that all rows of a section end in: its heading says them."""
    words = [row["name"].split(" ") for row in rows]
    shared = 0
    while min(map(len, words)) > shared + 1 and len({tuple(name[-shared - 1 :]) for name in words}) == 1:
        shared += 1
    return [" ".join(name[: len(name) - shared]) if len(rows) > 1 else " ".join(name) for name in words]


def wrapped_legend(looks: Mapping[str, Look]) -> tuple[list[Any], float]:
    """Handles of a legend of two columns, in the order single modality, mean of logits, fusions; its height, inches."""
    from matplotlib.lines import Line2D

    order = (SINGLE, LATE, *FUSIONS)
    names = sorted(looks, key=lambda name: order.index(looks[name]) if looks[name] in order else len(order))
    texts = [textwrap.fill(name, 27) for name in names]
    handles = [
        Line2D(
            [], [], color=look.color, linestyle=look.dash, marker=look.marker, markersize=3, linewidth=1.0, label=text
        )
        for look, text in zip((looks[name] for name in names), texts)
    ]
    half = -(-len(texts) // 2)
    heights = [sum(0.137 + 0.115 * text.count("\n") for text in column) for column in (texts[:half], texts[half:])]
    return handles, 0.05 + max(heights)


def in_scope(summary: Mapping[str, Any], rows: list[dict], field: str) -> list[tuple[dict, Look]]:
    """The rows of a section that a plot of lines shows, and how: more lines would hide each other.

    Its best single modality, the mean of logits, the three best trained fusions, each by validation and as far as
    ``field`` was measured.
    """
    sign = 1 if summary["higher_is_better"] else -1
    measured = [row for row in rows if row.get("status") == "done" and row.get(field)]
    chosen = [(row, SINGLE) for row in measured if row.get("best_single")]
    chosen += [(row, LATE) for row in measured if row.get("role") in LATE_MEAN][:1]
    fusions = [row for row in measured if len(row["streams"] or ()) > 1 and row.get("role") not in NO_FUSION]
    if any(row.get("kind") == "model" for row in fusions):  # what is fitted on validation looks best there
        fusions = [row for row in fusions if row.get("kind") == "model"]
    fusions.sort(key=lambda row: -sign * row["validation"])  # stable: ties stay in the order of the table
    return chosen + list(zip(fusions[:BEST], FUSIONS))
