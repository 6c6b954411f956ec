"""The objective of deep canonical correlation analysis (Andrew et al. 2013), stable in float32."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.errors import UsageError
from mmjax.losses.pairs import all_there, as_float32
from mmjax.typing import Array, Bool, Float, checked

__all__ = ["total_correlation"]


@checked
def total_correlation(
    left: Float[Array, "batch left"],
    right: Float[Array, "batch right"],
    *,
    components: int | None = None,
    ridge: float = 1e-4,
    present: Bool[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Sum of the canonical correlations of a batch, 0 to ``components``; training maximises it (Andrew et al. 2013).

    Batches must be large against the widths: with fewer rows than features every correlation is 1 whatever the data.
    Covariances are never formed: an orthogonal factorisation of the rows keeps the digits that squaring would lose, and
    the gradient of the sum needs no differences of singular values, so that equal ones do no harm.

    Args:
      components: number of the largest correlations that are summed; None = all, the smaller of the widths.
      ridge: added to the diagonals of both covariances.
      present: rows that are there in both; None = all.

    Raises:
      UsageError: components that there are not, or a ridge of 0 or less.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
      >>> total_correlation(x, x @ jnp.array([[2.0, 1.0], [0.0, 3.0]]), ridge=1e-6).round(3)
      Array(2., dtype=float32)
    """
    most = min(left.shape[1], right.shape[1])
    components = most if components is None else components
    if not 1 <= components <= most:
        raise UsageError(f"components are 1 to {most}, the smaller width, got {components}")
    if ridge <= 0:
        raise UsageError(f"ridge must be above 0, got {ridge}: without it a constant feature has no correlation")
    there = all_there(present, left.shape[0])
    return _total(as_float32(left, present), as_float32(right, present), there, components, ridge)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _total(left: Array, right: Array, there: Array, components: int, ridge: float) -> Array:
    return _with_slopes(components, ridge)(left, right, there)[0]


def _forward(left: Array, right: Array, there: Array, components: int, ridge: float) -> tuple[Array, tuple[Array, ...]]:
    total, *slopes = _with_slopes(components, ridge)(left, right, there)
    return total, tuple(slopes)


def _backward(components: int, ridge: float, slopes: tuple[Array, ...], cotangent: Array) -> tuple[Any, ...]:
    return cotangent * slopes[0], cotangent * slopes[1], None


_total.defvjp(_forward, _backward)


@functools.cache
def _with_slopes(components: int, ridge: float) -> Callable[..., tuple[Array, Array, Array]]:
    """The sum and its gradients (derived by Andrew et al. 2013), from the factors and the singular vectors.

    Seeds that are mapped take their turns: a factorisation of several matrices at once waits for threads of XLA:CPU's
    pool while it holds one of them, which on few cores may be for ever.
    """

    @jax.custom_batching.sequential_vmap
    def compute(left: Array, right: Array, there: Array) -> tuple[Array, Array, Array]:
        (a, over_a), (b, over_b) = (_whitened(values, there, ridge) for values in (left, right))
        u, s, vt = jnp.linalg.svd(a.T @ b, full_matrices=False)
        u, s, v = u[:, :components], s[:components], vt[:components].T
        d_left = jax.scipy.linalg.solve_triangular(over_a, u @ (b @ v - (a @ u) * s).T).T
        d_right = jax.scipy.linalg.solve_triangular(over_b, v @ (a @ u - (b @ v) * s).T).T
        return s.sum(), d_left, d_right

    return compute


def _whitened(values: Array, there: Array, ridge: float) -> tuple[Array, Array]:
    """Centred rows whitened by their covariance with its ridge, up to a rotation, and what they were divided by.

    The ridge stands as rows of its own below the data, so that the factorisation is of full rank.
    """
    count = there.sum()
    centred = jnp.where(there[:, None], values - values.sum(0) / jnp.maximum(count, 1), 0)
    below = jnp.sqrt(ridge * jnp.maximum(count - 1, 1)) * jnp.eye(values.shape[1])
    orthogonal, over = jnp.linalg.qr(jnp.concatenate([centred, below]))
    return orthogonal[: values.shape[0]], over
