"""Missing and noisy modalities: patterns of presence, expected scores with missing ones, noisy copies of a batch.

``mmjax.evaluation.measures.degradation`` evaluates curves of scores. Noise depends only on the key and the name of the
modality: all rows of a table meet the same noise, and "all" the noise that each modality meets alone.
"""

import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures.degradation import ALL, LEVELS
from mmjax.evaluation.measures.noise import Noise
from mmjax.stream import Batch, Stream, by_index
from mmjax.training import compile_effort
from mmjax.typing import Int, Key, Mapping

__all__ = ["corrupted", "expected_missing", "pattern_rows", "patterns", "presence"]

Pattern = tuple[str, ...]
"""Names of the modalities present, sorted."""


def patterns(modalities: Iterable[str]) -> list[Pattern]:
    """All ``2^M - 1`` non-empty subsets of the modalities, largest first."""
    names = sorted(set(modalities))
    return [subset for count in range(len(names), 0, -1) for subset in itertools.combinations(names, count)]


def pattern_rows(pattern: Iterable[str], modalities: Iterable[str], n: int) -> dict[str, Int[np.ndarray, " n"]]:
    """Item numbers for ``Mixed``: the ``n`` items with the modalities of ``pattern`` alone, which may be empty.

    Raises:
      UsageError: a name that is no modality.
    """
    present, names = set(pattern), sorted(set(modalities))
    if unknown := sorted(present - set(names)):
        raise UsageError(f"no modality {unknown[0]!r}; there are {names}")
    return {name: np.arange(n, dtype=np.int32) if name in present else np.full(n, -1, np.int32) for name in names}


def expected_missing(by_pattern: Mapping[Pattern, Any], target: str, rates: Sequence[float] = LEVELS) -> np.ndarray:
    """The expected curve ``[rates, ...]`` under random absence, from the score of each pattern.

    For one modality the line from the full score to that without it; for ``all``, where modalities are absent
    independently, the sum over patterns of ``(1 - p)^present p^absent`` times their scores.

    Args:
      by_pattern: scores by sorted names of the modalities present; ``all`` needs every pattern, ``()`` included.

    Raises:
      UsageError: a target that is no modality, or a missing pattern.
    """
    full = max(by_pattern, key=len)
    _check_target(target, full)
    lost = full if target == ALL else (target,)
    curve: Any = 0.0
    for count in range(len(lost) + 1):
        for gone in itertools.combinations(lost, count):
            share = np.asarray([(1 - p) ** (len(lost) - count) * p**count for p in rates])
            pattern = tuple(name for name in full if name not in gone)
            curve = curve + np.multiply.outer(share, np.asarray(_scores(by_pattern, pattern), np.float64))
    return curve


def corrupted(
    batch: Batch,
    noises: Mapping[str, Noise],
    severities: Sequence[float],
    key: Key,
    *,
    view: Callable[[Batch], Batch] | None = None,
) -> Batch:
    """Concatenated copies of a batch, one for each severity of the noise, all levels in one program.

    Copies share the key: one draw of noise at growing strength. Copy ``l`` has the index ``l * items + index`` and
    groups of its own (those of the first copy are the batch's); -1 in padding stays.

    Args:
      noises: by stream; other streams are copied unchanged.
      key: of the draw; each stream folds in a hash of its name.
      view: of the table. Raw noise is applied before it, noise on features after it; it must keep copies apart and in
        order, which index and group allow.

    Raises:
      UsageError: an unknown stream, severities outside [0, 1], a view that merges copies.
    """
    levels = np.asarray(severities, np.float32)
    if levels.ndim != 1 or not levels.size or not ((levels >= 0) & (levels <= 1)).all():
        raise UsageError(f"severities are numbers from 0 to 1, got {list(severities)}")
    early = {name: noise for name, noise in noises.items() if noise.raw or view is None}
    streams = _noisy(batch.streams, early, levels, key, False)
    index, group = _apart(np.asarray(batch.index), np.asarray(batch.group), len(levels))
    copies = Batch(
        streams=streams,
        target=jax.tree.map(lambda x: _repeated(x, len(levels)), batch.target),
        weight=_repeated(batch.weight, len(levels)),
        index=index,
        group=group,
    )
    if view is None:
        return copies
    copies = view(copies)
    if copies.size % len(levels):
        raise UsageError(f"the view made {copies.size} rows of {len(levels)} copies: it must keep them apart")
    late = {name: noise for name, noise in noises.items() if name not in early}
    return copies.replace(streams=_noisy(copies.streams, late, levels, key, True)) if late else copies


