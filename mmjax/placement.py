"""Arrays of the host on the device, each placed once however many rows of a table are prepared with them."""

import threading
import weakref
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.batches import concat_batches
from mmjax.stream import Batch

__all__ = ["DeviceArrays"]


class DeviceArrays:
    """Places batches on the device and shares what other rows still hold there.

    Rows of a table are prepared ahead of the one in training, most of them with the same data: without sharing, each
    would hold a copy. What no row holds any more is freed. Safe to call from several threads.

    The arrays of a batch are known by their identity: do not write into them while a row holds them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._placed: dict[tuple[int, ...], tuple[tuple[Any, ...], Any]] = {}

    def place(self, *batches: Batch) -> Batch:
        """The rows of all batches in one, as arrays of the device; errors are those of ``concat_batches``."""
        if len(batches) > 1 and len({jax.tree.structure(batch) for batch in batches}) > 1:
            concat_batches(*batches)  # says how they differ
        sources = list(zip(*map(jax.tree.leaves, batches), strict=True))
        with self._lock:
            placed = [self._find(source) for source in sources]
            if any(array is None for array in placed):
                leaves = jax.tree.leaves(concat_batches(*batches) if len(batches) > 1 else batches[0])
                placed = [self._share(source, leaf) for source, leaf in zip(sources, leaves, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(batches[0]), placed)

    def _find(self, source: tuple[Any, ...]) -> jax.Array | None:
        kept = self._placed.get(tuple(map(id, source)))
        if kept is None or any(here() is not there for here, there in zip(kept[0], source)):
            return None
        return kept[1]()

    def _share(self, source: tuple[Any, ...], leaf: Any) -> jax.Array:
        if (array := self._find(source)) is not None:
            return array
        key, array = tuple(map(id, source)), jnp.asarray(leaf)

        def forget(reference: Any) -> None:
            if key in self._placed and self._placed[key][1] is reference:
                del self._placed[key]

        # By weak references: a table must not hold on the device what none of the rows in work needs.
        self._placed[key] = tuple(map(weakref.ref, source)), weakref.ref(array, forget)
        return array
