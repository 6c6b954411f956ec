"""Where an item stands in its sequence: sines and cosines, or a learned vector."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.typing import Array, Float, Shaped

__all__ = ["LearnedPositions", "sinusoidal_positions"]


def sinusoidal_positions(length: int, dim: int) -> Float[Array, "length dim"]:
    """Sines and cosines of geometrically spaced wavelengths (Vaswani et al. 2017, section 3.5); odd ``dim`` is cut.

    Example:
      >>> sinusoidal_positions(length=2, dim=4).round(2).tolist()[0]
      [0.0, 1.0, 0.0, 1.0]
    """
    rate = np.exp(-np.log(10_000.0) * np.arange(0, dim, 2) / dim)
    angle = np.arange(length)[:, None] * rate
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, -1)
    return jnp.asarray(table[:, :dim], jnp.float32)


class LearnedPositions(nn.Module):
    """Adds a learned vector per position; ``max_length`` bounds the sequence.

    Raises:
      ValueError: a sequence longer than ``max_length``.

    Example:
      >>> y, _ = LearnedPositions(max_length=6).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))
      >>> y.shape
      (2, 5, 3)
    """

    max_length: int

    @nn.compact
    def __call__(self, x: Shaped[Array, "b t d"]) -> Shaped[Array, "b t d"]:
        if x.shape[1] > self.max_length:
            raise ValueError(f"a sequence of {x.shape[1]} items is longer than {self.max_length=}")
        table = self.param("positions", nn.initializers.normal(0.02), (self.max_length, x.shape[-1]), jnp.float32)
        return x + table[: x.shape[1]].astype(x.dtype)
