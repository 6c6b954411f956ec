"""One modality looks at the tokens of another: what a question needs of a picture.

The ``target`` holds the tokens that are looked at (the places of a feature map), the ``context`` what looks (the
question, pooled to one vector). With several questions of one picture see ``mmjax.models.PerItem``.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.encoders.convolution import Conv
from mmjax.layers import Dense, LayerNorm, pool_modalities, project_target
from mmjax.stream import Stream, apply_mask, masked_mean, masked_softmax, pooled, select
from mmjax.typing import Dtype, Mapping

__all__ = ["FiLMBlocks", "GuidedAttention", "StackedAttention"]


def _roles(module: Any, streams: Mapping[str, Stream]) -> tuple[str, Stream, Any, Any]:
    """Name and tokens of the target, the summed vectors of the context ``[batch, dim]``, and whether any is there."""
    target, context, tokens = project_target(module, streams)
    query = jnp.zeros((tokens.values.shape[0], module.dim), tokens.values.dtype)
    asked = jnp.zeros(tokens.values.shape[0], bool)
    if context:
        vectors = pool_modalities(select(streams, context), module.dim, dtype=module.dtype)
        query, asked = query + vectors.values.sum(1), vectors.mask.any(1)
    return target, tokens, query, asked


def _look(module: Any, name: str, tokens: Stream, keys: Any, query: Any) -> tuple[Any, Any]:
    """The mean of the tokens weighted by ``softmax(w^T tanh(keys + query))``, and the weights ``[batch, tokens]``."""
    hidden = jnp.tanh(keys + query[:, None])
    scores = Dense(1, use_bias=False, dtype=module.dtype, name=name)(hidden)[..., 0]
    weights = masked_softmax(scores, tokens.mask)
    return jnp.einsum("bt,btd->bd", weights.astype(tokens.values.dtype), tokens.values), weights


class GuidedAttention(nn.Module):
    """One look at the target's tokens by the context, then the product of both (Anderson et al. 2018, section 3.2).

    ``a = softmax(w^T tanh(W t_i + U q))`` over the tokens ``t_i``, ``z = tanh(A sum_i a_i t_i) * tanh(B q)``;
    departures: tanh in place of gated tanh, no bias in the score. An absent side is the neutral element of the product.
    Reports ``a`` as ``intermediates/guided_to_TARGET_attention_weights`` ``[batch, 1, 1, tokens]``.

    Attributes:
      dim: width of tokens, query and result; a stream of another width is projected.
      target: the stream that is looked at; None = the first in sorted order.
      context: those that look, pooled and summed; None = all others.
      hidden_dim: width of the score's hidden layer; None = ``dim``.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = GuidedAttention(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    target: str | None = None
    context: tuple[str, ...] | None = None
    hidden_dim: int | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        def dense(width: int, name: str, use_bias: bool = True) -> Dense:
            return Dense(width, use_bias=use_bias, dtype=self.dtype, name=name)

        target, tokens, query, asked = _roles(self, streams)
        width, seen = self.hidden_dim or self.dim, tokens.mask.any(1)
        keys = dense(width, f"key_{target}")(tokens.values)
        found, weights = _look(self, f"score_{target}", tokens, keys, dense(width, "query", False)(query))
        self.sow("intermediates", f"guided_to_{target}_attention_weights", weights[:, None, None])
        factors = []
        for name, vector, there in ((f"look_{target}", found, seen), ("ask", query, asked)):
            factor = jnp.tanh(dense(self.dim, name)(vector))
            factors.append(jnp.where(there[:, None], factor, jnp.ones((), factor.dtype)))
        return pooled(factors[0] * factors[1], seen | asked)


