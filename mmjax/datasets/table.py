"""One door from raw data: a CSV file or data frame of text, pictures, sounds, videos, numbers and labels."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.datasets import raw
from mmjax.datasets.arrays import from_arrays
from mmjax.datasets.base import Card, Dataset
from mmjax.datasets.labels import make_labels
from mmjax.datasets.raw.columns import Columns, is_missing
from mmjax.datasets.raw.numbers import to_vectors
from mmjax.datasets.splits import read_groups, split_codes
from mmjax.errors import UsageError

__all__ = ["TASKS", "from_table"]

TASKS = ("classes", "labels", "scores")
MOST_CLASSES = 20
"""Whole numbers of more different values are no classes unless it is said."""

Names = str | Sequence[str]


def from_table(
    source: Any,
    *,
    label: Names,
    text: Names = (),
    image: Names = (),
    audio: Names = (),
    video: Names = (),
    features: Names | Mapping[str, Sequence[str]] = (),
    group: str | None = None,
    split: Any = (0.6, 0.2, 0.2),
    seed: int = 0,
    task: str | None = None,
    class_names: Sequence[str] = (),
    separator: str | None = None,
    folder: str | os.PathLike | None = None,
    name: str | None = None,
    tokenizer: Any = "words",
    vocabulary: int = 8_000,
    max_words: int = 128,
    size: int | tuple[int, int] = 32,
    rate: int = 16_000,
    seconds: float = 4.0,
    frames: int = 16,
    weight: str | None = None,
    class_weight: Any = None,
    allow_crossing: bool = False,
) -> Dataset:
    """A data set of a CSV file or data frame: each named column is a modality, all features together are one.

    An empty cell is a missing modality. What is fitted (vocabulary, categories, means of empty numbers) is fitted on
    train alone. The card's ``description`` says what was done; ``tokenizers`` holds the vocabularies.

    Args:
      source: path of a CSV file, a data frame (pandas, polars), or a mapping of column name to values.
      label: column of the classes or scores; several columns: a label or a score each.
      text: columns of text; see ``tokenizer``, ``vocabulary``, ``max_words``.
      image: columns of picture files, ``PIL.Image`` or arrays; scaled to cover ``size`` and cut in the middle, upright,
        alpha over white.
      audio: columns of sound files; mono, at ``rate`` Hz, cut to ``seconds``.
      video: columns of folders of frames, in the order of their names, or of animated files (GIF, PNG, WebP, TIFF);
        frames as pictures, see ``frames``.
      features: columns of numbers or categories; a mapping makes several modalities of them.
      group: column of the video, speaker, author; no group stands in two splits.
      split: column of train, validation, test; or three shares, see ``from_arrays``.
      seed: of the draw.
      task: ``classes``, ``labels`` (0 or 1 in each label column, or several names in a cell, see ``separator``) or
        ``scores``; default: names, and up to 20 different whole numbers, are classes, other numbers scores.
      class_names: in order; default: sorted.
      separator: between the names of several labels in a cell.
      folder: to which paths are relative; default: the file's folder.
      name: of the data set; default: of the file.
      tokenizer: ``words``, ``bpe``, or a fitted ``tokenizers.Tokenizer``.
      vocabulary: ids at most; 0 is the unknown word.
      max_words: longer texts are cut.
      size: of pictures and frames, a side or height and width.
      rate: of sounds, in Hz.
      seconds: longer sounds are cut.
      frames: of a longer video as many, evenly spaced.
      weight: column of weights in training.
      class_weight: as in ``from_arrays``.
      allow_crossing: whether groups may stand in two splits.

    Raises:
      UsageError: one line that names column and line: no such column, a file that cannot be read, no label, ...
      MissingExtra: a package of the extra ``data`` is not installed.
    """
    table = raw.read_columns(source, folder)
    name = name or table.name.rpartition(".")[0] or table.name
    try:
        target, names = _target(table, label, task, tuple(class_names), separator)
        groups = None if group is None else _names(table, group, "group")
        labels = make_labels(name, target, class_names=names, scores=names == () and target.dtype.kind == "f")
        part_names = _names(table, split, "split") if isinstance(split, str) else split
        strata = labels.target if labels.num_classes and labels.target.ndim == 1 else None
        codes = split_codes(part_names, read_groups(groups, len(table)), seed=seed, strata=strata)
        parts = _Parts(table, codes == 0)
        for one in _list(text):
            parts.add_text(one, tokenizer, vocabulary, max_words)
        for one in _list(image):
            parts.add_pictures(one, size)
        for one in _list(audio):
            parts.add_sounds(one, rate, seconds)
        for one in _list(video):
            parts.add_videos(one, size, frames)
        for one, columns in (features if isinstance(features, Mapping) else {"features": _list(features)}).items():
            if columns:
                parts.add_vectors(one, _list(columns))
        if not parts.streams:
            raise UsageError("no modality: name columns by text=, image=, audio=, video= or features=")
        dataset = from_arrays(
            parts.streams, target, split=codes, group=groups, group_name=group or "group", kinds=parts.kinds, name=name,
            class_names=names, weight=None if weight is None else _numbers(table, weight, "weight"),
            class_weight=class_weight, allow_crossing=allow_crossing,
        )  # fmt: skip
    except UsageError as error:
        where = re.sub(r"\bexample (\d+)\b", lambda match: table.place(int(match[1])), str(error))
        raise type(error)(where if where.startswith(name) else f"{name}: {where}") from None
    card = dataclasses.replace(dataset.card, description=_description(table, dataset.card, labels.target, parts.notes))
    return dataclasses.replace(dataset, card=card, tokenizers=parts.tokenizers, sample_rates=parts.rates)


@dataclasses.dataclass
class _Parts:
    """The modalities so far, and what was done to each."""

    table: Columns
    train: np.ndarray
    streams: dict[str, Any] = dataclasses.field(default_factory=dict)
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    tokenizers: dict[str, Any] = dataclasses.field(default_factory=dict)
    rates: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def _add(self, name: str, kind: str, values: Any, note: str) -> None:
        if name in self.streams:
            raise UsageError(f"{name!r} is named twice; a column is one modality")
        self.streams[name], self.kinds[name] = values, kind
        there = values[1] if isinstance(values, tuple) else np.asarray([one is not None for one in values])
        if not there[self.train].any():
            raise UsageError(f"column {name!r} is empty in train")
        missing = int((~there).sum())
        self.notes.append(f"{name}: {note}{f', {missing} missing' if missing else ''}")

    def add_text(self, name: str, tokenizer: Any, vocabulary: int, max_words: int) -> None:
        texts = [None if is_missing(cell) else str(cell) for cell in self.table.column(name, "text")]
        if isinstance(tokenizer, str):
            train = [one for one, used in zip(texts, self.train) if used and one is not None]
            tokenizer = raw.fit_tokenizer(train, size=vocabulary, kind=tokenizer)
        ids, cut = raw.encode(tokenizer, texts, max_words)
        self.tokenizers[name] = tokenizer
        held_out = [one for one, used in zip(ids, self.train) if not used and one is not None]
        unknown = np.concatenate(held_out) == 0 if held_out else np.zeros(1)
        note = f"text, {tokenizer.get_vocab_size():,} ids, {unknown.mean():.1%} of the words held out are unknown"
        self._add(name, "text", ids, note + (f", {cut} texts cut to {max_words} words" if cut else ""))

    def add_pictures(self, name: str, size: int | tuple[int, int]) -> None:
        table = self.table
        pictures = raw.read_pictures(table.column(name, "image"), size, table.folder, table.place)
        shape = next((one.shape for one in pictures if one is not None), (0, 0, 0))
        self._add(
            name, "image", pictures, f"pictures, {shape[0]} by {shape[1]}, {'grey' if shape[2] == 1 else 'colour'}"
        )

    def add_sounds(self, name: str, rate: int, seconds: float) -> None:
        table = self.table
        sounds = raw.read_sounds(table.column(name, "audio"), rate, seconds, table.folder, table.place)
        longest = max((len(one) for one in sounds if one is not None), default=0) / rate
        self.rates[name] = rate
        self._add(name, "audio", sounds, f"sounds, {rate:,} Hz, the longest {longest:.2g} s")

    def add_videos(self, name: str, size: int | tuple[int, int], frames: int) -> None:
        table = self.table
        videos = raw.read_videos(table.column(name, "video"), size, frames, table.folder, table.place)
        longest, *shape = max((one.shape for one in videos if one is not None), default=(0, 0, 0, 0))
        colour = "grey" if shape[2] == 1 else "colour"
        self._add(name, "video", videos, f"videos, {shape[0]} by {shape[1]}, {colour}, the longest {longest} frames")

    def add_vectors(self, name: str, columns: Sequence[str]) -> None:
        cells = {one: self.table.column(one, "features") for one in columns}
        vectors = to_vectors(cells, self.train, self.table.place)
        note = f"{len(vectors.names)} numbers"
        note += f", {vectors.filled} empty cells filled with the mean of train" if vectors.filled else ""
        self._add(name, "feature", (vectors.values, vectors.present), note)


def _list(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _names(table: Columns, column: str, what: str) -> np.ndarray:
    cells = table.column(column, what)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            raise UsageError(f"example {row} has no {what} (column {column!r})")
    return np.asarray([str(cell).strip() for cell in cells])


def _numbers(table: Columns, column: str, what: str) -> np.ndarray:
    values = raw.to_numbers(table.column(column, what))
    if values is None or not np.isfinite(values).all():
        bad = 0 if values is None else int(np.flatnonzero(~np.isfinite(values))[0])
        raise UsageError(f"column {column!r} ({what}) must hold a number in every row; see example {bad}")
    return values


def _target(
    table: Columns, label: Names, task: str | None, class_names: tuple[str, ...], separator: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """``(target, class names)``; scores have no names."""
    if task is not None and task not in TASKS:
        raise UsageError(f"task is one of {', '.join(TASKS)}, got {task!r}")
    columns = _list(label)
    if separator is not None or len(columns) > 1 or task == "labels":
        return _many(table, columns, task, class_names, separator)
    names = _names(table, columns[0], "label")
    numbers = raw.to_numbers(table.cells[columns[0]])
    truth = {name.lower() for name in names} <= {"true", "false", "yes", "no"}
    if task == "scores" or (task is None and numbers is not None and not truth and (numbers != np.rint(numbers)).any()):
        return _numbers(table, columns[0], "label"), ()
    if numbers is not None and not truth and (numbers == np.rint(numbers)).all():
        values = np.unique(numbers)
        if task is None and len(values) > MOST_CLASSES:
            raise UsageError(
                f"label {columns[0]!r} has {len(values)} different whole numbers: say task='classes' or task='scores'"
            )
        names = np.asarray([str(int(number)) for number in numbers])
        return names, class_names or tuple(str(int(number)) for number in values)
    classes = tuple(np.unique(names).tolist())
    if task is None and len(classes) > max(len(names) // 2, MOST_CLASSES):
        raise UsageError(
            f"label {columns[0]!r} has {len(classes)} classes in {len(names)} rows: is it the right column?"
        )
    return names, class_names or classes


def _many(
    table: Columns, columns: list[str], task: str | None, class_names: tuple[str, ...], separator: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Several labels of 0 and 1, or several scores."""
    if separator is not None:
        if len(columns) != 1:
            raise UsageError(f"separator is for one label column, got {columns}")
        cells = [
            [] if is_missing(cell) else [one.strip() for one in str(cell).split(separator) if one.strip()]
            for cell in table.column(columns[0], "label")
        ]
        names = class_names or tuple(sorted({one for cell in cells for one in cell}))
        for row, cell in enumerate(cells):
            if unknown := [one for one in cell if one not in names]:
                raise UsageError(f"label {unknown[0]!r} of example {row} is none of {', '.join(names)}")
        return np.asarray([[name in cell for name in names] for cell in cells], np.int64), names
    values = np.stack([_numbers(table, column, "label") for column in columns], axis=1)
    binary = np.isin(values, (0, 1)).all()
    if task == "scores" or (task is None and not binary):
        return values, ()
    if task == "classes" or not binary:
        raise UsageError(f"the columns {', '.join(columns)} must hold 0 or 1; task='scores' for other numbers")
    if len(columns) == 1:
        raise UsageError("task='labels' needs several label columns, or separator= between the names in a cell")
    return values.astype(np.int64), class_names or tuple(columns)


def _description(table: Columns, card: Card, target: np.ndarray, notes: Sequence[str]) -> str:
    text = f"{len(table):,} rows of {table.name}. " + "; ".join(notes) + "."
    if not card.class_names:
        return text
    counts = target.sum(0) if target.ndim == 2 else np.bincount(target, minlength=len(card.class_names))
    shown = [f"{name} ({count:,})" for name, count in zip(card.class_names[:20], counts.tolist())]
    more = f", and {len(card.class_names) - 20} more" if len(card.class_names) > 20 else ""
    return f"{text} {'Labels' if target.ndim == 2 else 'Classes'}: {', '.join(shown)}{more}."
