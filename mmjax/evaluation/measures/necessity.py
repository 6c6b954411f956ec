"""Necessity of a modality: congruent input against incongruent, shuffled and blanked, for any scores per item.

Higher scores are better; random draws depend only on the seed and the number of the draw.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures.robustness import pattern_rows
from mmjax.evaluation.statistics.significance import Gain, paired_gain
from mmjax.typing import Mapping, Shaped

__all__ = ["CONDITIONS", "Contrast", "Gate", "Rows", "gate"]

CONDITIONS = ("incongruent", "shuffled", "blanked")

Rows = Mapping[str, np.ndarray]
"""The number of the item from which each modality is taken, ``[n]``; -1 = absent."""


class Contrast(NamedTuple):
    """A model with wrong or no input in one modality.

    Attributes:
      score: mean over items and draws, ``[seeds]``.
      gain: of congruent input over it.
    """

    score: np.ndarray
    gain: Gain


@dataclasses.dataclass(frozen=True)
class Gate:
    """Whether a modality matters to a model.

    Attributes:
      modality: in question.
      score: with congruent input, mean over items, ``[seeds]``.
      against: by condition.
    """

    modality: str
    score: np.ndarray
    against: dict[str, Contrast]

    @property
    def matters(self) -> bool:
        """Whether congruent input beats the first condition: lower bound above 0 and p below 0.05.

        Incongruent comes first: blanked input may be out of distribution, and a loss by it need not mean that content
        was used.
        """
        gain = next(iter(self.against.values())).gain
        return gain.lower > 0 and gain.p < 0.05


def gate(
    score: Callable[[Rows], np.ndarray],
    modalities: Iterable[str],
    modality: str,
    n: int,
    *,
    groups: Shaped[np.ndarray, " n"] | None = None,
    against: Sequence[str] = CONDITIONS,
    draws: int = 10,
    seed: int = 0,
) -> Gate:
    """Tests whether a modality matters to a model (Elliott 2018, for translation).

    Its input comes from an item of another group (*incongruent*; any other item if one group has more than half of
    them), from a random item (*shuffled*, possibly the same), or is absent (*blanked*).

    Args:
      score: from the item numbers of each modality to scores ``[seeds, n]``; for a classifier
        ``item_scores.item_scorer``, for a generator the score of its answer to mixture ``k`` against reference ``k``.
        The other modalities keep ``arange(n)``.
      modality: the one to test.
      n: number of items.
      groups: units of the intervals and of the test; default: items.
      against: conditions, some or all of ``CONDITIONS``; the first decides.
      draws: of incongruent and shuffled input; each item's score is the mean over them.

    Raises:
      UsageError: an unknown modality or condition, fewer than two items, scores of another shape.
    """
    names = sorted(set(modalities))
    if modality not in names:
        raise UsageError(f"no modality {modality!r}; there are {names}")
    if not against or set(against) - set(CONDITIONS):
        raise UsageError(f"against is one or more of {', '.join(CONDITIONS)}; got {list(against)}")
    if draws < 1:
        raise UsageError(f"draws must be at least 1, got {draws}")
    groups = np.arange(n) if groups is None else np.asarray(groups)
    if n < 2 or groups.shape != (n,):
        raise UsageError(f"a gate needs two items or more and a group for each, got {n=} and {groups.shape=}")

    def scores(numbers: np.ndarray) -> np.ndarray:
        values = np.asarray(score(pattern_rows(names, names, n) | {modality: numbers}), np.float64)
        if values.ndim != 2 or values.shape[1] != n or not np.isfinite(values).all():
            raise UsageError(f"scores must be finite and [seeds, {n}], got {values.shape}")
        return values

    def mean_scores(condition: str) -> np.ndarray:
        if condition == "blanked":
            return scores(np.full(n, -1))
        random = [np.random.default_rng((seed, draw)) for draw in range(draws)]
        partners = [_incongruent(groups, one) if condition == "incongruent" else one.permutation(n) for one in random]
        return np.mean([scores(numbers) for numbers in partners], axis=0)

    right = scores(np.arange(n))
    contrasts = {}
    for condition in against:
        wrong = mean_scores(condition)
        contrasts[condition] = Contrast(wrong.mean(1), paired_gain(right, wrong, groups, seed=seed))
    return Gate(modality, right.mean(1), contrasts)


def _incongruent(groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each item a partner of another group, each item once: sorted by group, rotated by its size or more."""
    n = len(groups)
    _, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    largest = int(sizes.max())
    if 2 * largest > n:
        which, largest = np.arange(n), 1
    order = np.lexsort((random.permutation(n), random.permutation(which.max() + 1)[which]))
    partner = np.empty(n, np.int64)
    partner[order] = np.roll(order, random.integers(largest, n - largest + 1))
    return partner
