"""Assemblies: encoders, a fusion and a head become a model; wrappers change where and how a fusion is applied."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from mmjax.deep_cca import DeepCCA as DeepCCA
from mmjax.dual_encoder import DualEncoder as DualEncoder
from mmjax.encoders.stages import count_stages
from mmjax.stream import Stream, check_streams, select, where_mask
from mmjax.typing import Mapping

__all__ = [
    "DeepCCA",
    "DualEncoder",
    "Interleaved",
    "Layerwise",
    "ModalityDropout",
    "Multimodal",
    "NullToken",
    "PerItem",
    "PerStep",
]


class Multimodal(nn.Module):
    """``streams -> encoders -> fusion -> head``: every model of the tables is one of these.

    Attributes:
      encoders: module per stream ``(stream, *, train) -> Stream``; a stream without one passes through.
      fusion: ``(streams, *, train) -> Stream``.
      head: ``(stream, *, targets, train) -> outputs``.
      unimodal_head: a head used for every modality alone (parameters of its own each); the outputs are then
        ``{"fused": outputs, "unimodal": {name: outputs}}``, as balancing methods and auxiliary losses need. A stream of
        integers (side information) is no modality and has none.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    head: nn.Module
    unimodal_head: nn.Module | None = None

    def __post_init__(self):
        object.__setattr__(self, "encoders", FrozenDict(self.encoders))
        super().__post_init__()

    def encode(self, streams: Mapping[str, Stream], *, train: bool = False) -> dict[str, Stream]:
        """The streams after their encoders.

        Raises:
          ValueError: an encoder whose stream is not there.
        """
        select(streams, self.encoders)
        return {
            name: self.encoders[name](stream, train=train) if name in self.encoders else stream
            for name, stream in sorted(streams.items())
        }

    def fuse_and_predict(self, encoded: Mapping[str, Stream], *, targets: Any = None, train: bool = False) -> Any:
        """The outputs for encoded streams; analysis encodes once and calls this many times."""
        return self.head(self.fusion(encoded, train=train), targets=targets, train=train)

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, targets: Any = None, train: bool = False) -> Any:
        encoded = self.encode(streams, train=train)
        outputs = self.fuse_and_predict(encoded, targets=targets, train=train)
        if self.unimodal_head is None:
            return outputs
        alone = {
            name: self.unimodal_head.clone(name=f"unimodal_{name}", parent=self)(stream, train=train)
            for name, stream in encoded.items()
            if jnp.issubdtype(stream.values.dtype, jnp.floating)
        }
        return {"fused": outputs, "unimodal": alone}


class PerStep(nn.Module):
    """Applies a pooled fusion at every step of aligned streams ``[batch, length, d]``, as sentiment in context needs.

    Raises:
      ValueError: streams of different length.
    """

    fusion: nn.Module

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        check_streams(streams)
        lengths = {name: stream.length for name, stream in sorted(streams.items())}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"PerStep needs aligned steps, the streams have lengths {lengths}")

        def fold(x: Any) -> Any:
            return x.reshape(-1, 1, *x.shape[2:])

        steps = {name: Stream(fold(stream.values), fold(stream.mask)) for name, stream in streams.items()}
        fused = self.fusion(steps, train=train)
        if fused.length != 1:
            raise ValueError(f"PerStep needs a pooled fusion, {type(self.fusion).__name__} gave {fused.length} tokens")
        shape = next(iter(streams.values())).mask.shape
        return Stream(fused.values.reshape(*shape, -1), fused.mask.reshape(shape))


class PerItem(nn.Module):
    """Applies a pooled fusion to each item of one stream, with all of the other streams: several questions about one
    picture, whose feature map was made once, ``[batch, questions, d]`` and ``[batch, places, d]``.

    The result has a token per item, real where the item is or any of the others.

    Attributes:
      items: the stream whose items are taken one by one.
    """

    fusion: nn.Module
    items: str

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        check_streams(streams)
        select(streams, [self.items])
        batch, count = streams[self.items].mask.shape

        def one_by_one(name: str, x: Any) -> Any:
            if name == self.items:
                return x.reshape(batch * count, 1, *x.shape[2:])
            return jnp.broadcast_to(x[:, None], (batch, count, *x.shape[1:])).reshape(batch * count, *x.shape[1:])

        folded = {
            name: Stream(one_by_one(name, stream.values), one_by_one(name, stream.mask))
            for name, stream in sorted(streams.items())
        }
        fused = self.fusion(folded, train=train)
        if fused.length != 1:
            raise ValueError(f"PerItem needs a pooled fusion, {type(self.fusion).__name__} gave {fused.length} tokens")
        return Stream(fused.values.reshape(batch, count, -1), fused.mask.reshape(batch, count))


