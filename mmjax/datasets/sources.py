"""Where source files and prepared files live, and the checksums that source files must have."""

import json
import os
import pathlib
from collections.abc import Mapping

from mmjax.errors import UsageError
from mmjax.files import file_sha256

__all__ = ["CONVERTED", "cache_folder", "data_folder", "verify", "write_manifest"]

CONVERTED = "converted.json"  # beside files that a converter wrote: their checksums


def data_folder(data_dir: str | os.PathLike | None) -> pathlib.Path | None:
    """The folder of source files: the argument, else the variable ``MMJAX_DATA_DIR``, else None."""
    folder = data_dir or os.environ.get("MMJAX_DATA_DIR")
    return pathlib.Path(folder).expanduser() if folder else None


def cache_folder(cache_dir: str | os.PathLike | None) -> pathlib.Path:
    """The folder of prepared files: the argument, else ``mmjax`` in the user's cache folder."""
    if cache_dir:
        return pathlib.Path(cache_dir).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "mmjax"


def write_manifest(folder: pathlib.Path, names: list[str]) -> None:
    """Notes the checksums of files that a converter made out of the public originals."""
    digests = {name: file_sha256(folder / name) for name in sorted(names)}
    (folder / CONVERTED).write_text(json.dumps(digests, indent=1) + "\n")


def verify(name: str, folder: pathlib.Path | None, files: Mapping[str, str], fetch: str) -> dict[str, str]:
    """Checks that the source files are there and unaltered.

    A file passes with the checksum that stands in the builder, or, where a converter made it from the original, with
    the one in ``converted.json`` beside it.

    Args:
      name: of the data set, for the messages.
      files: path below ``folder`` -> sha256.
      fetch: what to fetch, for the messages.

    Returns:
      path -> sha256 of the file: it tells a converted file from the one that the checksum was taken of.

    Raises:
      UsageError: no folder, a missing file, or one that is truncated or altered; one line.
    """
    places = ", ".join(sorted({str(pathlib.PurePath(path).parent) for path in files}))
    if folder is None:
        raise UsageError(
            f"{name} needs source files: {fetch} Then pass --data-dir (or set MMJAX_DATA_DIR): the folder that "
            f"holds {places}"
        )
    if not folder.is_dir():
        raise UsageError(f"{name}: there is no data directory {folder}; it should hold {places}. To get it: {fetch}")
    digests = {}
    for path, expected in sorted(files.items()):
        file = folder / path
        if not file.is_file():
            raise UsageError(f"{name}: {file} is missing. {fetch}")
        digests[path] = file_sha256(file)
        if digests[path] != expected and digests[path] != _converted(file):
            raise UsageError(
                f"{name}: {file} is truncated or altered: its sha256 begins {digests[path][:12]}, expected "
                f"{expected[:12]}. {fetch}"
            )
    return digests


def _converted(file: pathlib.Path) -> str | None:
    manifest = file.parent / CONVERTED
    if not manifest.is_file():
        return None
    try:
        return json.loads(manifest.read_text()).get(file.name)
    except (ValueError, AttributeError):
        raise UsageError(f"{manifest} is not a list of checksums; run the converter again") from None
