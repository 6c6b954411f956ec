"""A work directory belongs to one table, or one run, and to one process at a time."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from mmjax.errors import UsageError
from mmjax.typing import Mapping

__all__ = ["claim"]


@contextlib.contextmanager
def claim(workdir: pathlib.Path, owner: Mapping[str, Any]) -> Iterator[None]:
    """Creates the directory and holds it; the end of the process, however it ends, frees it.

    Args:
      workdir: the directory.
      owner: what ``config.json`` must say where there is one, e.g. ``{"table": "digits", "row": None}``.

    Raises:
      UsageError: it cannot be written, holds something else, or another process is at work in it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        reason = "it is a file" if workdir.is_file() else error.strerror
        raise UsageError(
            f"cannot write the work directory {str(workdir)!r}: {reason}; pass another --workdir"
        ) from None
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows has none
            pass
        except BlockingIOError:
            raise UsageError(f"another process is at work in {str(workdir)!r}; pass another --workdir") from None
        _check_owner(workdir, owner)
        yield


def _check_owner(workdir: pathlib.Path, owner: Mapping[str, Any]) -> None:
    try:
        there = json.loads((workdir / "config.json").read_bytes())
    except (FileNotFoundError, ValueError):  # nothing yet, or damaged: written anew
        return
    for name, value in owner.items():
        if there.get(name) != value:
            raise UsageError(
                f"{str(workdir)!r} holds other results ({name} is {there.get(name)!r} there and {value!r} here): pass "
                "another --workdir, or remove it"
            )
