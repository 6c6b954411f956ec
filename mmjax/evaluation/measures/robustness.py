"""What is left of a model when modalities go missing or get noisy: curves, what to say of them, and how to take them.

Curves are handled by ``mmjax.evaluation.measures.degradation``. What is drawn is a function of a seed, the
number of the draw and the name of the modality alone: all rows of a table meet the same noise, and "all" meets the
noise that each modality meets by itself.
"""

import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures.degradation import (
    ALL,
    LEVELS,
    area,
    effective_robustness,
    harmful,
    multibench,
    retention,
    worst_drop,
)
from mmjax.evaluation.measures.noise import Noise
from mmjax.evaluation.scores import score
from mmjax.stream import Batch, Stream, by_index, target_items
from mmjax.training import compile_effort
from mmjax.typing import Float, Int, Key, Mapping

__all__ = [
    "ALL",
    "LEVELS",
    "Sweep",
    "area",
    "combined",
    "corrupted",
    "effective_robustness",
    "expected_missing",
    "harmful",
    "missing_area",
    "missing_rows",
    "missing_scores",
    "multibench",
    "pattern_rows",
    "patterns",
    "presence",
    "retention",
    "sweep",
    "worst_drop",
]

Pattern = tuple[str, ...]
"""Names of the modalities present, sorted."""


def patterns(modalities: Iterable[str]) -> list[Pattern]:
    """All ``2^M - 1`` subsets of the modalities that are not empty, the largest first."""
    names = sorted(set(modalities))
    return [subset for count in range(len(names), 0, -1) for subset in itertools.combinations(names, count)]


def pattern_rows(pattern: Iterable[str], modalities: Iterable[str], n: int) -> dict[str, Int[np.ndarray, " n"]]:
    """What ``Mixed`` takes to see the ``n`` items with the modalities of ``pattern`` alone; it may be empty.

    Raises:
      UsageError: a name that is no modality.
    """
    kept, names = set(pattern), sorted(set(modalities))
    if unknown := sorted(kept - set(names)):
        raise UsageError(f"no modality {unknown[0]!r}; there are {names}")
    return {name: np.arange(n, dtype=np.int32) if name in kept else np.full(n, -1, np.int32) for name in names}


def missing_rows(
    n: int,
    modalities: Iterable[str],
    target: str,
    rates: Sequence[float] = LEVELS,
    draws: int = 5,
    seed: int = 0,
) -> dict[str, Int[np.ndarray, "rates draws n"]]:
    """Item numbers for ``Mixed`` (flatten them) where a share of the items lost a modality; -1 = lost.

    Of the ``n`` items ``rate * n``, rounded, lose it; within a draw those of a lower rate lose it at a higher one too.
    With target ``all`` each modality is lost independently of the others. An item that loses everything stays and
    counts: what the model says of nothing is its answer.

    Raises:
      UsageError: a target that is no modality.
    """
    names, share = sorted(set(modalities)), np.asarray(rates, np.float64)[:, None]
    _check_target(target, names)
    rows = {}
    for name in names:
        rows[name] = np.broadcast_to(np.arange(n, dtype=np.int32), (len(rates), draws, n)).copy()
        if target in (name, ALL):
            for draw in range(draws):
                rank = np.random.default_rng((seed, draw, _number(name))).permutation(n)
                rows[name][:, draw][rank + 0.5 < share * n] = -1
    return rows


def missing_scores(
    by_pattern: Mapping[Pattern, Any], rows: Mapping[str, Int[np.ndarray, "rates draws n"]]
) -> Float[np.ndarray, "rates draws seeds"]:
    """Mean scores where items lost modalities, looked up in the scores that each pattern gives: no forward pass.

    Exact for models that treat every item alone. ``rows`` are those of ``missing_rows``.

    Args:
      by_pattern: scores ``[seeds, n]`` by sorted names of the modalities present; ``()`` where an item may lose all.

    Raises:
      UsageError: a pattern that is needed and not there.
    """
    names = sorted(rows)
    code = np.sum([(rows[name] >= 0) << place for place, name in enumerate(names)], axis=0)
    total = 0.0
    for value in np.unique(code):
        pattern = tuple(name for place, name in enumerate(names) if value >> place & 1)
        total = total + np.einsum("rdn,sn->rds", code == value, np.asarray(_scores(by_pattern, pattern), np.float64))
    return np.asarray(total) / code.shape[-1]


