"""Attention that knows its masks, and the pre-norm transformer block."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.layers.dense import MLP, Dense, LayerNorm
from mmjax.stream import masked_softmax
from mmjax.typing import Array, Bool, Dtype, Float, Shaped, checked

__all__ = ["MultiHeadAttention", "TransformerBlock", "attend"]


@checked
def attend(
    query: Shaped[Array, "b t h k"],
    key: Shaped[Array, "b s h k"],
    value: Shaped[Array, "b s h v"],
    mask: Bool[Array, "b #t s"],
) -> tuple[Shaped[Array, "b t h v"], Float[Array, "b h t s"]]:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) and its weights.

    A query with nothing to attend to gets exactly 0 (stock attention gives it the mean of the padding). Keys and
    values of masked items must be finite: zero them first.

    Example:
      >>> query = key = value = jnp.eye(2)[None, :, None]
      >>> mixed, weights = attend(query, key, value, jnp.array([[[True, False]]]))
      >>> weights[0, 0].tolist()
      [[1.0, 0.0], [1.0, 0.0]]
    """
    scores = jnp.einsum("bthk,bshk->bhts", query, key) * np.float32(query.shape[-1] ** -0.5).astype(query.dtype)
    weights = masked_softmax(scores, mask[:, None])
    return jnp.einsum("bhts,bshv->bthv", weights.astype(value.dtype), value), weights


class MultiHeadAttention(nn.Module):
    """Multi-head attention of queries ``[b, t, d]`` to keys ``[b, s, e]`` (Vaswani et al. 2017, section 3.2.2).

    Reports its weights ``[batch, heads, t, s]`` as ``intermediates/ROLE_attention_weights``. Departures: the output
    projection has no bias, so that a query with nothing to attend to gets exactly 0; dropout falls on the mixed values
    of the heads, not on the weights, which are then those that were used.

    Attributes:
      dim: width of the output; ``num_heads`` must divide it.

    Example:
      >>> x, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
      >>> y, _ = MultiHeadAttention(dim=8).init_with_output(jax.random.key(0), x, mask=mask)
      >>> y.shape
      (2, 5, 8)
    """

    dim: int
    num_heads: int = 4
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    def setup(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"{self.num_heads=} must divide {self.dim=}")
        self.query, self.key, self.value = (Dense(self.dim, dtype=self.dtype) for _ in range(3))
        self.out = Dense(self.dim, use_bias=False, dtype=self.dtype)
        self.dropout = nn.Dropout(self.dropout_rate)

    def __call__(
        self,
        queries: Shaped[Array, "b t d"],
        keys: Shaped[Array, "b s e"] | None = None,
        *,
        mask: Bool[Array, "b s"] | Bool[Array, "b t s"],
        role: str | None = None,
        train: bool = False,
    ) -> Shaped[Array, "b t dim"]:
        """Attention to ``keys``, or without them to the queries themselves.

        Args:
          mask: of the keys, or for each query one of its own.
          role: what attends to what, for the report: None = ``self`` or ``cross``; ``joint`` = the tokens of all
            modalities to themselves; ``QUERY_to_KEY`` between streams of these names.
        """
        role = role or ("self" if keys is None else "cross")
        keys = queries if keys is None else keys
        mask = mask[:, None] if mask.ndim == 2 else mask
        query, key, value = self._heads(self.query(queries)), self._heads(self.key(keys)), self._heads(self.value(keys))
        mixed, weights = attend(query, key, value, mask)
        self.sow("intermediates", f"{role}_attention_weights", weights)
        mixed = self.dropout(mixed, deterministic=not train)
        return self.out(mixed.reshape(*mixed.shape[:2], -1))

    def keys_and_values(self, x: Shaped[Array, "b s e"]) -> tuple[Shaped[Array, "b h s k"], Shaped[Array, "b h s k"]]:
        """What ``mix`` attends to; to be kept where the same items are attended to again and again.

        Head by head: a query of each row against 32 items takes a third of the time that it takes item by item.
        """
        return self._heads(self.key(x)).swapaxes(1, 2), self._heads(self.value(x)).swapaxes(1, 2)

    def mix(
        self,
        queries: Shaped[Array, "b t d"],
        keys: Shaped[Array, "b h s k"],
        values: Shaped[Array, "b h s k"],
        *,
        mask: Bool[Array, "b s"] | Bool[Array, "b t s"],
        role: str,
        train: bool = False,
    ) -> Shaped[Array, "b t dim"]:
        """The attention of ``__call__`` to keys and values that were projected before."""
        mask = mask[:, None] if mask.ndim == 2 else mask
        query = self._heads(self.query(queries)).swapaxes(1, 2)
        scores = jnp.einsum("bhtk,bhsk->bhts", query, keys) * np.float32(query.shape[-1] ** -0.5).astype(query.dtype)
        weights = masked_softmax(scores, mask[:, None])
        self.sow("intermediates", f"{role}_attention_weights", weights)
        mixed = jnp.einsum("bhts,bhsv->bhtv", weights.astype(values.dtype), values).swapaxes(1, 2)
        mixed = self.dropout(mixed.reshape(*queries.shape[:2], self.dim), deterministic=not train)
        return self.out(mixed)

    def _heads(self, x: Any) -> Any:
        return x.reshape(*x.shape[:-1], self.num_heads, self.dim // self.num_heads)


class TransformerBlock(nn.Module, kw_only=True):
    """Pre-norm block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))`` (Xiong et al. 2020).

    It is as wide as its input. With ``context`` the keys and values come from there (cross-attention, normalised by its
    own norm). What is made of such blocks takes one as the template of all its layers:
    ``ViT(64, block=TransformerBlock(num_heads=8))``.

    Attributes:
      num_heads: must divide the width.
      mlp_dim: hidden width of the MLP; None = four times the width.

    Example:
      >>> x, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
      >>> y, _ = TransformerBlock(num_heads=2).init_with_output(jax.random.key(0), x, mask=mask)
      >>> y.shape
      (2, 5, 8)
    """

    num_heads: int = 4
    mlp_dim: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: Shaped[Array, "b t d"],
        context: Shaped[Array, "b s e"] | None = None,
        *,
        mask: Bool[Array, "b s"] | Bool[Array, "b t s"],
        role: str | None = None,
        train: bool = False,
    ) -> Shaped[Array, "b t d"]:
        """The tokens after the block; ``mask`` and ``role`` are those of its attention (``MultiHeadAttention``)."""
        dim = x.shape[-1]
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        if context is not None:
            context = LayerNorm(dtype=self.dtype, name="context_norm")(context)
        attention = MultiHeadAttention(dim, self.num_heads, self.dropout_rate, self.dtype, name="attention")
        hidden = LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        x = x + drop(attention(hidden, context, mask=mask, role=role, train=train))
        hidden = LayerNorm(dtype=self.dtype, name="mlp_norm")(x)
        mlp = MLP((self.mlp_dim or 4 * dim, dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp")
        return x + drop(mlp(hidden, train=train))
