"""Encoders of images: ``[batch, t, h, w, c]`` (a single image is ``t = 1``) to tokens of width ``dim``.

Every image is encoded alone, so a sequence of images is folded into the batch. Integer pixels (uint8) become float32 in
[0, 1]; floats are taken as they are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.convolution import Conv, ConvPool
from mmjax.encoders.normalisation import GroupNorm
from mmjax.encoders.patches import TransformerStack, patchify
from mmjax.encoders.stages import ALL, Step, run_stages
from mmjax.layers import Dense, LearnedPositions, TransformerBlock
from mmjax.stream import Stream
from mmjax.typing import Array, Dtype, Float

__all__ = ["LeNet", "ResNet", "ViT", "pixels"]


def pixels(stream: Stream, dtype: Dtype | None = None) -> Stream:
    """The images as floats, zero where the mask is False.

    Raises:
      ValueError: not ``[batch, t, h, w, c]`` with a mask ``[batch, t]``, or integers other than uint8.
    """
    values, mask = stream.values, stream.mask
    if values.ndim != 5 or mask.ndim != 2:
        raise ValueError(f"images are [batch, t, h, w, c] with a mask [batch, t], got {values.shape} and {mask.shape}")
    if values.dtype == jnp.uint8:
        values = values.astype(jnp.float32) / 255
    elif not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"pixels are uint8 (0 to 255) or floating, got {values.dtype}")
    return Stream(values.astype(dtype or values.dtype), mask).zeroed


def _fold(images: Stream) -> Any:
    """``[batch, t, *item] -> [batch * t, *item]``."""
    return images.values.reshape(-1, *images.values.shape[2:])


def _items(values: Any, mask: Any) -> Stream:
    """``[batch * t, *item] -> [batch, t, *item]``: what stands between two stages."""
    return Stream(values.reshape(*mask.shape, *values.shape[1:]), mask)


def _unfold(tokens: Float[Array, "bt n d"], mask: Any) -> Stream:
    """``[batch * t, n, d] -> [batch, t * n, d]`` with the mask of each image repeated for its tokens."""
    batch, per_image, dim = mask.shape[0], tokens.shape[1], tokens.shape[2]
    return Stream(tokens.reshape(batch, -1, dim), jnp.repeat(mask, per_image, axis=1)).zeroed


class LeNet(nn.Module):
    """Convolution, pooling and rectifier, stage after stage, then dense layers (LeCun et al. 1998, LeNet-5).

    With ``channels=(6, 16)`` and ``hidden_dims=(120, 84)`` it is LeNet-5; departures: maximum instead of mean pooling,
    rectifiers instead of tanh, "same" padding, full connections between the feature maps.

    Attributes:
      dim: width of the tokens.
      channels: feature maps of each stage; a stage halves height and width.
      hidden_dims: widths of the dense layers before the last; not used with ``tokens``.
      tokens: False gives one token per image; True gives one per place of the last feature map, row by row.
      space_to_depth: see ``ConvPool``.

    Example:
      >>> images = Stream.of(jnp.ones((2, 1, 8, 8, 3)))
      >>> tokens, _ = LeNet(dim=4).init_with_output(jax.random.key(0), images)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    dim: int
    channels: Sequence[int] = (6, 16)
    hidden_dims: Sequence[int] = (120, 84)
    kernel_size: int = 5
    tokens: bool = False
    dropout_rate: float = 0.0
    activation: Callable[[Any], Any] = nn.relu
    space_to_depth: bool | None = None
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """Each convolution, the dense layers."""
        return len(self.channels) + 1

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def begin(stream: Stream) -> Stream:
            images, smallest = pixels(stream, self.dtype), 2 ** len(self.channels)
            if min(size := images.values.shape[2:4]) < smallest:
                raise ValueError(f"{self.channels=} need images of {smallest} by {smallest} or more, got {size}")
            return images

        def convolve(i: int, stream: Stream) -> Stream:
            images = stream if i else begin(stream)
            conv = ConvPool(self.channels[i], self.kernel_size, self.space_to_depth, self.dtype, name=f"conv_{i}")
            return _items(self.activation(conv(_fold(images))), images.mask)

        def dense(stream: Stream) -> Stream:
            x = _fold(stream if self.channels else begin(stream))
            drop = nn.Dropout(self.dropout_rate, deterministic=not train)
            if self.tokens:
                x = x.reshape(x.shape[0], -1, x.shape[-1])
            else:
                x = x.reshape(x.shape[0], 1, -1)
                for i, width in enumerate(self.hidden_dims):
                    x = self.activation(Dense(width, dtype=self.dtype, name=f"dense_{i}")(drop(x)))
            return _unfold(Dense(self.dim, dtype=self.dtype, name="out")(drop(x)), stream.mask)

        steps: list[Step] = [*(functools.partial(convolve, i) for i in range(len(self.channels))), dense]
        return run_stages(steps, stream, stages)


