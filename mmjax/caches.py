"""What a head keeps between two steps of generation, and what happens to it where an example has several hypotheses.

A plain array ``[batch, ...]`` is copied for the hypotheses of an example, which then stand one after the other as rows,
and is reordered with them. The nodes of this module are not.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmjax.typing import Array, Int, PyTree

__all__ = ["Kept", "Lineage", "Shared", "copy_caches", "reorder_caches"]


class Shared(flax.struct.PyTreeNode):
    """A part of a head's caches that all hypotheses of an example have in common, such as what it reads."""

    value: Any


class Kept(flax.struct.PyTreeNode):
    """A part of a head's caches whose hypotheses stay where they are when a beam is reordered; ``Lineage`` finds them.

    Attributes:
      value: ``[batch, ...]``; the hypotheses of an example stand one after the other along the axis ``axis``, within
        each of its entries. Where a beam is never reordered, each is a row of its own.
    """

    value: Any
    axis: int = flax.struct.field(pytree_node=False)


class Lineage(flax.struct.PyTreeNode):
    """Which hypothesis of an example wrote each position of another one's past.

    Attributes:
      value: ``[batch, max_length]``, -1 at those to come, reordered as everything; None where nothing ever is.
    """

    value: Any


def copy_caches(caches: PyTree, copies: int, *, reordered: bool) -> PyTree:
    """The caches of so many hypotheses of each example, one after the other.

    Args:
      reordered: whether ``reorder_caches`` will ever be called with them.

    Example:
      >>> caches = {"state": jnp.array([1, 2]), "memory": Shared(jnp.array([3, 4]))}
      >>> {name: jax.tree.leaves(x)[0].tolist() for name, x in copy_caches(caches, 2, reordered=True).items()}
      {'memory': [3, 4], 'state': [1, 1, 2, 2]}
    """

    def copy(x: Any) -> Any:
        if isinstance(x, Shared):
            return x
        if isinstance(x, Lineage):
            return Lineage(jnp.repeat(x.value, copies, axis=0) if reordered else None)
        if isinstance(x, Kept):
            return x.replace(value=jnp.repeat(x.value, copies, axis=x.axis if reordered else 0))
        return jnp.repeat(x, copies, axis=0)

    return jax.tree.map(copy, caches, is_leaf=lambda x: isinstance(x, Shared | Kept | Lineage))


def reorder_caches(caches: PyTree, rows: Int[Array, " rows"]) -> PyTree:
    """The caches with each hypothesis continuing that of the named row.

    Example:
      >>> reorder_caches(jnp.array([5, 6, 7, 8]), jnp.array([1, 1, 2, 3])).tolist()
      [6, 6, 7, 8]
    """

    def change(x: Any) -> Any:
        return x if isinstance(x, Shared | Kept) else x[rows]

    return jax.tree.map(change, caches, is_leaf=lambda x: isinstance(x, Shared | Kept))
