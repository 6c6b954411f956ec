"""Views: pure functions ``Dataset -> Dataset``. Whatever is fitted is fitted on the real items of train alone."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.batches import concat_batches, take_rows
from mmjax.datasets.base import SPLITS, Dataset
from mmjax.datasets.moments import feature_moments
from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream, map_arrays, where_mask

__all__ = [
    "by_group",
    "limit",
    "map_stream",
    "only",
    "pad_targets",
    "pca_whiten",
    "refit_splits",
    "resample",
    "shuffle_streams",
    "standardise",
    "subset",
    "take_apart",
]


def _names(dataset: Dataset, names: Iterable[str]) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    if missing := [name for name in names if name not in dataset.streams]:
        raise UsageError(f"{dataset.card.name} has no modality {missing[0]!r}; it has {', '.join(dataset.streams)}")
    return names


def take_apart(batch: Batch, nested: Iterable[str]) -> Batch:
    """An example of each labelled item, of one step, in the order of their index; what it shares is repeated.

    For ``Table.apart``: five questions about one picture become five pictures with a question each.

    Args:
      nested: the streams of which each step has its own part, ``[batch, steps, ...]``; of several, those that a row
        does not see are passed over.

    Raises:
      UsageError: no label per step; none of these streams, or one of other steps.
    """
    index = np.asarray(batch.index)
    if index.ndim != 2:
        raise UsageError(f"there is nothing to take apart: an example has one label, index is {index.shape}")
    nested = (nested,) if isinstance(nested, str) else tuple(nested)
    there = [name for name in nested if name in batch.streams]
    if not there:
        lacking = " or ".join(map(repr, nested))
        raise UsageError(f"no stream {lacking} to take apart; there is {', '.join(sorted(batch.streams))}")
    for name in there:
        if np.shape(batch.streams[name].mask)[:2] != index.shape:
            shape = np.shape(batch.streams[name].mask)
            raise UsageError(f"{name!r} has a mask of {shape}, the index {index.shape}: it has other steps")
    row, step = np.nonzero(index >= 0)
    order = np.argsort(index[row, step])
    row, step = row[order], step[order]

    def own(x: Any) -> np.ndarray:
        return np.asarray(x)[row, step][:, None]

    streams = {
        name: jax.tree.map(own if name in there else lambda x: np.asarray(x)[row], stream)
        for name, stream in batch.streams.items()
    }
    return Batch(
        streams=streams,
        target=jax.tree.map(own, batch.target),
        weight=np.asarray(batch.weight)[row],
        index=np.arange(len(row), dtype=np.int32)[:, None],
        group=own(batch.group),
    )


def map_stream(dataset: Dataset, name: str, function: Callable[[Stream], Stream], kind: str | None = None) -> Dataset:
    """The data set with one stream of every split replaced by ``function(stream)``; ``kind`` is its new kind, if any.

    Raises:
      UsageError: an unknown modality.
    """
    _names(dataset, [name])
    splits = {
        split: batch.replace(streams={**batch.streams, name: function(batch.streams[name])})
        for split, batch in dataset.splits.items()
    }
    kinds = {**dataset.card.kinds, name: kind or dataset.card.kinds[name]}
    return dataclasses.replace(dataset, splits=splits, card=dataclasses.replace(dataset.card, kinds=kinds))


def _real(dataset: Dataset, name: str) -> np.ndarray:
    """The mask of the real items of the training examples of positive weight."""
    train = dataset.splits["train"]
    mask = train.streams[name].mask
    return mask & where_mask(train.weight > 0, mask)


def _real_items(dataset: Dataset, name: str) -> np.ndarray:
    """The real items of the training examples of positive weight, ``[items, *item]``."""
    return dataset.splits["train"].streams[name].values[_real(dataset, name)]


def standardise(dataset: Dataset, names: Iterable[str] | None = None) -> Dataset:
    """Every feature with mean 0 and variance 1 over the real items of train; padding stays 0.

    Args:
      names: modalities; default: those of kind feature. A feature that is constant in train is only centred.

    Raises:
      UsageError: an unknown modality.
    """
    if names is None:
        names = [name for name in dataset.streams if dataset.card.kinds[name] == "feature"]
    for name in _names(dataset, names):
        mean, scale = feature_moments(dataset.splits["train"].streams[name].values, _real(dataset, name))
        # rounding leaves a constant feature with a tiny deviation: it must not be blown up
        scale = np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, 1.0)

        def apply(stream: Stream, mean: np.ndarray = mean, scale: np.ndarray = scale) -> Stream:
            values = ((stream.values - mean) / scale).astype(np.float32)
            return Stream(np.where(where_mask(stream.mask, values), values, np.float32(0)), stream.mask)

        dataset = map_stream(dataset, name, apply)
    return dataset


def only(dataset: Dataset, streams: Iterable[str]) -> Dataset:
    """The data set with the named modalities and no others.

    Raises:
      UsageError: an unknown modality, or none at all.
    """
    names = _names(dataset, streams)
    if not names:
        raise UsageError(f"{dataset.card.name}: name at least one modality of {', '.join(dataset.streams)}")
    splits = {
        split: batch.replace(streams={name: batch.streams[name] for name in sorted(names)})
        for split, batch in dataset.splits.items()
    }
    card = dataclasses.replace(
        dataset.card,
        kinds={name: dataset.card.kinds[name] for name in sorted(names)},
        noise={name: text for name, text in dataset.card.noise.items() if name in names},
    )
    return dataclasses.replace(dataset, splits=splits, card=card)


def shuffle_streams(
    dataset: Dataset, names: Iterable[str], *, splits: Iterable[str] = ("train", "validation"), seed: int = 0
) -> Dataset:
    """The named modalities, each shuffled among the examples of a split, so that they say nothing of the target.

    Raises:
      UsageError: an unknown modality.
    """
    changed = dict(dataset.splits)
    for place, name in enumerate(_names(dataset, names)):
        for number, split in enumerate(splits):
            batch = changed[split]
            order = np.random.default_rng((seed, place, number)).permutation(batch.size)
            stream = batch.streams[name]
            shuffled = Stream(stream.values[order], stream.mask[order])
            changed[split] = batch.replace(streams={**batch.streams, name: shuffled})
    return dataclasses.replace(dataset, splits=changed)


def by_group(dataset: Dataset) -> Dataset:
    """One row per group, its examples in order as steps: a video of utterances, a dialogue of turns.

    Streams of length 1 become ``[groups, steps, *item]``, longer ones ``[groups, steps, length, *item]`` with a mask
    of the same axes; target, index (-1 in padding) and group (-1 in padding) become ``[groups, steps]``; the padding
    of the target is 0. Of a target that is a tree every part is packed: a stream becomes one of the same axes and
    ``[groups, steps]`` before them. The weight is one per row; a group with an example of weight 0 is refused. All
    splits are padded to the longest group, so that they share one shape.

    Raises:
      UsageError: the rows are groups already, or weights of 0.
    """
    card = dataset.card
    for split, batch in dataset.splits.items():
        if batch.index.ndim != 1:
            raise UsageError(f"{card.name}: by_group needs one index per row, {split} has a label a step")
        if (batch.weight <= 0).any():
            raise UsageError(f"{card.name}: by_group needs positive weights; leave rows out with views.subset first")
    steps = max(int(np.unique(batch.group, return_counts=True)[1].max()) for batch in dataset.splits.values())
    splits = {split: _pack(batch, steps) for split, batch in dataset.splits.items()}
    return dataclasses.replace(dataset, splits=splits, split_id=f"{dataset.split_id}; one row per {card.group}")


def _pack(batch: Batch, steps: int) -> Batch:
    groups, row, counts = np.unique(batch.group, return_inverse=True, return_counts=True)
    row = row.reshape(-1)
    order = np.argsort(row, kind="stable")  # the order of the examples is the order of the steps
    step = np.empty(len(row), np.int64)
    step[order] = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)

    def scatter(values: np.ndarray, fill: Any = 0) -> np.ndarray:
        packed = np.full((len(groups), steps, *values.shape[1:]), fill, values.dtype)
        packed[row, step] = values
        return packed

    streams = {}
    for name, stream in batch.streams.items():
        values, mask = scatter(stream.values), scatter(stream.mask)
        if stream.mask.ndim == 2 and stream.mask.shape[1] == 1:
            values, mask = values[:, :, 0], mask[:, :, 0]
        streams[name] = Stream(values, mask)
    return Batch(
        streams=streams,
        target=jax.tree.map(scatter, batch.target),
        weight=np.ones(len(groups), np.float32),
        index=scatter(batch.index, -1),
        group=scatter(batch.group, -1),
    )


def pad_targets(dataset: Dataset) -> Dataset:
    """Targets that are streams, or hold such, padded to one length in all splits, so that the outputs of all have one
    shape; the same data set where there is nothing to pad.
    """
    batches = list(dataset.splits.values())

    def padded(own: Stream, *all_splits: Stream) -> Stream:
        masks = [np.shape(stream.mask) for stream in all_splits]
        lengths = np.max([shape[1:] for shape in masks], axis=0)
        after = [(0, 0), *((0, int(n) - m) for n, m in zip(lengths, np.shape(own.mask)[1:]))]
        item = [(0, 0)] * (np.ndim(own.values) - len(after))
        return Stream(np.pad(own.values, after + item), np.pad(own.mask, after))

    def lengths_differ(batch: Batch) -> bool:
        pairs = zip(jax.tree.leaves(batch.target), jax.tree.leaves(batches[0].target))
        return any(np.shape(a)[1:] != np.shape(b)[1:] for a, b in pairs)

    same_parts = len({jax.tree.structure(batch.target) for batch in batches}) == 1  # else training refuses them
    if not same_parts or not any(map(lengths_differ, batches)):
        return dataset
    targets = [batch.target for batch in batches]
    splits = {
        split: batch.replace(target=map_arrays(lambda own, *_: own, padded, batch.target, *targets))
        for split, batch in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def pca_whiten(dataset: Dataset, name: str, components: int) -> Dataset:
    """Items of one modality, flattened, as their first whitened principal components ``[n, length, components]``.

    Fitted on the real items of train in float64; of each component the largest loading is positive, so that the
    result is the same on every machine but for rounding. The modality becomes a feature.

    Raises:
      UsageError: an unknown modality, ids instead of numbers, or more components than the items have dimensions.
    """
    _names(dataset, [name])
    if dataset.card.kinds[name] == "text":
        raise UsageError(f"{dataset.card.name}: modality {name!r} is text: ids have no principal components")
    items = _real_items(dataset, name)
    items = items.reshape(len(items), -1).astype(np.float64)
    mean = items.mean(0)
    variances, axes = np.linalg.eigh((items - mean).T @ (items - mean) / max(len(items) - 1, 1))
    variances, axes = variances[::-1], axes[:, ::-1]
    rank = int((variances > 1e-10 * variances[0]).sum())
    if not 1 <= components <= rank:
        raise UsageError(f"{dataset.card.name}: modality {name!r} has 1 to {rank} components, not {components}")
    axes = axes[:, :components]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(components)])
    weights = (axes / np.sqrt(variances[:components])).astype(np.float32)
    mean = mean.astype(np.float32)

    def apply(stream: Stream) -> Stream:
        shape = stream.mask.shape
        whitened = np.zeros((*shape, components), np.float32)
        real = stream.values[stream.mask]
        whitened[stream.mask] = (real.reshape(len(real), -1).astype(np.float32) - mean) @ weights
        return Stream(whitened, stream.mask)

    return map_stream(dataset, name, apply, kind="feature")


def resample(dataset: Dataset, name: str, length: int) -> Dataset:
    """Sequences of one modality, linearly resampled to ``length`` real items; an absent one stays absent.

    First item goes to first, last to last; holes in a mask are closed first. Pictures of bytes become [0, 1].

    Raises:
      UsageError: an unknown modality, ids instead of numbers, or a length below 1.
    """
    _names(dataset, [name])
    if dataset.card.kinds[name] == "text" or length < 1:
        raise UsageError(f"{dataset.card.name}: resample needs numbers and a length from 1 up, got {name!r}, {length}")

    def apply(stream: Stream) -> Stream:
        unit = np.float32(255 if stream.values.dtype == np.uint8 else 1)
        values = np.zeros((len(stream.values), length, *stream.values.shape[2:]), np.float32)
        for row, mask, result in zip(stream.values, stream.mask, values):
            real = row[mask].astype(np.float32) / unit
            if len(real):
                place = np.linspace(0, len(real) - 1, length) if length > 1 else np.asarray([(len(real) - 1) / 2])
                below = np.minimum(place.astype(np.int64), max(len(real) - 2, 0))
                part = (place - below).astype(np.float32).reshape(-1, *(1,) * (real.ndim - 1))
                above = np.minimum(below + 1, len(real) - 1)
                result[:] = real[below] * (1 - part) + real[above] * part
        return Stream(values, np.repeat(stream.mask.any(1)[:, None], length, axis=1))

    return map_stream(dataset, name, apply)


def subset(dataset: Dataset, split: str, rows: Sequence[int] | np.ndarray) -> Dataset:
    """The data set with only the given rows of one split (numbers, or a boolean for each row), in that order.

    Raises:
      UsageError: an unknown split, no rows, or rows that are not there.
    """
    if split not in SPLITS:
        raise UsageError(f"split {split!r} is not one of {SPLITS}")
    batch, rows = dataset.splits[split], np.asarray(rows)
    if rows.dtype == bool and rows.shape == (batch.size,):
        rows = np.flatnonzero(rows)
    if not rows.size or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= batch.size:
        raise UsageError(f"{dataset.card.name}: {split} has rows 0 to {batch.size - 1}; others, or none, were named")
    splits = {**dataset.splits, split: take_rows(batch, rows)}
    return dataclasses.replace(
        dataset, splits=splits, split_id=f"{dataset.split_id}; {rows.size} of {batch.size} rows of {split}"
    )


def limit(dataset: Dataset, n: int) -> Dataset:
    """At most ``n`` rows of every split, class by class in turn where a row has one class: for a smoke run.

    Raises:
      UsageError: ``n`` below 1.
    """
    if n < 1:
        raise UsageError(f"limit needs at least 1 row, got {n}")
    for split in SPLITS:
        batch = dataset.splits[split]
        if batch.size <= n:
            continue
        rank = np.arange(batch.size)
        if dataset.card.num_classes is not None and np.ndim(batch.target) == 1:
            same = np.argsort(batch.target, kind="stable")
            counts = np.bincount(batch.target)
            rank = np.empty(batch.size, np.int64)  # the how-manieth of its class an example is
            rank[same] = np.arange(batch.size) - np.repeat(np.cumsum(counts) - counts, counts)
        dataset = subset(dataset, split, np.sort(np.argsort(rank, kind="stable")[:n]))
    return dataset


def refit_splits(dataset: Dataset) -> Dataset:
    """Train becomes train and validation together, to train once more for the number of epochs that was chosen.

    Validation stays, but it is part of train now: choose nothing by it.
    """
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    offset = int(train.index.max()) + 1
    later = np.where(validation.index >= 0, validation.index + offset, -1).astype(np.int32)
    joined = concat_batches(train, validation.replace(index=later))
    splits = {**dataset.splits, "train": joined}
    return dataclasses.replace(dataset, splits=splits, split_id=f"{dataset.split_id}; train + validation")
