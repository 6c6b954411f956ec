"""What every data set must satisfy before a model sees it, whoever made it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmjax.checks import Problem, check_batch, check_stream, labels_problem, multilabel_problem, numbers_problem
from mmjax.datasets.base import KINDS, SPLITS, Dataset
from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream, where_mask

__all__ = ["check", "content_sha256", "zero_padding"]


def zero_padding(where: str, stream: Stream) -> Stream:
    """The stream, checked, with zeros under False masks.

    Args:
      where: names data set, split and modality, to begin the message.

    Raises:
      UsageError: as ``mmjax.checks.check_stream``.
    """
    stream = check_stream(where, stream)
    values, mask = stream.values, stream.mask
    if not mask.all() and values[~mask].any():
        values = np.where(where_mask(mask, values), values, np.zeros((), values.dtype))
    return Stream(values, mask)


@dataclasses.dataclass(frozen=True)
class _Labels:
    """What a card says of targets, in the form of a task."""

    num_classes: int | None

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        if not isinstance(target, np.ndarray):  # a caption, several answers: the task knows
            return None
        if self.num_classes is None:
            return numbers_problem(target, real)
        if np.ndim(target) > real.ndim:
            return multilabel_problem(target, real, self.num_classes)
        return labels_problem(target, real, self.num_classes)


def _check_split(name: str, split: str, batch: Batch, num_classes: int | None) -> Batch:
    if not batch.size:
        raise UsageError(f"{name}: split {split!r} has no examples; every data set needs train, validation and test")
    batch = check_batch(f"{name}: {split}", batch, task=_Labels(num_classes))
    streams = {key: zero_padding(f"{name}: {split}: stream {key!r}", stream) for key, stream in batch.streams.items()}
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
        if bad := {"+", "/"} & set(name):  # a pattern of presence is named "audio+text"
            raise UsageError(f"{card.name}: modality {name!r} has {bad.pop()!r} in its name; write it otherwise")
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
    split_of: dict[int, str] = {}
    for split, batch in splits.items():
        for group in np.unique(np.asarray(batch.group)[np.asarray(batch.index) >= 0]).tolist():
            if group in split_of:
                raise UsageError(
                    f"{name}: {kind} {group} is in {split_of[group]!r} and in {split!r}; groups must not cross splits "
                    f"(a published split that lets them says so in its card: groups_cross=True)"
                )
            split_of[group] = split


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
        for path, leaf in jax.tree.leaves_with_path(batch.target):
            add(f"{split}/target{jax.tree_util.keystr(path)}", leaf)
        for field in ("weight", "index", "group"):
            add(f"{split}/{field}", getattr(batch, field))
    return digest.hexdigest()
