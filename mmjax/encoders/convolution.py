"""Convolution, with derivatives that stay fast inside a loop on CPU, and convolution with pooling in one step."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers import max_pool
from mmjax.typing import Array, Dtype, Float, checked

__all__ = ["Conv", "ConvPool", "conv_pool", "convolve"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


Padding = str | tuple[tuple[int, int], ...]
"""``"SAME"`` as XLA means it, or the zeros before and after of each axis."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@checked
def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k l c d"], stride: int = 1, padding: Padding = "SAME"
) -> Float[Array, "b i j d"]:
    """2-D convolution (cross-correlation, as the field means it), zeros around.

    XLA's "same" puts an odd row of zeros at the end: with stride 2 a kernel of 3 over an even side is centred on the
    odd places. PyTorch's ``padding=1`` is ``((1, 1), (1, 1))``.

    The derivative is XLA's to rounding, in reverse mode only. XLA:CPU has a fast path for one layout of a convolution.
    Inside a loop, and an epoch is one, its own derivatives are in others: a training step of LeNet on 50 pictures of 28
    by 28 then takes 85 ms instead of 9 (2 cores). Here, on a CPU, both are in the fast one: 15 ms.
    """
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _convolve_forward(x: Any, kernel: Any, stride: int, padding: Padding) -> tuple[Any, Any]:
    return convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride: int, padding: Padding, kept: Any, dy: Any) -> tuple[Any, Any]:
    x, kernel = kept
    fast, stock = (functools.partial(gradients, stride, padding) for gradients in (_gradients, _stock_gradients))
    return jax.lax.platform_dependent(x, kernel, dy, cpu=fast, default=stock)


convolve.defvjp(_convolve_forward, _convolve_backward)


def _stock_gradients(stride: int, padding: Padding, x: Any, kernel: Any, dy: Any) -> tuple[Any, Any]:
    stock = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(stride, stride), padding=padding, dimension_numbers=_LAYOUT
    )
    return jax.vjp(stock, x, kernel)[1](dy)


def _gradients(stride: int, padding: Padding, x: Any, kernel: Any, dy: Any) -> tuple[Any, Any]:
    sizes, reach = x.shape[1:3], kernel.shape[:2]
    pads: Any = padding
    if isinstance(padding, str):
        pads = jax.lax.padtype_to_pads(sizes, reach, (stride, stride), padding)
    # The barriers keep XLA from folding a transpose into the convolution, which would leave the fast layout.
    conv = functools.partial(jax.lax.conv_general_dilated, window_strides=(1, 1), dimension_numbers=_LAYOUT)
    # By the input: dy, spread by the stride, with the kernel turned round.
    turned = jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    around = [
        (k - 1 - low, n + low - 1 - (m - 1) * stride) for n, m, k, (low, _) in zip(sizes, dy.shape[1:3], reach, pads)
    ]
    dx = conv(dy, turned, padding=around, lhs_dilation=(stride, stride))
    # By the kernel: channels are the examples, examples the channels, and dy is the kernel.
    images, filters = jax.lax.optimization_barrier((x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)))
    # what the last window leaves over is cut off
    ends = [(m - 1) * stride + k - n - low for n, m, k, (low, _) in zip(sizes, dy.shape[1:3], reach, pads)]
    around = [(low, end) for (low, _), end in zip(pads, ends)]
    dkernel = conv(images, filters, padding=around, rhs_dilation=(stride, stride))
    return dx, dkernel.transpose(1, 2, 0, 3)


def _as_lax(x: Any, kernel: Any, strides: Any, padding: Any, **rest: Any) -> Any:
    return convolve(x, kernel, strides[0], padding if isinstance(padding, str) else tuple(map(tuple, padding)))


Conv = functools.partial(nn.Conv, conv_general_dilated=_as_lax)
"""``flax.linen.Conv`` by ``convolve``: one stride for both axes, no groups, no dilation."""


@checked
def conv_pool(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], bias: Float[Array, " d"], *, space_to_depth: bool
) -> Float[Array, "b i j d"]:
    """Convolution with zero padding ("same"), then the maximum over 2 by 2 patches; an odd edge is dropped.

    With ``space_to_depth`` the same numbers (to rounding) come from one convolution of a quarter of the positions and
    four times the channels: position ``2 i + a`` of the image is channel ``a`` of place ``i``, and the four outputs of
    a patch are four groups of channels. Measured on one CPU core, forward and backward, it takes 0.3 to 0.6 of the time
    for 5 by 5 kernels on up to 6 channels, about the same for 3 by 3, and 3 times as long on 16 channels.

    Args:
      kernel: ``k`` must be odd.

    Raises:
      ValueError: an even ``k``, whose "same" padding would be lopsided.
    """
    size = kernel.shape[0]
    if size % 2 == 0:
        raise ValueError(f"a kernel of {size} by {size} has no centre: use an odd size")
    if not space_to_depth:
        return max_pool(convolve(x, kernel) + bias)
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))  # a row of zeros is what "same" pads with
    x = x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(*x.shape[:3], 4 * c)
    place = jnp.asarray(_taps(size), kernel.dtype)
    # sums of one term each: exact, unless a GPU rounds the factors
    kernel = jnp.einsum("mapu,nbqv,uvcd->mnabcpqd", place, place, kernel, precision=jax.lax.Precision.HIGHEST)
    kernel = kernel.reshape(*kernel.shape[:2], 4 * c, -1)
    y = convolve(x, kernel)[:, : h // 2, : w // 2]
    phases = jnp.split(y, 4, axis=-1)
    best = phases[0]
    for phase in phases[1:]:  # in the order of max_pool, so that a tie shares its gradient in the same way
        best = jnp.maximum(best, phase)
    return best + bias


def _taps(size: int) -> np.ndarray:
    """``[m, a, p, u]``: 1 where tap ``u`` of a kernel joins output ``2 i + p`` to input ``2 (i + m) + a``."""
    half = size // 2
    reach = (half + 1) // 2
    m, a, p, u = np.ix_(np.arange(-reach, reach + 1), np.arange(2), np.arange(2), np.arange(size))
    return (2 * m + a == p + u - half).astype(np.float32)


class ConvPool(nn.Module):
    """``conv_pool`` with its parameters, named as in ``nn.Conv``: ``[b, h, w, c] -> [b, h // 2, w // 2, features]``.

    Attributes:
      kernel_size: odd.
      space_to_depth: whether to use the rewrite, which changes time but no number beyond rounding; None = where it was
        measured to pay: one channel, or a kernel of 5 or more on at most 8 channels.
    """

    features: int
    kernel_size: int = 3
    space_to_depth: bool | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j features"]:
        dtype = self.dtype or x.dtype
        channels = x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        pays = channels == 1 or (self.kernel_size >= 5 and channels <= 8)
        rewrite = pays if self.space_to_depth is None else self.space_to_depth
        return conv_pool(x.astype(dtype), kernel.astype(dtype), bias.astype(dtype), space_to_depth=rewrite)
