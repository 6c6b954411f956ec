"""What both modes share: orthonormal directions and examples laid out as columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Columns

__all__ = ["columns", "directions", "random_lengths"]


def directions(count: int, dim: int, seed: tuple[int, ...]) -> np.ndarray:
    """``[count, dim]`` orthonormal rows in float64, the same for the same seed."""
    normal = np.random.RandomState(seed).standard_normal((dim, count))
    q, r = np.linalg.qr(normal)
    return (q * np.sign(np.diag(r))).T


def random_lengths(random: np.random.RandomState, count: int, lowest: int, highest: int) -> np.ndarray:
    """``[count]`` lengths of sequences, from ``lowest`` (but at least half of ``highest``) to ``highest``."""
    return random.randint(max(lowest, (highest + 1) // 2), highest + 1, size=count)


def columns(sizes: tuple[int, int, int], streams: Mapping[str, Any], target: np.ndarray) -> Columns:
    """Cuts all examples into the splits, in order; every example is a group of its own."""
    result, start = {}, 0
    for split, size in zip(SPLITS, sizes):
        rows = slice(start, start + size)
        result[split] = {
            **{name: values[rows] for name, values in streams.items()},
            "target": target[rows].astype(np.int32),
            "group": np.arange(start, start + size, dtype=np.int32),
        }
        start += size
    return result
