"""Rows that are prepared with the same arrays share them on the device; nothing stays there that no row holds."""

import gc

import jax
import numpy as np
import pytest

from mmjax.batches import concat_batches
from mmjax.errors import UsageError
from mmjax.placement import DeviceArrays
from mmjax.stream import Batch, Stream


def make_batch(n, start=0, length=2):
    rows = np.arange(start, start + n)
    values = np.broadcast_to(rows[:, None, None], (n, length, 3)).astype(np.float32).copy()
    return Batch({"x": Stream(values, np.ones((n, length), bool))}, rows, np.ones(n, np.float32), rows, rows)


def test_batches_that_share_arrays_share_them_on_the_device():
    arrays, batch = DeviceArrays(), make_batch(4)
    other = batch.replace(streams={**batch.streams, "y": Stream(np.ones((4, 1, 1), np.float32), np.ones((4, 1), bool))})
    one, two = arrays.place(batch), arrays.place(other)
    assert one.streams["x"].values is two.streams["x"].values and one.target is two.target
    np.testing.assert_array_equal(two.streams["y"].values, other.streams["y"].values)


def test_several_batches_are_one_and_shared_too():
    arrays, parts = DeviceArrays(), (make_batch(2), make_batch(3, start=2, length=4))
    one, two = arrays.place(*parts), arrays.place(*parts)
    assert one.streams["x"].values is two.streams["x"].values
    jax.tree.map(np.testing.assert_array_equal, one, concat_batches(*parts))
    assert arrays.place(parts[0]).size == 2


def test_what_no_row_holds_is_freed_and_equal_ids_of_dead_arrays_are_not_taken_for_it():
    arrays = DeviceArrays()
    placed = arrays.place(make_batch(4))
    del placed
    gc.collect()
    assert not arrays._placed
    for number in range(20):  # Python gives the same addresses again
        placed = arrays.place(make_batch(4, start=number))
        assert int(placed.target[0]) == number


def test_a_stale_entry_is_not_used():
    arrays, batch = DeviceArrays(), make_batch(4)
    held = arrays.place(batch)
    keys = list(arrays._placed)
    del batch
    gc.collect()
    arrays._placed = {key: arrays._placed[key] for key in keys}
    assert all(arrays._find((np.zeros(1),)) is None for _ in range(5))
    assert held.size == 4


def test_batches_of_other_streams_are_refused():
    batch = make_batch(2)
    with pytest.raises(UsageError, match="differ in their streams"):
        DeviceArrays().place(batch, batch.replace(streams={"z": batch.streams["x"]}))
