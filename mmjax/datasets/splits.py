"""Splitting by group: a video, a speaker or a photograph never stands in two splits."""

from collections.abc import Sequence

import numpy as np

from mmjax.errors import UsageError

__all__ = ["renumber", "split_groups"]


def split_groups(
    group: np.ndarray, fractions: Sequence[float], *, seed: int = 0, strata: np.ndarray | None = None
) -> np.ndarray:
    """Assigns whole groups to splits at random.

    Args:
      group: ``[n]`` the group of each example, any values.
      fractions: share of the examples wanted in each split; they sum to 1. Each split comes as near as whole groups
        allow.
      seed: of the shuffle (``numpy.random.RandomState``, whose stream is frozen for ever).
      strata: ``[n]`` classes; where every group lies in one class, each class is split by itself.

    Returns:
      ``[n]`` int, the split of each example: 0, 1, ...

    Raises:
      UsageError: fractions that are negative or do not sum to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError(f"split fractions must be positive and sum to 1, got {tuple(fractions)}")
    names, first, codes, counts = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    codes = codes.reshape(-1)
    stratum = np.zeros(len(names), np.int64)
    if strata is not None:
        classes = np.unique(strata, return_inverse=True)[1].reshape(-1)
        if (classes == classes[first][codes]).all():  # otherwise a group spans classes and cannot be stratified
            stratum = classes[first]
    order = np.random.RandomState(seed).permutation(len(names))
    result = np.empty(len(names), np.int64)
    for value in np.unique(stratum):
        chosen = order[stratum[order] == value]
        # a group goes where its middle falls on the cumulative scale of examples
        middle = np.cumsum(counts[chosen]) - counts[chosen] / 2
        edges = np.cumsum(fractions)[:-1] * counts[chosen].sum()
        result[chosen] = np.searchsorted(edges, middle, side="right")
    return result[codes]


def renumber(group: np.ndarray) -> np.ndarray:
    """Groups of any values (names, numbers) as int32 0, 1, ... in sorted order."""
    return np.unique(np.asarray(group), return_inverse=True)[1].reshape(-1).astype(np.int32)
