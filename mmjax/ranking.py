"""Ranks of the right answers when the items of one side are sought among those of another: of one split as a whole.

Both sides are ``[rows, slots, dim]`` with a mask ``[rows, slots]``: one row is an example, its slots are its items of
that modality (a photograph, five captions). The nearest is that of the largest product.
"""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmjax.stream import Stream, apply_mask
from mmjax.typing import Array, Int

__all__ = ["DIRECTIONS", "KS", "Sides", "right_ranks"]

DIRECTIONS = ("forward", "backward")
"""From the first side to the second, and back."""
KS = (1, 5, 10)
BLOCK = 256  # queries whose products with all candidates stand in memory at once


def right_ranks(queries: Stream, candidates: Stream) -> Int[Array, "rows slots"]:
    """How many wrong candidates are as near to each query as its nearest right one: its place, counted from 0.

    Right are the candidates of the same row. A tie counts against the query, so that equal embeddings find nothing. A
    query without a right answer has the place after all candidates; those that are not there hold anything.

    Args:
      queries: ``[rows, slots, dim]``.
      candidates: ``[rows, others, dim]``.

    Example:
      >>> photos = Stream.of(jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
      >>> texts = Stream.of(jnp.array([[[0.6, 0.8], [1.0, 0.0]], [[0.8, 0.6], [0.8, 0.6]]]))
      >>> right_ranks(photos, texts).tolist(), right_ranks(texts, photos).tolist()
      ([[0], [1]], [[1, 0], [1, 1]])
    """
    rows, slots = queries.mask.shape
    others = candidates.mask.shape[1]
    flat, there = _flat(candidates)
    x, _ = _flat(queries)
    owner = jnp.repeat(jnp.arange(rows), slots)
    of_candidate = jnp.repeat(jnp.arange(rows), others)

    def rank(query: Any) -> Any:
        values, own = query
        products = flat @ values
        right = there & (of_candidate == own)
        best = jnp.where(right, products, -jnp.inf).max()
        ahead = (there & ~right & (products >= best)).sum()
        return jnp.where(right.any(), ahead, there.sum()).astype(jnp.int32)

    ranks = jax.lax.map(rank, (x, owner), batch_size=min(BLOCK, len(x)))
    return ranks.reshape(rows, slots)


def _flat(stream: Stream) -> tuple[Any, Any]:
    """All slots of all rows, ``[rows * slots, dim]`` in float32 with zeros where nothing is, and their mask."""
    values = apply_mask(stream.values.astype(jnp.float32), stream.mask)
    return values.reshape(-1, values.shape[-1]), stream.mask.reshape(-1)


class Sides(flax.struct.PyTreeNode):
    """The embeddings of a split so far, for ranks among all of it; no state of constant size can tell those.

    Attributes:
      first: of the first side.
      second: of the second side.
    """

    first: Stream
    second: Stream

    def join(self, *others: "Sides") -> "Sides":
        """The rows of all of them, one after the other."""
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), self, *others)

    def merge(self) -> "Sides":
        """The rows of states that are stacked along a leading axis."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self)

    def ranks(self) -> dict[str, Stream]:
        """Places of the right answers by direction, with a mask of the queries that are there."""
        sides = (self.first, self.second), (self.second, self.first)
        return {way: Stream(right_ranks(*pair), pair[0].mask) for way, pair in zip(DIRECTIONS, sides)}

    def compute(self) -> dict[str, Any]:
        """Recall at 1, 5 and 10 and the median place (counted from 1) both ways, and the sum of recalls in percent; NaN
        where there is no query.
        """
        found: dict[str, Any] = {}
        for way, ranks in self.ranks().items():
            count = ranks.mask.sum()
            for k in KS:
                found[f"recall@{k}_{way}"] = ((ranks.values < k) & ranks.mask).sum() / count
            ordered = jnp.sort(jnp.where(ranks.mask, ranks.values, jnp.iinfo(jnp.int32).max), axis=None)
            middle = ordered[jnp.maximum(jnp.stack([count - 1, count]) // 2, 0)].mean()
            found[f"median_rank_{way}"] = jnp.where(count > 0, 1 + middle, jnp.nan)
        return found | {"rsum": 100 * sum(found[name] for name in _recalls(KS))}


def _recalls(ks: Sequence[int]) -> list[str]:
    return [f"recall@{k}_{way}" for way in DIRECTIONS for k in ks]
