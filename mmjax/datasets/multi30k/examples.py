"""The examples of Multi30K out of its files of lines, and what is made of them when they are read."""

import gzip
import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.multi30k.vocabulary import fit_units, pair_target, plain, published_units, with_end
from mmjax.datasets.raw.words import stored_texts
from mmjax.datasets.recipe import Columns
from mmjax.errors import UsageError
from mmjax.stream import Stream

__all__ = ["TESTS", "files_of", "lines_of", "make_streams", "merges_of", "read", "read_lines", "translated"]

TESTS = {"2016": "test_2016_flickr", "2017": "test_2017_flickr", "coco": "test_2017_mscoco"}
MERGES = "merges"
"""A column that holds the merges of the published units in the first example of train, and nothing elsewhere."""


def files_of(source: str, language: str, test: str) -> dict[str, tuple[str, str]]:
    """Paths below the data folder of each split, English and the other language."""
    if source == "bpe":
        parts = {"train": "train", "validation": "valid", "test": f"test.{test}"}
        name = f"multi30k_bpe/en-{language}.{{}}.{{}}.gz"
    else:
        parts = {"train": "train", "validation": "val", "test": TESTS[test]}
        name = "multi30k/{}.{}.gz"
    return {split: (name.format(part, "en"), name.format(part, language)) for split, part in parts.items()}


def read_lines(path: pathlib.Path) -> list[str]:
    """The lines of a gzipped file of UTF-8 text.

    Only a newline ends a line: some lines hold other characters at which ``splitlines`` would break.

    Raises:
      UsageError: not such a file.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            return [line.rstrip("\r\n") for line in file]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def lines_of(options: Any, folder: pathlib.Path, split: str) -> tuple[list[str], list[str]]:
    """The lines of a split, English and the other language.

    Raises:
      UsageError: files of different or other numbers of lines, or an empty line.
    """
    english, other = (folder / path for path in files_of(options.source, options.language, options.test)[split])
    sides = read_lines(english), read_lines(other)
    if len(sides[0]) != len(sides[1]):
        raise UsageError(f"{english} has {len(sides[0])} lines and {other} {len(sides[1])}: they must go together")
    for path, lines in zip((english, other), sides):
        if empty := [number for number, line in enumerate(lines, 1) if not line.strip()]:
            raise UsageError(f"{path}: line {empty[0]} is empty")
    return sides


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Sentences of the official splits in the order of their lines; each is of a photograph of its own."""
    columns, first = {}, 0
    for split in SPLITS:
        english, other = lines_of(options, folder, split)
        number = np.arange(first, first + len(english), dtype=np.int32)
        first += len(english)
        columns[split] = {"text": english, "target": other, "group": number}
    merges_of(options, folder, columns)
    return columns


def merges_of(options: Any, folder: pathlib.Path, columns: Columns) -> None:
    """Puts the merges of the published units into the first example of train: reading knows no folder."""
    if options.source == "bpe":
        for split in SPLITS:
            columns[split][MERGES] = [""] * len(columns[split]["text"])
        columns["train"][MERGES][0] = "\n".join(read_lines(folder / f"multi30k_bpe/en-{options.language}.code.gz"))


def translated(options: Any, columns: Columns) -> tuple[Columns, Any]:
    """The columns with ids of the source and the target of the task, and the tokenizer of both languages.

    The vocabulary is that of train: the published units, or, of raw text, units fitted on it.
    """
    sides = {split: [stored_texts(columns[split][name]) for name in ("text", "target")] for split in SPLITS}
    train = [*sides["train"][0], *sides["train"][1]]
    if options.source == "bpe":
        merges = stored_texts(columns["train"][MERGES][:1])[0].split("\n")
        tokenizer = published_units(train, merges)
        sides = {split: [list(map(plain, lines)) for lines in pair] for split, pair in sides.items()}
    else:
        tokenizer = fit_units(train, options.vocabulary)
    made = {}
    for split, (source, target) in sides.items():
        streams = {
            "text": with_end(tokenizer, source, options.max_words),
            "target": pair_target(tokenizer, target, options.max_words),
        }
        made[split] = {name: column for name, column in columns[split].items() if name != MERGES} | streams
    width = max(made[split]["text"].length for split in SPLITS)
    for rows in made.values():
        rows["text"] = Stream(
            *(np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (rows["text"].values, rows["text"].mask))
        )
    return made, tokenizer


def make_streams(options: Any, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """Ids of source and target by the one tokenizer of ``text``."""
    made, tokenizer = translated(options, columns)
    return made, {"text": tokenizer}
