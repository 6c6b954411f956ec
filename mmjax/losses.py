"""Losses per labelled item: plain functions, no reduction; weights are applied once, in the train step."""

import jax.numpy as jnp
import optax

from mmjax.typing import Array, Float, Int, Shaped, checked

__all__ = ["absolute_error", "cross_entropy", "squared_error"]


@checked
def cross_entropy(
    logits: Float[Array, "*items classes"], target: Int[Array, "*items"], *, label_smoothing: float = 0.0
) -> Float[Array, "*items"]:
    """Cross-entropy in nats of integer classes; with smoothing (Szegedy et al. 2016) the uniform gets that share."""
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    if not label_smoothing:
        return nll
    uniform = optax.softmax_cross_entropy(logits, jnp.full_like(logits, 1 / logits.shape[-1]))
    return (1 - label_smoothing) * nll + label_smoothing * uniform


@checked
def squared_error(prediction: Float[Array, "*items"], target: Shaped[Array, "*items"]) -> Float[Array, "*items"]:
    """``(prediction - target)^2``."""
    return jnp.square(prediction - target)


@checked
def absolute_error(prediction: Float[Array, "*items"], target: Shaped[Array, "*items"]) -> Float[Array, "*items"]:
    """``|prediction - target|``."""
    return jnp.abs(prediction - target)