def _check_target(target: str, names: Iterable[str]) -> None:
    if target != ALL and target not in names:
        raise UsageError(f"target {target!r} is neither {ALL!r} nor one of {sorted(names)}")


def _scores(by_pattern: Mapping[Pattern, Any], pattern: Pattern) -> Any:
    if pattern not in by_pattern:
        raise UsageError(f"no scores of the pattern {pattern}; there are {sorted(by_pattern)}")
    return by_pattern[pattern]


def _number(name: str) -> int:
    """A hash of the name that does not depend on the process."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def _noisy(
    streams: Mapping[str, Stream], noises: Mapping[str, Noise], levels: np.ndarray, key: Key, copied: bool
) -> dict[str, Stream]:
    """The streams once for each level, concatenated; ``copied``: they already have a copy for each level."""
    if missing := sorted(set(noises) - set(streams)):
        raise UsageError(f"no stream {missing[0]!r} to put noise on; there are {sorted(streams)}")
    result = {}
    for name, stream in streams.items():
        if name in noises:
            result[name] = _program(noises[name], copied)(stream, levels, jax.random.fold_in(key, _number(name)))
        else:
            result[name] = stream if copied else jax.tree.map(lambda x: _repeated(x, len(levels)), stream)
    return result


@functools.cache
def _program(noise: Noise, copied: bool) -> Callable[[Stream, Any, Key], Stream]:
    """All levels of one stream at once, compiled once a shape."""

    def levelled(stream: Stream, levels: Any, key: Key) -> Stream:
        if copied:
            stream = jax.tree.map(lambda x: x.reshape(len(levels), -1, *x.shape[1:]), stream)
        copies = jax.vmap(noise.apply, in_axes=(0 if copied else None, None, 0))(stream, key, levels)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), copies)

    return jax.jit(levelled, compiler_options=compile_effort(1))


def _repeated(values: Any, times: int) -> np.ndarray:
    return np.concatenate([np.asarray(values)] * times)


def _apart(index: np.ndarray, group: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Index and group of the copies, disjoint between copies; -1 in padding stays."""
    real = index >= 0
    if not np.issubdtype(group.dtype, np.integer) or group[real].min() < 0 or int(group.max()) >= 2**31 // copies - 1:
        group = np.unique(group, return_inverse=True)[1].reshape(group.shape)
    stride = int(group[real].max()) + 1
    numbered = [np.where(real, index + copy * int(real.sum()), -1) for copy in range(copies)]
    grouped = [np.where(real, group + copy * stride, -1) for copy in range(copies)]
    return np.concatenate(numbered).astype(np.int32), np.concatenate(grouped).astype(np.int32)


def presence(batch: Batch) -> np.ndarray:
    """Whether each labelled item has any stream, ``[items]``; a stream without a step axis counts for all steps."""
    index = np.asarray(batch.index)
    present: Any = False
    for stream in batch.streams.values():
        mask = np.asarray(stream.mask)
        steps = mask.shape[: index.ndim] == index.shape
        real = mask.reshape(*(index.shape if steps else (*mask.shape[:1], *(1,) * (index.ndim - 1))), -1).any(-1)
        present = present | np.broadcast_to(real, index.shape)
    return by_index(np.asarray(present), index)
