"""The streaming feed's batches, through Grain: what a batch holds is a pure function of the step.

So a run continues at its step without any state of an iterator, and global batches are the same for any number of
hosts.
"""

import collections
import concurrent.futures
import copy
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.buckets import Bucketed
from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.stream import Batch, Stream
from mmjax.typing import Mapping, PyTree

__all__ = [
    "Bucketed",
    "Example",
    "Field",
    "Records",
    "Source",
    "ordered_batches",
    "read_ahead",
    "size",
    "steps_per_epoch",
    "stream_batches",
]

# A transform of the batch in memory: ``(whole batch, generator) -> batch``.
Transform = Callable[[Batch, np.random.Generator], Batch]
# ``(batch, rows=numbers of its records) -> batch``; see ``mmjax.checks.check_batch``.
Check = Callable[..., Batch]


@dataclasses.dataclass(frozen=True)
class Example:
    """One example from a record.

    Attributes:
      streams: items of each modality, ``[length, *item]``, or of nested sequences a list of such; absent from the
        mapping or of length 0 = missing.
      target: a class, a score, a vector of labels, a sequence of ids to be said, or a dict of such; where there are
        labels per step, with a first axis ``[length]``.
      group: number of the unit of splitting and of the bootstrap.
    """

    streams: Mapping[str, Any]
    target: Any
    group: int = 0


@dataclasses.dataclass(frozen=True)
class Field:
    """The form of a target, or of a part of one.

    Attributes:
      shape: of a class or score ``()``, of a vector ``(labels,)``; of one item where it is a sequence.
      dtype: of the batch.
      length: a target that is a sequence of items becomes a ``Stream`` of this length, cut or padded; None = an array.
    """

    shape: tuple[int, ...] = ()
    dtype: Any = np.int32
    length: int | None = None

    def empty(self, lead: tuple[int, ...]) -> Any:
        """The batch's target before it is filled."""
        if self.length is None:
            return np.zeros((*lead, *self.shape), self.dtype)
        return Stream(np.zeros((*lead, self.length, *self.shape), self.dtype), np.zeros((*lead, self.length), bool))


