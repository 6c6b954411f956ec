"""Encoders of plain features: vectors (sequences of length 1) and sequences of vectors ``[batch, length, d]``."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.patches import TransformerStack, pad_axis
from mmjax.layers import MLP, Activation, Dense, LearnedPositions, sinusoidal_positions
from mmjax.stream import Stream
from mmjax.typing import Array, Dtype, Float, Shaped

__all__ = ["FeatureMLP", "FeatureTransformer", "TemporalConv", "feature_sequence"]


def feature_sequence(stream: Stream, dtype: Dtype | None = None) -> Float[Array, "b t d"]:
    """The values of a sequence of feature vectors in the compute type, zero in the padding.

    Raises:
      ValueError: the items are no vectors of floats.
    """
    values, mask = stream.values, stream.mask
    if mask.ndim != 2 or values.ndim != 3 or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"expected feature vectors [batch, length, dim] of floats with a mask [batch, length], got {values.dtype} "
            f"{values.shape} with a mask {mask.shape}"
        )
    return stream.zeroed.values.astype(dtype or values.dtype)


class FeatureMLP(nn.Module):
    """The same MLP on every item; an item of several axes (an image, a patch of a spectrogram) is flattened first.

    Attributes:
      dim: width of the tokens.
      hidden_dims: widths of the hidden layers; empty = one linear map.
    """

    dim: int
    hidden_dims: tuple[int, ...] = ()
    activation: Activation = nn.gelu
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        flat = stream.replace(values=stream.values.reshape(*stream.mask.shape, -1))
        mlp = MLP((*self.hidden_dims, self.dim), self.activation, self.dropout_rate, self.dtype, name="mlp")
        return Stream(mlp(feature_sequence(flat, self.dtype), train=train), stream.mask).zeroed


class FeatureTransformer(nn.Module):
    """Transformer encoder over a sequence of feature vectors (Vaswani et al. 2017, pre-norm), with a final norm.

    An item keeps its position whatever is masked before it. An input of another width than ``dim`` is projected.

    Attributes:
      dim: width of the tokens; ``num_heads`` must divide it.
      max_length: None = sines as positions, for any length; a number = learned positions up to that length.
      mlp_dim: hidden width of the blocks' MLP; None = ``4 * dim``.
    """

    dim: int
    num_layers: int = 2
    num_heads: int = 4
    mlp_dim: int | None = None
    max_length: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        x = feature_sequence(stream, self.dtype)
        if x.shape[-1] != self.dim:
            x = Dense(self.dim, dtype=self.dtype, name="project")(x)
        if self.max_length is None:
            x = x + sinusoidal_positions(x.shape[1], self.dim).astype(x.dtype)
        else:
            x = LearnedPositions(self.max_length, name="positions")(x)
        stack = TransformerStack(
            self.dim, self.num_layers, self.num_heads, self.mlp_dim, self.dropout_rate, self.dtype, name="stack"
        )
        return Stream(stack(x, mask=stream.mask, train=train), stream.mask).zeroed


class TemporalConv(nn.Module):
    """Layers of 1-D convolution over time, an activation and dropout between them; the last layer is linear.

    Padding (holes too) is zeroed before every layer, so a sequence looks the same to it whatever padding follows. With
    a stride ``s`` token i stands for the items ``i s`` to ``i s + s - 1``, is real if any of them is, and sees
    ``kernel_size`` items around them; the windows do not depend on the length (XLA's "SAME" ones do).

    Attributes:
      dim: width of all layers.
      kernel_size: items that one token sees; at least the stride, else items would be skipped.
      strides: of each layer, one layer per number.
      causal: a token sees nothing after its own items (Bai et al. 2018, section 3.1).
    """

    dim: int
    kernel_size: int = 3
    strides: tuple[int, ...] = (1, 1)
    causal: bool = False
    activation: Activation = nn.relu
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        if not self.strides or not 1 <= min(self.strides) <= max(self.strides) <= self.kernel_size:
            raise ValueError(f"{self.strides=} must be one or more numbers from 1 to {self.kernel_size=}")
        stream = stream.replace(values=feature_sequence(stream, self.dtype))
        for i, stride in enumerate(self.strides):
            if i:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(self.activation(stream.values))
                stream = stream.replace(values=x)
            dense = Dense(self.dim, dtype=self.dtype, name=f"conv_{i}")
            mask = pad_axis(stream.mask, stride).reshape(stream.mask.shape[0], -1, stride).any(-1)
            windows = _windows(stream.zeroed.values, self.kernel_size, stride, causal=self.causal)
            stream = Stream(dense(windows), mask)
        return stream.zeroed


def _windows(x: Shaped[Array, "b t d"], size: int, stride: int, *, causal: bool) -> Any:
    """Windows ``[b, ceil(t / stride), size * d]`` of consecutive items, oldest first, zeros beyond the ends.

    A product with windows is a convolution; unlike XLA's it stays a plain product when seeds are mapped over it.
    """
    steps = -(-x.shape[1] // stride)
    left = size - stride if causal else (size - stride) // 2
    x = jnp.pad(x, ((0, 0), (left, (steps - 1) * stride + size - left - x.shape[1]), (0, 0)))
    return jnp.concatenate([x[:, i : i + (steps - 1) * stride + 1 : stride] for i in range(size)], -1)
