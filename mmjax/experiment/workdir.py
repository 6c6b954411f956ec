"""A work directory belongs to one table, or one run, and to one process at a time."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from mmjax.errors import UsageError
from mmjax.files import DamagedFile, read_json, remove_partial
from mmjax.typing import Mapping

__all__ = ["claim"]


@contextlib.contextmanager
def claim(workdir: pathlib.Path, owner: Mapping[str, Any]) -> Iterator[None]:
    """Creates the directory and locks it; the lock ends with the process. What a killed process left half written in it
    is removed.

    Args:
      workdir: the directory.
      owner: fields that an existing ``config.json`` must have, for example ``{"table": "digits", "row": None}``.

    Raises:
      UsageError: it cannot be written, holds something else, or another process is at work in it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # Not truncated, and no link is followed: its target is not ours.
        lock = os.fdopen(os.open(workdir / ".lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666), "r+")
    except OSError as error:
        reason = "it is a file" if workdir.is_file() else error.strerror
        reason = "its .lock is a symbolic link" if (workdir / ".lock").is_symlink() else reason
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
        remove_partial(workdir)
        yield


def _check_owner(workdir: pathlib.Path, owner: Mapping[str, Any]) -> None:
    try:
        config = read_json(workdir / "config.json")
    except (FileNotFoundError, DamagedFile):  # nothing yet, or damaged: written anew
        return
    config = config if isinstance(config, dict) else {}
    for name, value in owner.items():
        if config.get(name) != value:
            raise UsageError(
                f"{str(workdir)!r} holds other results ({name} is {config.get(name)!r} there and {value!r} here): pass "
                "another --workdir, or remove it"
            )
