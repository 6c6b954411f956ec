"""Contrastive losses of two modalities, dense: each looks at all pairs of a batch and gives a value per row.

Embeddings are compared by their product, so cosines need ``normalise`` first. Rows that are not ``present`` (weight 0,
or without one of the two modalities) are no anchors and no candidates: what stands in them reaches nothing. In blocks,
for large batches: ``mmjax.losses.chunked``.
"""

import jax
import jax.numpy as jnp

from mmjax.losses.pairs import all_there, as_float32, cross_entropy_among, positive_pairs
from mmjax.typing import Array, Bool, Float, Int, Shaped, checked

__all__ = ["info_nce", "sigmoid_contrastive", "supervised_contrastive", "triplet"]

Number = Float[Array, ""] | float
Positives = Shaped[Array, "..."] | None


@checked
def info_nce(
    left: Float[Array, "batch dim"],
    right: Float[Array, "batch dim"],
    *,
    scale: Number = 1.0,
    positives: Positives = None,
    present: Bool[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """Cross-entropy in nats of each row's partner among the batch, mean of both ways (van den Oord et al. 2018; CLIP:
    Radford et al. 2021, figure 3).

    Several positives share the target evenly (Khosla et al. 2020, eq. 2: the mean stands outside the logarithm), so
    that the least value of a row with n of them is log n.

    Args:
      scale: of the products, 1 over the temperature.
      positives: ``[batch, batch]``, whether right row j belongs to left row i; or a group by row (five captions of a
        photograph), whose members all belong together; None = row i to row i. A row without any has loss 0 that way.
      present: rows that are there in both modalities; None = all.

    Example:
      >>> info_nce(jnp.zeros((16, 2)), jnp.zeros((16, 2)))[:2].round(4)
      Array([2.7726, 2.7726], dtype=float32)
    """
    batch = left.shape[0]
    there = all_there(present, batch)
    pairs = positive_pairs(positives, batch, there)
    logits = scale * as_float32(left, present) @ as_float32(right, present).T
    candidates = there[:, None] & there[None]
    return (cross_entropy_among(logits, pairs, candidates) + cross_entropy_among(logits.T, pairs.T, candidates)) / 2


@checked
def sigmoid_contrastive(
    left: Float[Array, "batch dim"],
    right: Float[Array, "batch dim"],
    *,
    scale: Number = 10.0,
    bias: Number = -10.0,
    positives: Positives = None,
    present: Bool[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """Binary cross-entropy in nats of every pair, summed over each left row's candidates (SigLIP: Zhai et al. 2023).

    The mean over rows is the paper's loss. Its temperature and bias are learned, from 10 and -10.

    Args:
      scale: of the products.
      bias: added to them.
      positives: as for ``info_nce``.
      present: as for ``info_nce``.

    Example:
      >>> sigmoid_contrastive(jnp.ones((16, 2)), jnp.ones((16, 2)), scale=0.0, bias=0.0)[:2].round(4)
      Array([11.0904, 11.0904], dtype=float32)
    """
    batch = left.shape[0]
    there = all_there(present, batch)
    sign = jnp.where(positive_pairs(positives, batch, there), 1.0, -1.0)
    logits = scale * as_float32(left, present) @ as_float32(right, present).T + bias
    return jnp.where(there[:, None] & there[None], jax.nn.softplus(-sign * logits), 0).sum(-1)


@checked
def triplet(
    left: Float[Array, "batch dim"],
    right: Float[Array, "batch dim"],
    *,
    margin: Number = 0.2,
    hardest: Number = 1.0,
    positives: Positives = None,
    present: Bool[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """Hinges of each pair against the negatives of both its sides: of the hardest one (VSE++: Faghri et al. 2018),
    summed over all (VSE0 there), or a mixture.

    Args:
      margin: by which the own partner must be nearer.
      hardest: share of the hardest negative's hinge, the rest is the sum's. From 0 to 1 during the first epochs is a
        warm-up: the hardest negatives alone may collapse untrained encoders. It may be traced.
      positives: as for ``info_nce``; the pair of a row is its own, the other positives are only no negatives.
      present: as for ``info_nce``.

    Example:
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
      >>> np.asarray(triplet(x, y)).round(2)
      array([0.2, 1.4], dtype=float32)
    """
    batch = left.shape[0]
    there = all_there(present, batch)
    negative = ~positive_pairs(positives, batch, there) & ~jnp.eye(batch, dtype=bool) & there[:, None] & there[None]
    products = as_float32(left, present) @ as_float32(right, present).T
    own = jnp.diagonal(products)

    def one_way(products: Array, negative: Array) -> Array:
        hinges = jnp.where(negative, jax.nn.relu(margin + products - own[:, None]), 0)
        return (1 - hardest) * hinges.sum(-1) + hardest * hinges.max(-1)

    return jnp.where(there, one_way(products, negative) + one_way(products.T, negative.T), 0)


@checked
def supervised_contrastive(
    values: Float[Array, "batch dim"],
    label: Int[Array, " batch"],
    *,
    scale: Number = 10.0,
    present: Bool[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """Cross-entropy in nats of the other rows of the same class among all other rows (Khosla et al. 2020, eq. 2).

    Modalities or views of an example are rows of their own with the same label. A row alone in its class has loss 0.

    Args:
      scale: of the products, 1 over the temperature.
      present: rows that are there; None = all.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> np.asarray(supervised_contrastive(x, jnp.array([0, 0, 1]), scale=1.0)).round(3)
      array([0.313, 0.313, 0.   ], dtype=float32)
    """
    batch = values.shape[0]
    there = all_there(present, batch)
    others = there[:, None] & there[None] & ~jnp.eye(batch, dtype=bool)
    pairs = others & (label[:, None] == label[None])
    x = as_float32(values, present)
    logits = scale * x @ x.T
    return cross_entropy_among(logits, pairs, others)
