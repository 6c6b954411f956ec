"""Sentences as arrays: what a model says about an item, with a score of each, and the sentences it is measured by.

A hypothesis is ``[1 + bytes]`` float32: its score, then its UTF-8 bytes, 0 beyond its end (no text holds that byte; a
byte is exact in float32). So held-out outputs of a task that says sentences are one array like any other, and a score
reads text on both sides and knows no tokenizer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.stream import Stream
from mmjax.typing import Float

__all__ = ["concatenate", "decode_texts", "encode_texts", "first_texts", "pack", "unpack"]


def pack(texts: Any, scores: Any) -> Float[np.ndarray, "*lead width"]:
    """Hypotheses as an array ``[*lead, 1 + bytes]`` float32, as wide as the longest needs.

    Args:
      texts: nested lists of ``str`` of the shape ``lead``, or an array of such.
      scores: numbers ``[*lead]``; higher is better.

    Raises:
      UsageError: texts and scores of different shapes, a text with a NUL character.

    Example:
      >>> unpack(pack([["a dog", "dogs"]], [[-0.5, -2.0]]))[0].tolist()
      [['a dog', 'dogs']]
    """
    names, numbers = np.asarray(texts, dtype=object), np.asarray(scores, np.float32)
    if names.shape != numbers.shape:
        raise UsageError(f"every hypothesis needs a score: texts are {names.shape}, scores {numbers.shape}")
    values, _ = _bytes(names.reshape(-1).tolist())
    array = np.concatenate([numbers.reshape(-1, 1), values.astype(np.float32)], axis=1)
    return array.reshape(*numbers.shape, -1)


def unpack(outputs: Float[np.ndarray, "*lead width"]) -> tuple[np.ndarray, np.ndarray]:
    """Texts (an array of ``str``) and scores, both ``[*lead]``, of hypotheses that ``pack`` made."""
    outputs = np.asarray(outputs, np.float32)
    rows = outputs.reshape(-1, outputs.shape[-1])
    texts = np.empty(len(rows), dtype=object)
    texts[:] = [_text(row[1:].astype(np.uint8)) for row in rows]
    return texts.reshape(outputs.shape[:-1]), outputs[..., 0]


def first_texts(outputs: Float[np.ndarray, "items n width"]) -> list[str]:
    """The first hypothesis of each item: what the model says."""
    return unpack(np.asarray(outputs)[:, 0])[0].tolist()


def concatenate(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Arrays of hypotheses one after the other, as wide as the widest."""
    width = max(part.shape[-1] for part in parts)
    ends = [[(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])] for part in parts]
    return np.concatenate([np.pad(part, end) for part, end in zip(parts, ends)], axis=axis)


def encode_texts(texts: Sequence[Sequence[str]]) -> Stream:
    """References as a nested sequence of bytes: uint8 ``[items, references, bytes]``; items may have fewer than others.

    Raises:
      UsageError: a text with a NUL character, or an empty one, which would be no reference at all.

    Example:
      >>> decode_texts(encode_texts([["a dog", "dogs"], ["a cat"]]))
      [['a dog', 'dogs'], ['a cat']]
    """
    most = max((len(some) for some in texts), default=0)
    if any(not text for some in texts for text in some):
        raise UsageError("a reference is empty: leave it out, or write what is to be said")
    values, mask = _bytes([text for some in texts for text in (*some, *[""] * (most - len(some)))])
    shape = (len(texts), most, values.shape[-1])
    return Stream(values.reshape(shape), mask.reshape(shape))


def decode_texts(stream: Stream) -> list[list[str]]:
    """The texts of ``encode_texts``; of masks that are False everywhere there is none."""
    values, mask = np.asarray(stream.values), np.asarray(stream.mask)
    return [
        [_text(text[there]) for text, there in zip(*item) if there.any()] for item in zip(values, mask, strict=True)
    ]


def _bytes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes ``[texts, longest]``, at least one wide, and which of them are real."""
    encoded = [np.frombuffer(str(text).encode(), np.uint8) for text in texts]
    values = np.zeros((len(encoded), max((len(one) for one in encoded), default=0) or 1), np.uint8)
    mask = np.zeros(values.shape, bool)
    for place, one in enumerate(encoded):
        values[place, : len(one)], mask[place, : len(one)] = one, True
    if (values[mask] == 0).any():
        raise UsageError("a text holds the character NUL (code 0), which ends a text here: remove it")
    return values, mask


def _text(values: np.ndarray) -> str:
    return values[values > 0].tobytes().decode(errors="replace")
