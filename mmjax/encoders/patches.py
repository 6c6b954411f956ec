"""What the patch transformers of images, spectrograms and videos share: positions on a grid and a stack of blocks."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers import LayerNorm, TransformerBlock, sinusoidal_positions
from mmjax.typing import Array, Bool, Dtype, Float, Shaped, checked

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
    """Pre-norm blocks and a final norm over tokens ``[b, n, dim]``; padded tokens are never attended to."""

    dim: int
    num_layers: int = 4
    num_heads: int = 4
    mlp_dim: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n dim"], *, mask: Bool[Array, "b n"], train: bool = False
    ) -> Float[Array, "b n dim"]:
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        for i in range(self.num_layers):
            block = TransformerBlock(
                self.dim, self.num_heads, self.mlp_dim, self.dropout_rate, self.dtype, name=f"block_{i}"
            )
            x = block(x, mask=mask, train=train)
        return LayerNorm(dtype=self.dtype, name="norm")(x)
