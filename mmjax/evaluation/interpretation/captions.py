"""Where a captioner looked, word by word, and pictures of it.

Attention tells what was mixed into a word's prediction; it is not what the word depends on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from mmjax.evaluation.report.plots.style import GREY, WIDTH, styled
from mmjax.stream import Stream
from mmjax.typing import Float, Mapping, PyTree

__all__ = ["Sample", "caption_sheet", "word_attention"]

MOST = 14  # words with a map each
NAMES = ("annotation_attention_weights", "cross_attention_weights")


def word_attention(
    model: nn.Module, variables: PyTree, streams: Mapping[str, Stream], tokens: Stream
) -> Float[np.ndarray, "batch words items"] | None:
    """Weights of the items that the head reads at each word, given the words before it; None where it reports none.

    Those of the last layer that attends to the items, the mean over its heads; 0 at words that the mask hides.

    Args:
      tokens: what was said, ids ``[batch, words]``.
    """

    def intermediates(variables: PyTree, streams: Mapping[str, Stream], targets: Stream) -> PyTree:
        _, state = model.apply(variables, streams, targets=targets, train=False, mutable=["intermediates"])
        return dict(state).get("intermediates", {})

    nested = Stream(np.asarray(tokens.values)[:, None], np.asarray(tokens.mask)[:, None])
    sown = flatten_dict(jax.jit(intermediates)(variables, dict(streams), nested), sep="/")
    found = [value[-1] for path, value in sorted(sown.items()) if path.rpartition("/")[2] in NAMES]
    if not found:
        return None
    weights = np.asarray(found[-1], np.float32).mean(1)  # over heads, or over the one caption
    return np.where(nested.mask[:, 0, :, None], weights, 0)


class Sample(NamedTuple):
    """A caption to be shown.

    Attributes:
      picture: ``[height, width, channels]``, bytes or in [0, 1].
      words: that were said.
      maps: ``[words, rows, columns]`` from 0 up, or None.
      wanted: what people say.
    """

    picture: Any
    words: Sequence[str]
    maps: Any = None
    wanted: Sequence[str] = ()


@styled
def caption_sheet(samples: Sequence[Sample], *, title: str = "") -> Any:
    """Each picture with what is said of it, what people say, and below it the map of each word, brighter = more.

    Of more than fourteen words the first fourteen have a map.
    """
    import textwrap

    from matplotlib.figure import Figure

    wide = 2 * WIDTH  # a line of text of this size beside a picture
    tall, strip, gap = 1.3, wide / MOST, 0.12
    heights = [tall + (0 if sample.maps is None else strip + 0.16) + gap for sample in samples]
    top = 0.28 if title else 0.05
    height = sum(heights) + top
    figure = Figure(figsize=(wide, height))
    if title:
        figure.text(0.5, 1 - 0.06 / height, title, ha="center", va="top")

    def axes_at(left: float, down: float, width: float, high: float) -> Any:
        axes = figure.add_axes((left / wide, 1 - (down + high) / height, width / wide, high / height))
        axes.set_xticks([]), axes.set_yticks([])
        return axes

    down = top
    for sample, used in zip(samples, heights):
        picture = _unit(sample.picture)
        axes_at(0.03, down, tall, tall).imshow(picture, cmap="gray", aspect="auto")
        said = textwrap.fill(" ".join(sample.words) or "(nothing)", 64)
        wanted = "\n".join(textwrap.shorten(one, 96, placeholder=" ...") for one in sample.wanted)
        x = (tall + 0.12) / wide
        figure.text(x, 1 - (down + 0.02) / height, said, va="top", fontsize=9, fontweight="bold")
        lines = said.count("\n") + 1
        figure.text(x, 1 - (down + 0.08 + 0.16 * lines) / height, wanted, va="top", fontsize=6.5, color=GREY)
        for place, word in enumerate(() if sample.maps is None else sample.words[:MOST]):
            axes = axes_at(place * strip + 0.01, down + tall + 0.15, strip - 0.02, strip - 0.02)
            axes.imshow(picture.mean(-1), cmap="gray", extent=(0, 1, 1, 0), vmin=0, vmax=1.6, aspect="auto")
            values = np.asarray(sample.maps[place], np.float64)
            axes.imshow(
                values / (values.max() or 1.0), cmap="inferno", alpha=0.6, extent=(0, 1, 1, 0), vmin=0, vmax=1,
                interpolation="bilinear", aspect="auto",
            )  # fmt: skip
            axes.set_title(word, fontsize=6, pad=1)
        down += used
    return figure


def _unit(picture: Any) -> np.ndarray:
    picture = np.asarray(picture)
    picture = picture / 255 if picture.dtype == np.uint8 else picture
    return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture
