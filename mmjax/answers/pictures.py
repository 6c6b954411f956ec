"""Pictures from the disk in the form of a run's streams, and pictures of where a model looked."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["draw_attention", "read_picture", "write_figure"]

DPI = 150


def read_picture(path: str | pathlib.Path, item: Sequence[int]) -> np.ndarray:
    """The picture as bytes ``[height, width, channels]``, stretched to the size of the run's pictures.

    Args:
      item: shape of a picture; of one channel it is read in grey.

    Raises:
      UsageError: no such file, or no picture that can be read whole.
    """
    with extra():
        from PIL import Image
    height, width, channels = item
    try:
        with Image.open(path) as file:
            picture: Any = file.convert("L" if channels == 1 else "RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.LANCZOS)
            return np.asarray(picture, np.uint8).reshape(height, width, channels)
    except FileNotFoundError:
        raise UsageError(f"there is no picture {str(path)!r}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"{str(path)!r} is no picture that can be read: {line}") from None


def draw_attention(picture: np.ndarray, maps: Sequence[tuple[str, np.ndarray]], title: str, out: pathlib.Path) -> None:
    """Writes the picture and beside it each map over it, the brighter the more.

    Args:
      picture: ``[height, width, channels]`` bytes.
      maps: name and ``[rows, columns]`` from 0 up, each spread over the whole picture.

    Raises:
      UsageError: the file cannot be written.
    """
    with extra():
        from matplotlib.figure import Figure

    height, width = picture.shape[:2]
    grey = picture.mean(-1) / 255
    panel = 2.4
    figure = Figure(figsize=(panel * (1 + len(maps)), panel * height / width + 0.55), layout="constrained")
    axes = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    axes[0].imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray")
    axes[0].set_title("picture", fontsize=8)
    for place, (name, values) in zip(axes[1:], maps):
        top = float(values.max()) or 1.0
        place.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        place.imshow(values / top, cmap="inferno", alpha=0.6, vmin=0, vmax=1, extent=(0, width, height, 0))
        place.set_title(name, fontsize=8)
    for place in axes:
        place.set_xticks([]), place.set_yticks([])
    figure.suptitle(title, fontsize=9)
    write_figure(figure, out)


def write_figure(figure: Any, out: pathlib.Path) -> None:
    """Writes a figure of matplotlib's in the format that the name ends with.

    Raises:
      UsageError: no such format, or a file that cannot be written.
    """
    try:
        figure.savefig(out, dpi=DPI)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {str(out)!r}: {error}") from None
