"""A data set out of a user's own arrays: labels, splits, groups and weights; ``streams`` and ``labels`` do the rest."""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.base import KINDS, SPLITS, Card, Dataset
from mmjax.datasets.checks import check, content_sha256
from mmjax.datasets.labels import make_labels
from mmjax.datasets.splits import lacking_classes, read_groups, renumber, split_codes
from mmjax.datasets.streams import make_stream, pad
from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream

__all__ = ["from_arrays", "from_npz", "make_splits", "pad"]


def _check_crossing(groups: np.ndarray, codes: np.ndarray, kind: str) -> None:
    """Groups by the user's names; ``check`` knows only their numbers."""
    order = np.argsort(groups, kind="stable")
    crossing = np.flatnonzero((groups[order][1:] == groups[order][:-1]) & (codes[order][1:] != codes[order][:-1]))
    if crossing.size:
        one, two = order[crossing[0]], order[crossing[0] + 1]
        places = [f"{SPLITS[codes[row]]!r} (example {row})" for row in (one, two)]
        raise UsageError(
            f"{kind} {groups[one].item()} is in {places[0]} and in {places[1]}; groups must not cross splits "
            f"(allow_crossing=True for a published split that lets them: tables then say so)"
        )


def _weights(weight: Any, class_weight: Any, target: np.ndarray, codes: np.ndarray, count: int | None) -> np.ndarray:
    """``[n]`` weights in training, 1 elsewhere."""
    weights = np.ones(len(target), np.float32)
    train = codes == 0
    if weight is not None:
        per_example = np.asarray(weight, np.float32)
        if (
            per_example.shape != (len(target),)
            or not (np.isfinite(per_example) & (per_example >= 0)).all()
            or not per_example[train].any()
        ):
            raise UsageError(
                f"weight must be [{len(target)}] numbers from 0 up, not all 0 in train; got {per_example.shape}"
            )
        weights[train] = per_example[train]
    if class_weight is not None:
        if count is None or target.ndim != 1:
            raise UsageError("class_weight is for one class an example")
        frequency = np.bincount(target[train], minlength=count)
        if isinstance(class_weight, str):
            if class_weight != "balanced":
                raise UsageError(f"class_weight is 'balanced' or one number a class, got {class_weight!r}")
            per_class = train.sum() / (np.maximum(frequency, 1) * (frequency > 0).sum())
        else:
            per_class = np.asarray(class_weight, np.float64)
            if per_class.shape != (count,) or not (np.isfinite(per_class) & (per_class >= 0)).all():
                raise UsageError(f"class_weight must be {count} numbers from 0 up, got {class_weight!r}")
        weights[train] *= per_class[target[train]].astype(np.float32)
    return weights


