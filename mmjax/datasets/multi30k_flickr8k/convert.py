"""The rows of Multi30K whose photographs are in Flickr8k, in the form that the builder reads.

python -m mmjax.datasets.multi30k_flickr8k.convert FOLDER DIR

``FOLDER`` holds ``dataset`` (github.com/multi30k/dataset). ``DIR`` is the data folder, in which ``flickr8k`` is there
already: a row belongs here if a photograph in its tars has the number of the row's. The converter was run on a fixture
of that form.
"""

import json
import pathlib
import sys
import tarfile

from mmjax.datasets.converting import command
from mmjax.datasets.flickr8k.examples import PARTS
from mmjax.datasets.multi30k_flickr8k.examples import FILES
from mmjax.datasets.sources import write_manifest
from mmjax.errors import UsageError

__all__ = ["convert"]

LANGUAGES = ("en", "de", "fr")


def _lines(path: pathlib.Path) -> list[str]:
    if not path.is_file():
        raise UsageError(f"there is no {path}")
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _names(folder: pathlib.Path) -> dict[str, str]:
    """Photographs in the tars of Flickr8k by their number: ``1000268201_693b08cb0e.jpg`` by ``1000268201``."""
    names: dict[str, str] = {}
    for part in PARTS.values():
        path = folder / f"images_{part}_128.tar"
        if not path.is_file():
            raise UsageError(f"there is no {path}: make flickr8k first")
        with tarfile.open(path) as file:
            names |= {name.partition("_")[0]: name for name in file.getnames()}
    return names


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``multi30k_flickr8k/*.jsonl``.

    Raises:
      UsageError: a file is missing, or those of a split have different numbers of lines.
    """
    task, names = original / "dataset" / "data" / "task1", _names(out / "flickr8k")
    folder, written = out / "multi30k_flickr8k", []
    folder.mkdir(parents=True, exist_ok=True)
    for part in FILES.values():
        numbers = _lines(task / "image_splits" / f"{part}.txt")
        texts = {one: _lines(task / "raw" / f"{part}.{one}") for one in LANGUAGES}
        if len({len(numbers), *map(len, texts.values())}) > 1:
            raise UsageError(f"{part}: photographs and texts have different numbers of lines")
        rows = []
        for line, photograph in enumerate(numbers):
            if (number := photograph.removesuffix(".jpg")) in names:
                sentences = {one: texts[one][line].strip() for one in LANGUAGES}
                rows.append({"image": names[number], "multi30k_image": photograph, "line": line, **sentences})
        name = f"{part}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")
        written.append(name)
    write_manifest(folder, written)
    return [folder / name for name in written]


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.multi30k_flickr8k.convert", "FOLDER", convert, sys.argv[1:]))
