"""Pooling of feature maps."""

import jax.numpy as jnp

from mmjax.typing import Array, Shaped, checked

__all__ = ["max_pool"]


@checked
def max_pool(x: Shaped[Array, "b h w c"], window: int = 2) -> Shaped[Array, "b i j c"]:
    """Maximum over non-overlapping ``window`` by ``window`` patches; a remainder at the edge is dropped.

    Strided slices instead of ``reduce_window``, whose gradient is ten times as slow on CPU. A tie shares its gradient.

    Example:
      >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
      [[5.0, 7.0], [13.0, 15.0]]
    """
    height, width = x.shape[1] // window * window, x.shape[2] // window * window
    corners = [x[:, i:height:window, j:width:window] for i in range(window) for j in range(window)]
    best = corners[0]
    for corner in corners[1:]:
        best = jnp.maximum(best, corner)
    return best
