"""What every data set must satisfy before a model sees it, whoever made it."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from mmjax.datasets.base import KINDS, SPLITS, Dataset
from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream, where_mask

__all__ = ["check", "check_stream", "content_sha256", "first_bad"]


def first_bad(values: np.ndarray, mask: np.ndarray) -> int | None:
    """The first example with a real item that holds NaN or infinity, or None."""
    if not np.issubdtype(values.dtype, np.floating):
        return None
    finite = np.isfinite(values)
    if finite.all():
        return None
    bad = ~finite.reshape(*mask.shape, -1).all(-1) & mask
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(-1))
    return int(rows[0]) if rows.size else None


def check_stream(where: str, stream: Stream) -> Stream:
    """The stream with zeros under False masks.

    Args:
      where: names data set, split and modality, to begin the message.

    Raises:
      UsageError: the mask does not fit the values, zero items or width, NaN or infinity in a real item.
    """
    values, mask = np.asarray(stream.values), np.asarray(stream.mask)
    if mask.dtype != bool or values.shape[: mask.ndim] != mask.shape or mask.ndim < 2:
        raise UsageError(
            f"{where}: the mask must be bool with the first two or more axes of the values, got mask "
            f"{mask.dtype} {mask.shape} and values {values.shape}"
        )
    if 0 in values.shape[1:]:
        raise UsageError(f"{where} is empty: values of shape {values.shape} have no items or no width")
    row = first_bad(values, mask)
    if row is not None:
        raise UsageError(f"{where}: example {row} holds NaN or infinity; repair it, or mark it missing by its mask")
    if not mask.all() and values[~mask].any():
        values = np.where(where_mask(mask, values), values, np.zeros((), values.dtype))
    return Stream(values, mask)


def _check_split(name: str, split: str, batch: Batch, num_classes: int | None) -> Batch:
    streams = {key: check_stream(f"{name}: {split}: modality {key!r}", s) for key, s in sorted(batch.streams.items())}
    if not batch.size:
        raise UsageError(f"{name}: split {split!r} has no examples; every data set needs train, validation and test")
    target, index, group = np.asarray(batch.target), np.asarray(batch.index), np.asarray(batch.group)
    sizes = {**{key: len(s.values) for key, s in streams.items()}, "target": len(target)}
    sizes |= {"weight": batch.size, "index": len(index), "group": len(group)}
    if len(set(sizes.values())) > 1:
        raise UsageError(f"{name}: {split}: modalities and labels differ in their number of examples: {sizes}")
    if index.shape != group.shape or target.shape[: index.ndim] != index.shape:
        raise UsageError(
            f"{name}: {split}: target {target.shape}, index {index.shape} and group {group.shape} must agree"
        )
    labels = target[index >= 0]
    if num_classes is None:
        if not np.isfinite(labels).all():
            raise UsageError(f"{name}: {split}: example {int(np.flatnonzero(~np.isfinite(labels))[0])} has a NaN score")
    elif not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"{name}: {split}: class labels must be integers, got {labels.dtype}")
    elif labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        bad = int(np.flatnonzero((labels < 0) | (labels >= num_classes))[0])
        raise UsageError(
            f"{name}: {split}: label {int(labels[bad])} of example {bad} is not one of {num_classes} classes, "
            f"0 to {num_classes - 1}"
        )
    return batch.replace(streams=streams)


def check(dataset: Dataset) -> Dataset:
    """The data set, with zeros wherever a mask is False, if it is sound.

    Raises:
      UsageError: one line naming data set, split, modality and example: NaN or infinity in a real item, a modality
        that no training example has, lengths that differ, labels out of range, a group in two splits.
    """
    card = dataset.card
    if set(dataset.splits) != set(SPLITS):
        raise UsageError(f"{card.name}: splits must be {SPLITS}, got {tuple(dataset.splits)}")
    if not dataset.splits["train"].streams:
        raise UsageError(f"{card.name} has no modality at all")
    for name, kind in card.kinds.items():
        if kind not in KINDS:
            raise UsageError(f"{card.name}: kind {kind!r} of modality {name!r} is not one of {KINDS}")
    splits = {split: _check_split(card.name, split, dataset.splits[split], card.num_classes) for split in SPLITS}
    names = {split: sorted(batch.streams) for split, batch in splits.items()}
    if len({tuple(v) for v in names.values()}) > 1 or set(names["train"]) != set(card.kinds):
        raise UsageError(f"{card.name}: modalities differ between splits and card: {names}, card {sorted(card.kinds)}")
    for key, stream in splits["train"].streams.items():
        if not stream.mask.any():
            raise UsageError(f"{card.name}: modality {key!r} is empty: no training example has it")
    if not card.groups_cross:
        _check_groups(card.name, card.group, splits)
    return dataclasses.replace(dataset, splits=splits)


def _check_groups(name: str, kind: str, splits: Mapping[str, Batch]) -> None:
    seen: dict[int, str] = {}
    for split, batch in splits.items():
        for group in np.unique(np.asarray(batch.group)[np.asarray(batch.index) >= 0]).tolist():
            if group in seen:
                raise UsageError(
                    f"{name}: {kind} {group} is in {seen[group]!r} and in {split!r}; groups must not cross splits "
                    f"(a published split that lets them says so in its card: groups_cross=True)"
                )
            seen[group] = split


def content_sha256(splits: Mapping[str, Batch]) -> str:
    """A digest of every array of every split, its name, dtype and shape included."""
    digest = hashlib.sha256()

    def add(name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)

    for split in SPLITS:
        batch = splits[split]
        for key, stream in sorted(batch.streams.items()):
            add(f"{split}/{key}/values", stream.values)
            add(f"{split}/{key}/mask", stream.mask)
        for field in ("target", "weight", "index", "group"):
            add(f"{split}/{field}", getattr(batch, field))
    return digest.hexdigest()
