"""Weighted sums of modalities: one token per modality, a score for each, fixed or computed from the example."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers import Dense, pool_modalities
from mmjax.stream import Stream, masked_mean, masked_softmax, pooled
from mmjax.typing import Array, Dtype, Float, Mapping

__all__ = ["AdditiveAttention", "DotProductAttention", "WeightedSum"]


def _weighted_sum(module: nn.Module, scores: Float[Array, "b m"], tokens: Stream) -> Stream:
    """Softmax of the scores over the present modalities, reported; the weighted sum of their tokens."""
    weights = masked_softmax(scores, tokens.mask)
    module.sow("intermediates", "modality_weights", weights)
    fused = jnp.einsum("bm,bmd->bd", weights.astype(tokens.values.dtype), tokens.values)
    return pooled(fused, tokens.mask.any(-1))


class AdditiveAttention(nn.Module):
    """Weights modalities by a learned score ``w^T tanh(W v_m + b)`` (Bahdanau et al. 2015; Hori et al. 2017).

    Over pooled modalities ``v_m``: ``alpha = softmax(score)`` over those present, ``z = sum_m alpha_m v_m``. Departure:
    there is no decoder whose state ``s`` would enter the score (``w^T tanh(W s + V v_m + b)`` in both papers), so one
    set of weights per example: attention pooling. Reports ``alpha`` ``[batch, modality]`` (sorted names) as
    ``intermediates/modality_weights``; a weight is not importance.

    Attributes:
      dim: width of the tokens and of the result; a stream of another width is projected.
      hidden_dim: width of the score's hidden layer; None = ``dim``.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = AdditiveAttention(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    hidden_dim: int | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        tokens = pool_modalities(streams, self.dim, dtype=self.dtype)
        hidden = jnp.tanh(Dense(self.hidden_dim or self.dim, dtype=self.dtype, name="hidden")(tokens.values))
        scores = Dense(1, use_bias=False, dtype=self.dtype, name="score")(hidden)[..., 0]
        return _weighted_sum(self, scores, tokens)


class DotProductAttention(nn.Module):
    """Weights modalities by a dot product with a query (Luong et al. 2015, section 3.1, over modalities).

    With a learned query ``q``: ``score_m = q^T v_m``. With ``conditional=True`` the query is computed from the mean of
    the present modalities and compared with keys: ``score_m = q(x)^T K v_m / sqrt(dim)`` (Vaswani et al. 2017).
    Reports the weights ``[batch, modality]`` (sorted names) as ``intermediates/modality_weights``.

    Attributes:
      dim: width of the tokens and of the result; a stream of another width is projected.
      conditional: whether the query depends on the example.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = DotProductAttention(dim=8, conditional=True).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    conditional: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        tokens = pool_modalities(streams, self.dim, dtype=self.dtype)
        if self.conditional:
            query = Dense(self.dim, dtype=self.dtype, name="query")(masked_mean(tokens.values, tokens.mask))
            keys = Dense(self.dim, use_bias=False, dtype=self.dtype, name="key")(tokens.values)
            scores = jnp.einsum("bd,bmd->bm", query, keys) * self.dim**-0.5
        else:
            query = self.param("query", nn.initializers.normal(self.dim**-0.5), (self.dim,), jnp.float32)
            scores = tokens.values @ query.astype(tokens.values.dtype)
        return _weighted_sum(self, scores, tokens)


class WeightedSum(nn.Module):
    """Weights modalities by learned numbers, the same for every example: ``z = sum_m softmax(s)_m v_m``.

    The scalar mixture of Peters et al. (2018, eq. 1; over layers there, without its overall scale), over the modalities
    present. It starts as their mean; over logits it is a jointly trained late fusion. Reports the weights
    ``[batch, modality]`` (sorted names) as ``intermediates/modality_weights``.

    Attributes:
      dim: width of the tokens and of the result; a stream of another width is projected.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = WeightedSum(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        tokens = pool_modalities(streams, self.dim, dtype=self.dtype)
        zeros = nn.initializers.zeros_init()
        scores = jnp.stack([self.param(f"score_{name}", zeros, (), jnp.float32) for name in sorted(streams)])
        return _weighted_sum(self, jnp.broadcast_to(scores, tokens.mask.shape), tokens)
