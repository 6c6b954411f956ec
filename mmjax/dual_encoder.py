"""A shared space: an encoder and a projection for each modality, unit vectors, a learned temperature and bias."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmjax.layers import MLP, Dense
from mmjax.losses import normalise
from mmjax.stream import Reduction, Stream, apply_mask, check_streams, masked_mean, pooled, select
from mmjax.typing import Array, Dtype, Mapping

__all__ = ["DualEncoder", "Embedded", "item_pairs"]


class Embedded(flax.struct.PyTreeNode):
    """What ``DualEncoder`` gives.

    Attributes:
      embeddings: by modality ``[batch, items, dim]``, of length 1, float32; zeros where the mask says that none is.
      scale: of their products, ``()``: 1 over the temperature.
      bias: added to them, ``()``; 0 where none is learned.
      train: whether they were made in training: a task measures a split as a whole, and a batch of train by itself.
      coordinates: what they were made from, for losses that unit vectors do not serve (``DeepCCA``); else None.
    """

    embeddings: dict[str, Stream]
    scale: Any
    bias: Any
    train: bool = flax.struct.field(pytree_node=False, default=False)
    coordinates: dict[str, Stream] | None = None


@jax.custom_vjp
def _capped(x: Any, most: Any) -> Any:
    """``min(x, most)``, whose gradient leads back below: only what would raise ``x`` further is dropped."""
    return jnp.minimum(x, most)


def _capped_forward(x: Any, most: Any) -> tuple[Any, Any]:
    return jnp.minimum(x, most), x >= most


def _capped_backward(above: Any, gradient: Any) -> tuple[Any, Any]:
    return jnp.where(above & (gradient < 0), 0, gradient), None


_capped.defvjp(_capped_forward, _capped_backward)


class DualEncoder(nn.Module):
    """Embeds any number of modalities in one space (CLIP: Radford et al. 2021, figure 3; SigLIP: Zhai et al. 2023).

    An encoder's tokens are pooled to one embedding per example, except of the modalities in ``several``, whose items
    (the captions of a photograph, encoded from nested ids) have one each. An absent modality has a mask that is False.

    Attributes:
      encoders: module per stream ``(stream, *, train) -> Stream``; a stream without one passes through.
      dim: of the space; None = what the encoders give, all of one width, is in it already.
      hidden_dims: of the projection of each modality; empty = a linear map.
      several: modalities with an embedding per item.
      pool: of the others' tokens.
      scale: learned factor of the products at the start: CLIP 1 / 0.07, SigLIP 10.
      max_scale: the factor is no more than this (CLIP: 100; SigLIP has no bound); None = unbounded.
      bias: learned number added to the products, at the start (SigLIP: -10); None = no such parameter.

    Raises:
      ValueError: an encoder or a name in ``several`` without a stream; a scale that is not from 0 to its bound.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((2, 1, 8))), "text": Stream.of(jnp.ones((2, 5, 6)))}
      >>> outputs, _ = DualEncoder({}, dim=4, several=("text",)).init_with_output(jax.random.key(0), streams)
      >>> {name: stream.values.shape for name, stream in outputs.embeddings.items()}
      {'image': (2, 1, 4), 'text': (2, 5, 4)}
    """

    encoders: Mapping[str, nn.Module]
    dim: int | None
    hidden_dims: Sequence[int] = ()
    several: Sequence[str] = ()
    pool: Reduction = masked_mean
    scale: float = 1 / 0.07
    max_scale: float | None = 100.0
    bias: float | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    def __post_init__(self):
        object.__setattr__(self, "encoders", FrozenDict(self.encoders))
        object.__setattr__(self, "several", tuple(self.several))
        super().__post_init__()

    def encode(self, streams: Mapping[str, Stream], *, train: bool = False) -> dict[str, Stream]:
        """The streams after their encoders."""
        select(streams, (*self.encoders, *self.several))
        return {
            name: self.encoders[name](stream, train=train) if name in self.encoders else stream
            for name, stream in sorted(streams.items())
        }

    def _project(self, name: str, x: Any, train: bool) -> Any:
        if self.dim is None:
            return x
        if not self.hidden_dims:
            return Dense(self.dim, use_bias=False, dtype=self.dtype, name=f"project_{name}")(x)
        widths = (*self.hidden_dims, self.dim)
        return MLP(widths, dropout_rate=self.dropout_rate, dtype=self.dtype, name=f"project_{name}")(x, train=train)

    def coordinates(self, streams: Mapping[str, Stream], *, train: bool = False) -> dict[str, Stream]:
        """The streams in the space ``[batch, items, dim]``, of any length; to be called where modules may be made."""
        encoded = self.encode(streams, train=train)
        check_streams(encoded)
        found = {}
        for name, tokens in encoded.items():
            if name not in self.several:
                tokens = pooled(self.pool(tokens.values, tokens.mask), tokens.present)
            values = self._project(name, tokens.zeroed.values, train).astype(jnp.float32)
            found[name] = Stream(values, tokens.mask)
        return found

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, targets: Any = None, train: bool = False) -> Embedded:
        if not 0 < self.scale <= (self.max_scale or math.inf):
            raise ValueError(f"{self.scale=} must be above 0 and at most {self.max_scale=}")
        embeddings = {
            name: Stream(apply_mask(normalise(one.values), one.mask), one.mask)
            for name, one in self.coordinates(streams, train=train).items()
        }
        log_scale = self.param("log_scale", nn.initializers.constant(math.log(self.scale)), (), jnp.float32)
        if self.max_scale is not None:
            log_scale = _capped(log_scale, jnp.float32(math.log(self.max_scale)))
        bias = jnp.float32(0)
        if self.bias is not None:
            bias = self.param("bias", nn.initializers.constant(self.bias), (), jnp.float32)
        return Embedded(embeddings, jnp.exp(log_scale), bias, train)


def item_pairs(left: Stream, right: Stream) -> tuple[Array, Array, Array]:
    """Every item of one stream beside every item of the other in the same example ``[pairs, dim]``, and which pairs are
    there ``[pairs]``.

    Example:
      >>> image, text = Stream.of(jnp.ones((4, 1, 8))), Stream.of(jnp.ones((4, 3, 6)))
      >>> [x.shape for x in item_pairs(image, text)]
      [(12, 8), (12, 6), (12,)]
    """
    shape = (len(left.mask), left.mask.shape[1], right.mask.shape[1])

    def flat(values: Any) -> Any:
        return jnp.broadcast_to(values, (*shape, values.shape[-1])).reshape(-1, values.shape[-1])

    present = jnp.broadcast_to(left.mask[:, :, None] & right.mask[:, None, :], shape)
    return flat(left.values[:, :, None]), flat(right.values[:, None, :]), present.reshape(-1)
