"""The examples of the moving digits, and where in each the evidence is."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Columns
from mmjax.datasets.splits import split_groups

__all__ = ["CANVAS", "DIGIT", "INFORMATIVE", "VOCABULARY", "Truth", "read", "truth"]

CANVAS, DIGIT = 16, 8  # pixels a side
INFORMATIVE = ("even", "odd", "small", "large")
NOISE_WORDS = (
    "a", "the", "now", "here", "then", "slowly", "again", "moves", "over", "across", "paper", "window", "evening",
    "cloud", "river", "quiet", "yellow", "garden", "almost", "between",
)  # fmt: skip
VOCABULARY = (*INFORMATIVE, *NOISE_WORDS)
"""The word of each id."""


class Truth(NamedTuple):
    """Where the evidence of each example of a split is.

    Attributes:
      corner: ``[n, frames, 2]`` row and column of the digit's upper left pixel in each frame, -1 in padding; the digit
        fills ``DIGIT`` by ``DIGIT`` pixels from there.
      word: ``[n]`` position of the word that speaks.
    """

    corner: np.ndarray
    word: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """``[n, frames, 16, 16]`` bool: the pixels of the square that the digit fills."""
        place = np.arange(CANVAS) - self.corner[..., None]  # [n, frames, 2, 16] how far below and right of the corner
        within = (place >= 0) & (place < DIGIT) & (self.corner >= 0)[..., None]
        return within[..., 0, :, None] & within[..., 1, None, :]


def read(options: Any, folder: pathlib.Path | None) -> Columns:
    """Videos ``[t, 16, 16, 1]`` of bytes and sentences ``[t]`` of ids."""
    return {split: columns for split, (columns, _) in _make(options).items()}


def truth(**options: Any) -> dict[str, Truth]:
    """Where digit and informative word are in the examples of ``load("moving_digits", **options)``, by split.

    Raises:
      UsageError: an option that is not there, or a wrong value.
    """
    from mmjax.datasets.moving_digits import RECIPE

    return {split: answer for split, (_, answer) in _make(RECIPE.parse("moving_digits", options)).items()}


def _bounce(start: np.ndarray, step: np.ndarray, frames: int) -> np.ndarray:
    """Positions ``[frames, 2]`` of a point that moves by ``step`` a frame and bounces off the edges."""
    most = CANVAS - DIGIT
    place = (start + step * np.arange(frames)[:, None]) % (2 * most)
    return np.minimum(place, 2 * most - place)


def _make(options: Any) -> dict[str, tuple[dict[str, Any], Truth]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    number = np.repeat(np.arange(len(digits.target), dtype=np.int32), options.copies)
    target = digits.target[number].astype(np.int32)
    codes = split_groups(number, (0.6, 0.2, 0.2), seed=options.seed, strata=target)
    random = np.random.RandomState((options.seed, 1))
    videos, sentences, corners, words = [], [], [], []
    for picture, label in zip(digits.images[number] / 16, target):
        length = random.randint(max(1, options.frames - 2), options.frames + 1)
        step = random.randint(1, 4, size=2) * random.choice((-1, 1), size=2)
        corner = _bounce(random.randint(0, CANVAS - DIGIT + 1, size=2), step, length)
        clip = np.zeros((length, CANVAS, CANVAS, 1))
        for frame, (row, column) in zip(clip, corner):
            frame[row : row + DIGIT, column : column + DIGIT, 0] = picture
        clip = np.clip(clip + options.noise * random.standard_normal(clip.shape), 0, 1)
        videos.append(np.round(255 * clip).astype(np.uint8))
        count = random.randint((options.words + 1) // 2, options.words + 1)
        sentence = random.randint(len(INFORMATIVE), len(VOCABULARY), size=count)
        word = random.randint(count)
        sentence[word] = (label % 2, 2 + (label >= 5))[random.randint(2)]  # parity or size
        sentences.append(sentence.astype(np.int32))
        corners.append(np.concatenate([corner, np.full((options.frames - length, 2), -1)]).astype(np.int32))
        words.append(word)
    result = {}
    for code, split in enumerate(SPLITS):
        rows = np.flatnonzero(codes == code)
        columns = {
            "text": [sentences[i] for i in rows],
            "video": [videos[i] for i in rows],
            "target": target[rows],
            "group": number[rows],
        }
        answer = Truth(np.asarray([corners[i] for i in rows]), np.asarray([words[i] for i in rows], np.int32))
        result[split] = (columns, answer)
    return result
