"""Picture files as bytes of one size, by Pillow: any mode, upright, alpha over white."""

import functools
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.raw.files import read_files
from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["check_size", "in_one_mode", "read_picture", "read_pictures"]


def read_pictures(
    cells: Sequence[Any], size: int | tuple[int, int], folder: pathlib.Path, place: Callable[[int], str]
) -> list[np.ndarray | None]:
    """Pictures ``[height, width, channels]`` uint8, one channel if all are grey, else three; None where missing.

    Args:
      cells: paths, bytes, ``PIL.Image`` or arrays ``[h, w]`` or ``[h, w, 3]``.
      size: side of the square, or height and width. A picture is scaled until it covers that and cut in the middle.
      folder: of the paths.
      place: names a row.

    Raises:
      UsageError: one line with the files that cannot be read, or a wrong size.
    """
    height, width = check_size(size)
    read = functools.partial(read_picture, height=height, width=width)
    return in_one_mode(read_files(cells, folder, place, read, "picture"))


def check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture.

    Raises:
      UsageError: less than a pixel.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise UsageError(f"the size of pictures is 1 pixel or more, got {size}")
    return height, width


def in_one_mode(pictures: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Arrays ``[..., 1 or 3]`` with three channels all if one has three."""
    if not any(one is not None and one.shape[-1] == 3 for one in pictures):
        return list(pictures)
    return [None if one is None else np.broadcast_to(one, (*one.shape[:-1], 3)) for one in pictures]


def read_picture(picture: Any, *, height: int, width: int) -> np.ndarray:
    """One picture ``[height, width, 1 or 3]`` uint8; the first of an animation.

    Raises:
      OSError, ValueError: it cannot be decoded, or its floats are not in [0, 1].
    """
    with extra():
        from PIL import Image, ImageOps

    if isinstance(picture, bytes):
        picture = io.BytesIO(picture)
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
    elif isinstance(picture, Image.Image):
        image = picture
    else:
        image = Image.open(picture)
    image.load()
    image = ImageOps.exif_transpose(image)
    image = ImageOps.fit(_eight_bits(image), (width, height), Image.Resampling.BICUBIC)
    array = np.asarray(image, np.uint8)
    return array[..., None] if array.ndim == 2 else array


def _eight_bits(image: Any) -> Any:
    """The image in mode L or RGB."""
    from PIL import Image

    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values) & (values >= 0) & (values <= 1)).all():
            raise ValueError("floats are not in [0, 1]")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode.startswith("I"):  # 16 bits, also where Pillow holds them in 32
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65_535):
            raise ValueError(f"values from {values.min()} to {values.max()} are not those of 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "1")
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
        return image.convert("L") if grey else image
    if image.mode == "P":
        image = image.convert("RGB")
        red, green, blue = image.split()
        same = red.tobytes() == green.tobytes() == blue.tobytes()
        return red if same else image
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
