"""Files named in cells, read side by side; those that cannot be read are named in one line."""

import concurrent.futures
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from mmjax.datasets.raw.columns import is_missing
from mmjax.errors import UsageError

__all__ = ["read_files"]


def read_files(
    cells: Sequence[Any],
    folder: pathlib.Path,
    place: Callable[[int], str],
    read: Callable[[Any], Any],
    what: str,
    *,
    folders: bool = False,
) -> list[Any]:
    """``read(path or object)`` of each cell, None where it is missing.

    Args:
      cells: paths relative to the folder, or what ``read`` takes itself (a picture, an array, bytes).
      place: names a row.
      read: raises an exception of any kind where it cannot.
      what: a picture, a sound.
      folders: whether a path may be that of a folder.

    Raises:
      UsageError: one line with the first files that cannot be read, and why.
    """

    def one(cell: Any) -> Any:
        if is_missing(cell):
            return None
        if not isinstance(cell, str | pathlib.Path):
            return read(cell)
        path = folder / str(cell).strip()
        if not path.is_file() and not (folders and path.is_dir()):
            raise FileNotFoundError(f"there is no such file{' or folder' if folders else ''}")
        return read(path)

    def attempt(cell: Any) -> tuple[Any, Exception | None]:
        try:
            return one(cell), None
        except Exception as error:  # Pillow and libsndfile raise many kinds for a damaged file
            return None, error

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(attempt, cells))
    bad = [(row, error) for row, (_, error) in enumerate(results) if error is not None]
    if bad:
        for _, error in bad:
            if isinstance(error, UsageError):  # a missing extra: the same for all
                raise error
        examples = "; ".join(f"{place(row)}: {_label(cells[row])} ({_reason(error)})" for row, error in bad[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UsageError(f"{len(bad)} of {len(cells)} {what}s cannot be read: {examples}{more}")
    return [value for value, _ in results]


def _label(cell: Any) -> str:
    return repr(str(cell)) if isinstance(cell, str | pathlib.Path) else f"a {type(cell).__name__}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
