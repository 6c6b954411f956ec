"""Contributions of modalities to a model's score: Shapley values and perceptual scores; ``measure`` adds EMAP.

Plain arithmetic on the item numbers of ``Mixed``: which item each modality comes from, -1 for none. Scores are per
item, higher is better, averaged in float64. Permutations depend only on the seed, the draw and the number of items, so
all rows of a table get the same ones.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures.emap import emap
from mmjax.evaluation.measures.item_scores import (
    Score,
    check_counts,
    finite,
    items_of,
    mean_score,
    sorted_names,
    tie_tolerant,
)
from mmjax.evaluation.measures.mixing import Mixed
from mmjax.evaluation.measures.robustness import pattern_rows
from mmjax.typing import Mapping, Shaped

__all__ = ["PERMUTATIONS", "Perceptual", "Shapley", "measure", "perceptual", "shapley"]

PERMUTATIONS = 10
_ROWS = 65_536  # of a call


@dataclasses.dataclass(frozen=True)
class Shapley:
    """Shapley values of modalities.

    Attributes:
      modalities: sorted.
      values: in units of the score, ``[seeds, modalities]``; their sum is the worth of all minus that of none.
      shares: values over the sum of their magnitudes, ``[seeds, modalities]``; 0 where all values are 0.
      worth: mean score ``[seeds]`` by the modalities present.
      rule: for absent modalities, ``permutation`` or ``null``.
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
      rule: for absent modalities. ``null`` blanks them, for models trained with absent modalities. ``permutation``
        takes them from other items, mean over draws: one permutation a draw for all absent modalities, which so stay
        together, and for all subsets, so that a modality that the model ignores gets exactly 0.
      score: as in ``emap``.
      draws: of the permutation.

    Raises:
      UsageError: an unknown rule, no modality, NaN outputs.
    """
    if rule not in ("permutation", "null"):
        raise UsageError(f"rule is 'permutation' or 'null', got {rule!r}")
    names, n = sorted_names(modalities), items_of(target)
    check_counts(draws=draws)
    own = finite(mixed(pattern_rows(names, names, n)))
    score = score or tie_tolerant(own)
    worth: dict[tuple[str, ...], np.ndarray] = {names: mean_score(score, own, target)}
    for present in itertools.chain.from_iterable(itertools.combinations(names, size) for size in range(len(names))):
        if rule == "null":
            worth[present] = mean_score(score, finite(mixed(pattern_rows(present, names, n))), target)
        else:
            worth[present] = _permuted(mixed, names, present, target, score, draws, seed, own)
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

    ``(A - A_permuted) / |A|``, mean over draws; NaN where A is 0 and A_permuted is not.

    Raises:
      UsageError: no modality, NaN outputs.
    """
    names, n = sorted_names(modalities), items_of(target)
    check_counts(draws=draws)
    own = finite(mixed(pattern_rows(names, names, n)))
    score = score or tie_tolerant(own)
    clean = mean_score(score, own, target)
    rest = [_permuted(mixed, names, set(names) - {name}, target, score, draws, seed, own) for name in names]
    return _lost(names, clean, rest)


def measure(
    mixed: Mixed,
    modalities: Iterable[str],
    target: Shaped[np.ndarray, " n"],
    *,
    rule: Literal["permutation", "null"] = "permutation",
    score: Score | None = None,
    draws: int = PERMUTATIONS,
    additive: bool = True,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """EMAP (on the items of its backgrounds), Shapley values and perceptual scores, as arrays to be stored.

    ``emap/score`` and ``emap/gap`` ``[seeds, draws]``, ``emap/items``, ``shapley/values`` and ``perceptual/values``
    ``[seeds, modalities]`` with modalities sorted, ``shapley/worth`` ``[2, seeds]`` of none and of all,
    ``shapley/rule``.

    Args:
      additive: whether EMAP is measured, which adds outputs up: there is none of embeddings and of sentences.

    Raises:
      UsageError: as the functions themselves.
    """
    names = sorted_names(modalities)
    projection = emap(mixed, names, target, score=score, seed=seed, everywhere=False) if additive else None
    shares = shapley(mixed, names, target, rule=rule, score=score, draws=draws, seed=seed)
    if rule == "permutation":  # the score with one modality permuted is the worth of the others
        rest = [shares.worth[tuple(other for other in names if other != name)] for name in names]
        lost = _lost(names, shares.worth[names], rest)
    else:
        lost = perceptual(mixed, names, target, score=score, draws=draws, seed=seed)
    sums = {}
    if projection is not None:
        sums = {"score": projection.score, "gap": projection.gap, "items": np.asarray(projection.items)}
    return {
        **{f"emap/{name}": values for name, values in sums.items()},
        "shapley/values": shares.values,
        "shapley/worth": np.stack([shares.worth[()], shares.worth[names]]),
        "shapley/rule": np.asarray(rule),
        "perceptual/values": lost.values,
    }


def _lost(names: tuple[str, ...], clean: np.ndarray, rest: Sequence[np.ndarray]) -> Perceptual:
    """Perceptual scores from the mean score and those with each modality permuted, ``[seeds]``."""
    values = np.stack([clean - score for score in rest], axis=1)
    nothing = np.where(values == 0, 0.0, np.nan)
    sizes = np.abs(clean)[:, None]
    return Perceptual(names, np.divide(values, sizes, out=nothing, where=sizes > 0))


def _permuted(
    mixed: Mixed,
    names: Sequence[str],
    present: Iterable[str],
    target: np.ndarray,
    score: Score,
    draws: int,
    seed: int,
    whole: np.ndarray,
) -> np.ndarray:
    """Mean score ``[seeds]`` with all but ``present`` from other items; ``whole``: outputs of the unchanged items."""
    n, present, total = items_of(target), set(present), []
    at_once = max(1, _ROWS // n)  # draws of a call: one of few items would fill a chunk with repeats
    for start in range(0, draws, at_once):
        some = range(start, min(start + at_once, draws))
        others = np.concatenate([np.random.default_rng((seed, draw)).permutation(n) for draw in some])
        own = np.tile(np.arange(n), len(some))
        if present:
            outputs = finite(mixed({name: own if name in present else others for name in names}))
        else:  # whole items, in another order
            outputs = whole[:, others]
        parts = np.split(outputs, len(some), axis=1)
        total += [mean_score(score, part, target) for part in parts]
    return total[0] + np.mean(total - total[0], axis=0)  # equal scores have exactly their own mean


def _value(worth: Mapping[tuple[str, ...], np.ndarray], names: tuple[str, ...], name: str) -> np.ndarray:
    """Mean of what ``name`` adds over all orders of adding modalities."""
    rest = [other for other in names if other != name]
    total: Any = 0.0
    for size in range(len(names)):
        share = 1 / (len(names) * math.comb(len(names) - 1, size))
        for before in itertools.combinations(rest, size):
            total = total + share * (worth[tuple(sorted((*before, name)))] - worth[before])
    return total
