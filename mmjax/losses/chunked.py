"""Contrastive losses of large batches: in blocks on one device, and over devices whose rows visit each other in a ring.

Neither the ``[batch, batch]`` products nor anything of their size is ever held: blocks of columns are multiplied one
after the other, and once more for the gradient: memory is ``batch * block``, with a third more products. Over devices
the right rows travel with the statistics of their columns (sums, then gradients) and come home after one round (compare
SigLIP: Zhai et al. 2023, section 3.1). Loss and gradient equal those of ``mmjax.losses.contrastive``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mmjax.errors import UsageError
from mmjax.losses.pairs import all_there, as_float32
from mmjax.typing import Array, Bool, Float, Int, checked

__all__ = ["chunked_info_nce", "chunked_sigmoid_contrastive"]

Axes = tuple[str, ...]
Number = Float[Array, ""] | float
_NONE = -1e30  # the logarithm of a sum of nothing: finite, since -inf less -inf is NaN


@checked
def chunked_info_nce(
    left: Float[Array, "batch dim"],
    right: Float[Array, "batch dim"],
    *,
    scale: Number = 1.0,
    group: Int[Array, " batch"] | None = None,
    present: Bool[Array, " batch"] | None = None,
    block: int = 256,
    mesh: Mesh | None = None,
    axes: Axes = ("data", "fsdp"),
) -> Float[Array, " batch"]:
    """``info_nce`` without its products: the same values and gradients in memory ``batch * block``.

    Args:
      scale: of the products, 1 over the temperature.
      group: by row; the members of a group all belong together. None = row i to row i.
      present: rows that are there in both modalities; None = all.
      block: columns at a time.
      mesh: over whose devices the rows lie; None = one device.
      axes: of the mesh, along which they are split.

    Raises:
      UsageError: a block below 1, or rows that do not divide over the devices.

    Example:
      >>> x, y = jnp.eye(6), jnp.roll(jnp.eye(6), 1, axis=0)
      >>> np.asarray(chunked_info_nce(x, y, scale=2.0, block=4)[:2]).round(3)
      array([2.517, 2.517], dtype=float32)
    """
    batch = left.shape[0]
    there = all_there(present, batch)
    group = jnp.arange(batch) if group is None else group
    # The scale goes with the rows: no number is then shared by the devices, whose gradient would have to be summed.
    rows = (scale * as_float32(left, present), as_float32(right, present), group, there)
    return _over(_info_nce, rows, block, mesh, axes)


@checked
def chunked_sigmoid_contrastive(
    left: Float[Array, "batch dim"],
    right: Float[Array, "batch dim"],
    *,
    scale: Number = 10.0,
    bias: Number = -10.0,
    group: Int[Array, " batch"] | None = None,
    present: Bool[Array, " batch"] | None = None,
    block: int = 256,
    mesh: Mesh | None = None,
    axes: Axes = ("data", "fsdp"),
) -> Float[Array, " batch"]:
    """``sigmoid_contrastive`` without its products: the same values and gradients in memory ``batch * block``.

    Args:
      scale: of the products.
      bias: added to them.
      group: as for ``chunked_info_nce``, as are the rest.

    Raises:
      UsageError: as ``chunked_info_nce``.

    Example:
      >>> x = jnp.ones((6, 2))
      >>> chunked_sigmoid_contrastive(x, x, scale=0.0, bias=0.0, block=4)[:2].round(4)  # 6 log 2
      Array([4.1589, 4.1589], dtype=float32)
    """
    batch = left.shape[0]
    there = all_there(present, batch)
    group = jnp.arange(batch) if group is None else group
    shift = jnp.broadcast_to(jnp.asarray(bias, jnp.float32), (batch,))
    rows = (scale * as_float32(left, present), as_float32(right, present), shift, group, there)
    return _over(_sigmoid, rows, block, mesh, axes)


def _over(core: Callable, rows: tuple[Array, ...], block: int, mesh: Mesh | None, axes: Axes) -> Array:
    """``core`` of rows on one device, or of each device's rows as one of a ring."""
    batch = rows[0].shape[0]
    if block < 1:
        raise UsageError(f"block must be 1 or more, got {block}")
    if mesh is None:
        return _padded(core, block, (), *rows)
    axes = tuple(axis for axis in axes if axis in mesh.shape)
    size = functools.reduce(lambda n, axis: n * mesh.shape[axis], axes, 1)
    if batch % size:
        raise UsageError(f"{batch} rows do not divide over the {size} devices of axes {', '.join(axes)}")
    spec = PartitionSpec(axes)
    inside = functools.partial(_padded, core, block, axes)
    return jax.shard_map(inside, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(*rows)


def _padded(core: Callable, block: int, axes: Axes, *rows: Array) -> Array:
    """Fills the last block with rows that are not there."""
    batch = rows[0].shape[0]
    block = min(block, batch)
    more = -batch % block
    rows = tuple(jnp.pad(x, ((0, more),) + ((0, 0),) * (x.ndim - 1)) for x in rows)
    return core(block, axes, *rows)[:batch]


def _ring(visit: Callable, home: Any, visitors: Any, block: int, axes: Axes) -> tuple[Any, Any]:
    """Every block of every device's visitors meets the rows at home; visitors are home again at the end.

    Args:
      visit: ``(home, visitors [block, ...]) -> (home, visitors)``.
    """

    def meet(home: Any, visitors: Any) -> tuple[Any, Any]:
        blocks = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), visitors)
        home, blocks = jax.lax.scan(visit, home, blocks)
        return home, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), blocks)

    if not axes:
        return meet(home, visitors)
    size = jax.lax.axis_size(axes)
    turn = [(i, (i + 1) % size) for i in range(size)]

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        home, visitors = meet(*carry)
        return (home, jax.tree.map(lambda x: jax.lax.ppermute(x, axes, turn), visitors)), None

    return jax.lax.scan(step, (home, visitors), None, length=size)[0]


