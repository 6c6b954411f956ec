"""What a model makes of its modalities: interaction beyond a sum, the share of each, and whether one matters at all.

All are arithmetic on the item numbers of ``Mixed``: which item each modality comes from, -1 for none. Scores are per
item and higher is better. Sums are taken in float64 of the float32 outputs; whatever is drawn is a function of the
seed, the draw and the number of items alone, so that all rows of a table meet the same backgrounds and permutations.
EMAP draws backgrounds of their own for each model, so that an interval over models holds what the draw adds.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures.mixing import Mixed
from mmjax.evaluation.measures.necessity import CONDITIONS as CONDITIONS
from mmjax.evaluation.measures.necessity import Contrast as Contrast
from mmjax.evaluation.measures.necessity import Gate as Gate
from mmjax.evaluation.measures.necessity import Rows
from mmjax.evaluation.measures.necessity import gate as gate
from mmjax.evaluation.measures.robustness import pattern_rows
from mmjax.evaluation.scores import Score as Metric
from mmjax.evaluation.scores.classes import right
from mmjax.typing import Float, Int, Mapping, Shaped

__all__ = [
    "DRAWS",
    "ITEMS",
    "PERMUTATIONS",
    "Emap",
    "Perceptual",
    "Score",
    "Shapley",
    "background",
    "emap",
    "emap_outputs",
    "measure",
    "perceptual",
    "score_of",
    "scored",
    "shapley",
    "share_of_ties",
]

DRAWS = 2  # of EMAP's background, for each model
ITEMS = 200  # of a background, or all where there are fewer
PERMUTATIONS = 10
_ROWS, _FIRST_ROWS = 65_536, 4096  # of a call; of the first one, which tells how wide the outputs are
_NUMBERS = 2**22  # of the outputs of a call: 32 MB in float64
_FLOOR = 1e4  # nats, as in calibration: an output may be -inf, a mean of outputs may not
_TOLERANCE = 1e-6  # of the largest output: what rounding of float32 leaves apart is a tie

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``score(outputs [seeds, n, ...], target [n, ...]) -> [seeds, n]``, or ``[seeds, 1]`` of a metric of the whole set."""


@dataclasses.dataclass(frozen=True)
class Emap:
    """How well a model does without interactions.

    Attributes:
      score: of the EMAP outputs, ``[seeds, draws]``.
      gap: what the model has over it, ``[seeds, draws]``.
      items: of a background.
    """

    score: np.ndarray
    gap: np.ndarray
    items: int


@dataclasses.dataclass(frozen=True)
class Shapley:
    """Shapley values of modalities.

    Attributes:
      modalities: sorted.
      values: in units of the score, ``[seeds, modalities]``; they sum to the worth of all less that of none.
      shares: values over the sum of their sizes, ``[seeds, modalities]``; 0 where all values are.
      worth: mean score ``[seeds]`` by the modalities present.
      rule: what absence was, ``permutation`` or ``null``.
    """

    modalities: tuple[str, ...]
    values: np.ndarray
    shares: np.ndarray
    worth: dict[tuple[str, ...], np.ndarray]
    rule: str


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """Perceptual scores of modalities.

    Attributes:
      modalities: sorted.
      values: share of the score that is lost, ``[seeds, modalities]``.
    """

    modalities: tuple[str, ...]
    values: np.ndarray


def share_of_ties(
    outputs: Shaped[np.ndarray, "seeds n ..."], target: Shaped[np.ndarray, " n"], tolerance: Any = 0.0
) -> Float[np.ndarray, "seeds n"]:
    """1 for a right answer, 1/k where the target is one of k classes at the top; of scores ``[seeds, n]`` minus the
    absolute error.

    Args:
      tolerance: outputs that are closer to the highest than this are at the top; a number, or one a seed.
    """
    outputs, target = np.asarray(outputs, np.float64), np.asarray(target)
    if outputs.ndim == 2:
        return -np.abs(outputs - target)
    top = outputs >= outputs.max(-1, keepdims=True) - np.reshape(tolerance, (-1, 1, 1))
    return np.take_along_axis(top, target[None, :, None], -1)[..., 0] / top.sum(-1)


