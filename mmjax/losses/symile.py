"""Symile: one contrastive loss of any number of modalities at once, by the sum of their product (Saporta et al. 2024).

Pairs see only what two modalities share; with c = a XOR b every pair is independent and only the triple is not.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from mmjax.errors import UsageError
from mmjax.losses.pairs import all_there, as_float32, cross_entropy_among
from mmjax.typing import Array, Bool, Float, Key, Mapping, checked

__all__ = ["symile"]


@checked
def symile(
    embeddings: Mapping[str, Float[Array, "batch dim"]],
    *,
    scale: Float[Array, ""] | float = 1.0,
    key: Key | None = None,
    present: Bool[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """Cross-entropy in nats of each row's others, mean over the modalities as anchors (Saporta et al. 2024).

    A tuple scores ``scale * sum_d prod_m x_m[d]``. Of two modalities without a key this is ``info_nce``. The
    difference between log(number of candidates) and the loss is a lower bound of the total correlation.

    Args:
      scale: of the sums of products.
      key: draws the candidates: of each anchor, as many tuples of shuffled rows as there are rows, the own one among
        them; memory is batch^2. None = every tuple of the others, batch^(modalities - 1) of them.
      present: rows that have every modality; None = all. The others take no part: a product needs every factor.

    Raises:
      UsageError: fewer than two modalities.

    Example:
      >>> bit = jnp.array([[1.0], [1.0], [-1.0], [-1.0]])
      >>> other = jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
      >>> symile({"a": bit, "b": other, "c": bit * other}, scale=20.0).round(2)  # log(16 / 2): half of them are so
      Array([2.08, 2.08, 2.08, 2.08], dtype=float32)
    """
    names = sorted(embeddings)
    if len(names) < 2:
        raise UsageError(f"symile needs two modalities or more, got {', '.join(names) or 'none'}")
    batch = embeddings[names[0]].shape[0]
    there = all_there(present, batch)
    values = {name: as_float32(embeddings[name], present) for name in names}
    total = jnp.float32(0)
    for number, anchor in enumerate(names):
        others = [values[name] for name in names if name != anchor]
        if key is None:
            logits, pairs, candidates = _all_tuples(values[anchor], others, there)
        else:
            logits, pairs, candidates = _shuffled(values[anchor], others, there, jax.random.fold_in(key, number))
        total += cross_entropy_among(scale * logits, pairs, candidates & there[:, None])
    return total / len(names)


def _all_tuples(anchor: Array, others: list[Array], there: Array) -> tuple[Array, Array, Array]:
    """Scores ``[batch, batch^others]`` of every tuple; a row's own is where all numbers are its own."""
    batch = anchor.shape[0]
    tuples, candidates, own = others[0], there, jnp.arange(batch)
    for values in others[1:]:
        tuples = (tuples[:, None] * values[None]).reshape(-1, values.shape[-1])
        candidates = (candidates[:, None] & there[None]).reshape(-1)
        own = own * batch + jnp.arange(batch)
    pairs = (jnp.arange(tuples.shape[0])[None] == own[:, None]) & there[:, None]
    return anchor @ tuples.T, pairs, jnp.broadcast_to(candidates, pairs.shape)


def _shuffled(anchor: Array, others: list[Array], there: Array, key: Key) -> tuple[Array, Array, Array]:
    """Scores ``[batch, batch]`` of shuffled tuples, with a row's own on the diagonal."""
    batch = anchor.shape[0]
    place = jnp.argsort(~there, stable=True)  # rows that are there, then those that are not

    def shuffle(values: Array, key: Key) -> Array:
        drawn = jnp.argsort(jax.random.uniform(key, (batch,)) + ~there)  # a permutation of either kind of its own
        return values[jnp.zeros(batch, int).at[place].set(drawn)]

    keys = jax.random.split(key, len(others))
    tuples = functools.reduce(operator.mul, map(shuffle, others, keys))
    own = functools.reduce(operator.mul, others, anchor).sum(-1)
    diagonal = jnp.eye(batch, dtype=bool)
    logits = jnp.where(diagonal, own[:, None], anchor @ tuples.T)
    return logits, diagonal & there[:, None], jnp.broadcast_to(there, logits.shape)