def _log_sum(logits: Array, candidates: Array, axis: int) -> Array:
    """Logarithm of the sum of exponentials of the candidates along an axis."""
    top = jnp.where(candidates, logits, _NONE).max(axis, keepdims=True)
    total = jnp.where(candidates, jnp.exp(logits - top), 0).sum(axis)
    return jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1)) + jnp.squeeze(top, axis), _NONE)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _info_nce(block: int, axes: Axes, left: Array, right: Array, group: Array, there: Array) -> Array:
    return _info_nce_forward(block, axes, left, right, group, there)[0]


def _info_nce_forward(
    block: int, axes: Axes, left: Array, right: Array, group: Array, there: Array
) -> tuple[Array, tuple[Array, ...]]:
    def visit(row: Any, visitors: Any) -> tuple[Any, Any]:
        values, its_group, its_there, column = visitors
        logits = left @ values.T
        candidates = there[:, None] & its_there[None]
        pairs = candidates & (group[:, None] == its_group[None])
        own = jnp.where(pairs, logits, 0)

        def add(seen: Any, axis: int) -> Any:
            log_total, total, count = seen
            new = jnp.logaddexp(log_total, _log_sum(logits, candidates, axis))
            return new, total + own.sum(axis), count + pairs.sum(axis)

        return add(row, 1), (values, its_group, its_there, add(column, 0))

    def nothing() -> Any:
        return jnp.full(there.shape, _NONE), jnp.zeros(there.shape), jnp.zeros(there.shape, jnp.int32)

    row, (*_, column) = _ring(visit, nothing(), (right, group, there, nothing()), block, axes)

    def one_way(log_total: Array, total: Array, count: Array) -> Array:
        return jnp.where(there & (count > 0), log_total - total / jnp.maximum(count, 1), 0)

    loss = (one_way(*row) + one_way(*column)) / 2
    return loss, (left, right, group, there, row[0], row[2], column[0], column[2])


def _info_nce_backward(block: int, axes: Axes, kept: tuple[Array, ...], cotangent: Array) -> tuple[Any, ...]:
    left, right, group, there, row_total, row_count, column_total, column_count = kept

    def share(count: Array) -> Array:
        return jnp.where(there & (count > 0), cotangent / 2, 0)

    row_share = share(row_count)

    def visit(d_left: Array, visitors: Any) -> tuple[Array, Any]:
        values, its_group, its_there, its_total, its_count, its_share, d_values = visitors
        logits = left @ values.T
        candidates = there[:, None] & its_there[None]
        pairs = candidates & (group[:, None] == its_group[None])
        by_row = jnp.exp(logits - row_total[:, None]) - pairs / jnp.maximum(row_count, 1)[:, None]
        by_column = jnp.exp(logits - its_total[None]) - pairs / jnp.maximum(its_count, 1)[None]
        slope = jnp.where(candidates, row_share[:, None] * by_row + its_share[None] * by_column, 0)
        rest = (values, its_group, its_there, its_total, its_count, its_share)
        return d_left + slope @ values, (*rest, d_values + slope.T @ left)

    visitors = (right, group, there, column_total, column_count, share(column_count), jnp.zeros_like(right))
    d_left, (*_, d_right) = _ring(visit, jnp.zeros_like(left), visitors, block, axes)
    return d_left, d_right, None, None


_info_nce.defvjp(_info_nce_forward, _info_nce_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sigmoid(block: int, axes: Axes, left: Array, right: Array, shift: Array, group: Array, there: Array) -> Array:
    return _sigmoid_forward(block, axes, left, right, shift, group, there)[0]


def _sigmoid_forward(
    block: int, axes: Axes, left: Array, right: Array, shift: Array, group: Array, there: Array
) -> tuple[Array, tuple[Array, ...]]:
    def visit(loss: Array, visitors: Any) -> tuple[Array, Any]:
        values, its_group, its_there = visitors
        sign = jnp.where(group[:, None] == its_group[None], 1.0, -1.0)
        each = jax.nn.softplus(-sign * (left @ values.T + shift[:, None]))
        return loss + jnp.where(there[:, None] & its_there[None], each, 0).sum(1), visitors

    loss, _ = _ring(visit, jnp.zeros(there.shape), (right, group, there), block, axes)
    return loss, (left, right, shift, group, there)


def _sigmoid_backward(block: int, axes: Axes, kept: tuple[Array, ...], cotangent: Array) -> tuple[Any, ...]:
    left, right, shift, group, there = kept

    def visit(home: tuple[Array, Array], visitors: Any) -> tuple[tuple[Array, Array], Any]:
        (d_left, d_shift), (values, its_group, its_there, d_values) = home, visitors
        sign = jnp.where(group[:, None] == its_group[None], 1.0, -1.0)
        each = -sign * jax.nn.sigmoid(-sign * (left @ values.T + shift[:, None]))
        slope = jnp.where(there[:, None] & its_there[None], cotangent[:, None] * each, 0)
        home = (d_left + slope @ values, d_shift + slope.sum(1))
        return home, (values, its_group, its_there, d_values + slope.T @ left)

    start = (jnp.zeros_like(left), jnp.zeros_like(shift))
    (d_left, d_shift), (*_, d_right) = _ring(visit, start, (right, group, there, jnp.zeros_like(right)), block, axes)
    return d_left, d_right, d_shift, None, None


_sigmoid.defvjp(_sigmoid_forward, _sigmoid_backward)
