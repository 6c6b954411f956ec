"""Whole batches on the host: rows of several in one, chosen rows of one; targets are any pytree."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream, map_arrays

__all__ = ["concat_batches", "take_rows"]


def concat_batches(*batches: Batch) -> Batch:
    """Rows of several batches in one; streams, and labels per step, are padded to a common length.

    Raises:
      UsageError: the batches have other streams, targets of another structure, or items of other shapes.
    """
    first = batches[0]
    if any(set(batch.streams) != set(first.streams) for batch in batches):
        raise UsageError(f"splits differ in their streams: {[sorted(batch.streams) for batch in batches]}")
    structures = [jax.tree.structure(batch.target) for batch in batches]
    if len(set(structures)) > 1:
        raise UsageError(f"splits differ in the structure of their targets: {', '.join(map(str, structures))}")
    steps = first.index.ndim
    streams = {
        name: _concat_streams(f"stream {name!r}", *(batch.streams[name] for batch in batches)) for name in first.streams
    }
    target = map_arrays(
        lambda *arrays: _concat("targets", arrays, steps, 0),
        lambda *parts: _concat_streams("targets", *parts),
        *(batch.target for batch in batches),
    )
    return Batch(
        streams=streams,
        target=target,
        weight=_concat("weights", [batch.weight for batch in batches], 1, 0),
        index=_concat("indices", [batch.index for batch in batches], steps, -1),
        group=_concat("groups", [batch.group for batch in batches], steps, -1),
    )


def _concat_streams(what: str, *streams: Stream) -> Stream:
    axes = np.ndim(streams[0].mask)
    values = _concat(what, [stream.values for stream in streams], axes, 0)
    return Stream(values, _concat(what, [stream.mask for stream in streams], axes, False))


def _concat(what: str, arrays: Sequence[Any], axes: int, fill: Any) -> np.ndarray:
    """Along the first axis; the other ones of the first ``axes`` are padded, and those after them must agree."""
    arrays = [np.asarray(array) for array in arrays]
    shapes = [array.shape for array in arrays]
    if len({(len(shape), shape[axes:]) for shape in shapes}) > 1:
        raise UsageError(f"splits differ in the items of {what}: shapes {', '.join(map(str, shapes))}")
    lengths = np.max([shape[1:axes] for shape in shapes], axis=0) if axes > 1 else []
    padded = []
    for array in arrays:
        after = [0, *(int(n) - m for n, m in zip(lengths, array.shape[1:])), *[0] * (array.ndim - axes)]
        padded.append(np.pad(array, [(0, n) for n in after], constant_values=fill) if any(after) else array)
    return np.concatenate(padded)


def take_rows(batch: Batch, rows: Any) -> Batch:
    """The rows of a batch of NumPy arrays; their labelled items are numbered anew."""
    taken = jax.tree.map(lambda x: np.asarray(x)[rows], batch)
    index = taken.index
    number = np.cumsum(index.reshape(-1) >= 0).reshape(index.shape) - 1
    return taken.replace(index=np.where(index >= 0, number, -1).astype(np.int32))