def expected_missing(by_pattern: Mapping[Pattern, Any], target: str, rates: Sequence[float] = LEVELS) -> np.ndarray:
    """The curve ``[rates, ...]`` that random masks give on average, from the score of each pattern: no draws.

    For one modality the straight line from the full score to that without it; for ``all``, where each modality is lost
    independently, the sum over patterns of ``(1 - p)^present p^lost`` times their scores.

    Args:
      by_pattern: scores by sorted names of the modalities present; ``all`` needs every one of them, ``()`` included.

    Raises:
      UsageError: a target that is no modality, or a pattern that is needed and not there.
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


def missing_area(by_pattern: Mapping[Pattern, Any], target: str, rates: Sequence[float] = LEVELS) -> Any:
    """Area under ``expected_missing``; of one modality the mean of the scores with and without it."""
    return area(expected_missing(by_pattern, target, rates), rates)


def corrupted(
    batch: Batch,
    noises: Mapping[str, Noise],
    severities: Sequence[float],
    key: Key,
    *,
    view: Callable[[Batch], Batch] | None = None,
) -> Batch:
    """Copies of a batch one after the other, copy ``l`` in the noise of severity ``l``, all levels in one program.

    Copies share the key, so that they hold one draw of noise, turned up. Items keep apart: the index of copy ``l`` is
    ``l * items + index``, its groups are new ones (those of the first copy are the batch's own), -1 in padding stays.

    Args:
      noises: by stream; the others are copied as they are.
      key: of the draw; each stream folds the number of its name in.
      view: what a table does to raw examples. Raw noise enters before it, noise on features after it; it must keep
        copies apart and in order, which by index and group it can.

    Raises:
      UsageError: a stream that is not there, severities outside [0, 1], a view that does not keep the copies.
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


class Sweep(NamedTuple):
    """What a sweep gave.

    Attributes:
      scores: the metric, higher is better, ``[levels, draws, seeds]``.
      outputs: ``[levels, draws, seeds, items, ...]`` float32, for decision-level rows; None unless asked for.
      present: whether noise left the item any of the streams, ``[levels, draws, items]``; None with the outputs.
    """

    scores: np.ndarray
    outputs: np.ndarray | None = None
    present: np.ndarray | None = None


def sweep(
    predict: Callable[[Batch], Any],
    batch: Batch,
    target: str,
    noises: Mapping[str, Noise],
    severities: Sequence[float] = LEVELS,
    draws: int = 5,
    seed: int = 0,
    *,
    metric: str = "accuracy",
    view: Callable[[Batch], Batch] | None = None,
    clean: Any = None,
    keep: bool = False,
    at_once: int | None = None,
) -> Sweep:
    """A trained row at every severity of the noise on one modality, or on all: the same numbers every time.

    ``predict`` meets batches of one shape, whatever the modality and draw, so it compiles once.

    Args:
      predict: ``batch -> [seeds, items, classes]`` (scores: ``[seeds, items]``) in the order of the index.
      batch: the examples, before ``view``.
      target: a modality, or ``all`` of ``noises``.
      noises: by modality.
      metric: one of ``mmjax.evaluation.scores``.
      view: as in ``corrupted``.
      clean: outputs on the batch as it is, ``[seeds, items, ...]``, to stand at severity 0 instead of new ones.
      keep: whether to return the outputs.
      at_once: levels in one batch, to bound its size; None = all.

    Raises:
      UsageError: a target without noise, or as ``corrupted``.
    """
    _check_target(target, sorted(noises))
    chosen = dict(noises) if target == ALL else {target: noises[target]}
    real = np.asarray(batch.index) >= 0
    truth = target_items(batch)
    items, known = int(real.sum()), 0 if clean is None else sum(level == 0 for level in severities)
    levels = [level for level in severities if level != 0 or not known]
    if not levels or draws < 1:
        raise UsageError(f"a sweep needs a positive severity and a draw, got {list(severities)} and {draws}")
    width = min(at_once or len(levels), len(levels))
    found = []
    for draw in range(draws):
        key, parts, there = jax.random.fold_in(jax.random.key(seed), draw), [], []
        for start in range(0, len(levels), width):
            some = [*levels[start : start + width], *levels[-1:] * width][:width]  # one shape: the last is filled up
            noisy = corrupted(batch, chosen, some, key, view=view)
            outputs = np.asarray(predict(noisy))
            parts.append(np.moveaxis(outputs.reshape(len(outputs), width, items, *outputs.shape[2:]), 1, 0))
            there.append(presence(noisy).reshape(width, items) if keep else np.ones((width, 0), bool))
        found.append((np.concatenate(parts)[: len(levels)], np.concatenate(there)[: len(levels)]))
    outputs, present = (np.stack(part, axis=1) for part in zip(*found))
    if known:
        at = [place for place, level in enumerate(severities) if level == 0]
        if np.shape(clean) != outputs.shape[2:]:
            raise UsageError(f"clean outputs must be {outputs.shape[2:]}, [seeds, items, ...], got {np.shape(clean)}")
        before = np.broadcast_to(np.asarray(clean, np.float32), outputs.shape[1:])
        unharmed = np.broadcast_to(presence(batch) if keep else False, present.shape[1:])
        outputs, present = _insert(outputs, at, before), _insert(present, at, unharmed)
    of = score(metric).worth
    scores = np.stack([[of(one, truth) for one in level] for level in outputs])
    return Sweep(scores, outputs, present) if keep else Sweep(scores)


def combined(
    rule: Callable[..., Any], outputs: Mapping[str, Any], present: Mapping[str, Any] | None = None
) -> Float[np.ndarray, "*lead n classes"]:
    """A decision-level rule on the outputs of single-modality models, noisy or not.

    Args:
      rule: of ``mmjax.fusion.decision``, ``(logits by member, presence by member) -> scores``.
      outputs: by member ``[..., n, classes]``; leading axes (levels, draws, seeds) are broadcast against each other.
      present: by member ``[..., n]``, broadcast too; None = all are.

    Raises:
      UsageError: shapes that do not fit.
    """
    members = {name: np.asarray(values, np.float64) for name, values in outputs.items()}
    try:
        shape = np.broadcast_shapes(*(values.shape for values in members.values()))
        flat = {name: np.broadcast_to(values, shape).reshape(-1, shape[-1]) for name, values in members.items()}
        there = present and {k: np.broadcast_to(np.asarray(v, bool), shape[:-1]).ravel() for k, v in present.items()}
    except ValueError as error:
        raise UsageError(
            f"outputs { ({k: v.shape for k, v in members.items()}) } do not fit together: {error}"
        ) from None
    return np.asarray(rule(flat, there)).reshape(shape)


def _check_target(target: str, names: Iterable[str]) -> None:
    if target != ALL and target not in names:
        raise UsageError(f"target {target!r} is neither {ALL!r} nor one of {sorted(names)}")


def _scores(by_pattern: Mapping[Pattern, Any], pattern: Pattern) -> Any:
    if pattern not in by_pattern:
        raise UsageError(f"no scores of the pattern {pattern}; there are {sorted(by_pattern)}")
    return by_pattern[pattern]


def _number(name: str) -> int:
    """The same number for the same name, everywhere."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def _noisy(
    streams: Mapping[str, Stream], noises: Mapping[str, Noise], levels: np.ndarray, key: Key, copied: bool
) -> dict[str, Stream]:
    """The streams once for each level, one after the other; ``copied``: there is a copy for each level already."""
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
    """All levels of one stream at once, compiled once a shape, whatever the other streams are."""

    def levelled(stream: Stream, levels: Any, key: Key) -> Stream:
        if copied:
            stream = jax.tree.map(lambda x: x.reshape(len(levels), -1, *x.shape[1:]), stream)
        copies = jax.vmap(noise.apply, in_axes=(0 if copied else None, None, 0))(stream, key, levels)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), copies)

    return jax.jit(levelled, compiler_options=compile_effort(1))


def _repeated(values: Any, times: int) -> np.ndarray:
    return np.concatenate([np.asarray(values)] * times)


def _apart(index: np.ndarray, group: np.ndarray, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Index and group of the copies, nothing shared between them; -1 in padding stays."""
    real = index >= 0
    if not np.issubdtype(group.dtype, np.integer) or group[real].min() < 0 or int(group.max()) >= 2**31 // copies - 1:
        group = np.unique(group, return_inverse=True)[1].reshape(group.shape)
    stride = int(group[real].max()) + 1
    numbered = [np.where(real, index + copy * int(real.sum()), -1) for copy in range(copies)]
    grouped = [np.where(real, group + copy * stride, -1) for copy in range(copies)]
    return np.concatenate(numbered).astype(np.int32), np.concatenate(grouped).astype(np.int32)


def presence(batch: Batch) -> np.ndarray:
    """Whether each labelled item has any stream, ``[items]``; a stream that has no step axis counts for all steps."""
    index = np.asarray(batch.index)
    found: Any = False
    for stream in batch.streams.values():
        mask = np.asarray(stream.mask)
        steps = mask.shape[: index.ndim] == index.shape
        there = mask.reshape(*(index.shape if steps else (*mask.shape[:1], *(1,) * (index.ndim - 1))), -1).any(-1)
        found = found | np.broadcast_to(there, index.shape)
    return by_index(np.asarray(found), index)


def _insert(values: np.ndarray, places: Sequence[int], extra: np.ndarray) -> np.ndarray:
    """``values`` with ``extra`` put in so that it stands at ``places`` of the result."""
    rest = iter(values)
    return np.stack([extra if place in places else next(rest) for place in range(len(values) + len(places))])
