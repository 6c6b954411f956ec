"""Batches of text by length: a few shapes, each compiled once, in which little is padding.

A plan sorts examples into buckets; a batch holds examples of one bucket, padded to its lengths, and about the same
number of tokens whatever the bucket. ``Bucketed(source, plan)`` feeds a run with them.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream
from mmjax.typing import Array, Int, Mapping

__all__ = ["Bucketed", "Buckets", "plan_buckets"]


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """Which examples are batched together, and how long and how many they then are.

    Attributes:
      lengths: of each bucket, to how many items every sequence is padded, by name.
      rows: of a batch of each bucket.
      member: ``[examples]``: the bucket of each.
      tokens: items of all examples, what is cut not among them.
    """

    lengths: tuple[dict[str, int], ...]
    rows: tuple[int, ...]
    member: np.ndarray
    tokens: int

    @property
    def counts(self) -> np.ndarray:
        """Number of examples of each bucket."""
        return np.bincount(self.member, minlength=len(self.rows))

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return int((-(-self.counts // self.rows)).sum())

    @property
    def padded(self) -> int:
        """Items of all examples, padding among them; rows that fill the last batches are not."""
        return int((self.counts * [sum(lengths.values()) for lengths in self.lengths]).sum())

    @property
    def waste(self) -> float:
        """Share of the padding."""
        return 1 - self.tokens / self.padded

    def report(self) -> str:
        """One line on shapes and padding, with what a single shape would cost."""
        longest = {name: max(lengths[name] for lengths in self.lengths) for name in self.lengths[0]}
        single = 1 - self.tokens / (len(self.member) * sum(longest.values()))
        shapes = ", ".join(
            f"{rows} x {'+'.join(map(str, lengths.values()))}" for rows, lengths in zip(self.rows, self.lengths)
        )
        return (
            f"{len(self.member)} examples in {self.steps} batches of {len(self.rows)} shapes ({shapes} of "
            f"{'+'.join(longest)}): {self.waste:.1%} of the items are padding; in one shape it would be {single:.1%}"
        )

    def schedule(self, generator: np.random.Generator | None) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """The batches of a pass: their bucket, numbers of examples, and which rows count; None = in order.

        Every example stands in one batch; the last one of a bucket is filled up with rows that do not count.
        """
        order = np.arange(len(self.member))
        order = order if generator is None else generator.permutation(order)
        batches = []
        for bucket, rows in enumerate(self.rows):
            own = order[self.member[order] == bucket]
            for start in range(0, len(own), rows):
                place = start + np.arange(rows)
                counts = place < len(own)
                batches.append((bucket, own[np.where(counts, place, 0)], counts))
        if generator is None:
            return batches
        return [batches[number] for number in generator.permutation(len(batches))]


def plan_buckets(
    lengths: Mapping[str, Int[Array, " examples"]],
    *,
    shapes: int,
    tokens: int,
    longest: Mapping[str, int] | None = None,
    multiple: int = 1,
) -> Buckets:
    """The buckets with the least padding, found by dynamic programming.

    Examples are ordered by their total length, and buckets are stretches of this order: for one sequence an example
    that is optimal; for several, whose lengths go together, it is among such buckets.

    Args:
      lengths: items of each example, by the name of the stream; ``target`` for a target that is a stream.
      shapes: buckets at most, that is how often a step is compiled.
      tokens: items of a batch at most, padding included.
      longest: where sequences are cut, by name; others are not.
      multiple: the rows of every batch are a multiple of it (devices, parts of an update).

    Raises:
      UsageError: no examples, lengths of different numbers of them, a budget too small for the longest.

    Example:
      >>> plan = plan_buckets({"text": np.array([2, 2, 3, 8, 9])}, shapes=2, tokens=18)
      >>> plan.lengths, plan.rows, plan.member.tolist(), round(plan.waste, 3)
      (({'text': 3}, {'text': 9}), (6, 2), [0, 0, 0, 1, 1], 0.111)
    """
    sizes = {name: len(np.asarray(each)) for name, each in lengths.items()}
    if len(set(sizes.values())) != 1 or not min(sizes.values()):
        raise UsageError(f"buckets need lengths of one or more examples, the same ones for each name, got {sizes}")
    if shapes < 1 or multiple < 1:
        raise UsageError(f"shapes and multiple must be at least 1, got {shapes} and {multiple}")
    limits = {name: (longest or {}).get(name, np.iinfo(np.int32).max) for name in lengths}
    real = np.stack([np.clip(np.asarray(lengths[name], np.int64), 0, limits[name]) for name in lengths], 1)
    each = np.maximum(real, 1)  # a sequence that is missing takes a place as well
    totals, group = np.unique(each.sum(1), return_inverse=True)
    largest = np.zeros((len(totals), each.shape[1]), np.int64)
    np.maximum.at(largest, group, each)
    ends = _best_ends(largest, np.bincount(group), min(shapes, len(totals)))
    member = np.searchsorted(ends, group)
    shape = [each[member == bucket].max(0) for bucket in range(len(ends))]
    rows = [tokens // int(one.sum()) // multiple * multiple for one in shape]
    if min(rows) < 1:
        raise UsageError(
            f"tokens={tokens} are too few: {multiple} of the longest examples have {multiple * int(shape[-1].sum())}"
        )
    named = tuple(dict(zip(lengths, map(int, one))) for one in shape)
    return Buckets(named, tuple(rows), member.astype(np.int32), int(real.sum()))


@dataclasses.dataclass(frozen=True)
class Bucketed:
    """A source whose batches are those of a plan: each of one bucket, padded to its lengths, with its rows.

    The plan says how many rows a batch has, whatever the batch size of the run; ``multiple`` in ``plan_buckets`` makes
    them divide over devices and parts of an update.

    Attributes:
      source: a ``Batch`` in memory, or ``mmjax.data.Records``.

    Raises:
      UsageError: a plan of another number of examples, or of streams that are not there.

    Example:
      >>> number, mask = np.arange(3), np.arange(9) < [[2], [9], [1]]
      >>> source = Batch({"text": Stream(np.ones((3, 9)), mask)}, number, number + 1, number, number)
      >>> feed = Bucketed(source, plan_buckets({"text": np.array([2, 9, 1])}, shapes=2, tokens=18))
      >>> feed.of(0).streams["text"].length, feed.of(1).streams["text"].length
      (2, 9)
    """

    source: Any
    plan: Buckets

    def __post_init__(self) -> None:
        in_memory = isinstance(self.source, Batch)
        size = self.source.size if in_memory else len(self.source)
        if len(self.plan.member) != size:
            raise UsageError(f"a plan of {len(self.plan.member)} examples does not fit {size}")
        streams = self.source.streams if in_memory else self.source.items
        sequence = isinstance(self.source.target, Stream) or getattr(self.source.target, "length", None) is not None
        for name in self.plan.lengths[0]:
            if name not in streams and not (name == "target" and sequence):
                raise UsageError(f"the plan is of no stream {name!r}; there are {sorted(streams)}")

    def of(self, bucket: int) -> Any:
        """The source with the lengths of a bucket; only its examples fit."""
        lengths = self.plan.lengths[bucket]
        if not isinstance(self.source, Batch):
            return self.source.cut(lengths)

        def cut(name: str, stream: Any) -> Any:
            if name not in lengths:
                return stream
            words = (slice(None),) * (stream.mask.ndim - 1) + (slice(lengths[name]),)
            return jax.tree.map(lambda x: x[words], stream)

        streams = {name: cut(name, stream) for name, stream in self.source.streams.items()}
        return self.source.replace(streams=streams, target=cut("target", self.source.target))


def _best_ends(largest: Any, counts: Any, shapes: int) -> np.ndarray:
    """The last group of each bucket, where a bucket costs its examples times the sum of its largest lengths.

    Args:
      largest: ``[groups, names]``: the longest of each group, groups in order.
      counts: ``[groups]``: examples of each.
    """
    groups = len(counts)
    before = np.concatenate([[0], np.cumsum(counts)])
    cost = np.full((groups, groups), np.inf)  # of the bucket from group i to group j
    for i in range(groups):
        cost[i, i:] = np.maximum.accumulate(largest[i:], 0).sum(1) * (before[i + 1 :] - before[i])
    best, starts = cost[0], []
    for _ in range(shapes - 1):
        # The last bucket begins at i: what stands before it is divided as well as possible.
        total = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        starts.append(np.where(total.min(0) < best, total.argmin(0), 0))
        best = np.minimum(best, total.min(0))
    ends, end = [groups - 1], groups - 1
    for start in reversed(starts):
        if start[end] > 0:
            end = int(start[end]) - 1
            ends.append(end)
    return np.asarray(ends[::-1])
