"""The objective of deep canonical correlation analysis (Andrew et al. 2013), stable in float32."""

import functools

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
    first, second = (_whitened(as_float32(values, present), there, ridge) for values in (left, right))
    return _nuclear(first.T @ second, components)


def _whitened(values: Array, there: Array, ridge: float) -> Array:
    """Rows whitened by the covariance with its ridge, up to a rotation: the upper part of an orthogonal factor.

    The ridge stands as rows of its own below the data, so that the factorisation is of full rank.
    """
    count = there.sum()
    centred = jnp.where(there[:, None], values - values.sum(0) / jnp.maximum(count, 1), 0)
    below = jnp.sqrt(ridge * jnp.maximum(count - 1, 1)) * jnp.eye(values.shape[1])
    return jnp.linalg.qr(jnp.concatenate([centred, below]))[0][: values.shape[0]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _nuclear(matrix: Array, components: int) -> Array:
    """Sum of the largest singular values."""
    return jnp.linalg.svd(matrix, compute_uv=False)[:components].sum()


def _forward(matrix: Array, components: int) -> tuple[Array, Array]:
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    return s[:components].sum(), u[:, :components] @ vt[:components]


def _backward(components: int, direction: Array, cotangent: Array) -> tuple[Array]:
    return (cotangent * direction,)


_nuclear.defvjp(_forward, _backward)
