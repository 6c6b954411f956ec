"""Encoders of audio: a waveform ``[batch, samples]`` or spectrogram frames ``[batch, frames, bands]`` to tokens.

With ``frontend=LogMel(...)`` an encoder takes waveforms; with ``frontend=None`` it takes frames.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.convolution import ConvPool
from mmjax.encoders.patches import GridPositions, TransformerStack, pad_axis, patchify
from mmjax.encoders.stages import ALL, Step, run_stages
from mmjax.layers import Dense, LayerNorm, TransformerBlock
from mmjax.stream import Stream, masked_mean, pooled
from mmjax.typing import Dtype

__all__ = ["AudioTransformer", "SpectrogramEncoder"]


def _spectrogram(stream: Stream, frontend: nn.Module | None, dtype: Dtype | None, train: bool) -> Stream:
    """Frames ``[batch, frames, bands]`` as floats, zero in the padding."""
    if frontend is not None:
        stream = frontend(stream, train=train)
    values, mask = stream.values, stream.mask
    if values.ndim != 3 or mask.ndim != 2 or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"spectrogram frames are floats [batch, frames, bands] with a mask [batch, frames], got {values.dtype} "
            f"{values.shape} and {mask.shape}; for waveforms give frontend=LogMel(...)"
        )
    return stream.replace(values=values.astype(dtype or values.dtype)).zeroed


def _pooled_or_tokens(tokens: Any, mask: Any, keep: bool) -> Stream:
    return Stream(tokens, mask).zeroed if keep else pooled(masked_mean(tokens, mask), mask.any(1))


class SpectrogramEncoder(nn.Module):
    """Convolutions over time and frequency, in the manner of VGGish (Hershey et al. 2017), of any length.

    Each stage is a 3 by 3 convolution, 2 by 2 maximum, norm and rectifier; then the bands of a time step are joined and
    projected. Departures: small; LayerNorm over channels, which sees one place at a time and so never the padding. A
    step is real if and only if one of the frames pooled into it is; results do not depend on how much padding follows.

    Attributes:
      dim: width of the tokens.
      frontend: ``LogMel(...)`` for waveforms; None for frames.
      channels: feature maps of each stage; a stage halves time and frequency (an odd band at the top is dropped).
      tokens: False gives one token, the mean over time; True one per time step, ``frames / 2 ** stages`` rounded up.

    Example:
      >>> frames = Stream.of(jnp.ones((2, 10, 8)))
      >>> tokens, _ = SpectrogramEncoder(dim=4, channels=(2,)).init_with_output(jax.random.key(0), frames)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    dim: int
    frontend: nn.Module | None = None
    channels: Sequence[int] = (16, 32, 64)
    kernel_size: int = 3
    tokens: bool = False
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """Each convolution (items ``(bands, channels)``), the tokens."""
        return len(self.channels) + 1

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def begin(stream: Stream) -> Stream:
            frames = _spectrogram(stream, self.frontend, self.dtype, train)
            if frames.values.shape[-1] < 2 ** len(self.channels):
                raise ValueError(
                    f"{len(self.channels)} stages need {2 ** len(self.channels)} bands, got {frames.values.shape[-1]}"
                )
            return frames.replace(values=frames.values[..., None])

        def convolve(i: int, stream: Stream) -> Stream:
            stream = stream if i else begin(stream)
            x, mask = pad_axis(stream.values, 2), pad_axis(stream.mask, 2)  # pooling must not drop a last real frame
            x = ConvPool(self.channels[i], self.kernel_size, dtype=self.dtype, name=f"conv_{i}")(x)
            x = nn.relu(LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x))
            # the bias and the norm fill the padding, which the next convolution must not see
            return Stream(x, mask.reshape(mask.shape[0], -1, 2).any(-1)).zeroed

        def end(stream: Stream) -> Stream:
            stream = stream if self.channels else begin(stream)
            x = stream.values.reshape(*stream.mask.shape, -1)
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
            x = Dense(self.dim, dtype=self.dtype, name="out")(x)
            return _pooled_or_tokens(x, stream.mask, self.tokens)

        steps: list[Step] = [*(functools.partial(convolve, i) for i in range(len(self.channels))), end]
        return run_stages(steps, stream, stages)


class AudioTransformer(nn.Module):
    """Transformer over patches of the spectrogram (AST: Gong et al. 2021).

    Departures: patches do not overlap, positions are sines over time and learned over frequency (so that clips may be
    of any length), and the pooled token is the mean of the real patches. A patch is real if and only if one of its
    frames is; absent frames in it are 0.

    Attributes:
      dim: width of the tokens.
      frontend: ``LogMel(...)`` for waveforms; None for frames.
      patch_size: frames and bands of a patch; the bands must divide those of the spectrogram.
      block: template of the layers.
      tokens: False gives one token; True the patch tokens, in order of time, then of frequency.
      dropout_rate: of the tokens that enter the first block.

    Example:
      >>> frames = Stream.of(jnp.ones((2, 10, 8)))
      >>> encoder = AudioTransformer(dim=4, patch_size=(5, 4), num_layers=1, tokens=True)
      >>> tokens, _ = encoder.init_with_output(jax.random.key(0), frames)
      >>> tokens.values.shape
      (2, 4, 4)
    """

    dim: int
    frontend: nn.Module | None = None
    patch_size: tuple[int, int] = (16, 16)
    num_layers: int = 4
    block: nn.Module = TransformerBlock()
    tokens: bool = False
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The patches, each block, the tokens."""
        return self.num_layers + 2

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def embed(stream: Stream) -> Stream:
            frames = _spectrogram(stream, self.frontend, self.dtype, train)
            x = patchify(pad_axis(frames.values, self.patch_size[0])[..., None], *self.patch_size)
            mask = pad_axis(frames.mask, self.patch_size[0])
            mask = mask.reshape(mask.shape[0], -1, self.patch_size[0]).any(-1)
            mask = jnp.repeat(mask, x.shape[2], axis=1)
            x = GridPositions(name="positions")(Dense(self.dim, dtype=self.dtype, name="embed")(x))
            return Stream(x.reshape(x.shape[0], -1, self.dim), mask)

        def end(stream: Stream) -> Stream:
            stream = norm(stream)
            return _pooled_or_tokens(stream.values, stream.mask, self.tokens)

        stack = TransformerStack(self.num_layers, self.block, self.dropout_rate, name="stack")
        enter, *blocks, norm = stack.steps(train=train)
        return run_stages([lambda stream: enter(embed(stream)), *blocks, end], stream, stages)
