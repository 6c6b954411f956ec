"""Dense layers on flat tokens, layer normalisation and the MLP."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.typing import Array, Dtype, Shaped

__all__ = ["MLP", "Activation", "Dense", "LayerNorm"]

Activation = Callable[[Any], Any]


class Dense(nn.Module):
    """``x @ kernel + bias`` over the last axis, with all other axes flattened to one.

    The gradient of a matrix product with more than two axes is a slow kernel on CPU (1.5 times the time of a
    transformer block); flat tokens avoid it and change nothing else. Parameters are named as in ``nn.Dense``.

    Example:
      >>> y, variables = Dense(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))
      >>> y.shape, sorted(variables["params"])
      ((2, 5, 4), ['bias', 'kernel'])
    """

    features: int
    use_bias: bool = True
    dtype: Dtype | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Shaped[Array, "*lead d"]) -> Shaped[Array, "*lead features"]:
        dtype = self.dtype or x.dtype
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = x.reshape(-1, x.shape[-1]).astype(dtype) @ kernel.astype(dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,), jnp.float32).astype(dtype)
        return y.reshape(*x.shape[:-1], self.features)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016): flax's, but the result has the type of the input (or ``dtype``).

    Example:
      >>> y, _ = LayerNorm().init_with_output(jax.random.key(0), jnp.array([[1.0, 3.0]]))
      >>> y.round(3)
      Array([[-1.,  1.]], dtype=float32)
    """

    @nn.compact
    def __call__(self, x: Shaped[Array, "*lead d"]) -> Shaped[Array, "*lead d"]:  # type: ignore[override]
        return super().__call__(x).astype(self.dtype or x.dtype)


class MLP(nn.Module):
    """Dense layers with an activation and dropout between them; the last layer is linear.

    Attributes:
      features: width of each layer, the output's last.

    Example:
      >>> y, _ = MLP((8, 4)).init_with_output(jax.random.key(0), jnp.ones((2, 3)))
      >>> y.shape
      (2, 4)
    """

    features: tuple[int, ...]
    activation: Activation = nn.gelu
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Shaped[Array, "*lead d"], *, train: bool = False) -> Shaped[Array, "*lead out"]:
        for i, width in enumerate(self.features):
            if i:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(self.activation(x))
            x = Dense(width, dtype=self.dtype, name=f"dense_{i}")(x)
        return x
