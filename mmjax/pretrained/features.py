"""Features of a frozen tower, kept by content: for the same weights, code and inputs they are computed once."""

import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.files import DamagedFile, arrays_sha256, read_npz, replace_file
from mmjax.pretrained.tower import Tower
from mmjax.source_code import code_digest, reached_definitions
from mmjax.stream import Stream, where_mask

__all__ = ["features_key", "frozen_features", "sentence_features"]


def frozen_features(
    tower: Tower,
    stream: Stream,
    *,
    cache_dir: str | os.PathLike | None = None,
    batch_size: int = 32,
    dtype: Any = np.float32,
) -> Stream:
    """What the tower gives for a stream, as NumPy arrays: batch after batch, all of one compiled shape; items that are
    the same (the recordings beside ten noisy pictures) pass once.

    Args:
      stream: raw, ``[items, ...]``, of any number of items.
      cache_dir: a folder in which the result is kept as ``MODULE-KEY.npz`` (see ``features_key``) and found again; a
        damaged file is made again. None = nothing is kept.
      batch_size: items that pass through the tower at once; it changes the result by rounding alone.
      dtype: of the result; ``float16`` takes half the room and rounds by 0.05 % at most (of values above 6e-5).

    Raises:
      UsageError: no items, a batch size below 1, a folder that cannot be written, or features beyond the range of
        ``dtype``.

    Example:
      >>> net = LeNet(dim=4)
      >>> tower = Tower(net, net.init(jax.random.key(0), Stream.of(jnp.ones((1, 1, 8, 8, 3)))), "")
      >>> frozen_features(tower, Stream.of(np.ones((5, 1, 8, 8, 3))), batch_size=2).values.shape
      (5, 1, 4)
    """
    if batch_size < 1 or not len(stream.mask):
        raise UsageError(f"features are of 1 item or more, {batch_size=} (1 or more) at once: got {len(stream.mask)}")
    if cache_dir is None:
        return _compute(tower, stream, batch_size, dtype)
    name = type(tower.module).__name__
    ending = "" if np.dtype(dtype) == np.float32 else f"-{np.dtype(dtype).name}"
    path = pathlib.Path(cache_dir) / f"{name}-{features_key(tower, stream)}{ending}.npz"
    try:
        kept = read_npz(path)
        return Stream(kept["values"], kept["mask"])
    except (FileNotFoundError, DamagedFile, KeyError):
        pass
    features = _compute(tower, stream, batch_size, dtype)
    data = io.BytesIO()
    np.savez(data, values=features.values, mask=features.mask)
    replace_file(path, data.getbuffer())
    return features


def sentence_features(
    tower: Tower, ids: Stream, *, cache_dir: str | os.PathLike | None = None, batch_size: int = 32, step: int = 8
) -> Stream:
    """``frozen_features`` of nested sentences ``[items, sentences, words]``, one vector each, with little padding:
    those of about the same length pass together.

    Args:
      ids: padded at the end; a sentence without words is absent.
      step: lengths are rounded up to multiples of this, which is how many shapes are compiled.

    Raises:
      UsageError: ids that are not nested, or without any word; and as ``frozen_features``.

    Example:
      >>> net = BagOfWords(dim=4, vocab_size=9)
      >>> tower = Tower(net, net.init(jax.random.key(0), Stream.of(jnp.ones((1, 2), jnp.int32))), "")
      >>> sentence_features(tower, Stream(np.ones((5, 2, 20), np.int32), np.ones((5, 2, 20), bool))).values.shape
      (5, 2, 4)
    """
    if ids.mask.ndim != 3:
        raise UsageError(f"sentences are nested ids [items, sentences, words], got a mask {np.shape(ids.mask)}")
    words, mask = (np.asarray(x).reshape(-1, x.shape[-1]) for x in (ids.values, ids.mask))
    longest = np.where(mask.any(1), mask.shape[1] - mask[:, ::-1].argmax(1), 0)
    buckets = np.minimum(-(-longest // step) * step, mask.shape[1])
    found: np.ndarray | None = None
    for width in sorted({*buckets.tolist()} - {0}):
        rows = np.flatnonzero(buckets == width)
        some = Stream(words[rows, :width], mask[rows, :width])
        values = frozen_features(tower, some, cache_dir=cache_dir, batch_size=batch_size).values[:, 0]
        found = np.zeros((len(words), values.shape[-1]), values.dtype) if found is None else found
        found[rows] = values
    if found is None:
        raise UsageError(f"none of the {len(words)} sentences has a word")
    return Stream(found.reshape(*ids.mask.shape[:2], -1), np.asarray(ids.mask).any(-1))


def features_key(tower: Tower, stream: Stream) -> str:
    """A digest of all that features depend on: the weights in the tower, its fields and code (the preprocessing among
    it), the values where the mask is True, and the mask.

    Example:
      >>> net = LeNet(dim=4)
      >>> tower = Tower(net, {"params": {}}, "")
      >>> images = np.zeros((1, 1, 2, 2, 1))
      >>> features_key(tower, Stream.of(images)) == features_key(tower, Stream.of(images + 1))
      False
    """
    leaves = jax.tree_util.tree_leaves_with_path(tower.variables)
    inputs = hashlib.sha256(f"{stream.values.dtype} {stream.values.shape} {stream.mask.shape}".encode())
    for values, mask in _batches(stream, 256):
        inputs.update(values.tobytes() + mask.tobytes())
    parts = {
        "weights": arrays_sha256({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}),
        "module": repr(tower.module),
        "code": code_digest(reached_definitions(tower.module)),
        "inputs": inputs.hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _batches(stream: Stream, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values (zero where the mask is False) and mask, so many items at a time."""
    for start in range(0, len(stream.mask), size):
        values, mask = (np.asarray(x[start : start + size]) for x in (stream.values, stream.mask))
        yield np.where(where_mask(mask, values), values, np.zeros((), values.dtype)), mask


def _distinct(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the items that are the first of their content, and for each item the place of its own among them."""
    first: dict[bytes, int] = {}
    numbers: list[int] = []
    places = np.zeros(len(stream.mask), int)
    for number, (values, mask) in enumerate(_batches(stream, 1)):
        content = hashlib.sha256(values.tobytes() + mask.tobytes()).digest()
        if content not in first:
            first[content] = len(numbers)
            numbers.append(number)
        places[number] = first[content]
    return np.asarray(numbers), places


def _compute(tower: Tower, stream: Stream, size: int, dtype: Any) -> Stream:
    numbers, places = _distinct(stream)
    if len(numbers) < len(places):
        some = Stream(np.asarray(stream.values)[numbers], np.asarray(stream.mask)[numbers])
        once = _compute(tower, some, size, dtype)
        return Stream(once.values[places], once.mask[places])
    size = min(size, len(stream.mask))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for values, mask in _batches(stream, size):
        count = len(mask)
        fill = [(0, size - count)]  # absent items, so that the last batch has the shape of the others
        whole = Stream(*(np.pad(x, fill + [(0, 0)] * (x.ndim - 1)) for x in (values, mask)))
        features = tower(whole)
        values = np.asarray(features.values)[:count]
        if np.issubdtype(dtype, np.floating) and np.abs(values).max(initial=0) > np.finfo(dtype).max:
            raise UsageError(
                f"features up to {np.abs(values).max():.3g} are beyond the range of {np.dtype(dtype).name}"
            )
        found.append((values.astype(dtype), np.asarray(features.mask)[:count]))
    return Stream(*(np.concatenate(parts) for parts in zip(*found)))
