"""Moments block by block are those of NumPy on the whole, bit for bit."""

import numpy as np
import pytest

from mmjax.datasets import moments


@pytest.mark.parametrize("shape, axes", [((50, 3, 4), 2), ((50, 2, 3, 4), 3), ((7, 1, 5, 2), 2)])
def test_blocks_change_no_bit(monkeypatch, shape, axes):
    generator = np.random.default_rng(0)
    values = generator.normal(1e3, 1, shape).astype(np.float32)
    mask = generator.random(shape[:axes]) < 0.8
    items = values[mask].astype(np.float64)
    for size in (1, 1000, 2**22):
        monkeypatch.setattr(moments, "BLOCK_BYTES", size)
        mean, deviation = moments.feature_moments(values, mask)
        np.testing.assert_array_equal(mean, items.mean(0))
        np.testing.assert_array_equal(deviation, items.std(0))


def test_blocks_without_a_real_item_add_nothing(monkeypatch):
    monkeypatch.setattr(moments, "BLOCK_BYTES", 1)
    values, mask = np.asarray([[[np.nan]], [[2.0]], [[4.0]]], np.float32), np.asarray([[False], [True], [True]])
    mean, deviation = moments.feature_moments(values, mask)
    assert mean == 3 and deviation == 1
