"""Encoders of plain features: vectors (sequences of length 1) and sequences of vectors ``[batch, length, d]``."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.patches import TransformerStack, pad_axis
from mmjax.encoders.stages import ALL, run_stages
from mmjax.layers import MLP, Activation, Dense, LearnedPositions, TransformerBlock, sinusoidal_positions
from mmjax.stream import Stream, apply_mask
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

    Example:
      >>> vectors = Stream.of(jnp.ones((2, 1, 3)))
      >>> tokens, _ = FeatureMLP(dim=4, hidden_dims=(8,)).init_with_output(jax.random.key(0), vectors)
      >>> tokens.values.shape
      (2, 1, 4)
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
      block: template of the layers.
      max_length: None = sines as positions, for any length; a number = learned positions up to that length.
      dropout_rate: of the tokens that enter the first block.

    Example:
      >>> steps = Stream.of(jnp.ones((2, 5, 3)))
      >>> tokens, _ = FeatureTransformer(dim=4, num_layers=1).init_with_output(jax.random.key(0), steps)
      >>> tokens.values.shape
      (2, 5, 4)
    """

    dim: int
    num_layers: int = 2
    block: nn.Module = TransformerBlock()
    max_length: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The tokens, each block, the norm."""
        return self.num_layers + 2

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def embed(stream: Stream) -> Stream:
            x = feature_sequence(stream, self.dtype)
            if x.shape[-1] != self.dim:
                x = Dense(self.dim, dtype=self.dtype, name="project")(x)
            if self.max_length is not None:
                return stream.replace(values=LearnedPositions(self.max_length, name="positions")(x))
            return stream.replace(values=x + sinusoidal_positions(x.shape[1], self.dim).astype(x.dtype))

        stack = TransformerStack(self.num_layers, self.block, self.dropout_rate, name="stack")
        enter, *blocks, norm = stack.steps(train=train)
        steps = [lambda stream: enter(embed(stream)), *blocks, lambda stream: norm(stream).zeroed]
        return run_stages(steps, stream, stages)


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

    Example:
      >>> steps = Stream.of(jnp.ones((2, 5, 3)))
      >>> tokens, _ = TemporalConv(dim=4, strides=(1, 2)).init_with_output(jax.random.key(0), steps)
      >>> tokens.values.shape
      (2, 3, 4)
    """

    dim: int
    kernel_size: int = 3
    strides: tuple[int, ...] = (1, 1)
    causal: bool = False
    activation: Activation = nn.relu
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The layers."""
        return len(self.strides)

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        if not self.strides or not 1 <= min(self.strides) <= max(self.strides) <= self.kernel_size:
            raise ValueError(f"{self.strides=} must be one or more numbers from 1 to {self.kernel_size=}")

        def layer(i: int, stream: Stream) -> Stream:
            x, stride = feature_sequence(stream, self.dtype), self.strides[i]
            if i:
                drop = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"dropout_{i}")
                x = apply_mask(drop(self.activation(x)), stream.mask)
            dense = Dense(self.dim, dtype=self.dtype, name=f"conv_{i}")
            mask = pad_axis(stream.mask, stride).reshape(stream.mask.shape[0], -1, stride).any(-1)
            return Stream(dense(_windows(x, self.kernel_size, stride, causal=self.causal)), mask)

        steps = [functools.partial(layer, i) for i in range(self.num_stages)]
        return run_stages(steps, stream, stages).zeroed


def _windows(x: Shaped[Array, "b t d"], size: int, stride: int, *, causal: bool) -> Any:
    """Windows ``[b, ceil(t / stride), size * d]`` of consecutive items, oldest first, zeros beyond the ends.

    A product with windows is a convolution; unlike XLA's it stays a plain product when seeds are mapped over it.
    """
    steps = -(-x.shape[1] // stride)
    left = size - stride if causal else (size - stride) // 2
    x = jnp.pad(x, ((0, 0), (left, (steps - 1) * stride + size - left - x.shape[1]), (0, 0)))
    return jnp.concatenate([x[:, i : i + (steps - 1) * stride + 1 : stride] for i in range(size)], -1)
