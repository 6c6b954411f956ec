"""Spoken digits (FSDD) with handwritten ones (MNIST), both made hard: an audio-visual digit set of this library.

It follows the recipe of AV-MNIST (Vielzeuf et al. 2018) but is not that set, and its numbers are not to be compared.
"""

import dataclasses

import numpy as np

from mmjax.datasets.base import Card
from mmjax.datasets.fsdd_digits.pairs import SAMPLES, SPEAKERS, read
from mmjax.datasets.recipe import Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "FOLDS", "RECIPE", "Options"]

FOLDS = tuple(range(SPEAKERS))
SIZES = (2000, 500, 500)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make.

    Attributes:
      fold: the test speaker, 0 to 5 (george, jackson, lucas, nicolas, theo, yweweler); the next one validates.
      sizes: pairs of train, validation and test, at most 2,000 / 500 / 500: a recording is used once.
      snr_db: recording over background noise of ESC-10, in decibels; None = no noise.
      image_energy: share of the images' variance that is left after their first principal components are removed.
      image_noise: standard deviation of Gaussian noise on the pixels.
      seed: of pairs and noise.

    The defaults leave room above either modality. Measured on the test speaker, one seed, 10 to 12 epochs: a LeNet on
    the images alone 74.8 % (fold 0; 92.0 without the pixel noise, 94.4 an RBF-SVM on clean images); a small CNN on
    32-band log-mel spectrograms alone 45.2, 67.6, 60.4 % (folds 0, 1, 3; fold 0 at 5 dB 37.6). Logistic regression on
    spectrograms of one length, folds 0 to 5: clean 59, 85, 37, 52, 80, 73, mean 64.2 %; at 10 dB mean 59.5 %.
    """

    fold: int = 0
    sizes: tuple[int, int, int] = SIZES
    snr_db: float | None = 10.0
    image_energy: float = 0.25
    image_noise: float = 0.2
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.sizes, list):
            object.__setattr__(self, "sizes", tuple(self.sizes))
        if self.fold not in FOLDS:
            raise UsageError(f"fsdd_digits: fold is one of {FOLDS}, the test speaker, got {self.fold!r}")
        if len(self.sizes) != 3 or not all(10 <= n <= most for n, most in zip(self.sizes, SIZES)):
            raise UsageError(f"fsdd_digits: sizes are three numbers from 10 to {SIZES}, got {self.sizes}")
        if not 0 < self.image_energy <= 1 or self.image_noise < 0:
            raise UsageError(
                f"fsdd_digits: image_energy is in (0, 1] and image_noise from 0 up, got {self.image_energy} and "
                f"{self.image_noise}"
            )


def _describe(options: Options) -> str:
    noise = "without noise" if options.snr_db is None else f"with ESC-10 background {options.snr_db:g} dB below it"
    return (
        f"Pairs of a spoken digit (FSDD, 8 kHz, cut or padded to {SAMPLES} samples, equal loudness, {noise}) and an "
        f"MNIST image of the same digit ({options.image_energy:.0%} of its variance left after the first principal "
        f"components are removed, Gaussian noise of s.d. {options.image_noise:g}). Speakers 4 / 1 / 1; recordings, "
        "images and background clips never cross splits. Chance and majority: 10 %."
    )


CARD = Card(
    name="fsdd_digits",
    description=_describe(Options()),
    kinds={"audio": "audio", "image": "image"},
    num_classes=10,
    class_names=tuple("0123456789"),
    group="recording",
    noise={
        "audio": "white noise, SNR 30 to -10 dB",
        "image": "pixels + N(0, severity^2)",
    },
    licence="FSDD: CC BY-SA 4.0; MNIST: commonly given as CC BY-SA 3.0; ESC-10: CC BY 3.0",
    source=(
        "github.com/Jakobovski/free-spoken-digit-dataset, commit 26eb9aa; MNIST (LeCun, Cortes & Burges); "
        "github.com/karolpiczak/ESC-10, commit 553c8f1 (Piczak, ACM MM 2015). Recipe after Vielzeuf et al., ECCV "
        "workshops 2018"
    ),
    caution="One test speaker: the interval speaks for that speaker only. Not AV-MNIST: never compare with its rows.",
)


def _card(options: Options) -> Card:
    changed = [
        f"{field.name} {getattr(options, field.name)}"
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    ]
    name = f"fsdd_digits ({', '.join(changed)})" if changed else CARD.name
    return dataclasses.replace(CARD, name=name, description=_describe(options))


def _builder() -> type:
    from mmjax.datasets.fsdd_digits.builder import Builder

    return Builder


_FILES = {
    "fsdd/fsdd_0of3.npz": "156885652547bd67044dddd12f547124195c4cb6b0ddb7f34112c3652a4aee83",
    "fsdd/fsdd_1of3.npz": "4782f3463bd85b1bd726646625ce4b2084f26ef1486624811137ce571bf3a8b7",
    "fsdd/fsdd_2of3.npz": "8999dbc0a66ceaaa1a7d5208a1451775ce4f71a0bb8e5f491b9f61860b4c9d9d",
    "mnist/mnist_train_0of3.npz": "42b647d2c623297f6aaf6767eea9479eff2ddc796eca397f605846b43d0a5454",
    "mnist/mnist_test.npz": "bb87fa7ccc1d97117ae4f2b54969392857de11a4d441c81a21cb46d98a851dc3",
}
_NOISE_FILES = {
    "esc10_8k/esc10_fold1.npz": "a81d11e7f205debb51886ba7bb60a2d3c051381c89dda6a9104bcd1cd8a926bd",
    "esc10_8k/esc10_fold2.npz": "7842e6b89342481da12685ca1302f29078a4e255fb0725dff1129ae59f49cab0",
    "esc10_8k/esc10_fold3.npz": "0d1d6d2ca9f71ed4f0b3bc2b20537adcf6440f8912b8966d81de0b9ff8cbf1fc",
    "esc10_8k/esc10_fold4.npz": "da4d15ef737bceb83f3fc49de897e26fa3533dd13fe5bd3fb8ed4307674ed69d",
    "esc10_8k/esc10_fold5.npz": "efd10e964bb9417d0e368ef1281e3aecede36b51d08c7f83bedb9ff34050acb8",
}

RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"speakers 4/1/1, fold {options.fold}, {'/'.join(map(str, options.sizes))} pairs",
    read=read,
    builder=_builder,
    files=lambda options: _FILES if options.snr_db is None else _FILES | _NOISE_FILES,
    fetch=(
        "Fetch github.com/Jakobovski/free-spoken-digit-dataset (commit 26eb9aa), the four MNIST idx files and, for the "
        "noise, github.com/karolpiczak/ESC-10 (commit 553c8f1), and run 'python -m "
        "mmjax.datasets.fsdd_digits.convert_fsdd RECORDINGS DIR/fsdd', '... convert_mnist MNIST DIR/mnist' and "
        "'... convert_esc10 ESC10 DIR/esc10_8k'."
    ),
    sequences=lambda options: {"audio": SAMPLES},
    decode={"audio": lambda values: values.astype(np.float32) / np.float32(32768)},
)