class StackedAttention(nn.Module):
    """Stacked attention network (Yang et al. 2016, eqs. 15 to 20): each look refines the question.

    With ``u_0 = q`` the pooled context: ``a = softmax(w^T tanh(W_k t_i + U_k u_(k-1) + b))``,
    ``u_k = sum_i a_i t_i + u_(k-1)``; the result is the last ``u``. An absent target adds nothing. Reports the weights
    of all layers as ``intermediates/guided_to_TARGET_attention_weights`` ``[batch, layers, 1, tokens]``.

    Attributes:
      dim: width of tokens, query and result; a stream of another width is projected.
      num_layers: looks; the paper has two.
      target: the stream that is looked at; None = the first in sorted order.
      context: those that look, pooled and summed; None = all others.
      hidden_dim: width of the score's hidden layer; None = ``dim``.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = StackedAttention(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    num_layers: int = 2
    target: str | None = None
    context: tuple[str, ...] | None = None
    hidden_dim: int | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        target, tokens, query, asked = _roles(self, streams)
        width, looks = self.hidden_dim or self.dim, []
        for i in range(self.num_layers):
            keys = Dense(width, use_bias=False, dtype=self.dtype, name=f"key_{i}_{target}")(tokens.values)
            about = Dense(width, dtype=self.dtype, name=f"query_{i}_{target}")(query)
            found, weights = _look(self, f"score_{i}_{target}", tokens, keys, about)
            query = query + found
            looks.append(weights)
        self.sow("intermediates", f"guided_to_{target}_attention_weights", jnp.stack(looks, 1)[:, :, None])
        return pooled(query, tokens.mask.any(1) | asked)


class FiLMBlocks(nn.Module):
    """Residual blocks on the target's tokens, conditioned on the context feature by feature (Perez et al. 2018, 3.2).

    A block: ``x = relu(W t)``, then ``x + relu(gamma * norm(V x) + beta)`` with ``(gamma - 1, beta)`` linear in the
    pooled context; the mean over the tokens at the end. ``V`` is a 3 by 3 convolution where ``shape`` says how the
    tokens lie, else one token at a time; two coordinates in [-1, 1] are then appended to every token. Departures: the
    mean in place of the maximum, and the norm is over the channels of a token, so that it knows no batch. Absent
    context changes nothing; of an absent target the result is the pooled context itself.

    Attributes:
      dim: width of tokens and result.
      num_blocks: the paper has four.
      target: the stream that is modulated; None = the first in sorted order.
      context: those that modulate it, pooled and summed; None = all others.
      shape: height and width of the map, ``height * width`` tokens row by row; None = a set of tokens.

    Raises:
      ValueError: another number of tokens than ``shape`` says.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((2, 6, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = FiLMBlocks(dim=8, shape=(2, 3)).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    num_blocks: int = 2
    target: str | None = None
    context: tuple[str, ...] | None = None
    shape: tuple[int, int] | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        target, tokens, query, asked = _roles(self, streams)
        x, mask = tokens.values, tokens.mask
        if self.shape is not None and self.shape[0] * self.shape[1] != x.shape[1]:
            raise ValueError(f"stream {target!r} has {x.shape[1]} tokens, not the {self.shape} of {self.shape=}")
        for i in range(self.num_blocks):
            film = Dense(2 * self.dim, dtype=self.dtype, name=f"film_{i}")(query)
            scale, shift = jnp.split(apply_mask(film, asked)[:, None], 2, axis=-1)
            x = apply_mask(
                jax.nn.relu(Dense(self.dim, dtype=self.dtype, name=f"in_{i}_{target}")(_with_places(x, self.shape))),
                mask,
            )
            y = LayerNorm(use_scale=False, use_bias=False, dtype=self.dtype, name=f"norm_{i}_{target}")(
                self._mix(x, i, target)
            )
            x = apply_mask(x + jax.nn.relu((1 + scale) * y + shift), mask)
        seen = mask.any(1)
        return pooled(jnp.where(seen[:, None], masked_mean(x, mask), query), seen | asked)

    def _mix(self, x: Any, i: int, target: str) -> Any:
        if self.shape is None:
            return Dense(self.dim, use_bias=False, dtype=self.dtype, name=f"mix_{i}_{target}")(x)
        conv = Conv(self.dim, (3, 3), use_bias=False, dtype=x.dtype, name=f"mix_{i}_{target}")
        return conv(x.reshape(x.shape[0], *self.shape, self.dim)).reshape(x.shape)


def _with_places(x: Any, shape: tuple[int, int] | None) -> Any:
    """The tokens with the row and the column of each, from -1 to 1."""
    if shape is None:
        return x
    rows, columns = (jnp.linspace(-1, 1, side) if side > 1 else jnp.zeros(1) for side in shape)
    places = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1).reshape(1, -1, 2).astype(x.dtype)
    return jnp.concatenate([x, jnp.broadcast_to(places, (x.shape[0], *places.shape[1:]))], axis=-1)
