"""One type flows through everything: a modality is a masked sequence of items. Read this file first.

A fusion never asks whether a modality is there: an absent one is a mask that is False everywhere, so one compiled
program serves every pattern of presence.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.typing import Array, Bool, Float, Mapping, Shaped, checked

__all__ = [
    "Batch",
    "Reduction",
    "Stream",
    "apply_mask",
    "assign_roles",
    "by_index",
    "by_row",
    "check_streams",
    "drop_rows",
    "item_weight",
    "join",
    "known_target",
    "map_arrays",
    "masked_last",
    "masked_max",
    "masked_mean",
    "masked_softmax",
    "masked_sum",
    "pooled",
    "select",
    "target_items",
    "where_mask",
]


@dataclasses.dataclass(frozen=True)
class Stream:
    """One modality as a masked sequence of items.

    Attributes:
      values: ``[batch, length, *item]``; an item is a token id ``()``, a feature vector ``(d,)``, a spectrogram frame
        ``(mels,)``, an image ``(h, w, c)``. A vector or a single image is a sequence of length 1.
      mask: ``[batch, length]`` bool, True = real, False = padding; it may have holes. A longer mask nests sequences:
        ids and mask ``[batch, utterances, words]``.

    Raises:
      ValueError: the mask is not boolean, or its shape is not the beginning of the shape of the values.
    """

    values: Any
    mask: Any

    def __post_init__(self):
        if not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in (self.values, self.mask)):
            return  # no arrays: axes, shardings, whatever a transformation puts in their place
        if self.mask.dtype != bool:
            raise ValueError(f"a mask is boolean, got mask.dtype={self.mask.dtype}")
        if self.values.shape[: self.mask.ndim] != self.mask.shape:
            raise ValueError(f"mask.shape={self.mask.shape} is not the beginning of values.shape={self.values.shape}")

    @classmethod
    def of(cls, values: Any, mask: Any = None) -> "Stream":
        """A stream of arrays; without a mask every item is real."""
        return cls(values, jnp.ones(values.shape[:2], bool) if mask is None else mask)

    def replace(self, **changes: Any) -> "Stream":
        """The stream with other values or another mask."""
        return dataclasses.replace(self, **changes)

    @property
    def present(self) -> Bool[Array, " batch"]:
        """``[batch]``: whether the example has this modality at all. Derived, never stored."""
        return self.mask.reshape(self.mask.shape[0], -1).any(-1)

    @property
    def length(self) -> int:
        """Number of items, padding included."""
        return self.mask.shape[1]

    @property
    def zeroed(self) -> "Stream":
        """The same stream with zeros wherever the mask is False: NaN times 0 is NaN, so select, never multiply."""
        return self.replace(values=apply_mask(self.values, self.mask))

    def absent(self, where: Bool[Array, " batch"] | bool = True) -> "Stream":
        """The same stream, missing in the examples named by ``where``."""
        where = jnp.broadcast_to(jnp.asarray(where), self.mask.shape[:1])
        return self.replace(mask=self.mask & ~where_mask(where, self.mask))


def _unflatten(_: None, parts: Iterable[Any]) -> Stream:
    """A stream of whatever a transformation makes of its arrays, unchecked."""
    stream = object.__new__(Stream)
    for name, part in zip(("values", "mask"), parts):
        object.__setattr__(stream, name, part)
    return stream


jax.tree_util.register_pytree_with_keys(
    Stream,
    lambda s: (((jax.tree_util.GetAttrKey("values"), s.values), (jax.tree_util.GetAttrKey("mask"), s.mask)), None),
    _unflatten,
    lambda s: ((s.values, s.mask), None),
)


class Batch(flax.struct.PyTreeNode):
    """A batch of examples.

    Attributes:
      streams: the modalities by name; the names are the user's words.
      target: a pytree: an array ``[batch]`` (a class, a score), ``[batch, length]`` (a label per step), ``[batch,
        labels]`` (as many answers), a ``Stream`` (a caption), or a dict of such.
      weight: ``[batch]``; 0 marks the padding of a last batch and examples that a seed does not train on.
      index: the number of each labelled item in its split; ``[batch]``, or ``[batch, length]`` (-1 in padding).
      group: as ``index``: video, speaker, photograph: the unit of splitting and of the bootstrap.
    """

    streams: dict[str, Stream]
    target: Any
    weight: Any
    index: Any
    group: Any

    @property
    def size(self) -> int:
        """Number of rows, those of weight 0 included."""
        return self.weight.shape[0]


def by_index(values: Any, index: Any, *, lead: int = 0) -> np.ndarray:
    """Values of the labelled items in the order of their index, whatever the rows of the batch were; padding is left
    out.

    Args:
      values: ``[*lead, *index.shape, ...]``.
      index: ``[batch]``, or ``[batch, length]`` with -1 in padding.
      lead: number of axes that stand before those of the index.

    Returns:
      ``[*lead, items, ...]``.
    """
    values, index = np.asarray(values), np.asarray(index)
    before, real = (slice(None),) * lead, index >= 0
    ordered = np.empty((*values.shape[:lead], int(real.sum()), *values.shape[lead + index.ndim :]), values.dtype)
    ordered[(*before, index[real])] = values[(*before, real)]
    return ordered


def by_row(values: Any, index: Any) -> np.ndarray:
    """Undoes ``by_index``: values ``[items, ...]`` where the batch has the items, ``[*index.shape, ...]``, 0 in
    padding.
    """
    values, index = np.asarray(values), np.asarray(index)
    return np.where(where_mask(index >= 0, values[index]), values[index], np.zeros((), values.dtype))


def target_items(batch: "Batch") -> Any:
    """The target of the labelled items in the order of their index, array by array, as ``by_index``.

    A stream with a labelled item per step becomes the array of its steps; any other stays a stream, ``[items, length]``
    the axes of its mask.

    Raises:
      ValueError: the index names a step that the mask of the target hides.
    """
    index = np.asarray(batch.index)

    def of_stream(stream: Stream) -> Any:
        mask = np.asarray(stream.mask)
        if mask.ndim > index.ndim:
            return Stream(by_index(stream.values, index), by_index(mask, index))
        if (hidden := (index >= 0) & ~mask).any():
            raise ValueError(
                f"the target has no label at {np.argwhere(hidden)[0].tolist()}, where the index has an item"
            )
        return by_index(stream.values, index)

    return map_arrays(lambda values: by_index(values, index), of_stream, batch.target)


Reduction = Callable[[Any, Any], Any]
"""``(values [batch, length, *item], mask [batch, length]) -> [batch, *item]``: how a sequence becomes one item."""


def where_mask(mask: Any, like: Any) -> Any:
    """The mask with trailing axes of length 1 so that it broadcasts against ``like``."""
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))


@checked
def apply_mask(values: Shaped[Array, "..."], mask: Bool[Array, "..."]) -> Shaped[Array, "..."]:
    """Zeros where the mask is False, whatever stood there (NaN included), with zero gradient."""
    return jnp.where(where_mask(mask, values), values, jnp.zeros((), values.dtype))


@checked
def masked_sum(values: Shaped[Array, "b t *item"], mask: Bool[Array, "b t"]) -> Shaped[Array, "b *item"]:
    """Sum over the real items; 0 where there is none."""
    return apply_mask(values, mask).sum(1)


@checked
def masked_mean(values: Float[Array, "b t *item"], mask: Bool[Array, "b t"]) -> Float[Array, "b *item"]:
    """Mean over the real items, accumulated in float32; 0 (with zero gradient) where there is none."""
    total = apply_mask(values, mask).sum(1, dtype=jnp.float32)
    count = jnp.maximum(mask.sum(1), 1)
    return (total / where_mask(count, total)).astype(values.dtype)


@checked
def masked_max(values: Float[Array, "b t *item"], mask: Bool[Array, "b t"]) -> Float[Array, "b *item"]:
    """Maximum over the real items; 0 (with zero gradient) where there is none."""
    lowest = jnp.finfo(values.dtype).min
    highest = jnp.where(where_mask(mask, values), values, lowest).max(1)
    return apply_mask(highest, mask.any(1))


@checked
def masked_last(values: Shaped[Array, "b t *item"], mask: Bool[Array, "b t"]) -> Shaped[Array, "b *item"]:
    """The last real item, wherever it stands; 0 where there is none."""
    position = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return apply_mask(values[jnp.arange(values.shape[0]), position], mask.any(1))


@checked
def masked_softmax(scores: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Softmax over the last axis in float32; masked entries get exactly 0, and so does a row with nothing in it.

    ``where=`` also gives zero gradient there, NaN in masked scores included; adding ``log(mask)`` gives NaN.
    """
    return jax.nn.softmax(scores.astype(jnp.float32), axis=-1, where=jnp.broadcast_to(mask, scores.shape))