def score_of(metric: Metric) -> Score | None:
    """The score of a table's metric; None = ``share_of_ties`` for shares of right answers."""
    if metric.items is right:
        return None
    return metric.per_item if metric.is_mean else lambda outputs, target: metric.worth(outputs, target)[:, None]


def background(
    n: int, draw: int = 0, *, items: int = ITEMS, seed: int = 0, model: int = 0
) -> Int[np.ndarray, " items"]:
    """Numbers of ``min(n, items)`` of the ``n`` evaluated items, none twice, sorted.

    Draws of one model share as few items as can be; those of another model are drawn anew.
    """
    order = np.random.default_rng((seed, model)).permutation(n)
    return np.sort(np.take(order, np.arange(draw * items, draw * items + min(n, items)), mode="wrap"))


def emap_outputs(
    mixed: Mixed, modalities: Iterable[str], n: int, background: Int[np.ndarray, "... items"]
) -> Float[np.ndarray, "seeds n ..."]:
    """Outputs of the empirical multimodally additive projection (Hessel & Lee 2020) with one background J for all terms

        sum_m mean_j f(x_m of i, the rest of j) - (M - 1) mean_m mean_jk f(x_m of j, the rest of k)

    over j and k in J. For two modalities with all items as J it is their formula. For more it is an additive surrogate,
    not the closest one. An additive f is left as it is, whatever J. Of logits, not of probabilities. It takes M n |J|
    passes of fusion and head; of two modalities with all items as J half as many, since both terms have the same ones.

    Args:
      background: item numbers, the same in every term; ``[seeds, items]`` where seeds have different ones.

    Raises:
      UsageError: no modality, numbers that are no items, outputs that are not a number.
    """
    names, background = _names(modalities), np.asarray(background)
    if not background.size or background.min() < 0 or background.max() >= n:
        raise UsageError(f"the background must be numbers of the {n} items, at least one")
    return _additive(mixed, names, background, n)


def emap(
    mixed: Mixed,
    modalities: Iterable[str],
    target: Shaped[np.ndarray, " n"],
    *,
    score: Score | None = None,
    draws: int = DRAWS,
    items: int = ITEMS,
    seed: int = 0,
    everywhere: bool = True,
) -> Emap:
    """Score of a model without its interactions, and the gap to its own (Hessel & Lee 2020).

    Args:
      target: of the evaluated items.
      everywhere: whether all items are evaluated, ``M n |J|`` passes a draw; else those of the background alone,
        ``M |J|^2`` passes.
      score: default ``share_of_ties``, where a tie is what is within 1e-6 of the model's largest output.
      draws: of the background, other ones for each seed of the model.
      items: of a background.

    Raises:
      UsageError: as ``emap_outputs``.
    """
    names, n = _names(modalities), len(target)
    _check_counts(draws=draws, items=items)
    outputs = _finite(mixed(pattern_rows(names, names, n)))
    target = np.asarray(target)
    score = score or _forgiving(outputs)
    own = np.asarray(score(outputs, target), np.float64)
    drawn_scores: list[tuple[np.ndarray, ...]] = []
    for draw in range(draws):
        if drawn_scores and (items >= n or len(names) == 1):  # every draw is all of them
            drawn_scores.append(drawn_scores[0])
            continue
        drawn = np.stack([background(n, draw, items=items, seed=seed, model=model) for model in range(len(outputs))])
        drawn = drawn[0] if items >= n else drawn
        additive = _additive(mixed, names, drawn, n if everywhere else None)
        seen = np.arange(n) if everywhere else drawn
        whole, seen = outputs.copy(), np.broadcast_to(seen, (len(outputs), seen.shape[-1]))
        np.put_along_axis(whole, _widened(seen, whole), additive, axis=1)
        changed = np.asarray(score(whole, target), np.float64)
        if own.shape[1] == n:
            pair = tuple(np.take_along_axis(one, seen, axis=1).mean(-1) for one in (changed, own))
        else:  # of the whole set: of the items seen alone
            parts = [(whole[[i], some], outputs[[i], some], target[some]) for i, some in enumerate(seen)]
            pair = tuple(np.stack([score(one[k][None], one[2])[0, 0] for one in parts]) for k in (0, 1))
        drawn_scores.append(pair)
    found, whole = (np.stack(part, axis=1) for part in zip(*drawn_scores))
    return Emap(found, whole - found, min(n, items))