class Records:
    """Random-access records (``tfds.data_source``, or anything with ``len`` and ``[]``) as examples.

    A record that cannot be read or converted is left out (a row of weight 0) and counted; more than ``budget``
    different ones end the run. To convert is to keep every value: NaN, infinity, a fraction or a large number where the
    type is of integers, are errors of the record.

    Attributes:
      source: the records.
      to_example: ``(record, generator) -> Example``; the generator is a function of seed, epoch and record, so that
        augmentation is the same after a restart and on any number of hosts.
      items: per stream ``(length, item shape, dtype)``: longer sequences are cut, shorter padded, so that one program
        serves every batch. Of nested sequences the length is a pair, ``(captions, words)``.
      steps: number of labels per example; None = one label.
      target: the form of the targets, a pytree of ``Field``.
      budget: bad records that are borne.
    """

    def __init__(
        self,
        source: Any,
        to_example: Callable[[Any, np.random.Generator], Example],
        items: Mapping[str, tuple[int | tuple[int, int], tuple[int, ...], Any]],
        *,
        steps: int | None = None,
        target: PyTree = Field(),
        budget: int = 0,
    ):
        self.source, self.to_example, self.items = source, to_example, dict(items)
        if steps is not None and any(field.length is not None for field in jax.tree.leaves(target)):
            raise UsageError("a target per step is an array, no sequence: leave out steps or length")
        self.steps, self.target, self.budget = steps, target, budget
        self.bad: set[int] = set()
        self.check: Check | None = None
        self._lock = threading.Lock()

    def checked(self, check: Check) -> "Records":
        """The same records, whose batches go through ``check(batch, rows=...)``; a run gives what it knows of ids and
        targets. Bad records are counted together.
        """
        records = copy.copy(self)
        records.check = check
        return records

    def cut(self, lengths: Mapping[str, int]) -> "Records":
        """The same records with streams (the words of a nested one), and ``target``, of other lengths."""
        records = copy.copy(self)
        records.items = dict(self.items)
        for name in lengths.keys() & self.items.keys():
            before, *form = self.items[name]
            length = (before[0], lengths[name]) if isinstance(before, tuple) else lengths[name]
            records.items[name] = (length, *form)
        if "target" in lengths:
            records.target = dataclasses.replace(self.target, length=lengths["target"])
        return records

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, rows: np.ndarray, counts: np.ndarray, entropy: Sequence[int]) -> Batch:
        """The examples of some rows; those that do not count are not read."""
        n = len(rows)
        labels = (n,) if self.steps is None else (n, self.steps)
        streams = {}
        for name, (length, item, dtype) in self.items.items():
            axes = (n, *length) if isinstance(length, tuple) else (n, length)
            streams[name] = Stream(np.zeros((*axes, *item), dtype), np.zeros(axes, bool))
        index = np.full(labels, -1, np.int32)
        target = jax.tree.map(lambda field: field.empty(labels), self.target)
        batch = Batch(streams, target, np.zeros(n, np.float32), index, np.copy(index))
        for i in map(int, np.flatnonzero(counts)):
            row = int(rows[i])
            try:
                example = self.to_example(self.source[row], np.random.default_rng([*entropy, row]))
                self._fill(batch, i, row, example)
            except Exception as error:
                self._count(row, error)
                for stream in streams.values():
                    stream.mask[i] = False
                batch.index[i], batch.weight[i] = -1, 0
        return batch if self.check is None else self.check(batch, rows=rows)

    def _fill(self, batch: Batch, i: int, row: int, example: Example) -> None:
        if unknown := sorted(set(example.streams) - set(self.items)):
            raise ValueError(f"stream {unknown[0]!r} is not among {sorted(self.items)}")
        for name, values in example.streams.items():
            stream = batch.streams[name]
            nested = stream.mask.ndim == 3
            for place, sequence in enumerate(values[: stream.mask.shape[1]] if nested else [values]):
                at = (i, place) if nested else (i,)
                length = min(len(sequence), stream.mask.shape[-1])
                converted = _convert(f"stream {name!r}", sequence[:length], stream.values.dtype)
                stream.values[(*at, slice(length))], stream.mask[(*at, slice(length))] = converted, True
        if self.steps is None:
            batch.index[i], batch.group[i] = row, example.group
        else:
            length = min(len(jax.tree.leaves(example.target)[0]), self.steps)
            batch.index[i, :length] = row * self.steps + np.arange(length)
            batch.group[i, :length] = example.group
        trees = self.target, batch.target, example.target
        jax.tree.map(lambda field, there, value: self._fill_target(field, there, i, value), *trees)
        batch.weight[i] = 1

    def _fill_target(self, field: Field, there: Any, i: int, value: Any) -> None:
        if field.length is not None:
            length = min(len(value), field.length)
            there.values[i, :length] = _convert("target", value[:length], field.dtype)
            there.mask[i, :length] = True
            return
        value = _convert("target", value if self.steps is None else value[: self.steps], field.dtype)
        place = i if self.steps is None else (i, slice(len(value)))
        if value.shape != there[place].shape:
            raise ValueError(f"target has shape {value.shape}, its field {there[place].shape}")
        there[place] = value

    def _count(self, row: int, error: Exception) -> None:
        with self._lock:
            self.bad.add(row)
            if len(self.bad) > self.budget:
                raise UsageError(
                    f"record {row} cannot be read ({type(error).__name__}: {error}); bad records: {len(self.bad)}, "
                    f"borne: {self.budget}"
                ) from error


def _convert(what: str, values: Any, dtype: Any) -> np.ndarray:
    """The values in that type, if it holds each of them."""
    values = np.asarray(values)
    with np.errstate(all="ignore"):
        converted = values.astype(dtype)
    floating = jnp.issubdtype(converted.dtype, jnp.floating)
    right = np.isfinite(converted) if floating else converted == values
    if not right.all():
        raise ValueError(f"{what} holds {values[~right][0]}, which is no finite {converted.dtype}")
    return converted


Source = Batch | Records | Bucketed


