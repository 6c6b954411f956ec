"""What is to be predicted as a user has it: names or numbers of classes, scores, several of either."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError

__all__ = ["Labels", "make_labels"]


@dataclasses.dataclass(frozen=True)
class Labels:
    """Targets of all examples.

    Attributes:
      target: ``[n]`` or ``[n, labels]``; int32 classes or float32 scores.
      num_classes: None for scores.
      class_names: in order; empty where the classes are numbers.
    """

    target: np.ndarray
    num_classes: int | None
    class_names: tuple[str, ...]


def make_labels(
    where: str, labels: Any, *, num_classes: int | None = None, class_names: Sequence[str] = (), scores: bool = False
) -> Labels:
    """Targets and what they are: names and integers are classes, floats are scores.

    Args:
      where: names the data set, to begin a message.
      labels: ``[n]``, or ``[n, labels]``.
      num_classes: default: as many as there are names, or the largest number and one.
      class_names: their names; default for names: sorted.
      scores: integers are scores too (stars, ages).

    Raises:
      UsageError: one line with the example: a label that is missing, negative, no number of a class, or NaN.
    """
    names = tuple(map(str, class_names))
    if len(set(names)) < len(names):
        raise UsageError(f"{where}: class_names holds a name twice: {names}")
    if num_classes is not None and names and len(names) != num_classes:
        raise UsageError(f"{where}: {len(names)} class_names for num_classes={num_classes}")
    try:
        target = np.asarray(labels)
    except ValueError as error:
        raise UsageError(f"{where}: target is no array: {error}") from None
    if target.ndim == 0 or not len(target):
        raise UsageError(f"{where}: target must be an array of classes or scores, got {target.dtype} {target.shape}")
    if target.dtype == object:
        target = _plain(where, target)
    if target.ndim == 2 and target.shape[1] == 1:
        raise UsageError(f"{where}: target has shape {target.shape}; one label an example is target[:, 0]")
    if target.dtype.kind in "US":
        if scores:
            raise UsageError(f"{where}: target holds names such as {str(target.flat[0])!r}, not scores")
        target, names = _numbers(where, target, names)
    elif target.dtype.kind not in "iufb":
        raise UsageError(f"{where}: target must be an array of classes or scores, got {target.dtype} {target.shape}")
    if scores or (target.dtype.kind == "f" and num_classes is None and not names):
        if num_classes is not None or names:
            raise UsageError(f"{where}: scores have no classes; leave out num_classes and class_names")
        return Labels(_finite(where, target), None, ())
    if target.dtype.kind == "f":
        if not (np.isfinite(target) & (target == np.round(target))).all():
            raise UsageError(f"{where}: class labels must be integers, got {target.dtype}")
        target = target.astype(np.int64)
    if target.ndim == 2:  # a vector of labels: 0 or 1 each
        _in_range(where, target, 2)
        return Labels(target.astype(np.int32), target.shape[1], names)
    count = num_classes or len(names) or int(target.max()) + 1
    _in_range(where, target, max(count, 1))
    if num_classes is None and not class_names:
        _no_gap(where, target, count)
    if num_classes is None and len(np.unique(target)) < 2:
        raise UsageError(f"{where}: target is {_name(target[0], names)} for every example: there is nothing to learn")
    return Labels(target.astype(np.int32), count, names)


def _plain(where: str, target: np.ndarray) -> np.ndarray:
    """An array of objects (names, numbers) as an array of one type."""
    for row, value in enumerate(target):
        if value is None or (isinstance(value, float) and np.isnan(value)):
            raise UsageError(f"{where}: example {row} has no label; leave it out, or repair it")
    if all(isinstance(value, str) for value in target):
        return target.astype(str)
    try:
        return np.asarray(target.tolist())
    except ValueError as error:
        raise UsageError(f"{where}: target is no array: {error}") from None


def _numbers(where: str, target: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Names as numbers."""
    target = np.char.strip(target.astype(str))
    if not target.all():
        raise UsageError(f"{where}: example {int(np.flatnonzero(target == '')[0])} has no label; leave it out")
    names = names or tuple(np.unique(target).tolist())
    place = {name: number for number, name in enumerate(names)}
    for row, name in enumerate(target.reshape(len(target), -1)[:, 0].tolist()):
        if name not in place:
            raise UsageError(f"{where}: label {name!r} of example {row} is none of the classes {', '.join(names)}")
    return np.vectorize(place.__getitem__, otypes=[np.int64])(target), names


def _finite(where: str, target: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(target.astype(np.float32))
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(bad), -1).any(1))[0])
        raise UsageError(f"{where}: example {row} has a NaN score or one beyond float32: {target[row]}")
    return target.astype(np.float32)


def _in_range(where: str, target: np.ndarray, count: int) -> None:
    bad = (target < 0) | (target >= count)
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(bad), -1).any(1))[0])
        raise UsageError(
            f"{where}: label {target[row]} of example {row} is not one of {count} classes, 0 to {count - 1}"
        )


def _no_gap(where: str, target: np.ndarray, count: int) -> None:
    """A class that nobody has is a slip (classes from 1, a number that is a score) unless it is told."""
    there = np.unique(target)
    if len(there) < count:
        missing = next(number for number in range(count) if number not in there[: number + 1])
        raise UsageError(
            f"{where}: no example has class {missing}, classes are numbered from 0 to {count - 1}; number them without "
            f"a gap, or say num_classes={count} (scores=True for integers that are scores)"
        )


def _name(number: Any, names: tuple[str, ...]) -> str:
    return repr(names[int(number)]) if names else str(number)
