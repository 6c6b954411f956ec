"""What the converters share: from the public originals to the files that the builders read."""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from mmjax.datasets.sources import write_manifest
from mmjax.errors import UsageError

__all__ = ["command", "save"]


def save(out: pathlib.Path, files: dict[str, dict[str, Any]]) -> list[pathlib.Path]:
    """Writes ``.npz`` files of arrays and their checksums, by which the builders accept them."""
    out.mkdir(parents=True, exist_ok=True)
    for name, arrays in files.items():
        np.savez_compressed(out / name, **arrays)
    write_manifest(out, list(files))
    return [out / name for name in files]


def command(module: str, original: str, convert: Callable[[pathlib.Path, pathlib.Path], list], arguments: list) -> int:
    """The command line ``python -m MODULE ORIGINAL OUT``; one line and exit status 2 for a wrong input."""
    if len(arguments) != 2:
        print(f"usage: python -m {module} {original} OUT", file=sys.stderr)
        return 2
    try:
        for path in convert(*map(pathlib.Path, arguments)):
            print(path)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
