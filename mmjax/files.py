"""Files that are whole or not there, beside other processes; a damaged one is named, in one line."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import tempfile
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Mapping

__all__ = [
    "DamagedFile",
    "arrays_sha256",
    "as_json",
    "file_sha256",
    "read_json",
    "read_npz",
    "remove_partial",
    "replace_file",
    "rounded",
    "write_json",
]


class DamagedFile(UsageError):
    """A file that is not what was written, with its path and why."""

    def __init__(self, path: str | os.PathLike, why: str):
        super().__init__(f"damaged: {os.fspath(path)} ({why})")
        self.path, self.why = pathlib.Path(path), why


def read_json(path: str | os.PathLike) -> Any:
    """What stands in a JSON file.

    Raises:
      FileNotFoundError: there is none.
      DamagedFile: it is no JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(path, _why(error)) from None


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON data, sorted and indented; NumPy's numbers and arrays are plain ones.

    Raises:
      UsageError: as ``replace_file``.
    """
    replace_file(path, (json.dumps(value, sort_keys=True, indent=1, default=as_json) + "\n").encode())


def as_json(value: Any) -> Any:
    """A NumPy number or array as JSON data, for ``json.dumps(default=...)``."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def rounded(value: Any) -> Any:
    """JSON data at ten digits, beyond which numbers are noise; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.10g}") if np.isfinite(value) else None
    return value


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name.

    Raises:
      FileNotFoundError: there is none.
      DamagedFile: it is no archive of plain arrays.
    """
    try:
        with np.load(pathlib.Path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if strange := [name for name, values in arrays.items() if not isinstance(values, np.ndarray)]:
            raise ValueError(f"{strange[0]!r} is no array")
        return arrays
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib, struct and NumPy raise a dozen kinds for damaged archives
        raise DamagedFile(path, _why(error)) from None


def _why(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def file_sha256(path: str | os.PathLike) -> str:
    """The digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def arrays_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """A digest of arrays by name, that does not depend on how a file holds them."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def replace_file(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Writes a file whole or not at all, beside other processes and threads that write the same one.

    The name of the partial file is a new one each time, so that nothing that lies there, a link among others, is
    written to.

    Raises:
      UsageError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None
        raise


def remove_partial(folder: pathlib.Path) -> None:
    """Removes what ``replace_file`` left half written in a folder and below it when its process was killed; nobody may
    write there now. Folders below that have a lock of their own, and links, are somebody else's.
    """
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not os.path.lexists(os.path.join(root, name, ".lock"))]
        for name in names:
            if _PARTIAL.fullmatch(name):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(root, name))


_PARTIAL = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # as ``mkstemp`` names it


@functools.cache
def _umask() -> int:
    """Of the process; mkstemp's files are for the owner alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
