"""How a data set of this library is made: the contract between its folder and the loader."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.datasets.arrays import pad
from mmjax.datasets.base import SPLITS, Card
from mmjax.errors import UsageError
from mmjax.source_code import code_digest, reached_definitions
from mmjax.stream import Batch, Stream

__all__ = ["AT_READING", "Columns", "Recipe", "collate"]

AT_READING = {"at_reading": True}

Columns = dict[str, dict[str, Any]]
"""Per split the columns of its examples: every stream, ``target`` and ``group``; arrays or lists of arrays. Examples of
several labelled items (a dialogue of turns) have ``target``, ``group`` and ``index`` ``[n, items]``, -1 in the padding
of the last two; without ``index`` an example is an item."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One data set; each folder of ``mmjax/datasets`` defines one.

    Attributes:
      card: ``options -> Card``.
      options: a frozen dataclass whose fields are the options of ``load``, checked in its ``__post_init__``.
      version: of the examples that ``read`` gives; another version is prepared anew.
      split_id: ``options -> str``.
      read: ``(options, data folder or None) -> Columns``; pure NumPy, the only code that knows the source files.
      builder: imports TFDS and returns the builder's class.
      files: ``options -> {path below the data folder: sha256}``; empty = embedded.
      fetch: one sentence: what to fetch and where to put it.
      sequences: ``options ->`` streams whose examples are sequences ``[t, *item]``, with the length they are padded or
        cut to (None = the longest of all splits); the others are single items.
      decode: what becomes of the stored values of a stream, e.g. 16-bit samples as floats.
      facts: ``options -> {}`` known answers.
      class_names: ``(options, stored columns) ->`` the classes, where the data say which there are; they complete the
        card. Empty = the card knows.
      at_reading: ``(options, columns) -> (columns, tokenizers by stream)``: what becomes of stored examples when they
        are read, e.g. of JPEG files pixels and of captions ids by a vocabulary of train; a column may become a
        ``Stream``. Options whose field says ``metadata=AT_READING`` are for it alone: others prepare anew.
    """

    card: Callable[[Any], Card]
    options: type
    version: str
    split_id: Callable[[Any], str]
    read: Callable[[Any, Any], Columns]
    builder: Callable[[], type]
    files: Callable[[Any], Mapping[str, str]] = lambda options: {}
    fetch: str = ""
    sequences: Callable[[Any], Mapping[str, int | None]] = lambda options: {}
    decode: Mapping[str, Callable[[np.ndarray], np.ndarray]] = dataclasses.field(default_factory=dict)
    facts: Callable[[Any], dict[str, Any]] = lambda options: {}
    class_names: Callable[[Any, Columns], tuple[str, ...]] = lambda options, columns: ()
    at_reading: Callable[[Any, Columns], tuple[Columns, dict[str, Any]]] = lambda options, columns: (columns, {})

    def parse(self, name: str, options: Mapping[str, Any]) -> Any:
        """The options as their dataclass.

        Raises:
          UsageError: an option that is not there, or a wrong value.
        """
        valid = [field.name for field in dataclasses.fields(self.options)]
        if unknown := sorted(set(options) - set(valid)):
            raise UsageError(f"{name} has no option {unknown[0]!r}; it has {', '.join(valid) or 'none'}")
        return self.options(**options)

    def key(self, options: Any, files: Mapping[str, str]) -> str:
        """Names one preparation: version, options, source files, and the code that reads them."""
        code = code_digest(reached_definitions(self.read))
        later = {field.name for field in dataclasses.fields(options) if field.metadata.get("at_reading")}
        stored = {name: value for name, value in dataclasses.asdict(options).items() if name not in later}
        text = json.dumps([self.version, stored, dict(files), code], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def collate(recipe: Recipe, options: Any, columns: Columns) -> dict[str, Batch]:
    """Columns of examples as the batches of a data set; a single item becomes a sequence of length 1."""
    card, lengths = recipe.card(options), dict(recipe.sequences(options))
    for name, length in lengths.items():
        if length is None:
            lengths[name] = max(len(item) for split in SPLITS for item in columns[split][name])
    splits = {}
    for split in SPLITS:
        rows, streams = columns[split], {}
        for name in sorted(card.kinds):
            if isinstance(rows[name], Stream):
                values, mask = rows[name].values, rows[name].mask
            elif name in lengths:
                values, mask = pad(rows[name], lengths[name])
            else:
                values = np.asarray(rows[name])[:, None]
                mask = np.ones(values.shape[:2], bool)
            streams[name] = Stream(recipe.decode.get(name, lambda x: x)(values), mask)
        target = rows["target"]
        if not isinstance(target, Stream | dict):
            target = np.asarray(target)
            scores = card.num_classes is None and target.dtype.kind == "f"  # integers without classes number things
            target = target.astype(np.float32 if scores else np.int32)
        splits[split] = Batch(
            streams=streams,
            target=target,
            weight=np.ones(len(rows["group"]), np.float32),
            index=np.asarray(rows.get("index", np.arange(len(rows["group"])))).astype(np.int32),
            group=np.asarray(rows["group"]).astype(np.int32),
        )
    return splits
