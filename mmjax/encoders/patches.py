"""What the patch transformers of images, spectrograms and videos share: positions on a grid and a stack of blocks."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.stages import Step
from mmjax.layers import LayerNorm, TransformerBlock, sinusoidal_positions
from mmjax.stream import Stream
from mmjax.typing import Array, Bool, Float, Shaped, checked

__all__ = ["GridPositions", "TransformerStack", "pad_axis", "patchify"]


@checked
def patchify(x: Shaped[Array, "b h w c"], height: int, width: int) -> Shaped[Array, "b i j d"]:
    """Non-overlapping patches, each flattened row by row: ``d = height * width * c``.

    Raises:
      ValueError: the patch does not divide the image.
    """
    b, h, w, c = x.shape
    if h % height or w % width:
        raise ValueError(f"patches of {height} by {width} do not tile an image of {h} by {w}: choose divisors")
    grid = x.reshape(b, h // height, height, w // width, width, c).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(b, h // height, w // width, height * width * c)


def pad_axis(x: Any, multiple: int) -> Any:
    """Zeros (False) at the end of axis 1 until ``multiple`` divides its length."""
    missing = -x.shape[1] % multiple
    return jnp.pad(x, [(0, missing) if axis == 1 else (0, 0) for axis in range(x.ndim)]) if missing else x


class GridPositions(nn.Module):
    """Adds positions to tokens on a grid ``[b, time, place, d]``: sines over time, a learned vector per place.

    Time is unbounded, so a model runs on longer clips than it was trained on; the number of places is fixed by the
    first call.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b t n d"]) -> Float[Array, "b t n d"]:
        places = self.param("places", nn.initializers.normal(0.02), x.shape[-2:], jnp.float32)
        times = sinusoidal_positions(x.shape[1], x.shape[-1])
        return x + (times[:, None] + places).astype(x.dtype)


class TransformerStack(nn.Module):
    """Blocks and a final norm over tokens ``[b, n, dim]``; padded tokens are never attended to.

    Attributes:
      block: template of the layers.
      dropout_rate: of the tokens that enter.
    """

    num_layers: int = 4
    block: nn.Module = TransformerBlock()
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n dim"], stage: int, *, mask: Bool[Array, "b n"], train: bool = False
    ) -> Float[Array, "b n dim"]:
        """The tokens after one stage: 0 = dropout, 1 to ``num_layers`` = a block, the one after them the norm."""
        if stage == 0:
            return nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        if stage > self.num_layers:
            return LayerNorm(name="norm")(x)
        return self.block.clone(name=f"block_{stage - 1}", parent=self)(x, mask=mask, train=train)

    @nn.nowrap
    def steps(self, *, train: bool) -> list[Step]:
        """Its stages, ``num_layers + 2``, over streams of tokens: ``[b, n, d]``, or ``[b, t, n, d]`` with a mask
        ``[b, t]``, where the tokens of each of the ``t`` attend to one another.
        """

        def step(stage: int, stream: Stream) -> Stream:
            x, mask = stream.values, stream.mask
            tokens = x.reshape(-1, *x.shape[-2:])
            real = mask if x.ndim == 3 else jnp.broadcast_to(mask.reshape(-1, 1), tokens.shape[:2])
            return stream.replace(values=self(tokens, stage, mask=real, train=train).reshape(x.shape))

        return [functools.partial(step, stage) for stage in range(self.num_layers + 2)]
