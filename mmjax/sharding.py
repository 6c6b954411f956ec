"""The only mesh code: which devices, which axes, what lies where."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.errors import UsageError
from mmjax.typing import PyTree

__all__ = [
    "AXES",
    "batch_sharding",
    "check_divides",
    "describe_split",
    "gather",
    "jit_step",
    "make_mesh",
    "put_batch",
    "replicated",
    "seed_devices",
    "shard_seeds",
    "state_sharding",
]

AXES = ("data", "fsdp", "tensor")
# Below this many numbers the traffic costs more than the memory that splitting an array saves.
SMALL = 4096


def make_mesh(*, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """A mesh over all devices (of all hosts) with axes ``data``, ``fsdp`` and ``tensor``; data takes what is left.

    Raises:
      UsageError: ``fsdp * tensor`` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % (fsdp * tensor):
        raise UsageError(f"{fsdp=} times {tensor=} must divide the number of devices, {len(devices)}")
    shape = (len(devices) // (fsdp * tensor), fsdp, tensor)
    # jax.make_mesh defaults to explicit axes, under which linen's Embed and RNN fail.
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over ``data`` and ``fsdp``; devices along ``tensor`` see the same rows."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def check_divides(batch_size: int, mesh: Mesh) -> None:
    """Checks that every device gets the same number of rows.

    Raises:
      UsageError: naming batch size and devices.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % ways:
        raise UsageError(
            f"train.batch_size={batch_size} does not divide over {ways} devices "
            f"(data={mesh.shape['data']} times fsdp={mesh.shape['fsdp']}): use a multiple of {ways}"
        )


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This host's rows of a batch (NumPy arrays) on the devices, as one global batch."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def state_sharding(state: PyTree, mesh: Mesh, *, small: int = SMALL) -> PyTree:
    """Where each leaf of a train state lies: ``tensor`` on the last axis of an array of two axes or more, ``fsdp`` on
    the longest axis that it divides of the rest; an array of fewer than ``small`` numbers is replicated.

    A pure function of shapes: the moments of an optimiser follow their parameters, for they have the same shapes, and
    its counters and the step have none.

    Args:
      state: arrays or shapes.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf.shape, mesh, small)), state)


def _spec(shape: tuple[int, ...], mesh: Mesh, small: int) -> PartitionSpec:
    spec: list[str | None] = [None] * len(shape)
    if math.prod(shape) < small:
        return PartitionSpec()
    if len(shape) > 1 and mesh.shape["tensor"] > 1 and shape[-1] % mesh.shape["tensor"] == 0:
        spec[-1] = "tensor"
    free = [axis for axis in range(len(shape)) if spec[axis] is None and shape[axis] % mesh.shape["fsdp"] == 0]
    if free and mesh.shape["fsdp"] > 1:
        spec[max(free, key=lambda axis: shape[axis])] = "fsdp"
    return PartitionSpec(*spec)


def gather(params: PyTree, mesh: Mesh, *, small: int = SMALL) -> PyTree:
    """Parameters as a program uses them: whole along ``fsdp``, split along ``tensor``. Call it inside ``jit``.

    Without it the partitioner may split an activation along ``fsdp`` that is also split so by rows, and where it
    resolves that on a mesh of three axes longer than 1 it can lose a sum: gradients came out wrong by 10 to 100 %, with
    no error (jaxlib 0.10.2, CPU; compare github.com/openxla/xla/issues/40034).
    """

    def constrain(leaf: Any) -> Any:
        spec = PartitionSpec(*(None if axis == "fsdp" else axis for axis in _spec(leaf.shape, mesh, small)))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(constrain, params)


def jit_step(step: Callable, mesh: Mesh, state: PyTree, *, small: int = SMALL) -> Callable:
    """Compiles a pure step ``(state, batch, key) -> (state, metrics)`` for a mesh; the state's memory is reused.

    Args:
      step: sees the whole batch: a mean over it is the mean over all devices, whatever lies where.
      state: a ``TrainState`` of arrays or shapes, for its sharding; create it by ``jax.jit(init, out_shardings=
        state_sharding(...))``.
      small: as in ``state_sharding``.
    """
    where, everywhere = state_sharding(state, mesh, small=small), replicated(mesh)
    return jax.jit(
        lambda state, batch, key: step(state.replace(params=gather(state.params, mesh, small=small)), batch, key),
        donate_argnums=0,
        in_shardings=(where, batch_sharding(mesh), everywhere),
        out_shardings=(where, everywhere),
    )


def describe_split(params: PyTree, mesh: Mesh, *, small: int = SMALL) -> str:
    """In one line, how many parameters ``state_sharding`` splits; empty for a mesh that splits none.

    Args:
      params: arrays or shapes.
    """
    ways = {name: mesh.shape[name] for name in ("fsdp", "tensor") if mesh.shape[name] > 1}
    if not ways:
        return ""
    leaves = jax.tree.leaves(params)
    split = sum(math.prod(leaf.shape) for leaf in leaves if any(_spec(leaf.shape, mesh, small)))
    total = sum(math.prod(leaf.shape) for leaf in leaves)
    over = " and ".join(f"{name}={count}" for name, count in ways.items())
    return (
        f"{over}: {split:,} of {total:,} parameters are split; whole on every device are arrays of fewer than "
        f"{small:,} numbers and those without an axis to divide"
    )


def seed_devices(count: int) -> list[Any]:
    """The devices of this host over which so many seeds are spread: as many as divide their number."""
    devices = jax.local_devices()
    return devices[: max(ways for ways in range(1, len(devices) + 1) if count % ways == 0)]


def shard_seeds(tree: PyTree, *, enabled: bool = True) -> PyTree:
    """Spreads the leading axis (seeds) over ``seed_devices``.

    Args:
      tree: arrays, or shapes that say where they are to lie.
    """
    devices = seed_devices(jax.tree.leaves(tree)[0].shape[0])
    if not enabled or len(devices) == 1:
        return tree
    sharding = NamedSharding(make_mesh(devices=devices), PartitionSpec("data"))
    if isinstance(jax.tree.leaves(tree)[0], jax.ShapeDtypeStruct):
        return jax.tree.map(lambda x: x.update(sharding=sharding), tree)
    return jax.device_put(tree, sharding)
