"""The only mesh code: which devices, which axes, what lies where."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.typing import PyTree

__all__ = ["AXES", "make_mesh", "shard_seeds"]

AXES = ("data", "fsdp", "tensor")


def make_mesh(*, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """A mesh over all devices (of all hosts) with axes ``data``, ``fsdp`` and ``tensor``; data takes what is left.

    Raises:
      ValueError: ``fsdp * tensor`` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % (fsdp * tensor):
        raise ValueError(f"{fsdp=} times {tensor=} must divide the number of devices, {len(devices)}")
    shape = (len(devices) // (fsdp * tensor), fsdp, tensor)
    # jax.make_mesh defaults to explicit axes, under which linen's Embed and RNN fail.
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def shard_seeds(tree: PyTree, *, enabled: bool = True) -> PyTree:
    """Spreads the leading axis (seeds) over the devices of this host where it divides; else leaves it as it is."""
    count = jax.tree.leaves(tree)[0].shape[0]
    devices = jax.local_devices()
    if not enabled or len(devices) == 1 or count % len(devices):
        return tree
    sharding = NamedSharding(make_mesh(devices=devices), PartitionSpec("data"))
    return jax.device_put(tree, sharding)
