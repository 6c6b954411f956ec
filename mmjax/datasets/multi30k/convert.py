"""Multi30K out of clones of its repositories, in the form that the builder reads.

python -m mmjax.datasets.multi30k.convert FOLDER DIR

``FOLDER`` holds ``dataset`` (github.com/multi30k/dataset) and, for the published units, ``Revisit-MMT``
(github.com/LividWo/Revisit-MMT); ``DIR`` is the data folder: ``multi30k`` and ``multi30k_bpe`` are written there. The
text is copied as it is and gzipped without a time. The converter was run on a fixture of that form; of the
repositories themselves the converted files were at hand.
"""

import gzip
import pathlib
import sys

from mmjax.datasets.converting import command
from mmjax.datasets.multi30k.examples import TESTS
from mmjax.datasets.sources import write_manifest
from mmjax.errors import UsageError

__all__ = ["convert"]

LANGUAGES = ("de", "fr")


def _wanted(original: pathlib.Path) -> dict[str, dict[str, pathlib.Path]]:
    """By folder of the result: names of files and where their text is."""
    raw, units = original / "dataset" / "data" / "task1" / "raw", original / "Revisit-MMT" / "data"
    parts = ("train", "val", *TESTS.values())
    wanted = {"multi30k": {f"{p}.{one}.gz": raw / f"{p}.{one}" for p in parts for one in ("en", *LANGUAGES)}}
    if units.is_dir():
        wanted["multi30k_bpe"] = {}
        for language in LANGUAGES:
            folder = units / f"multi30k-en-{language}"
            wanted["multi30k_bpe"][f"en-{language}.code.gz"] = folder / "code"
            for part in ("train", "valid", *(f"test.{name}" for name in TESTS)):
                for one in ("en", language):
                    wanted["multi30k_bpe"][f"en-{language}.{part}.{one}.gz"] = folder / f"{part}.{one}"
    return wanted


def _text(path: pathlib.Path) -> bytes:
    """The content of a file that may be gzipped already."""
    for place, opened in ((path, open), (path.with_name(path.name + ".gz"), gzip.open)):
        if place.is_file():
            with opened(place, "rb") as file:
                return file.read()
    raise UsageError(f"there is no {path} and no {path.name}.gz")


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``multi30k/*.gz`` and, where there are units, ``multi30k_bpe/*.gz``.

    Raises:
      UsageError: a file is missing, or two that go together have different numbers of lines.
    """
    written = []
    for folder, files in _wanted(original).items():
        (out / folder).mkdir(parents=True, exist_ok=True)
        lines: dict[str, int] = {}
        for name, path in files.items():
            content = _text(path)
            pair, count = name.rsplit(".", 2)[0], content.count(b"\n")
            if lines.setdefault(pair, count) != count:
                raise UsageError(f"{path} has {count} lines, its translation {lines[pair]}")
            (out / folder / name).write_bytes(gzip.compress(content, mtime=0))
            written.append(out / folder / name)
        write_manifest(out / folder, list(files))
    return written


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.multi30k.convert", "FOLDER", convert, sys.argv[1:]))
