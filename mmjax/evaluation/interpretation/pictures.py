"""Pictures of attributions over images, videos, text and spectrograms, at the width of a column.

Each takes plain arrays and returns a ``Figure``. The colour scale runs from blue (against) over white or transparent to
red (for), up to the largest magnitude shown, or to ``limit``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.evaluation.interpretation.charts import add_title
from mmjax.evaluation.report.plots.style import GREY, WIDTH, styled

__all__ = [
    "image_picture",
    "spectrogram_picture",
    "text_picture",
    "video_picture",
]

COLOURS = "RdBu_r"
BAR = "attribution"
MOST = 8  # frames side by side


def image_picture(image: Any, attribution: Any, *, title: str = "", limit: float | None = None) -> Any:
    """A picture, and its attribution over it.

    Args:
      image: ``[h, w]`` or ``[h, w, c]`` in [0, 1].
      attribution: ``[h, w]``, or ``[h, w, c]`` summed over the channels.
      limit: magnitude at the ends of the colours; None = the largest here.
    """
    return video_picture(np.asarray(image)[None], np.asarray(attribution)[None], title=title, limit=limit, names=("",))


@styled
def video_picture(
    frames: Any,
    attribution: Any,
    mask: Any = None,
    *,
    title: str = "",
    limit: float | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """The real frames side by side, and below each its attribution over it; of many frames, some at equal distances.

    Args:
      frames: ``[t, h, w]`` or ``[t, h, w, c]`` in [0, 1].
      attribution: ``[t, h, w]``, or ``[t, h, w, c]`` summed over the channels.
      mask: ``[t]`` which frames are real; None = all.
      names: above the frames; None = their numbers.
    """
    from matplotlib.figure import Figure

    frames, attribution = _grey(frames), _summed(attribution, 3)
    chosen = np.arange(len(frames)) if mask is None else np.flatnonzero(mask)
    if len(chosen) > MOST:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MOST).round().astype(int)]
    count = len(chosen)
    gap, left, right = 0.04, 0.05, 0.62
    across = 2 if count == 1 else count  # a single picture stands beside its attribution
    side = (WIDTH - left - right - gap * (across - 1)) / across
    tall = side * frames.shape[1] / frames.shape[2]
    rows = 1 if count == 1 else 2
    top = 0.22 + 0.17 * bool(title)
    height = rows * tall + (rows - 1) * gap + top + 0.08
    figure, width = Figure(figsize=(WIDTH, height)), WIDTH
    limit = _limit(attribution[chosen], limit)

    def axes_at(row: int, column: int) -> Any:
        bottom = height - top - (row + 1) * tall - row * gap
        place = (left + column * (side + gap), bottom, side, tall)
        axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
        axes.set_xticks([]), axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color(GREY)
        return axes

    for column, index in enumerate(chosen):
        name = names[column] if names is not None else f"frame {index + 1}" if count < 5 else str(index + 1)
        plain = axes_at(0, column)
        plain.imshow(frames[index], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        over = axes_at(rows - 1, column if count > 1 else 1)
        over.imshow(_faint(frames[index]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        over.imshow(attribution[index], cmap=_clear(), vmin=-limit, vmax=limit, interpolation="nearest")
        plain.set_title(name or "input", pad=2)
        if count == 1:
            over.set_title(BAR, pad=2)
    add_title(figure, title)
    across_all = rows * tall + (rows - 1) * gap
    place = ((width - right + 0.08) / width, 0.08 / height, 0.07 / width, across_all / height)
    _bar(figure, _key(limit), place, label=BAR if count > 1 else "")
    return figure


@styled
def text_picture(
    sentences: Sequence[Sequence[str]],
    weights: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
    limit: float | None = None,
    signed: bool = True,
    name: str = BAR,
) -> Any:
    """Sentences whose words have a background in the colour of their weight; lines wrap at the column's width.

    Args:
      sentences: the words of each.
      weights: ``[words]`` of each sentence.
      labels: a line above each sentence.
      signed: False for weights from 0 up, such as attention: one colour, from white.
      name: of the weight, at the colour bar.

    Raises:
      ValueError: another number of weights than words.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    weights = [np.asarray(values, np.float64) for values in weights]
    for words, values in zip(sentences, weights, strict=True):
        if len(words) != len(values):
            raise ValueError(f"{len(values)} weights for the {len(words)} words {' '.join(words)!r}")
    limit = _limit(np.concatenate(weights), limit)
    colours = ScalarMappable(Normalize(-limit if signed else 0, limit), colormaps[COLOURS if signed else "Reds"])
    line, pad, space, left, right, top = 0.19, 0.03, 0.06, 0.06, 0.06, 0.05 + 0.17 * bool(title)  # inches
    measure = Figure(figsize=(WIDTH, 1))
    renderer = FigureCanvasAgg(measure).get_renderer()
    sizes = {}
    for word in {word for words in sentences for word in words}:
        sizes[word] = measure.text(0, 0, word).get_window_extent(renderer).width / measure.dpi + 2 * pad
    words_at, y = [], top
    for number, (words, values) in enumerate(zip(sentences, weights)):
        if labels is not None:
            words_at.append((left, y, 0.0, labels[number], None))
            y += line - 0.03
        x = left
        for word, value in zip(words, values):
            if x > left and x + sizes[word] > WIDTH - right:
                x, y = left, y + line
            words_at.append((x, y, sizes[word], word, value))
            x += sizes[word] + space
        y += line + 0.06
    height = y + 0.42
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH), axes.set_ylim(height, 0)
    axes.axis("off")
    box: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.03", "edgecolor": "#c8c8c8", "linewidth": 0.4}
    for x, y, size, text, value in words_at:
        if value is None:
            axes.text(x, y + line / 2, text, va="center_baseline", color=GREY)
            continue
        colour = colours.to_rgba(value)
        dark = np.dot(colour[:3], (0.2126, 0.7152, 0.0722)) < 0.45
        axes.add_patch(FancyBboxPatch((x, y + 0.015), size, line - 0.03, facecolor=colour, **box))
        axes.text(x + pad, y + line / 2, text, va="center_baseline", color="white" if dark else "black")
    add_title(figure, title)
    place = (0.25, 0.3 / height, 0.5, 0.06 / height)
    _bar(figure, colours, place, orientation="horizontal", label=name)
    return figure