def shapley(
    mixed: Mixed,
    modalities: Iterable[str],
    target: Shaped[np.ndarray, " n"],
    *,
    rule: Literal["permutation", "null"] = "permutation",
    score: Score | None = None,
    draws: int = PERMUTATIONS,
    seed: int = 0,
) -> Shapley:
    """Exact Shapley values (Shapley 1953) over all subsets of modalities; a subset is worth its mean score.

    Args:
      rule: what absence is. ``null`` blanks a modality, for models that were trained with absent ones. ``permutation``
        gives items the absent modalities of other items, mean over draws: one permutation a draw for whatever is
        absent, so that these stay together, and the same one for every subset, so that a modality that the model
        ignores gets exactly 0.
      score: as in ``emap``.
      draws: of the permutation.

    Raises:
      UsageError: an unknown rule, no modality, outputs that are not a number.
    """
    if rule not in ("permutation", "null"):
        raise UsageError(f"rule is 'permutation' or 'null', got {rule!r}")
    names, n = _names(modalities), len(target)
    _check_counts(draws=draws)
    own = _finite(mixed(pattern_rows(names, names, n)))
    score = score or _forgiving(own)
    worth: dict[tuple[str, ...], np.ndarray] = {names: _mean_score(score, own, target)}
    for kept in itertools.chain.from_iterable(itertools.combinations(names, size) for size in range(len(names))):
        if rule == "null":
            worth[kept] = _mean_score(score, _finite(mixed(pattern_rows(kept, names, n))), target)
        else:
            worth[kept] = _permuted(mixed, names, kept, target, score, draws, seed, own)
    values = np.stack([_value(worth, names, name) for name in names], axis=1)
    sizes = np.abs(values).sum(1, keepdims=True)
    shares = np.divide(values, sizes, out=np.zeros_like(values), where=sizes > 0)
    return Shapley(names, values, shares, worth, rule)


def perceptual(
    mixed: Mixed,
    modalities: Iterable[str],
    target: Shaped[np.ndarray, " n"],
    *,
    score: Score | None = None,
    draws: int = PERMUTATIONS,
    seed: int = 0,
) -> Perceptual:
    """The share of its score that a model loses when one modality is permuted over items (Gat et al. 2021).

    ``(A - A_permuted) / |A|``, mean over draws. It is 0 where nothing is lost, and NaN where something is and A is 0.

    Raises:
      UsageError: no modality, outputs that are not a number.
    """
    names, n = _names(modalities), len(target)
    _check_counts(draws=draws)
    own = _finite(mixed(pattern_rows(names, names, n)))
    score = score or _forgiving(own)
    clean = _mean_score(score, own, target)
    rest = [_permuted(mixed, names, set(names) - {name}, target, score, draws, seed, own) for name in names]
    return _lost(names, clean, rest)


def scored(
    mixed: Mixed, target: Shaped[np.ndarray, " n"], score: Score = share_of_ties
) -> Callable[[Rows], np.ndarray]:
    """Per-item scores ``[seeds, n]`` as a function of item numbers, as ``gate`` takes it."""
    return lambda rows: score(_finite(mixed(rows)), np.asarray(target))


