"""``mmjax table FILE.csv``: what can be said of a file of one's own, and the table that follows from it."""

import argparse
import pathlib
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["add_arguments", "check_arguments", "is_file", "make_table", "slug"]

SUFFIXES = (".csv", ".tsv")


def is_file(name: str) -> bool:
    """Whether the argument is the path of a file, not the name of a table."""
    return name.lower().endswith(SUFFIXES)


def slug(name: str) -> str:
    """The name of the table, from that of the file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", pathlib.Path(name).stem).strip("-.") or "table"


def _columns(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The columns of a file of one's own and how they are read; see ``mmjax.datasets.from_table``."""
    own = parser.add_argument_group("a CSV file of one's own", "columns by name, several separated by commas")
    own.add_argument("--text", type=_columns, metavar="COLUMN", help="text")
    own.add_argument("--image", type=_columns, metavar="COLUMN", help="picture files, relative to the CSV file")
    own.add_argument("--audio", type=_columns, metavar="COLUMN", help="sound files")
    own.add_argument("--video", type=_columns, metavar="COLUMN", help="folders of frames, or animated files (GIF)")
    own.add_argument("--features", type=_columns, metavar="COLUMNS", help="numbers and categories, as one vector")
    own.add_argument("--label", type=_columns, metavar="COLUMN", help="classes or scores; several: 0 or 1 each")
    own.add_argument("--group", metavar="COLUMN", help="author, video, patient, ...: none stands in two splits")
    own.add_argument("--split", metavar="COLUMN", help="train, validation, test (default: drawn, 60, 20 and 20 %%)")
    own.add_argument("--weight", metavar="COLUMN", help="weight of an example in training")
    own.add_argument("--task", choices=("classes", "labels", "scores"), help="what the label is (default: inferred)")
    own.add_argument("--separator", help="between several labels in one cell")
    own.add_argument("--folder", help="to which paths are relative (default: that of the CSV file)")
    own.add_argument("--tokenizer", choices=("words", "bpe"), help="of text (default: words)")
    own.add_argument("--vocabulary", type=int, help="ids of text at most (default: 8000)")
    own.add_argument("--max-words", type=int, help="of a text (default: 128)")
    own.add_argument("--size", type=int, help="side of a picture in pixels (default: 32)")
    own.add_argument("--frames", type=int, help="of a video at most (default: 16)")
    own.add_argument("--rate", type=int, help="of sounds in Hz (default: 16000)")
    own.add_argument("--seconds", type=float, help="of a sound at most (default: 4)")


OPTIONS = (
    "text", "image", "audio", "video", "features", "group", "split", "weight", "task", "separator", "folder",
    "tokenizer", "vocabulary", "max_words", "size", "frames", "rate", "seconds",
)  # fmt: skip


def check_arguments(args: argparse.Namespace) -> None:
    """Columns are for a file, and a file needs a label.

    Raises:
      UsageError: one without the other.
    """
    from mmjax.errors import UsageError

    options = [name for name in ("label", *OPTIONS) if getattr(args, name) is not None]
    if not is_file(args.name):
        if options:
            option = options[0].replace("_", "-")
            raise UsageError(f"--{option} is for a CSV file, mmjax table FILE.csv --{option} ...; got {args.name!r}")
        return
    if not pathlib.Path(args.name).is_file():
        raise UsageError(f"there is no file {args.name!r}")
    if args.label is None:
        from mmjax.datasets.raw import read_columns

        columns = ", ".join(read_columns(args.name).cells)
        raise UsageError(f"say by --label which column of {args.name!r} is to be predicted; its columns are: {columns}")


def make_table(args: argparse.Namespace) -> Any:
    """The default table of the file.

    Raises:
      UsageError: as ``from_table``.
    """
    from mmjax.datasets import from_table
    from mmjax.experiment.default import default_table

    options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    label: str | Sequence[str] = args.label if len(args.label) > 1 else args.label[0]
    return default_table(from_table(args.name, label=label, **options))
