"""What a finished run needs to read something new: the form of its raw streams and what numbered its words.

The runner writes ``inputs.json`` and ``tokenizers/STREAM.json`` into the work directory, so that answering a person
needs no data set.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.base import Card, Dataset
from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.files import read_json, replace_file, write_json

__all__ = ["Inputs", "StreamForm", "read_inputs", "write_inputs"]

FILE, FOLDER = "inputs.json", "tokenizers"


@dataclasses.dataclass(frozen=True)
class StreamForm:
    """The form of one raw stream, before any view.

    Attributes:
      kind: text, image, audio, video or feature.
      lengths: of the mask after the examples: ``(1,)`` for a picture, ``(questions, words)`` for nested text.
      item: shape of an item, ``(height, width, channels)`` of a picture, ``()`` of a word.
      dtype: of the values.
    """

    kind: str
    lengths: tuple[int, ...]
    item: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything that ``write_inputs`` wrote.

    Attributes:
      streams: by name.
      tokenizers: of the texts that this library numbered, streams or what is to be said, by name.
      card: of the raw data.
    """

    streams: dict[str, StreamForm]
    tokenizers: dict[str, Any]
    card: Card


def write_inputs(workdir: pathlib.Path, raw: Dataset) -> None:
    """Notes the form of a table's raw data in its work directory."""
    streams = {}
    for name, stream in raw.splits["train"].streams.items():
        values, mask = np.asarray(stream.values), np.asarray(stream.mask)
        form = StreamForm(raw.card.kinds[name], mask.shape[1:], values.shape[mask.ndim :], values.dtype.name)
        streams[name] = dataclasses.asdict(form)
    for name, tokenizer in raw.tokenizers.items():
        if not hasattr(tokenizer, "to_str"):  # the user's own: texts are numbered where it is
            continue
        path = workdir / FOLDER / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, tokenizer.to_str().encode())
    write_json(workdir / FILE, {"streams": streams, "card": dataclasses.asdict(raw.card)})


def read_inputs(workdir: pathlib.Path) -> Inputs:
    """What the run notes of its inputs.

    Raises:
      UsageError: nothing is noted, or it is damaged.
    """
    try:
        noted = read_json(workdir / FILE)
    except FileNotFoundError:
        raise UsageError(f"{str(workdir)!r} does not say what its inputs are: run its table again (--keep)") from None
    streams = {
        name: StreamForm(form["kind"], tuple(form["lengths"]), tuple(form["item"]), form["dtype"])
        for name, form in noted["streams"].items()
    }
    card = Card(**{**noted["card"], "class_names": tuple(noted["card"]["class_names"])})
    tokenizers = {}
    for path in sorted((workdir / FOLDER).glob("*.json")):
        with extra():
            from tokenizers import Tokenizer
        tokenizers[path.stem] = Tokenizer.from_file(str(path))
    return Inputs(streams, tokenizers, card)