def measure(
    mixed: Mixed,
    modalities: Iterable[str],
    target: Shaped[np.ndarray, " n"],
    *,
    rule: Literal["permutation", "null"] = "permutation",
    score: Score | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """All of this file as arrays to be stored, EMAP on the items of its backgrounds.

    ``emap/score`` and ``emap/gap`` ``[seeds, draws]``, ``emap/items``,
    ``shapley/values`` and ``perceptual/values`` ``[seeds, modalities]`` with modalities sorted, ``shapley/worth``
    ``[2, seeds]`` of none and of all, and ``shapley/rule``.

    Raises:
      UsageError: as the functions themselves.
    """
    names = _names(modalities)
    additive = emap(mixed, names, target, score=score, seed=seed, everywhere=False)
    shares = shapley(mixed, names, target, rule=rule, score=score, seed=seed)
    if rule == "permutation":  # what is left with one modality permuted is the worth of the others
        rest = [shares.worth[tuple(other for other in names if other != name)] for name in names]
        lost = _lost(names, shares.worth[names], rest)
    else:
        lost = perceptual(mixed, names, target, score=score, seed=seed)
    return {
        "emap/score": additive.score,
        "emap/gap": additive.gap,
        "emap/items": np.asarray(additive.items),
        "shapley/values": shares.values,
        "shapley/worth": np.stack([shares.worth[()], shares.worth[names]]),
        "shapley/rule": np.asarray(rule),
        "perceptual/values": lost.values,
    }


def _names(modalities: Iterable[str]) -> tuple[str, ...]:
    names = tuple(sorted(set(modalities)))
    if not names:
        raise UsageError("at least one modality is needed, got none")
    return names


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} must be at least 1, got {count}")


def _finite(outputs: Any) -> np.ndarray:
    """Outputs in float64; an infinite one counts as 1e4."""
    outputs = np.asarray(outputs, np.float64)
    if np.isnan(outputs).any():
        raise UsageError("the outputs hold NaN: no score can be made of them")
    return np.nan_to_num(outputs, posinf=_FLOOR, neginf=-_FLOOR) if np.isinf(outputs).any() else outputs


def _forgiving(outputs: np.ndarray) -> Score:
    """``share_of_ties`` for outputs that differ from what they should be by rounding."""
    sizes = np.abs(outputs).reshape(len(outputs), -1)
    tolerance = _TOLERANCE * np.where(sizes < _FLOOR, sizes, 0).max(1)
    return lambda outputs, target: share_of_ties(outputs, target, tolerance)


def _lost(names: tuple[str, ...], clean: np.ndarray, rest: Sequence[np.ndarray]) -> Perceptual:
    """Perceptual scores from the mean score and that without each modality, ``[seeds]``."""
    values = np.stack([clean - left for left in rest], axis=1)
    nothing = np.where(values == 0, 0.0, np.nan)
    sizes = np.abs(clean)[:, None]
    return Perceptual(names, np.divide(values, sizes, out=nothing, where=sizes > 0))


