"""The boundary: what examples must satisfy before a model sees them, and outputs before they are scored.

Every feed passes through it, on the host and before anything is compiled: JAX itself clamps ids, wraps integers of 64
bits and lets NaN become the first class without a word.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream, map_arrays, where_mask
from mmjax.typing import Int, Mapping, PyTree

__all__ = [
    "Problem",
    "check_batch",
    "check_splits",
    "check_stream",
    "describe_largest",
    "first_nonfinite",
    "first_problem",
    "labels_problem",
    "multilabel_problem",
    "numbers_problem",
    "vocabularies",
]

Problem = tuple[tuple[int, ...], str]
"""Where the first wrong item stands (row, perhaps step) and what is wrong with it."""


def first_problem(bad: np.ndarray, reason: Callable[[tuple[int, ...]], str]) -> Problem | None:
    """The first True entry of ``bad`` and its reason, or None."""
    places = np.argwhere(bad)
    if not len(places):
        return None
    place = tuple(map(int, places[0]))
    return place, reason(place)


def labels_problem(target: Any, real: np.ndarray, num_classes: int) -> Problem | None:
    """What is wrong with classes, one per item.

    Args:
      target: as ``batch.target``.
      real: which items count, shaped as ``batch.index``.
      num_classes: labels run from 0 to this less one.

    Raises:
      UsageError: no array of integers of that shape.
    """
    if isinstance(target, Stream) or np.shape(target) != real.shape or not np.issubdtype(target.dtype, np.integer):
        raise UsageError(f"class labels must be integers of shape {real.shape}, got {_describe(target)}")
    wrong = real & ((target < 0) | (target >= num_classes))
    return first_problem(
        wrong, lambda at: f"label {target[at]} is not one of {num_classes} classes, 0 to {num_classes - 1}"
    )


def multilabel_problem(target: Any, real: np.ndarray, num_labels: int) -> Problem | None:
    """What is wrong with vectors of labels, 0 or 1 each; arguments and errors as in ``labels_problem``."""
    shape = (*real.shape, num_labels)
    if isinstance(target, Stream) or np.shape(target) != shape or target.dtype.kind not in "iufb":
        raise UsageError(f"labels must be 0 or 1 in an array of shape {shape}, got {_describe(target)}")
    wrong = real & ~((target == 0) | (target == 1)).all(-1)
    return first_problem(wrong, lambda at: f"labels {target[at].tolist()} are not all 0 or 1")


def numbers_problem(target: Any, real: np.ndarray) -> Problem | None:
    """What is wrong with scores, one or several per item; arguments and errors as in ``labels_problem``."""
    if isinstance(target, Stream) or np.shape(target)[: real.ndim] != real.shape or target.dtype.kind not in "iuf":
        raise UsageError(f"scores must be numbers of shape {real.shape} or with more axes, got {_describe(target)}")
    finite = np.isfinite(target.reshape(*real.shape, -1)).all(-1)
    return first_problem(real & ~finite, lambda at: f"score {target[at]} is not finite")


def _describe(target: Any) -> str:
    if isinstance(target, Stream):
        return "a stream"
    array = np.asarray(target)
    return f"{array.dtype} {array.shape}"


def _narrow(where: str, values: Any, real: np.ndarray) -> tuple[np.ndarray, Problem | None]:
    """The values in the type that JAX computes with (32 bits), and what is wrong with the first that it cannot hold.

    Args:
      real: which of them count, shaped as their first axes.

    Raises:
      UsageError: no numbers.
    """
    values = np.asarray(values)
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    if not floating and values.dtype.kind not in "iub":
        raise UsageError(f"{where} holds {values.dtype}, not numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)
    if narrow is values and not floating:
        return values, None
    right = np.isfinite(narrow) if floating else narrow == values
    if right.all():
        return narrow, None
    wrong = real & ~right.reshape(*real.shape, -1).all(-1)
    limit = f"an integer beyond {narrow.dtype}; ids are numbered from 0"
    return narrow, first_problem(wrong, lambda at: "NaN or infinity" if floating else limit)


def check_stream(
    where: str, stream: Stream, *, counts: np.ndarray | None = None, rows: Sequence[int] | None = None
) -> Stream:
    """The stream in the types that JAX computes with.

    Args:
      where: names data set, split and stream, to begin the message.
      counts: ``[batch]``, which rows count; None = all.
      rows: the number of each row in its source; None = its place.

    Raises:
      UsageError: a mask that does not fit the values, no items or width, values that are no numbers, a real item that
        holds NaN, infinity or an integer beyond 32 bits.
    """
    values, mask = np.asarray(stream.values), np.asarray(stream.mask)
    if mask.dtype != bool or values.shape[: mask.ndim] != mask.shape or mask.ndim < 2:
        raise UsageError(
            f"{where}: the mask must be bool with the first two or more axes of the values, got mask "
            f"{mask.dtype} {mask.shape} and values {values.dtype} {values.shape}"
        )
    if 0 in values.shape[1:]:
        raise UsageError(f"{where} is empty: values of shape {values.shape} have no items or no width")
    values, problem = _narrow(where, values, _real_items(mask, counts))
    if problem is not None:
        (row, *_), reason = problem
        mend = "repair it, or mark it missing by its mask" if reason.startswith("NaN") else "repair it"
        raise UsageError(f"{where}: example {_number(row, rows)} holds {reason}; {mend}")
    return Stream(values, mask)


def _real_items(mask: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    return mask if counts is None else mask & where_mask(np.asarray(counts), mask)


def _number(row: int, rows: Sequence[int] | None) -> int:
    return row if rows is None else int(rows[row])


def check_batch(
    where: str,
    batch: Batch,
    *,
    task: Any = None,
    vocabulary: Mapping[str, int] | None = None,
    rows: Sequence[int] | None = None,
) -> Batch:
    """The batch in the types that JAX computes with, if it is sound; rows of weight 0 may hold anything.

    Args:
      where: names data set and split, to begin the message.
      task: whose ``check_target`` says what a right target is; without one it is finite.
      vocabulary: number of ids by stream, from ``vocabularies``.
      rows: the number of each row in its source; None = its place.

    Raises:
      UsageError: in one line, naming stream and example: sizes that differ, and what ``check_stream``, the task and the
        vocabulary refuse.
    """
    batch = batch.replace(weight=np.asarray(batch.weight), index=np.asarray(batch.index), group=np.asarray(batch.group))
    sizes = {name: len(np.asarray(stream.values)) for name, stream in sorted(batch.streams.items())}
    sizes |= {"target": len(jax.tree.leaves(batch.target)[0]), "weight": batch.size}
    sizes |= {"index": len(batch.index), "group": len(batch.group)}
    if len(set(sizes.values())) > 1:
        raise UsageError(f"{where}: streams and labels differ in their number of examples: {sizes}")
    if batch.index.shape != batch.group.shape:
        raise UsageError(f"{where}: index {batch.index.shape} and group {batch.group.shape} must agree")
    if not (np.isfinite(batch.weight) & (batch.weight >= 0)).all():
        raise UsageError(f"{where}: weights are numbers from 0 up, got {batch.weight.min()}")
    counts = batch.weight > 0
    streams = {}
    for name, stream in sorted(batch.streams.items()):
        here = f"{where}: stream {name!r}"
        streams[name] = check_stream(here, stream, counts=counts, rows=rows)
        if vocabulary and name in vocabulary:
            _check_ids(here, streams[name], counts, vocabulary[name], rows)
    return batch.replace(streams=streams, target=_check_target(where, batch, task, rows))


def _check_ids(where: str, stream: Stream, counts: np.ndarray, size: int, rows: Sequence[int] | None) -> None:
    values = stream.values
    if values.shape != stream.mask.shape or not np.issubdtype(values.dtype, np.integer):
        return  # the encoder itself says that these are no ids
    wrong = _real_items(stream.mask, counts) & ((values < 0) | (values >= size))
    problem = first_problem(wrong, lambda at: f"id {values[at]}, and its encoder knows 0 to {size - 1}")
    if problem is not None:
        raise UsageError(f"{where}: example {_number(problem[0][0], rows)} holds {problem[1]} (vocab_size={size})")


def _check_target(where: str, batch: Batch, task: Any, rows: Sequence[int] | None) -> PyTree:
    """The target in the types that JAX computes with."""
    counts, problems = batch.weight > 0, []
    real = (batch.index >= 0) & where_mask(counts, batch.index)

    def narrow(part: Any) -> Any:
        if isinstance(part, Stream):
            return check_stream(f"{where}: target", part, counts=counts, rows=rows)
        part = np.asarray(part)
        if part.shape[: real.ndim] != real.shape:
            raise UsageError(f"{where}: target {part.shape} and index {real.shape} must agree")
        values, problem = _narrow(f"{where}: target", part, real)
        problems.append(problem and (problem[0], f"target is {problem[1]}"))
        return values

    target = map_arrays(narrow, narrow, batch.target)
    try:
        problems.append(task.check_target(target, real) if hasattr(task, "check_target") else None)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    for place, reason in filter(None, problems):
        step = f", step {place[1]}" if len(place) > 1 else ""
        raise UsageError(f"{where}: example {_number(place[0], rows)}{step}: {reason}")
    return target


def check_splits(
    splits: Mapping[str, Batch], *, name: str = "", model: Any = None, task: Any = None
) -> dict[str, Batch]:
    """All splits as ``check_batch`` gives them; ``name`` is that of the data set."""
    vocabulary = vocabularies(model)
    return {
        split: check_batch(f"{name}: {split}" if name else split, batch, task=task, vocabulary=vocabulary)
        for split, batch in splits.items()
    }


def vocabularies(model: Any) -> dict[str, int]:
    """Number of ids by stream that a model's encoders know; one that maps unknown ids (``unknown_id``) has no limit."""
    sizes: dict[str, int] = {}

    def search(part: Any, stream: str | None) -> None:
        if isinstance(part, Mapping):
            for key, value in part.items():
                search(value, str(key) if stream is None else stream)
        elif isinstance(part, list | tuple):
            for value in part:
                search(value, stream)
        elif isinstance(part, nn.Module):
            size = getattr(part, "vocab_size", None)
            if stream is not None and isinstance(size, int) and getattr(part, "unknown_id", None) is None:
                sizes[stream] = min(size, sizes.get(stream, size))
            for field in dataclasses.fields(part):
                if field.name not in ("parent", "name"):
                    search(getattr(part, field.name, None), stream)

    search(model, None)
    return sizes


