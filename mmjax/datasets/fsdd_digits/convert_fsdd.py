"""The Free Spoken Digit Dataset out of its recordings, in the form that the builder reads.

python -m mmjax.datasets.fsdd_digits.convert_fsdd RECORDINGS OUT

``RECORDINGS`` is the folder ``recordings`` of github.com/Jakobovski/free-spoken-digit-dataset, commit 26eb9aa, with
``0_george_0.wav`` ... Run on the files of that commit, it gave arrays equal to those that the builder's checksums were
taken of.
"""

import pathlib
import sys
import wave

import numpy as np

from mmjax.datasets.converting import command, save
from mmjax.datasets.fsdd_digits.pairs import SAMPLE_RATE
from mmjax.errors import UsageError

__all__ = ["convert", "read_wave"]


def read_wave(path: pathlib.Path) -> np.ndarray:
    """Samples of a mono 16-bit file of 8 kHz."""
    try:
        with wave.open(str(path)) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if form != (1, 2, SAMPLE_RATE):
        raise UsageError(f"{path} has (channels, bytes, Hz) {form}, expected {(1, 2, SAMPLE_RATE)}")
    return np.frombuffer(content, "<i2").astype(np.int16)


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``fsdd_0of3.npz`` to ``fsdd_2of3.npz``, two speakers each, by speaker, digit and take.

    Raises:
      UsageError: no recordings, other than six speakers, or a file of another form.
    """
    paths = {tuple(path.stem.split("_")): path for path in original.glob("[0-9]_*_*.wav")}
    if odd := [path for key, path in paths.items() if len(key) != 3 or not key[2].isdigit()]:
        raise UsageError(f"{odd[0]} is not named DIGIT_SPEAKER_TAKE.wav")
    speakers = sorted({name for _, name, _ in paths})
    if len(speakers) != 6:
        raise UsageError(f"{original} must hold recordings 0_NAME_0.wav of six speakers, found {speakers}")
    clips = sorted((speakers.index(name), int(digit), int(take), path) for (digit, name, take), path in paths.items())
    files = {}
    for shard in range(3):
        chosen = [clip for clip in clips if clip[0] // 2 == shard]
        waves = [read_wave(path) for *_, path in chosen]
        files[f"fsdd_{shard}of3.npz"] = {
            "wave": np.concatenate(waves),
            "offset": np.cumsum([0, *map(len, waves)]).astype(np.int32),
            "label": np.asarray([digit for _, digit, _, _ in chosen], np.uint8),
            "speaker": np.asarray([speaker for speaker, _, _, _ in chosen], np.uint8),
            "take": np.asarray([take for _, _, take, _ in chosen], np.uint8),
            "speaker_name": np.asarray(speakers),
            "sample_rate": np.asarray(SAMPLE_RATE, np.int32),
        }
    return save(out, files)


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.fsdd_digits.convert_fsdd", "RECORDINGS", convert, sys.argv[1:]))
