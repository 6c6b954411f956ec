"""A sequence as one vector: means, deviations and quantiles of its real items, whole and in thirds.

What a linear model on such vectors reaches is the least that a network on the sequences themselves must reach.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.stream import Stream, where_mask
from mmjax.typing import Float, Shaped

__all__ = ["has_sequences", "item_statistics", "statistics"]

QUANTILES = (0.1, 0.5, 0.9)
PARTS = 4  # the whole sequence and its thirds
FITTED = 5_000  # items at most from which principal components are found
FRAME, HOP, BANDS = 512, 256, 24  # of waveforms


def has_sequences(dataset: Dataset) -> bool:
    """Whether an example holds several items of some modality and has one class or score of its own."""
    train = dataset.splits["train"]
    if isinstance(train.target, Stream) or np.ndim(train.target) != 1:
        return False
    return train.index.ndim == 1 and any(np.prod(s.mask.shape[1:]) > 1 for s in train.streams.values())


def item_statistics(items: Shaped[np.ndarray, "length d"]) -> Float[np.ndarray, " features"]:
    """Mean, standard deviation and three quantiles (0.1, 0.5, 0.9) of each of ``d`` numbers over the items, then over
    each third of them; thirds of few items share some. ``20 d`` numbers.
    """
    count = len(items)
    parts = [items] + [items[count * k // 3 : -(-count * (k + 1) // 3)] for k in range(3)]
    return np.concatenate(
        [[part.mean(0), part.std(0), *np.quantile(part, QUANTILES, axis=0)] for part in parts]
    ).ravel()


def statistics(dataset: Dataset, names: Iterable[str] | None = None, *, most: int = 1280) -> Dataset:
    """A view: each modality as one vector per example ``[n, 1, features]``; an absent one stays absent.

    Sequences of numbers become their ``item_statistics``; pictures are read as numbers, waveforms first become log
    energies of 24 bands per frame, and ids become the share that each id has of the example (a bag of words). Vectors
    and single pictures stay what they are. Items of so many numbers that there would be more than ``most`` features are
    first replaced by their first principal components, those of the real items of train.

    Args:
      names: modalities; default: all.
      most: features at most of one modality; of ids the most frequent in train.

    Raises:
      UsageError: an unknown modality, or fewer than 20 features.
    """
    if most < PARTS * (len(QUANTILES) + 2):
        raise UsageError(f"statistics of an item's number are {PARTS * (len(QUANTILES) + 2)} features, got {most=}")
    names = dataset.streams if names is None else tuple(names)
    if unknown := [name for name in names if name not in dataset.streams]:
        raise UsageError(f"{dataset.card.name} has no modality {unknown[0]!r}; it has {', '.join(dataset.streams)}")
    splits = {split: dict(batch.streams) for split, batch in dataset.splits.items()}
    weight = dataset.splits["train"].weight
    for name in names:
        kind = dataset.card.kinds[name]
        flat = {split: _as_items(streams[name], kind) for split, streams in splits.items()}
        train, longest = flat["train"], max(stream.mask.shape[1] for stream in flat.values())
        seen = train.values[train.mask & where_mask(weight > 0, train.mask)]
        make = _bag(seen, most) if seen.ndim == 1 else _vector(seen, longest, most)
        width = len(make(seen[:1]))
        for split, stream in flat.items():
            splits[split][name] = _per_example(stream, make, width)
    return dataclasses.replace(
        dataset,
        splits={split: batch.replace(streams=splits[split]) for split, batch in dataset.splits.items()},
        card=dataclasses.replace(dataset.card, kinds={**dataset.card.kinds, **dict.fromkeys(names, "feature")}),
    )


def _as_items(stream: Stream, kind: str) -> Stream:
    """Items as flat vectors ``[n, length, d]`` (ids: ``[n, length]``), inner sequences joined to one."""
    values, mask = np.asarray(stream.values), np.asarray(stream.mask)
    item = values.shape[mask.ndim :]
    values, mask = values.reshape(len(values), -1, *item), mask.reshape(len(mask), -1)
    if kind == "text" and not item and values.dtype.kind in "iu":
        return Stream(values, mask)
    values = values.astype(np.float32) / np.float32(255 if values.dtype == np.uint8 else 1)
    values = np.where(where_mask(mask, values), values, np.float32(0))
    if kind == "audio" and not item and mask.shape[1] >= FRAME:
        return _log_bands(values, mask)
    return Stream(values.reshape(*mask.shape, -1), mask)


def _log_bands(values: np.ndarray, mask: np.ndarray) -> Stream:
    """Log energies of bands that widen with frequency, per frame of a waveform; a frame is real where its centre is."""
    frames = np.lib.stride_tricks.sliding_window_view(values, FRAME, axis=1)[:, ::HOP]
    edges = np.unique(np.geomspace(2, FRAME // 2, BANDS + 1).astype(int))
    bands = []
    for frame in np.moveaxis(frames, 1, 0):  # frame by frame: the spectra of all at once are large
        power = np.abs(np.fft.rfft(frame * np.hanning(FRAME))) ** 2
        bands.append(np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-6))
    real = mask[:, FRAME // 2 :: HOP][:, : len(bands)].copy()
    real[:, 0] |= mask.any(1)  # shorter than half a frame, and there all the same
    return Stream(np.stack(bands, 1).astype(np.float32), real)


def _bag(train_ids: np.ndarray, most: int) -> Callable[[np.ndarray], np.ndarray]:
    """The share of each of the most frequent ids."""
    ids, counts = np.unique(train_ids, return_counts=True)
    vocabulary = np.sort(ids[np.argsort(-counts, kind="stable")[:most]])

    def shares(items: np.ndarray) -> np.ndarray:
        place = np.searchsorted(vocabulary, items).clip(0, len(vocabulary) - 1)
        return np.bincount(place[vocabulary[place] == items], minlength=len(vocabulary)) / len(items)

    return shares


def _vector(train_items: np.ndarray, length: int, most: int) -> Callable[[np.ndarray], np.ndarray]:
    """The statistics of an example's items, or its only item, after a projection where the items are too wide."""
    per_number = 1 if length == 1 else PARTS * (len(QUANTILES) + 2)
    reduce: Callable[[np.ndarray], Any] = np.asarray
    if train_items.shape[1] * per_number > most:
        from sklearn.decomposition import PCA

        some = train_items[np.random.RandomState(0).permutation(len(train_items))[:FITTED]]
        reduce = PCA(min(most // per_number, *some.shape), random_state=0).fit(some).transform
    return lambda items: reduce(items)[0] if length == 1 else item_statistics(reduce(items))


def _per_example(stream: Stream, make: Callable[[np.ndarray], np.ndarray], width: int) -> Stream:
    present = stream.mask.any(1)
    values = np.zeros((len(present), 1, width), np.float32)
    for number in np.flatnonzero(present):
        values[number, 0] = make(stream.values[number][stream.mask[number]])
    return Stream(values, present[:, None])
