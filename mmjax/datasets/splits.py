"""Splitting by group: a video, a speaker or a photograph never stands in two splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.errors import UsageError

__all__ = ["lacking_classes", "read_groups", "renumber", "split_codes", "split_groups", "stratify_groups"]

_SPLIT_NAMES = {
    **{name: 0 for name in ("train", "training")},
    **{name: 1 for name in ("validation", "valid", "val", "dev")},
    **{name: 2 for name in ("test", "testing")},
}


def _split_code(name: Any) -> int:
    try:
        return _SPLIT_NAMES[str(name).strip().lower()]
    except KeyError:
        raise UsageError(f"split {str(name)!r} is not one of {SPLITS}") from None


def _shares(split: Any) -> tuple[float, ...] | None:
    """Three shares where the split is given as such, else None."""
    if isinstance(split, Mapping):
        shares = [0.0, 0.0, 0.0]
        for name, share in split.items():
            shares[_split_code(name)] += float(share)
    elif isinstance(split, tuple | list) and len(split) == 3 and all(isinstance(x, float) for x in split):
        shares = list(split)
    else:
        return None
    if min(shares) <= 0:
        raise UsageError(f"every data set needs {', '.join(SPLITS)}; the shares are {tuple(shares)}")
    return tuple(shares)


def split_codes(split: Any, group: np.ndarray, *, seed: int = 0, strata: np.ndarray | None = None) -> np.ndarray:
    """``[n]`` 0 (train), 1 (validation) or 2 (test).

    Args:
      split: ``[n]`` names or these numbers, or three shares by which ``stratify_groups`` draws.
      group: ``[n]``.
      seed: of the draw.
      strata: ``[n]`` classes.

    Raises:
      UsageError: another name, number, length, or a share of 0.
    """
    if (shares := _shares(split)) is not None:
        return stratify_groups(group, shares, seed=seed, strata=strata)
    codes = np.asarray(split)
    if codes.dtype.kind in "USO" and codes.ndim == 1:
        codes = np.asarray([_split_code(name) for name in codes.tolist()])
    if codes.shape != group.shape or not np.isin(codes, (0, 1, 2)).all():
        raise UsageError(
            f"split must give each of the {len(group)} examples a name of {SPLITS} or 0, 1, 2, or be three float "
            f"fractions; got {codes.dtype} {codes.shape}"
        )
    return codes.astype(np.int64)


def read_groups(group: Any, count: int) -> np.ndarray:
    """``[count]`` groups as numbers or names; each example its own where there are none.

    Raises:
      UsageError: another length, or an example without a group.
    """
    groups = np.arange(count) if group is None else np.asarray(group)
    if groups.shape != (count,):
        raise UsageError(f"group has shape {groups.shape}, target has {count} examples")
    bad = [value is None or value != value for value in groups.tolist()]
    if any(bad):
        raise UsageError(f"example {bad.index(True)} has no group")
    return groups.astype(str) if groups.dtype.kind == "O" else groups


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


def stratify_groups(
    group: np.ndarray, fractions: Sequence[float], *, seed: int = 0, strata: np.ndarray | None = None
) -> np.ndarray:
    """Assigns whole groups to splits at random so that every class stands in every split, as far as groups allow.

    After iterative stratification (Sechidis et al. 2011): the groups with the rarest class go first, the largest first,
    each to the split that lacks most examples of its classes, among equals to the one that lacks most examples at all.
    Unlike ``split_groups`` it takes groups of several classes, and small classes share the splits among them.

    Args:
      group: ``[n]`` the group of each example, any values.
      fractions: share of the examples wanted in each split; they sum to 1.
      seed: of the order of equals.
      strata: ``[n]`` classes; None = the size of the splits alone counts.

    Returns:
      ``[n]`` int, the split of each example: 0, 1, ...; none is empty whose share is positive.

    Raises:
      UsageError: fractions that are negative or do not sum to 1, or fewer groups than splits.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError(f"split fractions must be positive and sum to 1, got {tuple(fractions)}")
    names, codes = np.unique(group, return_inverse=True)
    codes, wanted = codes.reshape(-1), np.asarray(fractions, np.float64)
    if len(names) < (wanted > 0).sum():
        raise UsageError(f"{len(names)} groups cannot be split in {(wanted > 0).sum()} parts: each needs a group")
    classes = (
        np.zeros(len(codes), np.int64) if strata is None else np.unique(strata, return_inverse=True)[1].reshape(-1)
    )
    random = np.random.RandomState(seed)
    if len(names) == len(codes):  # every example for itself: class by class, without a table of groups and classes
        splits = _single_examples(classes[np.argsort(codes)], wanted, random)
        sizes = np.ones(len(names))
    else:
        counts = np.zeros((len(names), int(classes.max()) + 1))
        np.add.at(counts, (codes, classes), 1)
        splits, sizes = _whole_groups(counts, wanted, random), counts.sum(1)
    for split in np.flatnonzero(wanted > 0):
        if not (splits == split).any():  # the smallest group of the split with most groups
            donors = np.flatnonzero(splits == np.bincount(splits, minlength=len(wanted)).argmax())
            splits[donors[np.argmin(sizes[donors])]] = split
    return splits[codes]


def _single_examples(classes: np.ndarray, wanted: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    counts = np.bincount(classes)
    order = random.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    ends, room, splits = np.cumsum(counts), wanted * len(classes), np.empty(len(classes), np.int64)
    for one in np.argsort(counts, kind="stable"):
        lack = wanted * counts[one]
        part = np.floor(lack + 1e-9).astype(np.int64)
        room -= part
        lack -= part
        for _ in range(counts[one] - part.sum()):
            best = np.flatnonzero(np.where(wanted > 0, lack, -np.inf) >= lack.max() - 1e-9)
            split = best[np.argmax(room[best])]
            part[split] += 1
            room[split] -= 1
            lack[split] -= 1
        splits[order[ends[one] - counts[one] : ends[one]]] = np.repeat(np.arange(len(wanted)), part)
    return splits


def _whole_groups(counts: np.ndarray, wanted: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    sizes, totals, spread = counts.sum(1), counts.sum(0), (counts > 0).sum(0)
    rarest = np.where(counts > 0, spread, np.inf).argmin(1)
    lack, room = wanted[:, None] * totals, wanted * sizes.sum()
    splits = np.empty(len(counts), np.int64)
    for one in np.lexsort((random.permutation(len(counts)), -sizes, rarest, spread[rarest])):
        # the split where the squared lack of examples, relative to the size of the classes, falls most
        need = np.where(wanted > 0, lack @ (counts[one] / totals), -np.inf)
        best = np.flatnonzero(need >= need.max() - 1e-9)
        splits[one] = best[np.argmax(room[best])]
        lack[splits[one]] -= counts[one]
        room[splits[one]] -= sizes[one]
    return splits


def lacking_classes(
    target: np.ndarray, codes: np.ndarray, splits: Sequence[str], classes: Sequence[str]
) -> tuple[str, ...]:
    """A phrase for each split in which some classes of the data have no example: "test lacks 1 of 3 classes (c)"."""
    there = np.unique(target)
    phrases = []
    for code, split in enumerate(splits):
        missing = np.setdiff1d(there, target[codes == code])
        if missing.size and (codes == code).any():
            names = ", ".join(classes[number] for number in missing[:5]) + ", ..." * (missing.size > 5)
            phrases.append(f"{split} lacks {missing.size} of {there.size} classes ({names})")
    return tuple(phrases)
