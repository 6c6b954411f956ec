"""Encoders of video: frames ``[batch, t, h, w, c]`` to tokens of width ``dim``."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.image import pixels
from mmjax.encoders.patches import GridPositions, TransformerStack, pad_axis, patchify
from mmjax.encoders.stages import ALL, Step, count_stages, run_stages
from mmjax.layers import Dense, TransformerBlock
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

    Example:
      >>> video = Stream.of(jnp.ones((2, 5, 4, 4, 1)))
      >>> encoder = FrameVideo(4, LeNet(4, channels=(2,), hidden_dims=(), kernel_size=3))
      >>> tokens, _ = encoder.init_with_output(jax.random.key(0), video)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    dim: int
    frame_encoder: nn.Module
    temporal: nn.Module | None = None
    pool: Reduction | None = masked_mean

    @property
    def num_stages(self) -> int:
        """Those of the frame encoder, then time."""
        return (count_stages(self.frame_encoder) or 1) + 1

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def frames(i: int, stream: Stream) -> Stream:
            part = {"stages": slice(i, i + 1)} if count_stages(self.frame_encoder) else {}
            tokens = self.frame_encoder(stream, train=train, **part)
            if i + 2 == self.num_stages and tokens.mask.shape != stream.mask.shape:
                raise ValueError(
                    f"the frame encoder must give one token per frame, got {tokens.length} for {stream.length} "
                    f"frames: use tokens=False"
                )
            return tokens

        def time(tokens: Stream) -> Stream:
            if self.temporal is not None:
                tokens = self.temporal(tokens, train=train)
            if tokens.values.shape[-1] != self.dim:
                raise ValueError(f"{self.dim=}, but the parts of the encoder give tokens of {tokens.values.shape[-1]}")
            if self.pool is None:
                return tokens.zeroed
            return pooled(self.pool(tokens.values, tokens.mask), tokens.present)

        steps: list[Step] = [*(functools.partial(frames, i) for i in range(self.num_stages - 1)), time]
        return run_stages(steps, stream, stages)


class TubeletTransformer(nn.Module):
    """Transformer over tubelets, boxes of some frames by a patch (ViViT, Arnab et al. 2021: tubelets, model 1).

    All tubelets attend to all. A tubelet is real if and only if one of its frames is; absent frames in it are 0.
    Departures: positions are sines over time and learned over space (so that clips may be of any length), and the
    pooled token is the mean of the real tubelets. The size of the frames is fixed by the first call.

    Attributes:
      dim: width of the tokens.
      tubelet_size: frames, height and width of a tubelet; the last two must divide those of the frames.
      block: template of the layers.
      tokens: False gives one token; True the tubelets, in order of time, then row by row.
      dropout_rate: of the tokens that enter the first block.

    Example:
      >>> video = Stream.of(jnp.ones((2, 4, 4, 4, 1)))
      >>> encoder = TubeletTransformer(dim=4, tubelet_size=(2, 2, 2), num_layers=1, tokens=True)
      >>> tokens, _ = encoder.init_with_output(jax.random.key(0), video)
      >>> tokens.values.shape
      (2, 8, 4)
    """

    dim: int
    tubelet_size: tuple[int, int, int] = (2, 8, 8)
    num_layers: int = 4
    block: nn.Module = TransformerBlock()
    tokens: bool = False
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The tubelets, each block, the tokens."""
        return self.num_layers + 2

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def embed(stream: Stream) -> Stream:
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
            return Stream(x.reshape(batch, -1, self.dim), mask)

        def end(stream: Stream) -> Stream:
            stream = norm(stream)
            if self.tokens:
                return stream.zeroed
            return pooled(masked_mean(stream.values, stream.mask), stream.present)

        stack = TransformerStack(self.num_layers, self.block, self.dropout_rate, name="stack")
        enter, *blocks, norm = stack.steps(train=train)
        return run_stages([lambda stream: enter(embed(stream)), *blocks, end], stream, stages)