def _mean_score(score: Score, outputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(score(outputs, np.asarray(target)), np.float64).mean(-1)


def _widened(items: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Item numbers ``[seeds, n]`` as an index into outputs ``[seeds, items, ...]`` along their items."""
    return items.reshape(*items.shape, *(1,) * (outputs.ndim - 2))


def _additive(
    mixed: Mixed, names: tuple[str, ...], background: np.ndarray, n: int | None = None
) -> Float[np.ndarray, "seeds seen ..."]:
    """``emap_outputs`` of all ``n`` items, or of those of the background alone."""
    seen = background if n is None else np.arange(n)
    if len(names) == 1:
        return _finite(mixed({names[0]: seen}))
    alike = np.array_equal(seen, background)
    if alike and len(names) == 2:
        alone = _means_of_pairs(mixed, names, background)
    else:
        alone = [_mean_over(mixed, names, name, seen, background) for name in names]
    inside = alone
    if not alike:
        places = np.broadcast_to(background, (len(alone[0]), background.shape[-1]))
        inside = [np.take_along_axis(one, _widened(places, one), axis=1) for one in alone]
    centre = sum(one.mean(1, keepdims=True) for one in inside) / len(names)
    return sum(alone) - (len(names) - 1) * centre


def _mean_over(mixed: Mixed, names: Sequence[str], name: str, seen: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Outputs ``[seeds, n, ...]`` with ``name`` of each item seen and the rest of one of ``items``, mean over those."""
    rest = [other for other in names if other != name]
    return np.concatenate([part.mean(2) for part in _grids(mixed, [name], rest, seen, items)], axis=1)


def _means_of_pairs(mixed: Mixed, names: Sequence[str], items: np.ndarray) -> list[np.ndarray]:
    """The same of two modalities and the same items, for both: one grid of mixtures holds them."""
    first: list[np.ndarray] = []
    second: Any = 0.0
    for part in _grids(mixed, names[:1], names[1:], items, items):
        first.append(part.mean(2))
        second = second + part.sum(1)
    return [np.concatenate(first, axis=1), second / items.shape[-1]]


def _grids(
    mixed: Mixed, own: Sequence[str], rest: Sequence[str], seen: np.ndarray, items: np.ndarray
) -> Iterator[np.ndarray]:
    """Outputs ``[seeds, some, items, ...]`` with ``own`` of some items seen and ``rest`` of each of ``items``."""
    n, count = seen.shape[-1], items.shape[-1]
    start, step = 0, max(1, _FIRST_ROWS // count)
    while start < n:
        some = seen[..., start : start + step]
        width = some.shape[-1]
        rows = {name: np.repeat(some, count, axis=-1) for name in own}
        rows |= {name: np.concatenate([items] * width, axis=-1) for name in rest}
        outputs = _finite(mixed(rows))
        outputs = outputs.reshape(len(outputs), width, count, *outputs.shape[2:])
        yield outputs
        start += width
        numbers = count * len(outputs) * math.prod(outputs.shape[3:])  # of the outputs for one item
        step = max(1, min(_ROWS // count, _NUMBERS // numbers))


def _permuted(
    mixed: Mixed,
    names: Sequence[str],
    kept: Iterable[str],
    target: np.ndarray,
    score: Score,
    draws: int,
    seed: int,
    whole: np.ndarray,
) -> np.ndarray:
    """Mean score ``[seeds]`` with all but ``kept`` from other items; ``whole``: outputs of the items as they are."""
    n, kept, total = len(target), set(kept), []
    at_once = max(1, _ROWS // n)  # draws of a call: one of few items would fill a chunk with repeats
    for start in range(0, draws, at_once):
        some = range(start, min(start + at_once, draws))
        others = np.concatenate([np.random.default_rng((seed, draw)).permutation(n) for draw in some])
        own = np.tile(np.arange(n), len(some))
        if kept:
            outputs = _finite(mixed({name: own if name in kept else others for name in names}))
        else:  # whole items, in another order
            outputs = whole[:, others]
        parts = np.split(outputs, len(some), axis=1)
        total += [_mean_score(score, part, target) for part in parts]
    return total[0] + np.mean(total - total[0], axis=0)  # equal scores have exactly their own mean


def _value(worth: Mapping[tuple[str, ...], np.ndarray], names: tuple[str, ...], name: str) -> np.ndarray:
    """Mean of what ``name`` adds over all orders in which modalities may come in."""
    rest = [other for other in names if other != name]
    total: Any = 0.0
    for size in range(len(names)):
        share = 1 / (len(names) * math.comb(len(names) - 1, size))
        for before in itertools.combinations(rest, size):
            total = total + share * (worth[tuple(sorted((*before, name)))] - worth[before])
    return total
