"""One modality as a user has it (an array, a list of items, ``None`` for a missing one) as a ``Stream``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.checks import zero_padding
from mmjax.errors import UsageError
from mmjax.stream import Stream, where_mask

__all__ = ["make_stream", "pad"]

LARGEST = 1e18
"""Above it the square of a float32 overflows, and no learning rate helps."""
EXACT = 2**24
"""The integers up to which float32 is exact."""
CHANNELS = (1, 3, 4)
SINGLE = {"feature": 1, "image": 3}
"""Axes of one item, of which an example may hold just one."""


def pad(items: Sequence[np.ndarray], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sequences ``[t_i, *item]`` as one array ``[n, length, *item]``, zeros at the end, and its mask ``[n, length]``.

    Args:
      length: of the result; default: of the longest. Longer sequences are cut.
    """
    items = [np.asarray(item) for item in items]
    shapes = {item.shape[1:] for item in items}
    if not items or len(shapes) > 1 or items[0].ndim == 0:
        raise UsageError(f"sequences must share the shape of their items, got {sorted(shapes)}")
    lengths = np.asarray([len(item) for item in items])
    length = int(lengths.max()) if length is None else length
    values = np.zeros((len(items), length, *items[0].shape[1:]), np.result_type(*{item.dtype for item in items}))
    for row, item in zip(values, items):
        row[: len(item)] = item[:length]
    return values, np.arange(length) < np.minimum(lengths, length)[:, None]


def make_stream(where: str, data: Any, kind: str) -> Stream:
    """The stream of one modality, in its storage type.

    Args:
      where: names data set and modality, to begin a message.
      data: an array ``[n, ...]``; a pair ``(values, mask)`` with a mask ``[n]`` or ``[n, t]``; a ``Stream``; or a list
        of one item, or one sequence of items, an example, with None where the example lacks the modality.
      kind: of the modality.

    Raises:
      UsageError: one line with the example and what would be right.
    """
    mask = None
    if isinstance(data, Stream):
        data, mask = data.values, np.asarray(data.mask)
    elif isinstance(data, tuple) and len(data) == 2:
        data, mask = data[0], np.asarray(data[1])
    if not isinstance(data, Sequence | np.ndarray):  # of jax, pandas, torch
        data = np.asarray(data)
    listed = isinstance(data, Sequence) or (isinstance(data, np.ndarray) and data.dtype.kind == "O")
    if mask is None and listed:
        values, mask = _from_list(where, list(data), kind)
    elif listed:
        raise UsageError(f"{where}: a list is padded here and takes no mask; put None where an example is missing")
    else:
        values = np.asarray(data)
        if values.ndim < 1:
            raise UsageError(f"{where} needs [examples, ...], got one value of {values.dtype}")
        values = _with_items(where, values, kind, 1)
        mask = _whole_mask(where, values, mask, kind)
        if not mask.all() and mask.dtype == bool and values.shape[: mask.ndim] == mask.shape:
            values = np.where(where_mask(mask, values), values, np.zeros((), values.dtype))
        values = _storage(where, values, kind, 1)
    try:
        stream = Stream(values, mask)
    except ValueError as error:
        raise UsageError(f"{where}: {error}; the mask must be bool, of the first axes of the values") from None
    return zero_padding(where, stream)


def _whole_mask(where: str, values: np.ndarray, mask: np.ndarray | None, kind: str) -> np.ndarray:
    if mask is None:
        nested = kind == "text" and values.ndim == 3 and values.dtype.kind in "iu"
        return np.ones(values.shape[: 3 if nested else 2], bool)
    if mask.ndim == 1 and values.ndim >= 2 and mask.shape == values.shape[:1]:
        return np.repeat(mask[:, None], values.shape[1], axis=1)
    return mask


def _with_items(where: str, values: np.ndarray, kind: str, lead: int) -> np.ndarray:
    """``[n, t, *item]`` (``lead`` 0: ``[t, *item]``): a single item becomes a sequence, grey gets its channel."""
    if values.dtype.kind not in "biuf":
        raise UsageError(f"{where} needs numbers, got {_type_name(values)}{_advice(values)}")
    axes = values.ndim - lead
    if kind == "feature" and axes == 0:
        return values.reshape(*values.shape, 1, 1)
    if (kind == "image" and axes == 2) or (kind == "video" and axes == 3):
        values, axes = values[..., None], axes + 1
    if axes == SINGLE.get(kind):
        values, axes = np.expand_dims(values, lead), axes + 1
    least = {"image": 4, "video": 4, "feature": 2}.get(kind, 1)
    most = 4 if kind in ("image", "video") else values.ndim
    if not least <= axes <= most:
        raise UsageError(f"{where} of kind {kind} has {'items' if lead else 'an item'} of shape {values.shape[lead:]}")
    if kind in ("image", "video"):
        height, channels = values.shape[-3], values.shape[-1]
        if height in CHANNELS and channels not in CHANNELS and channels > 4:
            raise UsageError(
                f"{where}: {kind}s of shape {values.shape[-3:]} look like channels first; the channel stands last "
                f"here: (height, width, channels), np.moveaxis(x, -3, -1)"
            )
    return values