class ResidualBlock(nn.Module):
    """Two 3 by 3 convolutions with a skip connection (He et al. 2016, figure 5 left), normalised in groups."""

    features: int
    stride: int = 1
    num_groups: int = 8
    symmetric_padding: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j features"]:
        dtype, strides = self.dtype or x.dtype, (self.stride, self.stride)

        def conv(x: Any, size: int, strides: tuple[int, int], name: str) -> Any:
            padding = size // 2 if self.symmetric_padding else "SAME"
            return Conv(self.features, (size, size), strides, padding, use_bias=False, dtype=dtype, name=name)(x)

        def norm(x: Any, name: str) -> Any:
            return GroupNorm(self.num_groups, dtype=dtype, name=name)(x)

        y = nn.relu(norm(conv(x, 3, strides, "conv_0"), "norm_0"))
        y = norm(conv(y, 3, (1, 1), "conv_1"), "norm_1")
        if x.shape[-1] != self.features or self.stride != 1:
            x = norm(conv(x, 1, strides, "skip"), "skip_norm")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual network with a 3 by 3 stem, as for small images (He et al. 2016, section 4.2).

    Departures: GroupNorm (Wu & He 2018) for BatchNorm; it sees one image at a time, so padding and absent images cannot
    touch the statistics of real ones, and there is no state. A shortcut that changes width or size is a 1 by 1
    convolution with a norm (the paper's option B), where section 4.2 pads with zeros (option A). ``symmetric_padding``.

    Attributes:
      dim: width of the tokens.
      widths: channels of each stage; every stage but the first halves height and width.
      stage_sizes: residual blocks of each stage; ResNet-20 is ``(3, 3, 3)`` with widths ``(16, 32, 64)``.
      num_groups: of the norms; must divide every width.
      symmetric_padding: zeros on both sides of a convolution that halves the map, as in PyTorch and its published
        weights; False puts them at the end only, XLA's "same" for an even side.
      tokens: False gives one token per image (the mean over places); True one per place, row by row.

    Example:
      >>> images = Stream.of(jnp.ones((2, 1, 8, 8, 3)))
      >>> encoder = ResNet(dim=4, widths=(8,), stage_sizes=(1,), tokens=True)
      >>> tokens, _ = encoder.init_with_output(jax.random.key(0), images)
      >>> tokens.values.shape
      (2, 64, 4)
    """

    dim: int
    widths: Sequence[int] = (16, 32, 64)
    stage_sizes: Sequence[int] = (1, 1, 1)
    num_groups: int = 8
    symmetric_padding: bool = False
    tokens: bool = False
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The stem with the blocks of the first width, the blocks of every other width, the tokens."""
        return len(self.widths) + 1

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        if len(self.widths) != len(self.stage_sizes):
            raise ValueError(f"{self.stage_sizes=} must have as many entries as {self.widths=}")
        if any(width % self.num_groups for width in self.widths):
            raise ValueError(f"{self.num_groups=} must divide every one of {self.widths=}")

        def stem(stream: Stream) -> Stream:
            x = _fold(images := pixels(stream, self.dtype))
            x = Conv(self.widths[0], (3, 3), use_bias=False, dtype=x.dtype, name="stem")(x)
            return _items(nn.relu(GroupNorm(self.num_groups, dtype=x.dtype, name="stem_norm")(x)), images.mask)

        def blocks(i: int, stream: Stream) -> Stream:
            x = _fold(stream if i else stem(stream))
            for j in range(self.stage_sizes[i]):
                stride = 2 if i and not j else 1
                x = ResidualBlock(
                    self.widths[i], stride, self.num_groups, self.symmetric_padding, self.dtype, name=f"block_{i}_{j}"
                )(x)
            return _items(x, stream.mask)

        def tokens(stream: Stream) -> Stream:
            x = _fold(stream)
            x = x.reshape(x.shape[0], -1, x.shape[-1])
            if not self.tokens:
                x = x.mean(1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
            return _unfold(Dense(self.dim, dtype=self.dtype, name="out")(x), stream.mask)

        steps: list[Step] = [*(functools.partial(blocks, i) for i in range(len(self.widths))), tokens]
        return run_stages(steps, stream, stages)


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021): linear patches, learned positions, pre-norm blocks, final norm.

    Departures: without ``class_token`` the image is the mean of its patch tokens (Beyer et al. 2022), not a CLS token;
    the class token has no position (both would be one learned vector, so only its initial scale and decay differ).
    The size of the images is fixed by the first call, through the positions.

    Attributes:
      dim: width of the tokens.
      patch_size: side of a square patch in pixels; must divide height and width.
      block: template of the layers.
      class_token: whether a learned token is prepended, and the pooled token is its output.
      tokens: False gives one token per image; True gives its patch tokens, row by row (without the class token).
      dropout_rate: of the tokens that enter the first block.

    Example:
      >>> images = Stream.of(jnp.ones((2, 1, 8, 8, 3)))
      >>> encoder = ViT(dim=4, num_layers=1, block=TransformerBlock(num_heads=2))
      >>> tokens, _ = encoder.init_with_output(jax.random.key(0), images)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    dim: int
    patch_size: int = 4
    num_layers: int = 4
    block: nn.Module = TransformerBlock()
    class_token: bool = False
    tokens: bool = False
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The patches (items ``(tokens, dim)``, the class token first), each block, the tokens."""
        return self.num_layers + 2

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def embed(stream: Stream) -> Stream:
            images = pixels(stream, self.dtype)
            x = patchify(_fold(images), self.patch_size, self.patch_size)
            x = Dense(self.dim, dtype=self.dtype, name="embed")(x.reshape(x.shape[0], -1, x.shape[-1]))
            x = LearnedPositions(x.shape[1], name="positions")(x)
            if self.class_token:
                token = self.param("class_token", nn.initializers.normal(0.02), (self.dim,), jnp.float32)
                token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.dim))
                x = jnp.concatenate([token, x], axis=1)
            return _items(x, images.mask)

        def tokens(stream: Stream) -> Stream:
            x = _fold(norm(stream))
            if self.tokens:
                x = x[:, int(self.class_token) :]
            elif self.class_token:
                x = x[:, :1]
            else:
                x = x.mean(1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
            return _unfold(x, stream.mask)

        stack = TransformerStack(self.num_layers, self.block, self.dropout_rate, name="stack")
        enter, *blocks, norm = stack.steps(train=train)
        return run_stages([lambda stream: enter(embed(stream)), *blocks, tokens], stream, stages)