@styled
def spectrogram_picture(
    spectrogram: Any,
    attribution: Any,
    mask: Any = None,
    *,
    hop_seconds: float | None = None,
    frequencies: Any = None,
    title: str = "",
    limit: float | None = None,
    unit: str = "log power",
) -> Any:
    """A spectrogram, and below it the attribution over a faint copy of it.

    Args:
      spectrogram: ``[frames, bands]``.
      attribution: ``[frames, bands]``.
      mask: ``[frames]`` which are real; only those are shown. None = all.
      hop_seconds: distance of frames; None = the axis counts frames.
      frequencies: ``[bands]`` centre of each band in Hz; None = the axis counts bands.
      unit: of the spectrogram.
    """
    from matplotlib.figure import Figure

    spectrogram, attribution = np.asarray(spectrogram, np.float64), np.asarray(attribution, np.float64)
    if mask is not None:
        spectrogram, attribution = spectrogram[np.asarray(mask)], attribution[np.asarray(mask)]
    frames, bands = spectrogram.shape
    seconds = frames * (hop_seconds or 1)
    figure = Figure(figsize=(WIDTH, 2.55 + 0.15 * bool(title)))
    height = figure.get_figheight()
    shape: dict[str, Any] = {
        "extent": (0, seconds, 0, bands),
        "aspect": "auto",
        "origin": "lower",
        "interpolation": "nearest",
    }
    limit = _limit(attribution, limit)
    for row, (name, bottom) in enumerate(((unit, 1.42), (BAR, 0.36))):
        axes = figure.add_axes((0.44 / WIDTH, bottom / height, 2.3 / WIDTH, 0.95 / height))
        if row == 0:
            mappable = axes.imshow(spectrogram.T, cmap="gray", **shape)
        else:
            axes.imshow(_faint(_unit(spectrogram)).T, cmap="gray", vmin=0, vmax=1, **shape)
            axes.imshow(attribution.T, cmap=_clear(), vmin=-limit, vmax=limit, **shape)
            mappable = _key(limit)
        if frequencies is None:
            axes.set_ylabel("band", labelpad=2)
        else:
            ticks = np.linspace(0, bands - 1, 4).round().astype(int)
            axes.set_yticks(ticks + 0.5, [f"{frequencies[i] / 1000:.1f}" for i in ticks])
            axes.set_ylabel("frequency (kHz)", labelpad=2)
        if row:
            axes.set_xlabel("frame" if hop_seconds is None else "time (s)", labelpad=1)
        else:
            axes.tick_params(labelbottom=False)
        _bar(figure, mappable, (2.82 / WIDTH, bottom / height, 0.07 / WIDTH, 0.95 / height), label=name)
    add_title(figure, title)
    return figure


def _grey(frames: Any) -> np.ndarray:
    """In [0, 1], without an axis of a single channel."""
    frames = np.asarray(frames, np.float64)
    return np.clip(frames[..., 0] if frames.ndim == 4 and frames.shape[-1] == 1 else frames, 0, 1)


def _summed(attribution: Any, axes: int) -> np.ndarray:
    attribution = np.asarray(attribution, np.float64)
    return attribution.sum(-1) if attribution.ndim > axes else attribution


def _unit(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(np.ptp(values), 1e-12)


def _faint(values: np.ndarray) -> np.ndarray:
    """Faded towards white, so that colours over it stay readable."""
    return 1 - 0.45 * values


def _limit(attribution: np.ndarray, limit: float | None) -> float:
    return float(limit or np.abs(attribution).max() or 1.0)


def _clear(opaque: bool = False) -> Any:
    """The colour map, transparent at 0; or, opaque, as it looks over white."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    table = colormaps[COLOURS](np.linspace(0, 1, 257))
    table[:, 3] = np.minimum(1, np.abs(np.linspace(-1, 1, 257)) ** 0.7)
    if opaque:  # a bar of transparent cells would show their seams
        table[:, :3] = 1 - table[:, 3:] * (1 - table[:, :3])
        table[:, 3] = 1
    return ListedColormap(table)


def _key(limit: float) -> Any:
    """The mappable of an attribution's colour bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(-limit, limit), _clear(opaque=True))


def _bar(figure: Any, mappable: Any, place: Any, *, orientation: str = "vertical", label: str = "") -> Any:
    bar = figure.colorbar(mappable, cax=figure.add_axes(place), orientation=orientation)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=6, width=0.4, length=2, pad=1.5)
    bar.ax.locator_params(nbins=5)
    if label:
        bar.set_label(label, labelpad=2)
    return bar
