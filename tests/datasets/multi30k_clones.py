"""Clones of the two repositories of Multi30K with few lines, for the converters."""

import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

from mmjax.datasets.multi30k.convert import convert
from mmjax.datasets.multi30k_flickr8k.convert import convert as convert_part
from mmjax.datasets.sources import write_manifest

__all__ = ["write", "write_with_photographs"]

WORDS = {"en": "a dog cat runs sits", "de": "ein hund läuft sitzt katze", "fr": "un chien chat court dort"}
LINES = {"train": 12, "val": 4, "test_2016_flickr": 4, "test_2017_flickr": 3, "test_2017_mscoco": 3}
SHORT = {
    "train": "train", "val": "valid", "test_2016_flickr": "test.2016", "test_2017_flickr": "test.2017",
    "test_2017_mscoco": "test.coco",
}  # fmt: skip


def write(folder: pathlib.Path) -> dict[str, list[str]]:
    """Writes them; returns raw lines by ``PART.LANGUAGE``. ``dog`` and ``hund`` are of two units, all else of one."""
    random, raw = np.random.RandomState(0), {}
    task, units = folder / "dataset" / "data" / "task1", folder / "Revisit-MMT" / "data"
    for place in (task / "raw", task / "image_splits", units / "multi30k-en-de", units / "multi30k-en-fr"):
        place.mkdir(parents=True)
    for part, count in LINES.items():
        for language, known in WORDS.items():
            lines = [random.choice(known.split(), random.randint(1, 6)).tolist() for _ in range(count)]
            raw[f"{part}.{language}"] = [" ".join(line).capitalize() + "." for line in lines]
            text = "".join(f"{line}\n" for line in raw[f"{part}.{language}"])
            (task / "raw" / f"{part}.{language}").write_text(text, encoding="utf-8")
            split = {"dog": "d@@ og", "hund": "h@@ und"}
            text = "".join(" ".join(split.get(word, word) for word in line) + " .\n" for line in lines)
            for other in ("de", "fr") if language == "en" else (language,):
                path = units / f"multi30k-en-{other}" / f"{SHORT[part]}.{language}"
                path.write_text(text, encoding="utf-8")
        numbers = "".join(f"{part.replace('_', '')}{row}.jpg\n" for row in range(count))
        (task / "image_splits" / f"{part}.txt").write_text(numbers)
    for other in ("de", "fr"):
        words = [*WORDS["en"].split(), *WORDS[other].split()]
        merges = dict.fromkeys(merge for word in words for merge in _merges(word))
        (units / f"multi30k-en-{other}" / "code").write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    return raw


def write_with_photographs(folder: pathlib.Path) -> tuple[dict[str, list[str]], list[str]]:
    """Writes and converts all to ``folder/data``, with grey photographs of two rows of three.

    Returns the raw lines and the names of the photographs; that at place ``i`` has the level ``5 i``.
    """
    raw = write(folder / "original")
    convert(folder / "original", folder / "data")
    tars = folder / "data" / "flickr8k"
    tars.mkdir()
    lists = folder / "original" / "dataset" / "data" / "task1" / "image_splits"
    parts = ("train", "val", "test_2016_flickr")
    names = [name for part in parts for name in (lists / f"{part}.txt").read_text().split()]
    kept = [name for place, name in enumerate(names) if place % 3]
    for place, part in enumerate(("train", "dev", "test")):
        with tarfile.open(tars / f"images_{part}_128.tar", "w") as file:
            for name in kept[place::3]:
                content = io.BytesIO()
                Image.fromarray(np.full((128, 128, 3), 5 * kept.index(name), np.uint8)).save(content, "JPEG")
                info = tarfile.TarInfo(name.replace(".jpg", "_abc.jpg"))
                info.size = content.tell()
                content.seek(0)
                file.addfile(info, content)
    write_manifest(tars, [f"images_{part}_128.tar" for part in ("train", "dev", "test")])
    convert_part(folder / "original", folder / "data")
    return raw, kept


def _merges(word: str) -> list[str]:
    """What makes one unit of the word from the left; its first letter stays alone in ``dog`` and ``hund``."""
    word = word[1:] if word in ("dog", "hund") else word
    letters = [*word[:-1], word[-1] + "</w>"]
    return [f"{''.join(letters[:at])} {letters[at]}" for at in range(1, len(letters))]