class Layerwise(nn.Module):
    """Alternates stages of the encoders with exchanges between them, then fuses.

    Attributes:
      stages: per level a module per stream ``(stream, *, train) -> Stream``; items may be feature maps ``(h, w, c)``.
      exchanges: per level ``(streams, *, train) -> streams`` or None; as many as stages.
      fusion: sees the last level with its items flattened to tokens, or with ``keep=True`` every level under the
        names ``image/00``, ``image/01``, ...
    """

    stages: Sequence[Mapping[str, nn.Module]]
    exchanges: Sequence[nn.Module | None]
    fusion: nn.Module
    keep: bool = False

    def __post_init__(self):
        object.__setattr__(self, "stages", tuple(FrozenDict(stage) for stage in self.stages))
        object.__setattr__(self, "exchanges", tuple(self.exchanges))
        if len(self.stages) != len(self.exchanges):
            raise ValueError(f"{len(self.stages)} stages need as many exchanges, got {len(self.exchanges)}; use None")
        super().__post_init__()

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        levels = {}
        streams = dict(streams)
        for depth, (stage, exchange) in enumerate(zip(self.stages, self.exchanges)):
            select(streams, stage)
            streams = {k: stage[k](s, train=train) if k in stage else s for k, s in sorted(streams.items())}
            if exchange is not None:
                streams = dict(exchange(streams, train=train))
            levels.update({f"{name}/{depth:02d}": stream for name, stream in streams.items()})
        chosen = levels if self.keep else streams
        return self.fusion({name: _flatten_items(stream) for name, stream in chosen.items()}, train=train)


class Interleaved(nn.Module):
    """Encoders with exchanges between their stages, then a fusion: ``Multimodal({}, Interleaved(...), head)``.

    The last exchange stands before the last stage of every encoder, the one before it before the last but one, and so
    on; stages that are left over come first. So two exchanges between ``ResNet``s of three widths stand after the
    second and the third width of both. ``mmjax.encoders.stages`` says what an encoder has to offer for this; one
    without stages runs first, and its tokens take part in every exchange, as does a stream without an encoder.
    ``Layerwise`` takes stages that are modules of their own.

    Attributes:
      encoders: module per stream; its parameters are those it has by itself.
      exchanges: ``(streams, *, train) -> streams`` or None.
      fusion: sees the streams after the last stages.

    Raises:
      ValueError: an encoder whose stream is not there, or that has too few stages.
    """

    encoders: Mapping[str, nn.Module]
    exchanges: Sequence[nn.Module | None]
    fusion: nn.Module

    def __post_init__(self):
        object.__setattr__(self, "encoders", FrozenDict(self.encoders))
        object.__setattr__(self, "exchanges", tuple(self.exchanges))
        super().__post_init__()

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        select(streams, self.encoders)
        counts = {name: count_stages(encoder) for name, encoder in self.encoders.items()}
        if small := {name: count for name, count in counts.items() if 0 < count <= len(self.exchanges)}:
            raise ValueError(f"{len(self.exchanges)} exchanges stand between as many stages and one more, got {small}")
        streams, depth = dict(sorted(streams.items())), len(self.exchanges)
        for i in range(depth + 1):
            for name, count in counts.items():
                if count:
                    stages = slice(count - depth + i - 1 if i else 0, count - depth + i)
                    streams[name] = self.encoders[name](streams[name].zeroed, train=train, stages=stages).zeroed
                elif not i:
                    streams[name] = self.encoders[name](streams[name], train=train)
            exchange = self.exchanges[i] if i < depth else None
            if exchange is not None:
                streams = dict(exchange(streams, train=train))
        return self.fusion(streams, train=train)


def _flatten_items(stream: Stream) -> Stream:
    """Feature maps ``[batch, length, h, w, c]`` as tokens ``[batch, length * h * w, c]``; vectors stay."""
    values, mask = stream.values, stream.mask
    if values.ndim <= 3:
        return stream
    inner = values.shape[2:-1]
    mask = jnp.broadcast_to(mask.reshape(*mask.shape, *(1,) * len(inner)), values.shape[:-1])
    return Stream(values.reshape(values.shape[0], -1, values.shape[-1]), mask.reshape(values.shape[0], -1))


class NullToken(nn.Module):
    """Gives an absent modality a learned token and marks it present, then fuses.

    The invariant "an absent modality gets zero weight" holds for the bare fusion, not under this wrapper.
    """

    fusion: nn.Module

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        check_streams(streams)
        filled = {}
        for name, stream in sorted(streams.items()):
            width = stream.values.shape[-1]
            token = self.param(f"null_{name}", nn.initializers.normal(0.02), (width,), jnp.float32)
            first = jnp.arange(stream.length) == 0
            slot = ~stream.present[:, None] & first
            values = jnp.where(where_mask(slot, stream.values), token.astype(stream.values.dtype), stream.values)
            filled[name] = Stream(values, stream.mask | slot)
        return self.fusion(filled, train=train)


class ModalityDropout(nn.Module):
    """Leaves modalities out at random in training, then fuses (ModDrop: Neverova et al. 2016, section 4.2).

    Each modality that an example has is left out with probability ``rate``, as if it were missing; of those it has,
    one always stays (the paper may lose all), so that with two modalities ``rate (1 - rate / 2)`` of them go. Without
    ``train`` it changes nothing. Nothing is rescaled: a mask says what is there.

    Attributes:
      rate: from 0 to below 1.

    Raises:
      ValueError: another rate.
    """

    fusion: nn.Module
    rate: float = 0.3

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        if not 0 <= self.rate < 1:
            raise ValueError(f"{self.rate=} must be from 0 to below 1")
        check_streams(streams)
        if train and self.rate:
            names = sorted(streams)
            present = jnp.stack([streams[name].present for name in names], axis=1)
            luck = jnp.where(present, jax.random.uniform(self.make_rng("dropout"), present.shape), -1.0)
            gone = (luck < self.rate) & (luck < luck.max(1, keepdims=True))
            streams = {name: streams[name].absent(gone[:, place]) for place, name in enumerate(names)}
        return self.fusion(streams, train=train)