def make_splits(
    streams: Mapping[str, Stream],
    target: np.ndarray,
    group: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray | None = None,
) -> dict[str, Batch]:
    """The three splits as batches; ``codes`` ``[n]`` holds 0, 1 or 2."""
    weight = np.ones(len(target), np.float32) if weight is None else weight
    splits = {}
    for code, split in enumerate(SPLITS):
        rows = np.flatnonzero(codes == code)
        splits[split] = Batch(
            streams={name: Stream(s.values[rows], s.mask[rows]) for name, s in sorted(streams.items())},
            target=target[rows],
            weight=weight[rows],
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
    weight: Any = None,
    class_weight: Any = None,
    name: str = "my data",
    kinds: Mapping[str, str] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    scores: bool = False,
    group_name: str = "group",
    primary_metric: str | None = None,
    allow_crossing: bool = False,
    card: Card | None = None,
) -> Dataset:
    """A data set of your own arrays.

    Args:
      streams: by the name of the modality: an array ``[n, d]`` (a vector), ``[n, t, d]`` (a sequence), pictures
        ``[n, h, w, c]`` or grey ``[n, h, w]`` (kind image), waveforms ``[n, t]`` (kind audio), ids ``[n, t]`` (kind
        text), videos ``[n, t, h, w]`` or ``[n, t, h, w, c]`` (kind video); a pair ``(values, mask)``, where an example
        without the modality has a mask that is False everywhere and may hold NaN there; or a list with one item (a
        vector, a picture) or one sequence an example, of different lengths, None = missing. Stored as float32, except
        ids and pictures of bytes; 16-bit pictures become [0, 1], PCM [-1, 1).
      target: ``[n]`` classes (integers from 0, or names) or scores (floats), or ``[n, labels]`` of 0 and 1.
      split: ``[n]`` of train, validation, test, or 0, 1, 2; or three fractions that sum to 1 (floats, or a mapping by
        name), by which whole groups are drawn with ``seed``, every class in every split as far as groups allow.
      group: ``[n]`` video, speaker, recording of each example; default: each is its own.
      weight: ``[n]`` of the examples in training; validation and test are measured without.
      class_weight: one number a class, or ``"balanced"``: in training, multiplied with ``weight``.
      kinds: kind of each modality that is not a feature: text, image, audio, video.
      num_classes: default: the largest class and one. Scores have none.
      class_names: in order; default for names: sorted.
      scores: integers are scores (stars, ages), not classes.
      allow_crossing: whether groups may stand in two splits; the tables then say so.
      card: to say more about the data (licence, noise, caution); its name, kinds, classes and groups win.

    Raises:
      UsageError: one line with what is wrong: NaN, an empty modality, lengths, labels, crossing groups.
    """
    if not streams:
        raise UsageError(f"{name} has no modality at all")
    if card is not None:
        num_classes, class_names, scores = card.num_classes, card.class_names, card.num_classes is None
        allow_crossing = allow_crossing or card.groups_cross
    labels = make_labels(name, target, num_classes=num_classes, class_names=class_names, scores=scores)
    classes, target = labels.num_classes is not None, labels.target
    kinds = {key: "feature" for key in streams} | dict(kinds or (card.kinds if card else {}))
    if unknown := sorted(set(kinds) - set(streams)) or sorted(set(kinds.values()) - set(KINDS)):
        raise UsageError(f"{name}: kinds names {unknown[0]!r}; modalities are {sorted(streams)}, kinds {KINDS}")
    packed = {}
    for key in sorted(streams):
        where = f"{name}: modality {key!r}"
        packed[key] = make_stream(where, streams[key], kinds[key])
        if len(packed[key].mask) != len(target):
            raise UsageError(f"{where} has {len(packed[key].mask)} examples, target has {len(target)}")
    try:
        groups = read_groups(group, len(target))
        codes = split_codes(split, groups, seed=seed, strata=target if classes and target.ndim == 1 else None)
        if not allow_crossing:
            _check_crossing(groups, codes, (card.group if card else group_name) if group is not None else "example")
        weights = _weights(weight, class_weight, target, codes, labels.num_classes)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    lacking: tuple[str, ...] = ()
    if classes and target.ndim == 1:
        called = labels.class_names or tuple(map(str, range(labels.num_classes or 0)))
        lacking = lacking_classes(target, codes, SPLITS, called)
        if lacking:
            warnings.warn(f"{name}: {'; '.join(lacking)}", stacklevel=2)
    if card is None:
        card = Card(
            name=name,
            description=f"{len(target)} examples of {', '.join(sorted(streams))}, given as arrays.",
            kinds=kinds,
            num_classes=labels.num_classes,
            class_names=labels.class_names,
            primary_metric=primary_metric or _primary(target, classes),
            group="example" if group is None else group_name,
            groups_cross=allow_crossing,
            caution="; ".join(lacking),
        )
    splits = make_splits(packed, target, renumber(groups), codes, weights)
    sizes = "/".join(str(splits[s].size) for s in SPLITS)
    dataset = check(Dataset(card=card, splits=splits, version="1", sha256="", split_id=f"{sizes} examples"))
    return dataclasses.replace(dataset, sha256=content_sha256(dataset.splits))


def _primary(target: np.ndarray, classes: bool) -> str:
    """The usual metric of such targets; see ``mmjax.evaluation.scores``."""
    if not classes:
        return "mae" if target.ndim == 1 else "scores_r2"
    return "accuracy" if target.ndim == 1 else "labels_f1_macro"


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
