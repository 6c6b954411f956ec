"""Sound files as waveforms of one rate, mono, by libsndfile (wav, flac, ogg, mp3) and SciPy's resampling."""

import functools
import io
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.raw.files import read_files
from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["read_sound", "read_sounds"]


def read_sounds(
    cells: Sequence[Any], rate: int, seconds: float, folder: pathlib.Path, place: Callable[[int], str]
) -> list[np.ndarray | None]:
    """Waveforms ``[samples]`` float32 in [-1, 1], None where missing.

    Args:
      cells: paths, bytes, or pairs ``(samples, rate)``.
      rate: of the result, in Hz.
      seconds: what a longer sound is cut to.
      folder: of the paths.
      place: names a row.

    Raises:
      UsageError: one line with the files that cannot be read, or a wrong rate.
    """
    if rate < 1 or seconds <= 0:
        raise UsageError(f"a rate in Hz and a length in seconds are above 0, got {rate} and {seconds}")
    read = functools.partial(read_sound, rate=rate, seconds=seconds)
    return read_files(cells, folder, place, read, "sound")


def read_sound(sound: Any, *, rate: int, seconds: float) -> np.ndarray:
    """One waveform: the mean of its channels, at ``rate`` Hz by a polyphase filter, cut to ``seconds``.

    Raises:
      ValueError: no samples, or NaN among them; libsndfile raises errors of its own.
    """
    with extra():
        import soundfile
        from scipy.signal import resample_poly

    if isinstance(sound, tuple):
        samples, source_rate = np.asarray(sound[0], np.float32), int(sound[1])
    else:
        source = io.BytesIO(sound) if isinstance(sound, bytes) else sound
        with soundfile.SoundFile(source) as file:
            source_rate = file.samplerate
            samples = file.read(math.ceil(seconds * source_rate), dtype="float32", always_2d=True)
    if samples.ndim == 2:
        samples = samples.mean(1)
    if not samples.size or not np.isfinite(samples).all():
        raise ValueError("it holds no samples" if not samples.size else "it holds NaN or infinity")
    if source_rate != rate:
        common = math.gcd(rate, source_rate)
        samples = resample_poly(samples, rate // common, source_rate // common)
    return np.asarray(samples[: math.ceil(seconds * rate)], np.float32)
