"""A data set out of a user's own arrays or files: padding, splitting, checking."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.base import KINDS, SPLITS, Card, Dataset
from mmjax.datasets.checks import check, check_stream, content_sha256
from mmjax.datasets.splits import renumber, split_groups
from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream

__all__ = ["from_arrays", "from_npz", "make_splits", "pad"]


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


def _compact(values: np.ndarray, kind: str) -> np.ndarray:
    """The storage type: bytes of pictures and ids stay integers, PCM becomes [-1, 1), the rest is float32."""
    if kind == "text" and np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int32)
    if kind in ("image", "video") and values.dtype == np.uint8:
        return values
    if kind == "audio" and values.dtype == np.int16:
        return values.astype(np.float32) / np.float32(32768)
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise UsageError(f"needs numbers, got {values.dtype}")
    return values.astype(np.float32)


def _stream(name: str, given: Any, kind: str) -> Stream:
    mask = None
    if isinstance(given, Stream):
        given, mask = given.values, given.mask
    elif isinstance(given, tuple) and len(given) == 2:
        given, mask = given
    if isinstance(given, Sequence):
        if mask is not None:
            raise UsageError("a list of sequences is padded here and takes no mask")
        given, mask = pad(given)
    values = np.asarray(given)
    if mask is None:
        single = {"feature": 2, "image": 4}.get(kind)  # vectors and pictures: sequences of length 1
        if values.ndim == single:
            values = values[:, None]
        if values.ndim < 2:
            raise UsageError(f"needs [examples, ...], got {values.shape}")
        mask = np.ones(values.shape[:2], bool)
    return check_stream(name, Stream(_compact(values, kind), np.asarray(mask)))


def _split_codes(split: Any, seed: int, group: np.ndarray, target: np.ndarray, classes: bool) -> np.ndarray:
    if isinstance(split, Mapping):
        split = tuple(float(split.get(name, 0)) for name in SPLITS)
    if isinstance(split, tuple | list) and len(split) == 3 and all(isinstance(x, float) for x in split):
        return split_groups(group, split, seed=seed, strata=target if classes and target.ndim == 1 else None)
    codes = np.asarray(split)
    if codes.dtype.kind in "US":
        names = codes.astype(str)
        if unknown := sorted(set(names.tolist()) - set(SPLITS)):
            raise UsageError(f"split {unknown[0]!r} is not one of {SPLITS}")
        codes = np.select([names == name for name in SPLITS], range(3))
    if codes.shape != target.shape[:1] or not np.isin(codes, (0, 1, 2)).all():
        raise UsageError(
            f"split must give each of the {len(target)} examples a name of {SPLITS} or 0, 1, 2, or be three float "
            f"fractions; got {codes.dtype} {codes.shape}"
        )
    return codes.astype(np.int64)


def make_splits(
    streams: Mapping[str, Stream], target: np.ndarray, group: np.ndarray, codes: np.ndarray
) -> dict[str, Batch]:
    """The three splits as batches; ``codes`` ``[n]`` holds 0, 1 or 2."""
    splits = {}
    for code, split in enumerate(SPLITS):
        rows = np.flatnonzero(codes == code)
        splits[split] = Batch(
            streams={name: Stream(s.values[rows], s.mask[rows]) for name, s in sorted(streams.items())},
            target=target[rows],
            weight=np.ones(rows.size, np.float32),
            index=np.arange(rows.size, dtype=np.int32),
            group=group[rows].astype(np.int32),
        )
    return splits


def from_arrays(
    streams: Mapping[str, Any],
    target: Any,
    *,
    split: Any = (0.6, 0.2, 0.2),
    seed: int = 0,
    group: Any = None,
    name: str = "my data",
    kinds: Mapping[str, str] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    group_name: str = "group",
    primary_metric: str | None = None,
    allow_crossing: bool = False,
    card: Card | None = None,
) -> Dataset:
    """A data set of your own arrays.

    Args:
      streams: by the name of the modality: an array ``[n, d]`` (a vector), ``[n, t, d]`` (a sequence), pictures
        ``[n, h, w, c]`` (kind image), waveforms ``[n, t]`` (kind audio), ids ``[n, t]`` (kind text), videos
        ``[n, t, h, w]`` or ``[n, t, h, w, c]`` (kind video); a pair ``(values, mask)``, where an example without the
        modality has a mask that is False everywhere and may hold NaN there; or a list of arrays ``[t_i, ...]`` of
        different lengths, padded here. Stored as float32, except ids and pictures of bytes; int16 audio becomes
        [-1, 1).
      target: ``[n]`` classes (integers) or scores (floats).
      split: ``[n]`` of train, validation, test, or 0, 1, 2; or three fractions that sum to 1 (floats, or a mapping by
        name), by which whole groups are drawn with ``seed``, class by class where each group has one class.
      group: ``[n]`` video, speaker, recording of each example; default: each is its own.
      kinds: kind of each modality that is not a feature: text, image, audio, video.
      num_classes: default: the largest class and one. Scores have none.
      allow_crossing: whether groups may stand in two splits; the tables then say so.
      card: to say more about the data (licence, noise, caution); its name, kinds, classes and groups win.

    Raises:
      UsageError: one line with what is wrong: NaN, an empty modality, lengths, labels, crossing groups.
    """
    if not streams:
        raise UsageError(f"{name} has no modality at all")
    target = np.asarray(target)
    if target.ndim == 0 or target.dtype.kind not in "iufb":
        raise UsageError(f"{name}: target must be an array of classes or scores, got {target.dtype} {target.shape}")
    classes = target.dtype.kind != "f" if card is None else card.num_classes is not None
    kinds = {key: "feature" for key in streams} | dict(kinds or (card.kinds if card else {}))
    if unknown := sorted(set(kinds) - set(streams)) or sorted(set(kinds.values()) - set(KINDS)):
        raise UsageError(f"{name}: kinds names {unknown[0]!r}; modalities are {sorted(streams)}, kinds {KINDS}")
    packed = {}
    for key in sorted(streams):
        where = f"{name}: modality {key!r}"
        try:
            packed[key] = _stream(where, streams[key], kinds[key])
        except UsageError as error:
            raise error if str(error).startswith(where) else UsageError(f"{where} {error}") from None
        if len(packed[key].mask) != len(target):
            raise UsageError(f"{where} has {len(packed[key].mask)} examples, target has {len(target)}")
    groups = np.arange(len(target)) if group is None else np.asarray(group)
    if groups.shape != target.shape[:1]:
        raise UsageError(f"{name}: group has shape {groups.shape}, target {target.shape}")
    target = target.astype(np.int32 if classes else np.float32)
    codes = _split_codes(split, seed, groups, target, classes)
    if card is None:
        count = num_classes or len(class_names) or (int(target.max()) + 1 if classes and target.size else None)
        card = Card(
            name=name,
            description=f"{len(target)} examples of {', '.join(sorted(streams))}, given as arrays.",
            kinds=kinds,
            num_classes=count if classes else None,
            class_names=tuple(class_names),
            primary_metric=primary_metric or ("accuracy" if classes else "mae"),
            group="example" if group is None else group_name,
            groups_cross=allow_crossing,
        )
    splits = make_splits(packed, target, renumber(groups), codes)
    sizes = "/".join(str(splits[s].size) for s in SPLITS)
    dataset = check(Dataset(card=card, splits=splits, version="1", sha256="", split_id=f"{sizes} examples"))
    return dataclasses.replace(dataset, sha256=content_sha256(dataset.splits))


def from_npz(path: str | pathlib.Path, **options: Any) -> Dataset:
    """A data set of one ``.npz`` file: ``target``, optional ``split`` and ``group``, every other array a modality.

    A modality ``x`` with missing examples or padding has its mask in ``x_mask``. Other ``options`` as
    :func:`from_arrays`.

    Raises:
      UsageError: the file is not there, cannot be read, or holds no target.
    """
    path = pathlib.Path(path)
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except Exception as error:  # NumPy and zipfile raise half a dozen kinds for a damaged file
        raise UsageError(f"{path} cannot be read as .npz without pickled objects: {error}") from None
    if "target" not in arrays:
        raise UsageError(f"{path} has no array 'target', only {sorted(arrays)}")
    target = arrays.pop("target")
    for key in ("split", "group"):
        if key in arrays:
            options.setdefault(key, arrays.pop(key))
    masks = {key.removesuffix("_mask"): arrays.pop(key) for key in sorted(arrays) if key.endswith("_mask")}
    if unknown := sorted(set(masks) - set(arrays)):
        raise UsageError(f"{path} has a mask for {unknown[0]!r} but no such array, only {sorted(arrays)}")
    streams = {key: (values, masks[key]) if key in masks else values for key, values in arrays.items()}
    return from_arrays(streams, target, **({"name": path.stem} | options))
