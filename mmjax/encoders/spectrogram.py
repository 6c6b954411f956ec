"""Log-mel spectrograms computed in JAX from the waveform; a mask of samples becomes a mask of frames.

Conventions are those of ``librosa.feature.melspectrogram`` (McFee et al. 2015): periodic Hann window, zeros beyond the
ends, power spectrum, triangular filters on Slaney's mel scale with unit area (Slaney 1998, Auditory Toolbox).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UsageError
from mmjax.stream import Stream, apply_mask, where_mask
from mmjax.typing import Array, Bool, Dtype, Float, checked

__all__ = [
    "LogMel",
    "cut_frames",
    "float_samples",
    "frame_mask",
    "log_mel_spectrogram",
    "mel_filterbank",
    "mel_spectrogram",
]

_KNEE_HZ, _HZ_PER_MEL, _LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27  # Slaney: linear below 1 kHz, then logarithmic


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    above = _KNEE_HZ / _HZ_PER_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _HZ_PER_MEL, above)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    knee = _KNEE_HZ / _HZ_PER_MEL
    return np.where(mel < knee, mel * _HZ_PER_MEL, _KNEE_HZ * np.exp(_LOG_STEP * (mel - knee)))


def mel_filterbank(
    sample_rate: int | float, n_fft: int, n_mels: int, *, fmin: int | float = 0.0, fmax: int | float | None = None
) -> Float[np.ndarray, "bins n_mels"]:
    """Triangles that are equally spaced in mel and of unit area in Hz: ``[1 + n_fft // 2, n_mels]``, in 1 / Hz.

    Args:
      sample_rate: in Hz.
      fmin: lower edge of the lowest filter, in Hz.
      fmax: upper edge of the highest, in Hz; None = half the sample rate.

    Raises:
      ValueError: edges out of order or beyond half the sample rate, or a filter so narrow that no bin falls into it.
    """
    fmax = sample_rate / 2 if fmax is None else fmax
    if not 0 <= fmin < fmax <= sample_rate / 2:
        raise ValueError(f"need 0 <= {fmin=} < {fmax=} <= {sample_rate / 2} Hz, half the sample rate")
    lowest, highest = _hz_to_mel(np.array([fmin, fmax], np.float64))
    edges = _mel_to_hz(np.linspace(lowest, highest, n_mels + 2))
    bins = np.arange(1 + n_fft // 2)[:, None] * (sample_rate / n_fft)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    if not bank.any(0).all():
        empty = int(np.argmin(bank.any(0)))
        raise ValueError(f"mel filter {empty} of {n_mels=} holds no bin of {n_fft=}: use fewer filters or a longer FFT")
    return bank.astype(np.float32)


def float_samples(waveforms: Any) -> Any:
    """Waveforms ``[batch, samples]`` as floating numbers: int16 becomes [-1, 1), floats are taken as they are.

    Raises:
      UsageError: another shape, or integers other than int16.

    Example:
      >>> float_samples(jnp.array([[16384, -32768]], jnp.int16)).tolist()
      [[0.5, -1.0]]
    """
    if waveforms.ndim != 2:
        raise UsageError(f"a waveform is [batch, samples], got {waveforms.shape}")
    if waveforms.dtype == jnp.int16:
        return waveforms.astype(jnp.float32) / 2**15
    if not jnp.issubdtype(waveforms.dtype, jnp.floating):
        raise UsageError(f"samples are int16 or floating, got {waveforms.dtype}")
    return waveforms


def cut_frames(waveform: Float[Array, "b s"], n_fft: int, hop_length: int, count: int) -> Float[Array, "b f n"]:
    """Overlapping frames by slices of whole hops: no gather, whose gradient would be a slow scatter.

    Example:
      >>> cut_frames(jnp.arange(5.0)[None], 3, 2, 2)[0].tolist()
      [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
    """
    hops = -(-n_fft // hop_length)
    needed = (count + hops - 1) * hop_length
    waveform = jnp.pad(waveform, ((0, 0), (0, max(0, needed - waveform.shape[1]))))[:, :needed]
    chunks = waveform.reshape(waveform.shape[0], -1, hop_length)
    return jnp.concatenate([chunks[:, i : i + count] for i in range(hops)], axis=-1)[..., :n_fft]


@checked
def mel_spectrogram(
    waveform: Float[Array, "b s"],
    *,
    sample_rate: int | float = 16_000,
    n_fft: int = 512,
    hop_length: int = 160,
    win_length: int | None = None,
    n_mels: int = 64,
    fmin: int | float = 0.0,
    fmax: int | float | None = None,
    center: bool = True,
) -> Float[Array, "b f n_mels"]:
    """Power in mel bands of every frame, in float32.

    Args:
      waveform: finite; zero its padding first.
      sample_rate: in Hz.
      n_fft: length of the Fourier transform, in samples.
      hop_length: distance of frames, in samples.
      win_length: length of the Hann window, in the middle of the transform; None = ``n_fft``.
      fmin: in Hz; see ``mel_filterbank``, also for ``fmax``.
      center: True puts the middle of frame ``i`` at sample ``i * hop_length``, with zeros beyond the ends, and gives
        ``1 + s // hop_length`` frames; False puts its beginning there: ``1 + (s - n_fft) // hop_length``.

    Raises:
      ValueError: a window longer than the transform, a hop below 1, or (not centred) fewer samples than one frame.
    """
    count = _frame_count(waveform.shape[1], n_fft, hop_length, center)
    win_length = n_fft if win_length is None else win_length
    if not 0 < win_length <= n_fft:
        raise ValueError(f"{win_length=} must be between 1 and {n_fft=}")
    window = np.zeros(n_fft)
    left = (n_fft - win_length) // 2
    window[left : left + win_length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
    waveform = waveform.astype(jnp.float32)  # there is no Fourier transform in bfloat16
    if center:
        waveform = jnp.pad(waveform, ((0, 0), (n_fft // 2, n_fft // 2)))
    frames = cut_frames(waveform, n_fft, hop_length, count) * window.astype(np.float32)
    spectrum = jnp.fft.rfft(frames, axis=-1)
    power = spectrum.real**2 + spectrum.imag**2  # not abs: its gradient at 0 is NaN
    bank = mel_filterbank(sample_rate, n_fft, n_mels, fmin=fmin, fmax=fmax)
    return jnp.matmul(power, bank, precision=jax.lax.Precision.HIGHEST)


@checked
def log_mel_spectrogram(waveform: Float[Array, "b s"], *, floor: float = 1e-10, **settings) -> Float[Array, "b f m"]:
    """Natural logarithm of ``mel_spectrogram(waveform, **settings)``, whose values below ``floor`` are raised to it.

    10 / ln 10 times this is ``librosa.power_to_db(..., ref=1, amin=floor, top_db=None)``.
    """
    return jnp.log(jnp.maximum(mel_spectrogram(waveform, **settings), floor))


@checked
def frame_mask(
    mask: Bool[Array, "b s"], *, n_fft: int = 512, hop_length: int = 160, center: bool = True
) -> Bool[Array, "b f"]:
    """Which frames are real, given which samples are.

    Every sample belongs to one frame, the last that a clip ending with this sample would have; a frame is real if and
    only if one of its samples is. So a padded clip has exactly the real frames that it has alone, whatever follows it,
    a clip with any real sample has at least one (also one shorter than a frame), and a hole in the samples is a hole
    in the frames.

    Raises:
      ValueError: a hop below 1, or (not centred) fewer samples than one frame.
    """
    count = _frame_count(mask.shape[1], n_fft, hop_length, center)
    if center:
        owned = jnp.pad(mask, ((0, 0), (1, 0)), mode="edge")  # the last sample of a hop already has the next frame
    else:
        early, owned = mask[:, : n_fft - 1].any(1), mask[:, n_fft - 1 :]
        owned = owned.at[:, 0].set(owned[:, 0] | early)
    owned = jnp.pad(owned, ((0, 0), (0, count * hop_length - owned.shape[1])))
    return owned.reshape(mask.shape[0], count, hop_length).any(-1)


def _frame_count(samples: int, n_fft: int, hop_length: int, center: bool) -> int:
    if hop_length < 1:
        raise ValueError(f"{hop_length=} must be at least 1 sample")
    if not center and samples < n_fft:
        raise ValueError(f"{samples} samples are shorter than one frame of {n_fft=}: pad them, or use center=True")
    return 1 + (samples if center else samples - n_fft) // hop_length


class LogMel(nn.Module):
    """Waveform stream ``[batch, samples]`` to log-mel frames ``[batch, frames, n_mels]``; no parameters.

    Integer samples (int16) become float32 in [-1, 1). Computed in float32; the result has the type of the input
    (float32 for integers) or ``dtype``. ``frame_mask`` says which frames are real; the others are 0.

    Attributes:
      sample_rate: in Hz; ``n_fft``, ``hop_length`` and ``win_length`` are in samples (None: a hop of 10 ms, a window of
        25 ms, at most ``n_fft``).
      standardize: whether each clip's real frames get mean 0 and variance 1, over frames and bands together, which
        removes the loudness of the recording; statistics never see padding.
      floor: power below it is raised to it before the logarithm.

    Example:
      >>> waves = Stream.of(jnp.ones((2, 8_000)))
      >>> frames = LogMel(sample_rate=8_000, n_mels=32).apply({}, waves)
      >>> frames.values.shape
      (2, 101, 32)
    """

    sample_rate: int | float = 16_000
    n_mels: int = 64
    n_fft: int = 512
    hop_length: int | None = None
    win_length: int | None = None
    fmin: int | float = 0.0
    fmax: int | float | None = None
    center: bool = True
    standardize: bool = True
    floor: float = 1e-10
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        values = float_samples(stream.values)
        hop = round(self.sample_rate * 0.010) if self.hop_length is None else self.hop_length
        window = min(self.n_fft, round(self.sample_rate * 0.025)) if self.win_length is None else self.win_length
        mask = frame_mask(stream.mask, n_fft=self.n_fft, hop_length=hop, center=self.center)
        frames = log_mel_spectrogram(
            apply_mask(values, stream.mask),
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            hop_length=hop,
            win_length=window,
            n_mels=self.n_mels,
            fmin=self.fmin,
            fmax=self.fmax,
            center=self.center,
            floor=self.floor,
        )
        if self.standardize:
            frames = _standardized(frames, mask)
        return Stream(frames.astype(self.dtype or values.dtype), mask).zeroed


def _standardized(frames: Float[Array, "b f m"], mask: Bool[Array, "b f"]) -> Float[Array, "b f m"]:
    """Mean 0 and variance 1 over a clip's real frames and bands; silence stays finite."""
    count = where_mask(jnp.maximum(mask.sum(1) * frames.shape[-1], 1), frames)
    centred = frames - apply_mask(frames, mask).sum((1, 2), keepdims=True) / count
    variance = (apply_mask(centred, mask) ** 2).sum((1, 2), keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + 1e-5)
