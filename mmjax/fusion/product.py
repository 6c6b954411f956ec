"""The elementwise product of modalities: the plainest fusion that is all interaction."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers import Activation, pool_modalities
from mmjax.stream import Stream, pooled
from mmjax.typing import Dtype, Mapping

__all__ = ["Product"]


class Product(nn.Module):
    """Multiplies the pooled modalities element by element, ``z = v_1 * ... * v_M`` (Antol et al. 2015, section 4).

    An absent modality is the neutral element, 1. Give encoders of the same scale, such as tanh ends in.

    Attributes:
      dim: width of the result; a stream of another width is projected.
      activation: of each modality before the product; None = none.

    Example:
      >>> streams = {"image": Stream.of(jnp.full((2, 5, 8), 2.0)), "text": Stream.of(jnp.full((2, 7, 8), 3.0))}
      >>> Product(dim=8).apply({}, streams).values[0, 0, :3].tolist()
      [6.0, 6.0, 6.0]
    """

    dim: int
    activation: Activation | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        tokens = pool_modalities(streams, self.dim, dtype=self.dtype)
        values = tokens.values if self.activation is None else self.activation(tokens.values)
        factors = jnp.where(tokens.mask[..., None], values, jnp.ones((), values.dtype))
        return pooled(factors.prod(1), tokens.mask.any(-1))
