"""What the losses of a shared space rest on: unit vectors, which rows are there, and every pair of modalities."""

import itertools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from mmjax.errors import UsageError
from mmjax.stream import apply_mask
from mmjax.typing import Array, Bool, Float, Mapping, Shaped, checked

__all__ = ["all_there", "as_float32", "cross_entropy_among", "normalise", "pairwise", "positive_pairs"]


@checked
def normalise(values: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
    """Unit vectors, computed in float32; a vector of zeros stays zeros, with a finite gradient.

    Example:
      >>> np.asarray(normalise(jnp.array([[3.0, 4.0], [0.0, 0.0]]))).round(2)
      array([[0.6, 0.8],
             [0. , 0. ]], dtype=float32)
    """
    wide = values.astype(jnp.float32)
    # Its own size first: the squares of large numbers overflow, those of small ones vanish.
    size = jax.lax.stop_gradient(jnp.abs(wide).max(-1, keepdims=True))
    wide = wide / jnp.where(size > 0, size, 1)
    square = jnp.square(wide).sum(-1, keepdims=True)
    return (wide * jax.lax.rsqrt(jnp.where(square > 0, square, 1))).astype(values.dtype)


def as_float32(values: Array, present: Bool[Array, " batch"] | None) -> Float[Array, "batch dim"]:
    """Embeddings in float32 with zeros in rows that are not there: NaN times 0 is NaN."""
    wide = values.astype(jnp.float32)
    return wide if present is None else apply_mask(wide, present)


def positive_pairs(
    positives: Shaped[Array, "..."] | None, batch: int, present: Bool[Array, " batch"]
) -> Bool[Array, "batch batch"]:
    """Which columns belong to which rows, among rows that are there.

    Args:
      positives: ``[batch, batch]`` bool; or a group by row, whose members all belong together; None = each row to its
        own column.

    Raises:
      UsageError: another shape.
    """
    if positives is None:
        pairs = jnp.eye(batch, dtype=bool)
    elif positives.shape == (batch,):
        pairs = positives[:, None] == positives[None]
    elif positives.shape == (batch, batch):
        pairs = positives.astype(bool)
    else:
        raise UsageError(f"positives are [{batch}] groups or a [{batch}, {batch}] mask, got {positives.shape}")
    return pairs & present[:, None] & present[None]


def cross_entropy_among(
    logits: Float[Array, "rows columns"], pairs: Bool[Array, "rows columns"], candidates: Bool[Array, "rows columns"]
) -> Float[Array, " rows"]:
    """Cross-entropy in nats of each row's positives, sharing the target evenly, among its candidates; 0 without any.

    Args:
      pairs: the positives, of the candidates.
    """
    logits = jnp.where(candidates, logits, 0)  # what a row that is not there gives is finite, and has no gradient
    some = candidates.any(-1)
    top = jax.lax.stop_gradient(jnp.where(some, jnp.where(candidates, logits, -jnp.inf).max(-1), 0))
    total = jnp.where(candidates, jnp.exp(logits - top[:, None]), 0).sum(-1)
    normaliser = jnp.log(jnp.where(some, total, 1)) + top
    count = pairs.sum(-1)
    mean = jnp.where(pairs, logits, 0).sum(-1) / jnp.maximum(count, 1)
    return jnp.where(count > 0, normaliser - mean, 0)


def all_there(present: Bool[Array, " batch"] | None, batch: int) -> Bool[Array, " batch"]:
    """``present``, or every row."""
    return jnp.ones(batch, bool) if present is None else present


def pairwise(
    loss: Callable[..., Array],
    embeddings: Mapping[str, Array],
    *,
    present: Mapping[str, Array] | None = None,
    pairs: Iterable[tuple[str, str]] | None = None,
) -> Float[Array, " batch"]:
    """A loss of two modalities over all pairs of any number: of each row the mean over the pairs that it has whole.

    Args:
      loss: ``(left, right, *, present) -> [batch]``, e.g. ``functools.partial(info_nce, scale=scale)``.
      embeddings: ``[batch, dim]`` by modality.
      present: ``[batch]`` bool by modality; a name left out is there in every row. A row that lacks one of a pair is
        neither anchor nor candidate in it.
      pairs: of names; None = all.

    Raises:
      UsageError: fewer than two modalities, or a name that there is not.

    Example:
      >>> x, y, z = jnp.eye(2), jnp.eye(2), jnp.ones((2, 2))
      >>> there = {"z": jnp.array([True, False])}
      >>> from mmjax.losses import info_nce
      >>> np.asarray(pairwise(info_nce, {"x": x, "y": y, "z": z}, present=there)).round(2)
      array([0.1 , 0.31], dtype=float32)
    """
    names, given = sorted(embeddings), dict(present or {})
    chosen = list(itertools.combinations(names, 2) if pairs is None else pairs)
    unknown = {name for pair in chosen for name in pair} | set(given)
    if unknown - set(names):
        raise UsageError(f"no embeddings of {', '.join(sorted(unknown - set(names)))}; there are {', '.join(names)}")
    if not chosen:
        raise UsageError(f"pairs need two modalities or more, got {', '.join(names) or 'none'}")
    total, count = jnp.float32(0), jnp.float32(0)
    for left, right in chosen:
        batch = embeddings[left].shape[0]
        both = all_there(given.get(left), batch) & all_there(given.get(right), batch)
        total += jnp.where(both, loss(embeddings[left], embeddings[right], present=both), 0)
        count += both
    return total / jnp.maximum(count, 1)