def _type_name(values: np.ndarray) -> str:
    return "text" if values.dtype.kind in "US" else str(values.dtype)


def _advice(values: np.ndarray) -> str:
    return ": mmjax.datasets.from_table reads text, pictures, sounds and videos" if values.dtype.kind in "USO" else ""


def _storage(where: str, values: np.ndarray, kind: str, lead: int) -> np.ndarray:
    """The storage type: bytes of pictures and ids stay integers, PCM becomes [-1, 1), the rest is float32."""

    def refuse(bad: np.ndarray, reason: str) -> None:
        if bad.any():
            row = f": example {int(np.flatnonzero(bad.reshape(len(bad), -1).any(1))[0])}" if lead else ""
            raise UsageError(f"{where}{row} holds {values[bad].reshape(-1)[0]}{reason}")

    integer, axes = values.dtype.kind in "iu", values.ndim - lead
    if kind == "text" and integer:
        refuse((values < 0) | (values > np.iinfo(np.int32).max), ": ids are from 0 to 2**31 - 1")
        return values.astype(np.int32, copy=False)
    if kind == "text" and axes == 1:
        raise UsageError(f"{where}: ids of words must be integers, got {values.dtype}")
    if kind in ("image", "video"):
        return _pixels(values, refuse)
    if kind == "audio" and integer:
        return _samples(where, values)
    if integer:
        refuse(np.abs(values.astype(np.float64)) > EXACT, f": float32 is exact up to {EXACT}; scale it, or make it ids")
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            refuse(np.isfinite(values) & (np.abs(values) > LARGEST), ": too large to compute with; scale it")
    if kind == "audio" and axes == 1:
        with np.errstate(invalid="ignore"):
            refuse(np.abs(values) > 100, ": samples are int16, int32, or floats in [-1, 1]")
    return values.astype(np.float32, copy=False)


def _pixels(values: np.ndarray, refuse: Callable[[np.ndarray, str], None]) -> np.ndarray:
    """Bytes as they are, 16 bits as floats in [0, 1]; wider integers are bytes if all fit."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return values.astype(np.float32) / np.float32(65535)
    if values.dtype.kind in "iu":
        refuse((values < 0) | (values > 255), ": pixels are uint8, uint16, or floats in [0, 1]")
        return values.astype(np.float32) if values.size and values.max() <= 1 else values.astype(np.uint8)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            refuse(np.abs(values) > 30, ": pixels of floats lie in [0, 1]; give bytes as uint8, or divide by 255")
    return values.astype(np.float32, copy=False)


def _samples(where: str, values: np.ndarray) -> np.ndarray:
    """PCM as float32 in [-1, 1)."""
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / np.float32(128)
    if values.dtype in (np.int16, np.int32):
        return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)
    raise UsageError(f"{where}: samples are uint8, int16, int32, or floats in [-1, 1], got {values.dtype}")


def _missing(item: Any) -> bool:
    """None, an empty item, or the NaN that pandas puts in an empty cell."""
    if item is None or (isinstance(item, float) and np.isnan(item)):
        return True
    return hasattr(item, "__len__") and not isinstance(item, str) and len(item) == 0


def _from_list(where: str, data: list, kind: str) -> tuple[np.ndarray, np.ndarray]:
    if not data:
        raise UsageError(f"{where} has no examples")
    items: list[np.ndarray | None] = []
    for row, item in enumerate(data):
        if _missing(item):
            items.append(None)
            continue
        here = f"{where}: example {row}"
        try:
            array = np.asarray(item)
        except ValueError as error:
            raise UsageError(f"{here} is no array: {error}") from None
        items.append(_storage(here, _with_items(here, array, kind, 0), kind, 0))
    there = [item for item in items if item is not None]
    if not there:
        raise UsageError(f"{where} is empty: no example has it")
    if len({item.dtype for item in there}) > 1:  # bytes beside floats
        there = [x.astype(np.float32) / np.float32(255 if x.dtype == np.uint8 else 1) for x in there]
    shapes = {item.shape[1:] for item in there}
    if len(shapes) > 1:
        rows = [row for row, item in enumerate(items) if item is not None]
        odd = next(row for row, item in zip(rows, there) if item.shape[1:] != there[0].shape[1:])
        raise UsageError(
            f"{where}: items must share the shape: example {rows[0]} has {there[0].shape[1:]}, example {odd} "
            f"{items[odd].shape[1:]}{_shape_advice(kind, len(there[0].shape))}"  # type: ignore[union-attr]
        )
    empty = np.zeros((0, *there[0].shape[1:]), there[0].dtype)
    whole = iter(there)
    return pad([empty if item is None else next(whole) for item in items])


def _shape_advice(kind: str, axes: int) -> str:
    if kind == "feature" and axes == 2:
        return "; a sequence of numbers is [t, 1]"
    return f"; {kind}s of one size are made by mmjax.datasets.from_table" if kind in ("image", "video") else ""
