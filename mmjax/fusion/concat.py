"""Concatenation, early and late: the same join before or after the depth."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers import MLP, pool_modalities
from mmjax.stream import Stream, check_streams, pooled
from mmjax.typing import Dtype, Mapping

__all__ = ["Concat", "EarlyConcat"]


class Concat(nn.Module):
    """Late fusion: concatenates the pooled modalities and applies an MLP, ``z = MLP([v_1; ...; v_M])``.

    An absent modality is a block of zeros. The number and the names of the modalities are fixed by the first call.

    Attributes:
      dim: width of each block and of the result; a stream of another width is projected.
      hidden_dims: widths of the hidden layers; empty = one linear map.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = Concat(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    hidden_dims: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        tokens = pool_modalities(streams, self.dim, dtype=self.dtype)
        flat = tokens.values.reshape(tokens.values.shape[0], -1)
        mlp = MLP((*self.hidden_dims, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp")
        return pooled(mlp(flat, train=train), tokens.mask.any(-1))


class EarlyConcat(nn.Module):
    """Early fusion of raw items: joins them step by step, then one joint model, ``z_t = f([x_1t; ...; x_Mt])``.

    Streams are aligned: equal lengths, and item ``t`` of each belongs to the same step; static vectors are the case of
    length 1. Items of any shape are flattened, so that raw streams may pass without encoders. A step is real where any
    modality is; what is missing in it is a block of zeros, which is the mean where the streams are standardised.
    Standardise them: the joint layer sees their scales.

    Attributes:
      dim: width of the result.
      joint: the joint model, any encoder ``(stream, *, train) -> Stream`` of width ``dim``; None = an MLP on each step.
      hidden_dims: widths of the hidden layers of that MLP; None = one of ``4 * dim``, empty = one linear map.

    Raises:
      ValueError: streams of different length, or a joint model whose width is not ``dim``.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "video": Stream.of(jnp.ones((2, 5, 4, 4, 1)))}
      >>> fused, _ = EarlyConcat(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 5, 8)
    """

    dim: int
    joint: nn.Module | None = None
    hidden_dims: tuple[int, ...] | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        flat = {
            name: stream.replace(values=stream.zeroed.values.reshape(*stream.mask.shape, -1))
            for name, stream in sorted(streams.items())
        }
        check_streams(flat)
        lengths = {name: stream.length for name, stream in flat.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"EarlyConcat needs aligned steps, the streams have lengths {lengths}")
        values = jnp.concatenate([stream.values for stream in flat.values()], axis=-1)
        joined = Stream(values, jnp.stack([stream.mask for stream in flat.values()]).any(0))
        if self.joint is not None:
            result = self.joint(joined, train=train)
            if result.values.shape[-1] != self.dim:
                raise ValueError(f"the joint model gave width {result.values.shape[-1]}, not {self.dim=}")
            return result
        hidden_dims = (4 * self.dim,) if self.hidden_dims is None else self.hidden_dims
        mlp = MLP((*hidden_dims, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp")
        return joined.replace(values=mlp(joined.values, train=train)).zeroed
