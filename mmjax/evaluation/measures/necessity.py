"""Does a modality matter to a model? Right input against wrong and none, for anything that can be scored item by item.

Scores are per item and higher is better; what is partners is a function of the seed and the draw alone.
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
      gain: of the right input over it.
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
        """Whether the right input beats that of the first condition: lower bound above 0 and p below 0.05.

        Incongruent comes first: blanked input is a kind of input that a model may never have seen, and to lose by it
        need not mean that content was used.
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
    """Does this modality matter to the model? Right input against wrong and none (Elliott 2018, for translation).

    *incongruent*: that of an item of another group (of any other item where one group has more than half of them);
    *shuffled*: that of a random item, which may be the right one; *blanked*: none.

    Args:
      score: from the item numbers of each modality to scores ``[seeds, n]``. Of a classifier it is what
        ``item_scores.item_scorer`` makes of it; of a generator, what its answer to the mixture at place ``k`` is worth
        against reference ``k``. All modalities but the one in question are always their own, ``arange(n)``.
      modality: in question, one of ``modalities``.
      n: number of items.
      groups: units of the intervals and of the test; default: items.
      against: conditions, some or all of ``CONDITIONS``; the first decides.
      draws: of incongruent and shuffled input; each item's score is the mean over them.

    Raises:
      UsageError: a modality or condition that there is not, fewer than two items, scores that do not fit.
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
    """For each item one of another group, each item once: groups in a row, moved on by at least the largest."""
    n = len(groups)
    _, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    largest = int(sizes.max())
    if 2 * largest > n:
        which, largest = np.arange(n), 1
    order = np.lexsort((random.permutation(n), random.permutation(which.max() + 1)[which]))
    partner = np.empty(n, np.int64)
    partner[order] = np.roll(order, random.integers(largest, n - largest + 1))
    return partner
