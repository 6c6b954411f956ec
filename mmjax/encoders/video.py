"""Encoders of video: frames ``[batch, t, h, w, c]`` to tokens of width ``dim``."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.image import pixels
from mmjax.encoders.patches import GridPositions, TransformerStack, pad_axis, patchify
from mmjax.layers import Dense
from mmjax.stream import Reduction, Stream, masked_mean, pooled
from mmjax.typing import Dtype

__all__ = ["FrameVideo", "TubeletTransformer"]


class FrameVideo(nn.Module):
    """Encodes every frame alone, then models time: ``pool(temporal(frame_encoder(frames)))``.

    Attributes:
      dim: width of the result, that of the last of ``frame_encoder`` and ``temporal``.
      frame_encoder: an image encoder with one token per image, e.g. ``LeNet(dim)``.
      temporal: any ``(stream, *, train) -> stream`` over the frames' tokens: ``Recurrent(dim)``,
        ``TemporalConv(dim)``, ``FeatureTransformer(dim)``; None = the order of the frames does not matter.
      pool: how the tokens become one; None keeps them.
    """

    dim: int
    frame_encoder: nn.Module
    temporal: nn.Module | None = None
    pool: Reduction | None = masked_mean

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        tokens = self.frame_encoder(stream, train=train)
        if tokens.mask.shape != stream.mask.shape:
            raise ValueError(
                f"the frame encoder must give one token per frame, got {tokens.length} for {stream.length} frames: "
                f"use tokens=False"
            )
        if self.temporal is not None:
            tokens = self.temporal(tokens, train=train)
        if tokens.values.shape[-1] != self.dim:
            raise ValueError(f"{self.dim=}, but the parts of the encoder give tokens of {tokens.values.shape[-1]}")
        if self.pool is None:
            return tokens.zeroed
        return pooled(self.pool(tokens.values, tokens.mask), tokens.present)


class TubeletTransformer(nn.Module):
    """Transformer over tubelets, boxes of some frames by a patch (ViViT, Arnab et al. 2021: tubelets, model 1).

    All tubelets attend to all. A tubelet is real if and only if one of its frames is; absent frames in it are 0.
    Departures: positions are sines over time and learned over space (so that clips may be of any length), and the
    pooled token is the mean of the real tubelets. The size of the frames is fixed by the first call.

    Attributes:
      dim: width of the tokens; ``num_heads`` must divide it.
      tubelet_size: frames, height and width of a tubelet; the last two must divide those of the frames.
      tokens: False gives one token; True the tubelets, in order of time, then row by row.
    """

    dim: int
    tubelet_size: tuple[int, int, int] = (2, 8, 8)
    num_layers: int = 4
    num_heads: int = 4
    mlp_dim: int | None = None
    tokens: bool = False
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        frames = pixels(stream, self.dtype)
        depth, height, width = self.tubelet_size
        x, mask = pad_axis(frames.values, depth), pad_axis(frames.mask, depth)
        batch, steps = mask.shape[0], mask.shape[1] // depth
        patches = patchify(x.reshape(-1, *x.shape[2:]), height, width)
        places = patches.shape[1] * patches.shape[2]
        # [b, steps, depth, places, p] -> [b, steps, places, depth * p]: a tubelet is its frames' patches in order
        x = patches.reshape(batch, steps, depth, places, -1).swapaxes(2, 3).reshape(batch, steps, places, -1)
        x = GridPositions(name="positions")(Dense(self.dim, dtype=self.dtype, name="embed")(x))
        mask = jnp.repeat(mask.reshape(batch, steps, depth).any(-1), places, axis=1)
        stack = TransformerStack(
            self.dim, self.num_layers, self.num_heads, self.mlp_dim, self.dropout_rate, self.dtype, name="stack"
        )
        x = stack(x.reshape(batch, -1, self.dim), mask=mask, train=train)
        if self.tokens:
            return Stream(x, mask).zeroed
        return pooled(masked_mean(x, mask), mask.any(1))