LARGE = 1e4


def describe_largest(batch: Batch) -> str:
    """A hint at the stream with the largest number, where that is far from the scale of networks."""
    largest = {}
    for name, stream in batch.streams.items():
        values, mask = np.asarray(stream.values), np.asarray(stream.mask)
        if jnp.issubdtype(values.dtype, jnp.floating) and mask.any():
            largest[name] = float(np.abs(values[mask]).max())
    name = max(largest, key=lambda name: largest[name], default="")
    if not name or largest[name] < LARGE:
        return ""
    return f"; stream {name!r} holds numbers up to {largest[name]:.0e}: scale it (mmjax.datasets.views.standardise)"


def first_nonfinite(outputs: PyTree, batch: Batch) -> Int[jax.Array, ""]:
    """Number of the first row that counts and whose outputs hold NaN or infinity; -1 = none. Traceable."""
    rows = batch.weight > 0
    bad = jnp.zeros(batch.size, bool)
    items = [(batch.index.shape, batch.index >= 0)]
    items += [(s.mask.shape, s.mask) for s in _streams(batch.target)]
    for leaf in jax.tree.leaves(outputs):
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        if leaf.shape[:1] != (batch.size,):  # a learned scale: of all rows
            bad |= ~jnp.isfinite(leaf).all()
            continue
        real = next((m for shape, m in items if len(shape) > 1 and leaf.shape[: len(shape)] == shape), None)
        wrong = ~jnp.isfinite(leaf) if real is None else ~jnp.isfinite(leaf) & where_mask(real, leaf)
        bad |= wrong.reshape(batch.size, -1).any(1)
    bad &= rows
    return jnp.where(bad.any(), jnp.argmax(bad), -1).astype(jnp.int32)


def _streams(target: PyTree) -> list[Stream]:
    leaves = jax.tree.leaves(target, is_leaf=lambda x: isinstance(x, Stream))
    return [leaf for leaf in leaves if isinstance(leaf, Stream)]
