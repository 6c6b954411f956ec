"""GRAM: modalities agree where the box that their unit vectors span is flat (Cicchetti et al. 2025)."""

from collections.abc import Sequence

import jax.numpy as jnp

from mmjax.errors import UsageError
from mmjax.losses.pairs import all_there, as_float32, cross_entropy_among, normalise
from mmjax.stream import apply_mask
from mmjax.typing import Array, Bool, Float, Mapping, checked

__all__ = ["gram", "volume"]

_FLAT = 1e-6  # 1 - cos^2 in float32 is no surer than this


@checked
def volume(
    vectors: Float[Array, "*rows vectors dim"], mask: Bool[Array, "*rows vectors"] | None = None
) -> Float[Array, "*rows"]:
    """Volume of the box that unit vectors along ``vectors`` span, the root of their Gram determinant; 0 to 1.

    Of two vectors it is sqrt(1 - cos^2). It is blind to sign: the volume of (x, -y) is that of (x, y), so opposite
    vectors count as equal. The gradient, infinite at 0 by the formula, is kept finite.

    Args:
      mask: vectors that are there; the others take no part. None = all.

    Example:
      >>> np.asarray(volume(jnp.array([[[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.0], [-0.6, -0.8]]]))).round(2)
      array([0.8, 0.8], dtype=float32)
    """
    there = jnp.ones(vectors.shape[:-1], bool) if mask is None else mask
    columns = [vectors[..., i, :] for i in range(vectors.shape[-2])]
    return _span(columns, [there[..., i] for i in range(len(columns))])[0]


@checked
def gram(
    embeddings: Mapping[str, Float[Array, "batch dim"]],
    anchor: str,
    *,
    scale: Float[Array, ""] | float = 1.0,
    present: Mapping[str, Bool[Array, " batch"]] | None = None,
) -> Float[Array, " batch"]:
    """Cross-entropy in nats of a row's others for its anchor and of its anchor for its others, by the volume that they
    span together: the smaller, the likelier (Cicchetti et al. 2025).

    Args:
      anchor: the modality that the others are aligned with.
      scale: of the volumes, 1 over the temperature.
      present: ``[batch]`` by modality; a name left out is there in every row. A row without its anchor or without any
        of the others takes no part; another one that is absent is left out of its volume, which is then one of fewer
        vectors.

    Raises:
      UsageError: no such anchor, or nothing beside it.

    Example:
      >>> x, z = jnp.eye(2), jnp.zeros((2, 2))
      >>> gram({"text": x, "image": x, "audio": z}, "text", present={"audio": jnp.array([False, False])}).round(2)
      Array([0.31, 0.31], dtype=float32)
    """
    names = sorted(embeddings)
    others = [name for name in names if name != anchor]
    if anchor not in names or not others:
        raise UsageError(f"gram needs {anchor!r} and one modality more, got {', '.join(names) or 'none'}")
    batch, given = embeddings[anchor].shape[0], dict(present or {})
    there = {name: all_there(given.get(name), batch) for name in names}
    row = there[anchor] & jnp.stack([there[name] for name in others]).any(0)
    base, axes = _span([embeddings[name] for name in others], [there[name] & row for name in others])
    unit = normalise(as_float32(embeddings[anchor], row))
    height = jnp.square(unit).sum(-1)[:, None] - sum(jnp.square(unit @ axis.T) for axis in axes)
    logits = -scale * base[None] * _root(height)
    pairs, candidates = jnp.eye(batch, dtype=bool) & row[None], row[:, None] & row[None]
    return (cross_entropy_among(logits, pairs, candidates) + cross_entropy_among(logits.T, pairs, candidates)) / 2


def _span(vectors: Sequence[Array], masks: Sequence[Array]) -> tuple[Array, list[Array]]:
    """The volume of unit vectors and orthonormal axes of what they span (Gram and Schmidt); zeros for a masked one."""
    total: Array = jnp.float32(1)
    axes: list[Array] = []
    for values, mask in zip(vectors, masks):
        rest = normalise(apply_mask(values.astype(jnp.float32), mask))
        for axis in axes:
            rest = rest - (rest * axis).sum(-1, keepdims=True) * axis
        height = _root(jnp.square(rest).sum(-1))
        total = total * jnp.where(mask, height, 1)
        # What is left of a vector in the span of the others is rounding: no direction.
        axes.append(apply_mask(normalise(rest), mask & (height > _FLAT)))
    return total, axes


def _root(square: Array) -> Array:
    """A square root whose slope is finite at 0."""
    return jnp.where(square > _FLAT, jnp.sqrt(jnp.maximum(square, _FLAT)), jnp.maximum(square, 0) / _FLAT**0.5)
