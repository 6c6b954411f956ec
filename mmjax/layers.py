"""Shared building blocks: dense layers on flat tokens, attention that knows its masks, the pre-norm block, positions.

Every block takes ``dtype``: None computes in the type of the input, so bfloat16 in gives bfloat16 out; parameters,
softmax and the statistics of norms stay float32.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.stream import Stream, apply_mask, check_streams, masked_mean, masked_softmax
from mmjax.typing import Array, Bool, Dtype, Float, Mapping, Shaped, checked

__all__ = [
    "MLP",
    "Dense",
    "LayerNorm",
    "LearnedPositions",
    "MultiHeadAttention",
    "TransformerBlock",
    "attend",
    "max_pool",
    "pool_modalities",
    "project_streams",
    "sinusoidal_positions",
]

Activation = Callable[[Any], Any]


class Dense(nn.Module):
    """``x @ kernel + bias`` over the last axis, with all other axes flattened to one.

    The gradient of a matrix product with more than two axes is a slow kernel on CPU (1.5 times the time of a
    transformer block); flat tokens avoid it and change nothing else. Parameters are named as in ``nn.Dense``.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Shaped[Array, "*lead d"]) -> Shaped[Array, "*lead features"]:
        dtype = self.dtype or x.dtype
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = x.reshape(-1, x.shape[-1]).astype(dtype) @ kernel.astype(dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,), jnp.float32).astype(dtype)
        return y.reshape(*x.shape[:-1], self.features)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016): flax's, but the result has the type of the input (or ``dtype``)."""

    @nn.compact
    def __call__(self, x: Shaped[Array, "*lead d"]) -> Shaped[Array, "*lead d"]:  # type: ignore[override]
        return super().__call__(x).astype(self.dtype or x.dtype)


class MLP(nn.Module):
    """Dense layers with an activation and dropout between them; the last layer is linear.

    Attributes:
      features: width of each layer, the output's last.
    """

    features: tuple[int, ...]
    activation: Activation = nn.gelu
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Shaped[Array, "*lead d"], *, train: bool = False) -> Shaped[Array, "*lead out"]:
        for i, width in enumerate(self.features):
            if i:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(self.activation(x))
            x = Dense(width, dtype=self.dtype, name=f"dense_{i}")(x)
        return x


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
    """

    dim: int
    num_heads: int = 4
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
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
        if self.dim % self.num_heads:
            raise ValueError(f"{self.num_heads=} must divide {self.dim=}")
        role = role or ("self" if keys is None else "cross")
        keys = queries if keys is None else keys

        def heads(x: Any, name: str) -> Any:
            x = Dense(self.dim, dtype=self.dtype, name=name)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, self.dim // self.num_heads)

        mask = mask[:, None] if mask.ndim == 2 else mask
        mixed, weights = attend(heads(queries, "query"), heads(keys, "key"), heads(keys, "value"), mask)
        self.sow("intermediates", f"{role}_attention_weights", weights)
        mixed = nn.Dropout(self.dropout_rate, deterministic=not train)(mixed)
        return Dense(self.dim, use_bias=False, dtype=self.dtype, name="out")(mixed.reshape(*mixed.shape[:2], -1))


class TransformerBlock(nn.Module):
    """Pre-norm block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))`` (Xiong et al. 2020).

    With ``context`` the keys and values come from there (cross-attention, normalised by its own norm).

    Attributes:
      mlp_dim: hidden width of the MLP; None = ``4 * dim``.
    """

    dim: int
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
        if x.shape[-1] != self.dim:
            raise ValueError(f"the block is {self.dim=} wide, its input {x.shape[-1]}: project it first")
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        if context is not None:
            context = LayerNorm(dtype=self.dtype, name="context_norm")(context)
        attention = MultiHeadAttention(self.dim, self.num_heads, self.dropout_rate, self.dtype, name="attention")
        hidden = LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        x = x + drop(attention(hidden, context, mask=mask, role=role, train=train))
        hidden = LayerNorm(dtype=self.dtype, name="mlp_norm")(x)
        mlp = MLP(
            (self.mlp_dim or 4 * self.dim, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp"
        )
        return x + drop(mlp(hidden, train=train))


def sinusoidal_positions(length: int, dim: int) -> Float[Array, "length dim"]:
    """Sines and cosines of geometrically spaced wavelengths (Vaswani et al. 2017, section 3.5); odd ``dim`` is cut."""
    rate = np.exp(-np.log(10_000.0) * np.arange(0, dim, 2) / dim)
    angle = np.arange(length)[:, None] * rate
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, -1)
    return jnp.asarray(table[:, :dim], jnp.float32)


class LearnedPositions(nn.Module):
    """Adds a learned vector per position; ``max_length`` bounds the sequence.

    Raises:
      ValueError: a sequence longer than ``max_length``.
    """

    max_length: int

    @nn.compact
    def __call__(self, x: Shaped[Array, "b t d"]) -> Shaped[Array, "b t d"]:
        if x.shape[1] > self.max_length:
            raise ValueError(f"a sequence of {x.shape[1]} items is longer than {self.max_length=}")
        table = self.param("positions", nn.initializers.normal(0.02), (self.max_length, x.shape[-1]), jnp.float32)
        return x + table[: x.shape[1]].astype(x.dtype)


@checked
def max_pool(x: Shaped[Array, "b h w c"], window: int = 2) -> Shaped[Array, "b i j c"]:
    """Maximum over non-overlapping ``window`` by ``window`` patches; a remainder at the edge is dropped.

    Strided slices instead of ``reduce_window``, whose gradient is ten times as slow on CPU. A tie shares its gradient.
    """
    height, width = x.shape[1] // window * window, x.shape[2] // window * window
    corners = [x[:, i:height:window, j:width:window] for i in range(window) for j in range(window)]
    best = corners[0]
    for corner in corners[1:]:
        best = jnp.maximum(best, corner)
    return best


def _project(name: str, values: Any, dim: int, dtype: Dtype | None) -> Any:
    """Brings one modality to ``dim``; a parameter only where the width differs, named after the modality."""
    if values.shape[-1] == dim:
        return values if dtype is None else values.astype(dtype)
    return Dense(dim, dtype=dtype, name=f"project_{name}")(values)


def project_streams(streams: Mapping[str, Stream], dim: int, *, dtype: Dtype | None = None) -> dict[str, Stream]:
    """Token streams of width ``dim``, zero in their padding; call it inside an ``nn.compact`` method.

    Raises:
      ValueError: no stream, or one that is not a sequence of feature vectors.
    """
    check_streams(streams)
    return {
        name: stream.replace(values=_project(name, stream.zeroed.values, dim, dtype)).zeroed
        for name, stream in sorted(streams.items())
    }


def pool_modalities(
    streams: Mapping[str, Stream], dim: int, *, pool: Callable = masked_mean, dtype: Dtype | None = None
) -> Stream:
    """One token per modality ``[batch, modality, dim]``, in sorted order of the names, with mask = present.

    Each stream is pooled over its length, then projected if its width differs from ``dim`` (the mean of a linear map
    is the map of the mean, and cheaper). Call it inside an ``nn.compact`` method.

    Raises:
      ValueError: no stream, or one that is not a sequence of feature vectors.
    """
    check_streams(streams)
    ordered = sorted(streams.items())
    present = jnp.stack([stream.present for _, stream in ordered], axis=1)
    values = [_project(name, pool(stream.values, stream.mask), dim, dtype) for name, stream in ordered]
    return Stream(apply_mask(jnp.stack(values, axis=1), present), present)
