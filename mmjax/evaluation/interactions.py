"""What a model makes of its modalities: interaction beyond a sum, the share of each, and whether one matters at all.

All are arithmetic on the item numbers of ``Mixed``: which item each modality comes from, -1 for none. Scores are per
item and higher is better. Sums are taken in float64 of the float32 outputs; whatever is drawn is a function of the
seed, the draw and the number of items alone, so that all rows of a table meet the same backgrounds and permutations.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.gate import CONDITIONS as CONDITIONS
from mmjax.evaluation.gate import Contrast as Contrast
from mmjax.evaluation.gate import Gate as Gate
from mmjax.evaluation.gate import Rows
from mmjax.evaluation.gate import gate as gate
from mmjax.evaluation.mixing import Mixed
from mmjax.evaluation.robustness import pattern_rows
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
    "scored",
    "shapley",
    "share_of_ties",
]

DRAWS = 3  # of EMAP's background
ITEMS = 200  # of a background, or all where there are fewer
PERMUTATIONS = 10
_ROWS, _FIRST_ROWS = 65_536, 4096  # of a call; of the first one, which tells how wide the outputs are
_NUMBERS = 2**22  # of the outputs of a call: 32 MB in float64
_FLOOR = 1e4  # nats, as in calibration: an output may be -inf, a mean of outputs may not
_TOLERANCE = 1e-6  # of the largest output: what rounding of float32 leaves apart is a tie

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``score(outputs [seeds, n, classes], target [n]) -> [seeds, n]``."""


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


def background(n: int, draw: int = 0, *, items: int = ITEMS, seed: int = 0) -> Int[np.ndarray, " items"]:
    """Numbers of ``min(n, items)`` of the ``n`` evaluated items, none twice, sorted."""
    return np.sort(np.random.default_rng((seed, draw)).permutation(n)[:items])


def emap_outputs(
    mixed: Mixed, modalities: Iterable[str], n: int, background: Int[np.ndarray, " items"]
) -> Float[np.ndarray, "seeds n ..."]:
    """Outputs of the empirical multimodally additive projection (Hessel & Lee 2020) with one background J for all terms

        sum_m mean_j f(x_m of i, the rest of j) - (M - 1) mean_m mean_jk f(x_m of j, the rest of k)

    over j and k in J. For two modalities with all items as J it is their formula. For more it is an additive surrogate,
    not the closest one. An additive f is left as it is, whatever J. Of logits, not of probabilities. It takes M n |J|
    passes of fusion and head.

    Args:
      background: item numbers, the same in every term.

    Raises:
      UsageError: no modality, numbers that are no items, outputs that are not a number.
    """
    names, background = _names(modalities), np.asarray(background)
    if not background.size or background.min() < 0 or background.max() >= n:
        raise UsageError(f"the background must be numbers of the {n} items, at least one")
    if len(names) == 1:
        return _finite(mixed(pattern_rows(names, names, n)))
    alone = [_mean_over(mixed, names, name, n, background) for name in names]
    centre = sum(outputs[:, background].mean(1, keepdims=True) for outputs in alone) / len(names)
    return sum(alone) - (len(names) - 1) * centre


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
      everywhere: whether all items are evaluated, ``M n |J|`` passes a draw; else those of the background alone, other
        ones for each draw, ``M |J|^2`` passes.
      score: default ``share_of_ties``, where a tie is what is within 1e-6 of the model's largest output.
      draws: of the background.
      items: of a background.

    Raises:
      UsageError: as ``emap_outputs``.
    """
    names, n = _names(modalities), len(target)
    _check_counts(draws=draws, items=items)
    outputs = _finite(mixed(pattern_rows(names, names, n)))
    score = score or _forgiving(outputs)
    target = np.asarray(target)
    scores: list[tuple[np.ndarray, np.ndarray]] = []
    for draw in range(draws):
        if scores and (items >= n or len(names) == 1):  # every draw is all of them
            scores.append(scores[0])
            continue
        drawn = background(n, draw, items=items, seed=seed)
        seen = np.arange(n) if everywhere else drawn
        places = np.searchsorted(seen, drawn)
        additive = emap_outputs(_of_items(mixed, seen), names, len(seen), places)
        own = outputs[:, seen]
        scores.append((_mean_score(score, additive, target[seen]), _mean_score(score, own, target[seen])))
    found, whole = (np.stack(part, axis=1) for part in zip(*scores))
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
            worth[kept] = _permuted(mixed, names, kept, target, score, draws, seed)
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
    lost = [clean - _permuted(mixed, names, set(names) - {name}, target, score, draws, seed) for name in names]
    values = np.stack(lost, axis=1)
    nothing = np.where(values == 0, 0.0, np.nan)
    sizes = np.abs(clean)[:, None]
    return Perceptual(names, np.divide(values, sizes, out=nothing, where=sizes > 0))


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
    return {
        "emap/score": additive.score,
        "emap/gap": additive.gap,
        "emap/items": np.asarray(additive.items),
        "shapley/values": shares.values,
        "shapley/worth": np.stack([shares.worth[()], shares.worth[names]]),
        "shapley/rule": np.asarray(rule),
        "perceptual/values": perceptual(mixed, names, target, score=score, seed=seed).values,
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


def _of_items(mixed: Mixed, items: np.ndarray) -> Mixed:
    """The same model, of these items only, numbered from 0."""
    return lambda rows: mixed({name: np.where(row < 0, row, items[row]) for name, row in rows.items()})


def _mean_score(score: Score, outputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(score(outputs, np.asarray(target)), np.float64).mean(-1)


def _mean_over(mixed: Mixed, names: Sequence[str], name: str, n: int, items: np.ndarray) -> np.ndarray:
    """Outputs ``[seeds, n, ...]`` with ``name`` of each item and the rest of one of ``items``, mean over those."""
    means: list[np.ndarray] = []
    start, step = 0, max(1, _FIRST_ROWS // len(items))
    while start < n:
        own = np.arange(start, min(start + step, n))
        rest = np.tile(items, len(own))
        outputs = _finite(mixed({m: np.repeat(own, len(items)) if m == name else rest for m in names}))
        outputs = outputs.reshape(len(outputs), len(own), len(items), *outputs.shape[2:])
        means.append(outputs.mean(2))
        start += len(own)
        numbers = len(items) * len(outputs) * math.prod(outputs.shape[3:])  # of the outputs for one item
        step = max(1, min(_ROWS // len(items), _NUMBERS // numbers))
    return np.concatenate(means, axis=1)


def _permuted(
    mixed: Mixed,
    names: Sequence[str],
    kept: Iterable[str],
    target: np.ndarray,
    score: Score,
    draws: int,
    seed: int,
) -> np.ndarray:
    """Mean score ``[seeds]`` with all but ``kept`` from other items."""
    n, kept, total = len(target), set(kept), []
    at_once = max(1, _ROWS // n)  # draws of a call: one of few items would fill a chunk with repeats
    for start in range(0, draws, at_once):
        some = range(start, min(start + at_once, draws))
        others = np.concatenate([np.random.default_rng((seed, draw)).permutation(n) for draw in some])
        own = np.tile(np.arange(n), len(some))
        outputs = _finite(mixed({name: own if name in kept else others for name in names}))
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
