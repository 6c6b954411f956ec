"""Videos as frames of one size, by Pillow: a folder of picture files, or a picture file of several frames."""

import functools
import io
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.raw.files import read_files
from mmjax.datasets.raw.pictures import check_size, in_one_mode, read_picture
from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["evenly_spaced", "read_video", "read_videos"]


def read_videos(
    cells: Sequence[Any],
    size: int | tuple[int, int],
    frames: int,
    folder: pathlib.Path,
    place: Callable[[int], str],
) -> list[np.ndarray | None]:
    """Videos ``[t, height, width, channels]`` uint8, one channel if all are grey, else three; None where missing.

    Args:
      cells: paths of folders of picture files, in the order of their names with numbers by their value, or of animated
        files (GIF, PNG, WebP, TIFF); bytes of such files; or arrays ``[t, h, w]`` or ``[t, h, w, 3]``.
      size: as of pictures.
      frames: at most; of a longer video as many, evenly spaced from its first to its last.
      folder: of the paths.
      place: names a row.

    Raises:
      UsageError: one line with the videos that cannot be read, or a wrong size or number.
    """
    height, width = check_size(size)
    if frames < 1:
        raise UsageError(f"a video has 1 frame or more, got frames={frames}")
    read = functools.partial(read_video, height=height, width=width, frames=frames)
    return in_one_mode(read_files(cells, folder, place, read, "video", folders=True))


def read_video(source: Any, *, height: int, width: int, frames: int) -> np.ndarray:
    """One video ``[t, height, width, 1 or 3]`` uint8.

    Raises:
      OSError, ValueError: no frames, or one that cannot be decoded, with its file or number.
    """
    with extra():
        from PIL import Image

    read = functools.partial(read_picture, height=height, width=width)
    if isinstance(source, np.ndarray):
        if source.ndim not in (3, 4) or not len(source):
            raise ValueError(f"an array of frames is [t, h, w] or [t, h, w, 3], got {source.shape}")
        plain = source[..., 0] if source.ndim == 4 and source.shape[3] == 1 else source
        return _stack([read(plain[number]) for number in evenly_spaced(len(plain), frames)])
    if isinstance(source, pathlib.Path) and source.is_dir():
        paths = _pictures_in(source)
        return _stack([_named(paths[n].name, read, paths[n]) for n in evenly_spaced(len(paths), frames)])
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    image = source if isinstance(source, Image.Image) else Image.open(source)
    numbers = evenly_spaced(getattr(image, "n_frames", 1), frames)
    video = _stack([_named(f"frame {number}", lambda n: read(_frame(image, n)), number) for number in numbers])
    grey = (video == video[..., :1]).all()  # most animated formats know colours only
    return video[..., :1] if grey else video


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most so many of the first ``count`` numbers, the first and the last among them; of one the middle.

    Example:
      >>> evenly_spaced(3, 5), evenly_spaced(9, 3), evenly_spaced(9, 1)
      ([0, 1, 2], [0, 4, 8], [4])
    """
    if count <= most:
        return list(range(count))
    return [(count - 1) // 2] if most == 1 else [round(step * (count - 1) / (most - 1)) for step in range(most)]


def _pictures_in(folder: pathlib.Path) -> list[pathlib.Path]:
    from PIL import Image

    Image.init()
    there = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    pictures = [path for path in there if path.suffix.lower() in Image.EXTENSION]
    if not pictures:
        raise ValueError("the folder holds no picture files")
    return sorted(pictures, key=_by_number)


def _frame(image: Any, number: int) -> Any:
    image.seek(number)
    return image.copy()


def _named(name: str, read: Callable[[Any], np.ndarray], source: Any) -> np.ndarray:
    """What is read, or an error that names the frame."""
    try:
        return read(source)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise ValueError(f"{name}: {error or type(error).__name__}") from error


def _stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([one for one in in_one_mode(pictures) if one is not None])


def _by_number(path: pathlib.Path) -> list[Any]:
    """Frame 10 stands behind frame 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