def size(source: Source) -> int:
    """Number of rows."""
    source = source.source if isinstance(source, Bucketed) else source
    return source.size if isinstance(source, Batch) else len(source)


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Batches in one pass; the last one is filled up with rows of weight 0."""
    return source.plan.steps if isinstance(source, Bucketed) else math.ceil(size(source) / batch_size)


class _Batches:
    """Random access to batches by number: with a whole batch as its item, Grain costs a twentieth per sample."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int | None,
        process: tuple[int, int],
        transforms: Sequence[Transform],
        count: int,
    ):
        self.source, self.batch_size, self.seed, self.process = source, batch_size, seed, process
        self.transforms, self.count = tuple(transforms), count
        self.order = functools.lru_cache(2)(self._order)  # an epoch and the next: neighbours are read at once
        buckets = range(len(source.plan.rows)) if isinstance(source, Bucketed) else ()
        self.sources = [source.of(bucket) for bucket in buckets] if isinstance(source, Bucketed) else [source]
        for rows in source.plan.rows if isinstance(source, Bucketed) else [batch_size]:
            _part(rows, *process)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Batches({size(self.source)} rows, {self.batch_size=}, {self.seed=}, {self.process=})"

    def _order(self, epoch: int) -> Any:
        generator = None if self.seed is None else np.random.default_rng([self.seed, 0, epoch])
        if isinstance(self.source, Bucketed):
            return self.source.plan.schedule(generator)
        rows = np.arange(size(self.source), dtype=np.int64)
        return rows if generator is None else generator.permutation(rows)

    def rows(self, epoch: int, place: int) -> tuple[int, np.ndarray, np.ndarray]:
        """The bucket of a batch, the numbers of its examples, and which of its rows count."""
        order = self.order(epoch)
        if isinstance(self.source, Bucketed):
            return order[place]
        positions = place * self.batch_size + np.arange(self.batch_size)
        counts = positions < len(order)
        return 0, order[np.where(counts, positions, 0)], counts

    def __getitem__(self, number: int) -> Batch:
        epoch, place = divmod(int(number), steps_per_epoch(self.source, self.batch_size))
        bucket, rows, counts = self.rows(epoch, place)
        source, part = self.sources[bucket], _part(len(rows), *self.process)
        entropy = (self.seed or 0, 1, epoch)
        if isinstance(source, Records):
            return source.batch(rows[part], counts[part], entropy)
        # Transforms see the whole batch, so that they do the same on any number of hosts.
        wanted = part if not self.transforms else slice(None)
        rows, counts = rows[wanted], counts[wanted]
        batch = jax.tree.map(lambda x: np.asarray(x)[rows], source)
        batch = batch.replace(
            weight=batch.weight * counts.astype(np.float32),
            index=np.where(counts.reshape(-1, *(1,) * (batch.index.ndim - 1)), batch.index, -1),
        )
        if not self.transforms:
            return batch
        generator = np.random.default_rng([*entropy, place])
        for transform in self.transforms:
            batch = transform(batch, generator)
        return jax.tree.map(lambda x: x[part], batch)


def _part(batch_size: int, process_index: int, process_count: int) -> slice:
    if batch_size % process_count:
        raise UsageError(f"train.batch_size={batch_size} does not divide over {process_count} processes")
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


def _threads(source: Source, threads: int | None) -> int:
    # Rows in memory are copied faster than they are handed between threads, and the device computes meanwhile.
    source = source.source if isinstance(source, Bucketed) else source
    return threads if threads is not None else (8 if isinstance(source, Records) else 0)


def _iterate(batches: _Batches, start: int, threads: int) -> Iterator[Batch]:
    with extra():
        import grain

    dataset = grain.MapDataset.source(batches)[start:]
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


T, U = TypeVar("T"), TypeVar("U")


def read_ahead(items: Iterator[T], function: Callable[[T], U], *, count: int = 2) -> Generator[U, None, None]:
    """What the function makes of each item, in order; the next ``count`` are taken and made in a thread meanwhile.

    An error is raised in its place. Closed, it waits for what is being made.
    """
    end = object()

    def make() -> Any:
        item = next(items, end)
        return end if item is end else function(item)  # type: ignore[arg-type]

    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        try:
            waiting = collections.deque(pool.submit(make) for _ in range(count))
            while (made := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(make))
                yield made
        finally:
            for future in waiting:
                future.cancel()


def stream_batches(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    start_step: int = 0,
    steps: int = 2**31,
    process_index: int = 0,
    process_count: int = 1,
    transforms: Sequence[Transform] = (),
    threads: int | None = None,
) -> Iterator[Batch]:
    """Shuffled batches of NumPy arrays, epoch after epoch, from ``start_step`` on.

    Every example stands once in every epoch; the last batch of an epoch is filled up with rows of weight 0.

    Args:
      source: a ``Batch`` in memory, ``Records``, or one of them ``Bucketed``.
      batch_size: rows of the global batch.
      seed: of order and augmentation.
      start_step: number of the first batch.
      steps: number of the batch before which to end.
      process_index: this host; it gets its part of every global batch.
      process_count: number of hosts.
      transforms: ``(batch, generator) -> batch`` on the global batch of a source in memory; ``Records`` have theirs in
        ``to_example``.
      threads: that prepare batches ahead; None = 0 in memory, 8 for records.

    Raises:
      UsageError: the batch does not divide over the processes, there is no example, or transforms for ``Records``.
    """
    if not size(source):
        raise UsageError("the split to train on is empty")
    if transforms and isinstance(source.source if isinstance(source, Bucketed) else source, Records):
        raise UsageError("transforms are for a batch in memory; records are transformed in their to_example")
    batches = _Batches(source, batch_size, seed, (process_index, process_count), transforms, steps)
    return _iterate(batches, start_step, _threads(source, threads))


def ordered_batches(
    source: Source, batch_size: int, *, process_index: int = 0, process_count: int = 1, threads: int | None = None
) -> Iterator[Batch]:
    """One pass in order, for evaluation; the last batch is filled up with rows of weight 0."""
    process = process_index, process_count
    batches = _Batches(source, batch_size, None, process, (), steps_per_epoch(source, batch_size))
    return _iterate(batches, 0, _threads(source, threads))