def pooled(values: Any, present: Any) -> Stream:
    """A pooled result ``[batch, dim]`` as a stream of length 1, zero and masked where nothing was present."""
    return Stream(apply_mask(values, present)[:, None], present[:, None])


def join(streams: Mapping[str, Stream]) -> Stream:
    """All tokens of all modalities in one sequence ``[batch, sum of lengths, dim]``, in sorted order of the names."""
    ordered = [streams[name].zeroed for name in sorted(streams)]
    return Stream(
        jnp.concatenate([stream.values for stream in ordered], axis=1),
        jnp.concatenate([stream.mask for stream in ordered], axis=1),
    )


def select(streams: Mapping[str, Stream], names: Iterable[str]) -> dict[str, Stream]:
    """The named streams.

    Raises:
      ValueError: a name is not among them; the message lists those that are.
    """
    names = tuple(names)
    if missing := [name for name in names if name not in streams]:
        raise ValueError(f"no stream {missing[0]!r}; there are {sorted(streams)}")
    return {name: streams[name] for name in names}


def assign_roles(
    streams: Mapping[str, Stream], target: str | None = None, context: Iterable[str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """The names of an asymmetric method's target and context: by default the first in sorted order and the rest.

    Raises:
      ValueError: a name is not among the streams, or the target is its own context.
    """
    target = sorted(streams)[0] if target is None else target
    context = tuple(name for name in sorted(streams) if name != target) if context is None else tuple(context)
    select(streams, (target, *context))
    if target in context:
        raise ValueError(f"stream {target!r} is the target and cannot be in its own context {context}")
    return target, context


def map_arrays(function: Callable[[Any], Any], stream: Callable[[Stream], Any], target: Any, *rest: Any) -> Any:
    """A target, array by array and stream by stream: ``function(array, ...)`` and ``stream(stream, ...)``."""

    def apply(x: Any, *others: Any) -> Any:
        return (stream if isinstance(x, Stream) else function)(x, *others)

    return jax.tree.map(apply, target, *rest, is_leaf=lambda x: isinstance(x, Stream))


def item_weight(batch: Batch) -> Float[Array, "*items"]:
    """The weight of each labelled item, shaped as ``batch.index``: its row's weight, 0 in padding."""
    weight = batch.weight.reshape(-1, *(1,) * (batch.index.ndim - 1))
    return jnp.where(batch.index >= 0, weight, 0.0).astype(jnp.float32)


def known_target(batch: Batch) -> Any:
    """The target with zeros where nothing counts (rows of weight 0, padding), whatever stood there; a target that is a
    stream is wholly absent in rows of weight 0.
    """
    counts = item_weight(batch) > 0
    rows = batch.weight > 0
    return map_arrays(
        lambda x: jnp.where(where_mask(counts, x), x, jnp.zeros((), x.dtype)),
        lambda s: s.absent(~rows).zeroed,
        batch.target,
    )


def drop_rows(streams: Mapping[str, Stream], weight: Float[Array, " batch"]) -> dict[str, Stream]:
    """Makes every row of weight 0 wholly absent, so that what stands in it cannot matter."""
    return {name: stream.absent(weight <= 0) for name, stream in streams.items()}


def check_streams(streams: Mapping[str, Stream]) -> None:
    """Checks what every fusion needs: one or more streams of feature vectors with one batch size.

    Raises:
      ValueError: naming the stream and what would be right.
    """
    if not streams:
        raise ValueError("a fusion needs at least one stream, got none")
    sizes = {}
    for name, stream in sorted(streams.items()):
        if stream.mask.ndim != 2 or stream.values.ndim != 3:
            raise ValueError(
                f"stream {name!r} must be [batch, length, dim] with a mask [batch, length], got values "
                f"{stream.values.shape} and mask {stream.mask.shape}; an encoder folds inner axes away"
            )
        if not jnp.issubdtype(stream.values.dtype, jnp.floating):
            raise ValueError(
                f"stream {name!r} holds {stream.values.dtype}: give it an encoder, or name it in the field of the "
                f"fusion that takes side information"
            )
        sizes[name] = stream.values.shape[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"streams differ in batch size: {sizes}")
