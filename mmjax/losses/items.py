"""Losses per labelled item: plain functions, no reduction; weights are applied once, in the train step."""

import jax.numpy as jnp
import optax

from mmjax.typing import Array, Float, Int, Shaped, checked

__all__ = ["absolute_error", "binary_cross_entropy", "cross_entropy", "squared_error"]


@checked
def cross_entropy(
    logits: Float[Array, "*items classes"], target: Int[Array, "*items"], *, label_smoothing: float = 0.0
) -> Float[Array, "*items"]:
    """Cross-entropy in nats of integer classes; with smoothing (Szegedy et al. 2016) the uniform gets that share.

    Example:
      >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([1, 3])).round(2)
      Array([1.39, 1.39], dtype=float32)
    """
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    if not label_smoothing:
        return nll
    uniform = optax.softmax_cross_entropy(logits, jnp.full_like(logits, 1 / logits.shape[-1]))
    return (1 - label_smoothing) * nll + label_smoothing * uniform


@checked
def binary_cross_entropy(logits: Float[Array, "*items"], target: Shaped[Array, "*items"]) -> Float[Array, "*items"]:
    """Cross-entropy in nats of answers of 0 or 1, each with its logit.

    Example:
      >>> binary_cross_entropy(jnp.array([0.0, 0.0]), jnp.array([1, 0])).round(2)
      Array([0.69, 0.69], dtype=float32)
    """
    return optax.sigmoid_binary_cross_entropy(logits, target.astype(logits.dtype))


@checked
def squared_error(prediction: Float[Array, "*items"], target: Shaped[Array, "*items"]) -> Float[Array, "*items"]:
    """``(prediction - target)^2``.

    Example:
      >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([2.0, 0.0]))
      Array([1., 9.], dtype=float32)
    """
    return jnp.square(prediction - target)


@checked
def absolute_error(prediction: Float[Array, "*items"], target: Shaped[Array, "*items"]) -> Float[Array, "*items"]:
    """``|prediction - target|``.

    Example:
      >>> absolute_error(jnp.array([1.0, 3.0]), jnp.array([2.0, 0.0]))
      Array([1., 3.], dtype=float32)
    """
    return jnp.abs(prediction - target)
