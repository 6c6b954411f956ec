"""The pairs of ``fsdd_digits``: which recording goes with which image, and what is done to both."""

import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Columns

__all__ = ["SAMPLES", "SAMPLE_RATE", "SPEAKERS", "mix", "read", "remove_energy", "speakers_of"]

SAMPLE_RATE = 8000
SAMPLES = 6400  # 0.8 s: 61 of the 3,000 recordings are longer and are cut
SPEAKERS = 6
LOUDNESS = 0.05  # root mean square of every recording before noise: speakers recorded at levels that differ eightfold
NOISE_FOLDS = ((1, 2, 3), (4,), (5,))  # of ESC-10: a background clip never stands in two splits


def speakers_of(fold: int) -> tuple[tuple[int, ...], ...]:
    """Speakers of train, validation and test: the fold's number tests, the next one validates, the others train."""
    validation = (fold + 1) % SPEAKERS
    return tuple(s for s in range(SPEAKERS) if s not in (fold, validation)), (validation,), (fold,)


def read(options: Any, folder: pathlib.Path) -> Columns:
    """One recording with one image of the same digit; neither is used twice. The group is the recording."""
    recordings = _recordings(folder / "fsdd")
    images = _images(folder / "mnist", options.sizes, options.seed)
    noises = None if options.snr_db is None else _noises(folder / "esc10_8k")
    axes, columns = None, {}
    for code, split in enumerate(SPLITS):
        chosen = _by_class(recordings["label"], np.isin(recordings["speaker"], speakers_of(options.fold)[code]),
                           options.sizes[code], (options.seed, options.fold, code))  # fmt: skip
        label = recordings["label"][chosen]
        picture = _match(label, *images[code])
        if axes is None:  # the principal components of the training images alone
            axes = _axes(picture, options.image_energy)
        random = np.random.RandomState((options.seed, options.fold, code, 1))
        picture = remove_energy(picture, *axes)
        picture += options.image_noise * random.standard_normal(picture.shape)
        waves = [_loud(recordings["wave"][i][:SAMPLES]) for i in chosen]
        if noises is not None:
            waves = [mix(wave, noises[code], options.snr_db, random) for wave in waves]
        columns[split] = {
            "image": picture.astype(np.float32).reshape(-1, 28, 28, 1),
            "audio": [np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16) for wave in waves],
            "target": label.astype(np.int32),
            "group": chosen.astype(np.int32),
        }
    return columns


def _recordings(folder: pathlib.Path) -> dict[str, Any]:
    result: dict[str, Any] = {"wave": [], "label": [], "speaker": []}
    for shard in range(3):
        with np.load(folder / f"fsdd_{shard}of3.npz") as file:
            result["wave"] += np.split(file["wave"], file["offset"][1:-1])
            result["label"].append(file["label"])
            result["speaker"].append(file["speaker"])
    return result | {key: np.concatenate(result[key]) for key in ("label", "speaker")}


def _images(folder: pathlib.Path, sizes: tuple[int, ...], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images in [0, 1] and labels for each split: train and validation share out training images, test has its own."""
    with np.load(folder / "mnist_train_0of3.npz") as file:
        pixels, label = file["image"], file["label"]
    order = np.random.RandomState(seed).permutation(len(label))
    cut = len(label) * 4 // 5
    parts = [(pixels[rows], label[rows]) for rows in (order[:cut], order[cut:])]
    with np.load(folder / "mnist_test.npz") as file:
        order = np.random.RandomState((seed, 1)).permutation(len(file["label"]))
        parts.append((file["image"][order], file["label"][order]))
    return parts


def _noises(folder: pathlib.Path) -> list[list[np.ndarray]]:
    clips: list[list[np.ndarray]] = []
    for folds in NOISE_FOLDS:
        clips.append([])
        for fold in folds:
            with np.load(folder / f"esc10_fold{fold}.npz") as file:
                clips[-1] += [wave[:length] for wave, length in zip(file["wave"], file["length"])]
    return clips


def _by_class(label: np.ndarray, allowed: np.ndarray, size: int, seed: tuple[int, ...]) -> np.ndarray:
    """``size`` of the allowed rows, as evenly over the classes as can be, shuffled."""
    random = np.random.RandomState(seed)
    rows = random.permutation(np.flatnonzero(allowed))
    rank = np.empty(len(rows), np.int64)  # the how-manieth of its class
    for value in np.unique(label[rows]):
        same = np.flatnonzero(label[rows] == value)
        rank[same] = np.arange(len(same))
    return random.permutation(rows[np.argsort(rank, kind="stable")[:size]])


def _match(label: np.ndarray, pixels: np.ndarray, image_label: np.ndarray) -> np.ndarray:
    """An image ``[784]`` in [0, 1] of the digit of each recording, the first ones of each class in order."""
    chosen = np.empty(len(label), np.int64)
    for value in np.unique(label):
        rows = np.flatnonzero(label == value)
        chosen[rows] = np.flatnonzero(image_label == value)[: len(rows)]
    return pixels[chosen].reshape(len(label), -1) / 255.0


def _axes(images: np.ndarray, energy: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and the first principal components that carry at least ``1 - energy`` of the variance."""
    mean = images.mean(0)
    if energy >= 1:
        return mean, np.zeros((images.shape[1], 0))
    variances, axes = np.linalg.eigh((images - mean).T @ (images - mean))
    share = np.cumsum(variances[::-1]) / variances.sum()
    count = int(np.searchsorted(share, 1 - energy)) + 1
    return mean, axes[:, ::-1][:, :count]


def remove_energy(images: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Takes the given principal components out of images ``[n, pixels]``, as AV-MNIST does."""
    if not axes.shape[1]:
        return images.copy()
    centred = images - mean
    return centred - (centred @ axes) @ axes.T


def _loud(wave: np.ndarray) -> np.ndarray:
    wave = wave.astype(np.float64)
    return wave * (LOUDNESS / max(np.sqrt(np.mean(wave**2)), 1e-9))


def mix(wave: np.ndarray, noises: list[np.ndarray], snr_db: float, random: np.random.RandomState) -> np.ndarray:
    """The recording with a stretch of a background clip ``snr_db`` below it (power over power, over its length).

    A stretch that is nearly silent, which would have to be raised without bound, is drawn again.
    """
    for _ in range(20):
        noise = noises[random.randint(len(noises))].astype(np.float64)
        noise = np.tile(noise, -(-len(wave) // len(noise)))
        start = random.randint(len(noise) - len(wave) + 1)
        stretch = noise[start : start + len(wave)]
        if np.mean(stretch**2) > 0.1 * np.mean(noise**2):
            break
    gain = np.sqrt(np.mean(wave**2) / max(np.mean(stretch**2), 1e-9) / 10 ** (snr_db / 10))
    return wave + gain * stretch
