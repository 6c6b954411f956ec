"""The part of Multi30K with photographs: rows of its JSON lines joined with the photographs of Flickr8k."""

import json
import pathlib
import tarfile
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.flickr8k.examples import PARTS, decode
from mmjax.datasets.multi30k.examples import files_of, merges_of, read_lines, translated
from mmjax.datasets.recipe import Columns
from mmjax.errors import UsageError

__all__ = ["make_streams", "photographs", "read", "read_rows"]

FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
FIELDS = {"image": str, "line": int, "en": str, "de": str, "fr": str}


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines.

    Raises:
      UsageError: a line that is none, or lacks a field.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            good = all(isinstance(row[name], kind) and row[name] != "" for name, kind in FIELDS.items())
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise UsageError(f"{path}: line {number} is no JSON object with {', '.join(FIELDS)}")
        rows.append(row)
    return rows


def photographs(folder: pathlib.Path) -> dict[str, bytes]:
    """The JPEG files of all splits of Flickr8k, by name."""
    found: dict[str, bytes] = {}
    for part in PARTS.values():
        with tarfile.open(folder / "flickr8k" / f"images_{part}_128.tar") as file:
            found |= {one.name: file.extractfile(one).read() for one in file if one.isfile()}  # type: ignore[union-attr]
    return found


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Rows of Multi30K's splits whose photograph is there, in their order; the published units by number of the line.

    Raises:
      UsageError: a row whose line is not in the published units.
    """
    files, columns, first = photographs(folder), {}, 0
    for split in SPLITS:
        rows = [
            row for row in read_rows(folder / "multi30k_flickr8k" / f"{FILES[split]}.jsonl") if row["image"] in files
        ]
        number = np.arange(first, first + len(rows), dtype=np.int32)
        first += len(rows)
        columns[split] = {
            "image": [np.frombuffer(files[row["image"]], np.uint8) for row in rows],
            "text": [row["en"].strip() for row in rows],
            "target": [row[options.language].strip() for row in rows],
            "group": number,
        }
        if options.source == "bpe":
            for name, path in zip(("text", "target"), files_of("bpe", options.language, "2016")[split]):
                lines = read_lines(folder / path)
                if rows and not 0 <= max(row["line"] for row in rows) < len(lines):
                    raise UsageError(f"{folder / path} has {len(lines)} lines, fewer than the rows name")
                columns[split][name] = [lines[row["line"]] for row in rows]
    merges_of(options, folder, columns)
    return columns


def make_streams(options: Any, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """As ``multi30k``, and photographs as pixels ``[n, 1, 128, 128, 3]``."""
    made, tokenizer = translated(options, columns)
    for split in SPLITS:
        made[split]["image"] = np.stack([decode(image) for image in columns[split]["image"]])
    return made, {"text": tokenizer}
