"""Predictions from a fused stream: ``(stream, *, targets=None, train=False) -> outputs``."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers import MLP
from mmjax.stream import Reduction, Stream, apply_mask, masked_mean
from mmjax.typing import Dtype

__all__ = ["ClassificationHead", "ClosedListHead", "Logits", "MultiRegressionHead", "RegressionHead", "close_list"]


def _pooled(stream: Stream, pool: Reduction | None) -> Any:
    """One vector per example, or with None every item, zero in the padding."""
    return apply_mask(stream.values, stream.mask) if pool is None else pool(stream.values, stream.mask)


class ClassificationHead(nn.Module):
    """Logits ``[batch, num_classes]`` in float32; with ``pool=None`` per item, ``[batch, length, num_classes]``.

    Attributes:
      hidden_dims: widths of hidden layers; empty = one linear map.
      pool: how the items become one; None keeps them apart (a label per step).
    """

    num_classes: int
    hidden_dims: tuple[int, ...] = ()
    pool: Reduction | None = masked_mean
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, targets: Any = None, train: bool = False) -> Any:
        x = _pooled(stream, self.pool)
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        mlp = MLP((*self.hidden_dims, self.num_classes), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp")
        return mlp(x, train=train).astype("float32")


class ClosedListHead(nn.Module):
    """As ``ClassificationHead``, for a closed list of answers: the last class stands for all that are not on it, and is
    never given: its logit is 20 below the log of the summed exponentials of the others. Such a target costs 20 nats
    whatever the network says, and has no gradient.

    Example:
      >>> fused = Stream.of(jnp.ones((2, 1, 4)))
      >>> logits, _ = ClosedListHead(5).init_with_output(jax.random.key(0), fused)
      >>> logits.shape, bool((logits.argmax(-1) < 4).all())
      ((2, 5), True)
    """

    num_classes: int
    hidden_dims: tuple[int, ...] = ()
    pool: Reduction | None = masked_mean
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, targets: Any = None, train: bool = False) -> Any:
        head = ClassificationHead(
            self.num_classes - 1, self.hidden_dims, self.pool, self.dropout_rate, self.dtype, name="listed"
        )
        return close_list(head(stream, train=train))


def close_list(logits: Any) -> Any:
    """Logits of the answers on a list with that of all others after them, see ``ClosedListHead``."""
    return jnp.concatenate([logits, jax.nn.logsumexp(logits, axis=-1, keepdims=True) - 20.0], axis=-1)


class Logits(nn.Module):
    """No parameters: the items of the fused stream are the logits already, as when late fusion combines logits."""

    pool: Reduction | None = masked_mean

    @nn.compact
    def __call__(self, stream: Stream, *, targets: Any = None, train: bool = False) -> Any:
        return _pooled(stream, self.pool).astype("float32")


class RegressionHead(nn.Module):
    """One score per example ``[batch]`` (``pool=None``: per item ``[batch, length]``), in float32.

    The linear map gives deviations from the mean score in units of their spread; mean and deviation are variables of
    the collection ``target`` (0 and 1 until training sets them to those of the train split), so that what the head
    returns is in the units of the target, near its mean from the start, and the mean where nothing is present.
    """

    hidden_dims: tuple[int, ...] = ()
    pool: Reduction | None = masked_mean
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, targets: Any = None, train: bool = False) -> Any:
        return _scores(self, (), stream, train)


class MultiRegressionHead(nn.Module):
    """Several scores per example ``[batch, num_scores]`` (``pool=None``: per item ``[batch, length, num_scores]``), in
    float32: each as that of ``RegressionHead``, with a mean and a deviation of its own.
    """

    num_scores: int
    hidden_dims: tuple[int, ...] = ()
    pool: Reduction | None = masked_mean
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, targets: Any = None, train: bool = False) -> Any:
        return _scores(self, (self.num_scores,), stream, train)


def _scores(module: Any, shape: tuple[int, ...], stream: Stream, train: bool) -> Any:
    """Scores of that shape per example or item, in the units of the target."""
    count = math.prod(shape)
    head = ClassificationHead(count, module.hidden_dims, module.pool, module.dropout_rate, module.dtype, name="score")
    raw = head(stream, train=train)
    raw = raw if shape else raw[..., 0]
    present = stream.mask if module.pool is None else stream.mask.any(-1)
    mean, deviation = _moment(module, "mean", jnp.zeros(shape)), _moment(module, "deviation", jnp.ones(shape))
    return mean + deviation * apply_mask(raw, present)


def _moment(module: nn.Module, name: str, default: Any) -> Any:
    """The variable of the collection ``target``, or its default where there is no such collection."""
    if module.has_variable("target", name) or module.is_mutable_collection("target"):
        return module.variable("target", name, lambda: default).value
    return default
