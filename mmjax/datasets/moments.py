"""Mean and deviation of features, block by block: no copy of the data in float64."""

import numpy as np

__all__ = ["feature_moments"]

BLOCK_BYTES = 2**22


def feature_moments(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature over the real items, in float64.

    Bit for bit those of ``items.astype(float64)`` by NumPy, which adds rows one after the other too.

    Args:
      values: ``[n, length, *item]``.
      mask: ``[n, length]`` or with as many axes as there are before the item; False = not counted.
    """
    item = values.shape[mask.ndim :]
    rows = max(1, BLOCK_BYTES // max(1, 8 * values[:1].size))
    blocks = [slice(start, start + rows) for start in range(0, len(values), rows)]
    count = int(mask.sum())
    total = np.zeros(item)
    for block in blocks:
        total = _add(total, values[block][mask[block]].astype(np.float64))
    mean = total / count
    square = np.zeros(item)
    for block in blocks:
        square = _add(square, np.square(values[block][mask[block]].astype(np.float64) - mean))
    return mean, np.sqrt(square / count)


def _add(total: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The sum of all, row after row."""
    return np.add.reduce(np.concatenate([total[None], items]), axis=0)
