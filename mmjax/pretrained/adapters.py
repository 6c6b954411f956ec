"""Adapters: what stands between a pretrained tower and the model that learns, ``(stream, *, train=False) -> Stream``.

A tower's items have its width and number, a fusion or a decoder wants its own. ``Projector`` changes the width of each
item; ``Resampler`` and ``QFormer`` also their number, to as many as they have learned queries, however many there were.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers import MLP, Dense, LayerNorm, MultiHeadAttention
from mmjax.stream import Stream, check_streams
from mmjax.typing import Dtype

__all__ = ["Adapted", "InputDropout", "Projector", "QFormer", "Resampler"]


class Adapted(nn.Module):
    """An encoder and then an adapter, as one encoder: ``Adapted(tower.encoder(), Resampler(dim=64))``.

    Example:
      >>> encoder = Adapted(LeNet(dim=8, tokens=True), Projector(dim=4))
      >>> images = Stream.of(jnp.ones((2, 1, 8, 8, 3)))
      >>> encoder.init_with_output(jax.random.key(0), images)[0].values.shape
      (2, 4, 4)
    """

    encoder: nn.Module
    adapter: nn.Module

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        encoded: Stream = self.adapter(self.encoder(stream, train=train), train=train)
        return encoded


class InputDropout(nn.Module):
    """Normalises each item and drops some of its numbers, before an adapter: ``Adapted(InputDropout(0.5),
    Projector(dim=64))``.

    A tower's wide features tell each of few examples apart, so that a network can learn the examples by heart. All
    items of an example lose the same numbers (Tompson et al., CVPR 2015), for else the mean over many places hides what
    was dropped. The norm stands before: after it, training would see other variances than evaluation (Li et al., CVPR
    2019).

    Attributes:
      rate: the share that is dropped in training; the rest is scaled to the same mean.

    Example:
      >>> stream = Stream.of(jnp.array([[[1.0, 3.0]]]))
      >>> InputDropout(0.5).init_with_output(jax.random.key(0), stream)[0].values.round(2).tolist()
      [[[-1.0, 1.0]]]
    """

    rate: float
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        x = LayerNorm(dtype=self.dtype, name="norm")(_items(stream))
        return stream.replace(values=nn.Dropout(self.rate, (1,), deterministic=not train)(x)).zeroed


class Projector(nn.Module):
    """Each item to another width: linear (Liu et al. 2023, LLaVA) or an MLP with GELU (Liu et al. 2024, LLaVA-1.5).

    Attributes:
      dim: width of the result.
      hidden_dims: of the MLP; none = linear.
      normalise: whether items are normalised first (``LayerNorm``), as towers of different scale need.

    Example:
      >>> stream = Stream.of(jnp.ones((2, 5, 8)))
      >>> Projector(dim=4, hidden_dims=(6,)).init_with_output(jax.random.key(0), stream)[0].values.shape
      (2, 5, 4)
    """

    dim: int
    hidden_dims: Sequence[int] = ()
    normalise: bool = False
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        x = _items(stream)
        if self.normalise:
            x = LayerNorm(dtype=self.dtype, name="norm")(x)
        mlp = MLP((*self.hidden_dims, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp")
        return Stream(mlp(x, train=train), stream.mask).zeroed


class Resampler(nn.Module):
    """As many items as there are learned latents, which attend to the stream (Alayrac et al. 2022, Flamingo, 3.1).

    In each layer the latents attend to the stream and themselves together, then pass an MLP; pre-norm, with a norm at
    the end. A latent sees the stream as a set: positions are the encoder's. Departures: the stream is projected to
    ``dim`` first, time has no embedding of its own, and the output of attention has no bias.

    Attributes:
      dim: width of the result; ``num_heads`` must divide it.
      num_latents: items of the result; real where any item of the stream is.

    Example:
      >>> stream = Stream.of(jnp.ones((2, 49, 8)))
      >>> Resampler(dim=4, num_latents=3, num_layers=1).init_with_output(jax.random.key(0), stream)[0].values.shape
      (2, 3, 4)
    """

    dim: int
    num_latents: int = 64
    num_layers: int = 2
    num_heads: int = 4
    mlp_dim: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        items = Dense(self.dim, dtype=self.dtype, name="project")(_items(stream))
        x = _queries(self, self.num_latents, items)
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        mask = jnp.concatenate([stream.mask, jnp.broadcast_to(stream.present[:, None], x.shape[:2])], axis=1)
        for i in range(self.num_layers):
            seen = LayerNorm(dtype=self.dtype, name=f"items_norm_{i}")(items)
            latents = LayerNorm(dtype=self.dtype, name=f"latents_norm_{i}")(x)
            attention = MultiHeadAttention(
                self.dim, self.num_heads, self.dropout_rate, self.dtype, name=f"attention_{i}"
            )
            both = jnp.concatenate([seen, latents], axis=1)
            x = x + drop(attention(latents, both, mask=mask, role="resampler", train=train))
            x = x + drop(_mlp(self, i, x, train=train))
        return _result(LayerNorm(dtype=self.dtype, name="norm")(x), stream)


class QFormer(nn.Module):
    """As many items as there are learned queries, which talk to each other and, in some layers, read the stream.

    The querying transformer of BLIP-2 (Li et al. 2023, section 3.1), without its text branch: in each layer the queries
    attend to themselves, in every ``cross_every``-th one, the first among them, to the stream, and pass an MLP.
    Departures: pre-norm layers and a norm at the end (BERT's are post-norm); it starts untrained.

    Attributes:
      dim: width of the result; ``num_heads`` must divide it. The stream keeps its own.
      num_queries: items of the result; real where any item of the stream is.

    Example:
      >>> stream = Stream.of(jnp.ones((2, 49, 8)))
      >>> QFormer(dim=4, num_queries=3, num_layers=1).init_with_output(jax.random.key(0), stream)[0].values.shape
      (2, 3, 4)
    """

    dim: int
    num_queries: int = 32
    num_layers: int = 2
    cross_every: int = 2
    num_heads: int = 4
    mlp_dim: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        items = LayerNorm(dtype=self.dtype, name="items_norm")(_items(stream))
        x = _queries(self, self.num_queries, items)
        drop = nn.Dropout(self.dropout_rate, deterministic=not train)
        among = jnp.broadcast_to(stream.present[:, None], x.shape[:2])

        def attend(name: str, x: Any, keys: Any, mask: Any, role: str) -> Any:
            attention = MultiHeadAttention(self.dim, self.num_heads, self.dropout_rate, self.dtype, name=name)
            hidden = LayerNorm(dtype=self.dtype, name=f"{name}_norm")(x)
            return x + drop(attention(hidden, keys, mask=mask, role=role, train=train))

        for i in range(self.num_layers):
            x = attend(f"self_{i}", x, None, among, "queries")
            if i % self.cross_every == 0:
                x = attend(f"cross_{i}", x, items, stream.mask, "qformer")
            x = x + drop(_mlp(self, i, x, train=train))
        return _result(LayerNorm(dtype=self.dtype, name="norm")(x), stream)


def _items(stream: Stream) -> Any:
    """Items ``[batch, length, width]``, zero in the padding; errors are those of ``check_streams``."""
    check_streams({"adapter's": stream})
    return stream.zeroed.values


def _queries(module: Any, count: int, like: Any) -> Any:
    """Learned queries ``[batch, count, dim]``, parameters of the module."""
    queries = module.param("queries", nn.initializers.normal(0.02), (count, module.dim), jnp.float32)
    return jnp.broadcast_to(queries.astype(like.dtype), (like.shape[0], count, module.dim))


def _mlp(module: Any, i: int, x: Any, *, train: bool) -> Any:
    widths = (module.mlp_dim or 4 * module.dim, module.dim)
    mlp = MLP(widths, dropout_rate=module.dropout_rate, dtype=module.dtype, name=f"mlp_{i}")
    return mlp(LayerNorm(dtype=module.dtype, name=f"mlp_norm_{i}")(x), train=train)


def _result(x: Any, stream: Stream) -> Stream:
    return Stream(x, jnp.broadcast_to(stream.present[:, None], x.shape[:2])).zeroed
