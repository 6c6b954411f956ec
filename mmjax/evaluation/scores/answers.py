"""Scores of answers in words: Wu-Palmer similarity by WordNet (WUPS), agreement with ten people (VQA accuracy).

They read strings, so that an answer that is on no list still counts for its meaning. WordNet's noun files
``data.noun`` and ``index.noun`` are the user's: Debian's package ``wordnet-base`` has them in ``/usr/share/wordnet``.
"""

import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mmjax.errors import UsageError

__all__ = ["WordNet", "read_wordnet", "vqa_accuracy_leave_one_out", "wups"]


class WordNet:
    """The hierarchy of nouns.

    Attributes:
      senses: synsets of each word, in WordNet's order.
      above: the hypernyms of each synset, of instances too.
    """

    def __init__(self, senses: dict[str, list[int]], above: dict[int, list[int]]):
        self.senses, self.above = senses, above
        self._depth: dict[int, int] = {}

    def depth(self, synset: int) -> int:
        """Number of synsets on the longest way up from this one, itself included."""
        if synset not in self._depth:
            self._depth[synset] = 1 + max(map(self.depth, self.above[synset]), default=0)
        return self._depth[synset]

    def _steps_up(self, synset: int) -> dict[int, int]:
        """Fewest steps to each synset that this one is below, itself included."""
        steps, edge = {synset: 0}, [synset]
        while edge:
            edge = [one for below in edge for one in self._reach(below, steps)]
        return steps

    def _reach(self, below: int, steps: dict[int, int]) -> list[int]:
        new = [one for one in self.above[below] if one not in steps]
        steps.update(dict.fromkeys(new, steps[below] + 1))
        return new

    def similarity(self, first: int, second: int) -> float:
        """Wu & Palmer (1994): twice the depth of the deepest synset above both, over the sum of their depths by way of
        it; 0 where nothing is above both.
        """
        one, other = self._steps_up(first), self._steps_up(second)
        shared = one.keys() & other.keys()
        if not shared:
            return 0.0
        deepest = max(map(self.depth, shared))
        ways = [one[s] + other[s] for s in shared if self.depth(s) == deepest]
        return 2 * deepest / (2 * deepest + min(ways))

    @functools.lru_cache(maxsize=200_000)  # noqa: B019 (one WordNet a process)
    def word_similarity(self, first: str, second: str) -> float:
        """1 for the same word, else the largest similarity of their senses; 0 for a word that WordNet lacks."""
        if first == second:
            return 1.0
        pairs = [(a, b) for a in self._synsets(first) for b in self._synsets(second)]
        return max((self.similarity(a, b) for a, b in pairs), default=0.0)

    def _synsets(self, word: str) -> list[int]:
        return self.senses.get(word.strip().lower().replace(" ", "_"), [])


def read_wordnet(folder: str | os.PathLike | None = None) -> WordNet:
    """WordNet's nouns.

    Args:
      folder: with ``data.noun`` and ``index.noun``; None = that of the variable ``MMJAX_WORDNET``.

    Raises:
      UsageError: no folder, no such files, or files of another form.
    """
    folder = folder or os.environ.get("MMJAX_WORDNET")
    if not folder:
        raise UsageError("WUPS needs WordNet's data.noun and index.noun: set MMJAX_WORDNET to their folder")
    senses: dict[str, list[int]] = {}
    above: dict[int, list[int]] = {}
    for name in ("data.noun", "index.noun"):
        path = pathlib.Path(folder) / name
        try:
            lines = path.read_text(encoding="latin-1").splitlines()
        except OSError as error:
            raise UsageError(f"WUPS needs WordNet's {name}: {error}") from None
        try:
            for line in lines:
                if not line.strip() or line.startswith("  "):  # the licence
                    continue
                fields = line.partition(" | ")[0].split()
                if name == "data.noun":
                    first = 4 + 2 * int(fields[3], 16)
                    pointers = [fields[first + 1 + 4 * i : first + 5 + 4 * i] for i in range(int(fields[first]))]
                    above[int(fields[0])] = [int(p[1]) for p in pointers if p[0] in ("@", "@i") and p[2] == "n"]
                else:
                    senses[fields[0]] = [int(one) for one in fields[len(fields) - int(fields[2]) :]]
        except (ValueError, IndexError):
            raise UsageError(f"{path} is not in WordNet's form: {line[:60]!r}") from None
    return WordNet(senses, above)


def wups(answers: Sequence[str], truths: Sequence[str], wordnet: WordNet, *, threshold: float = 0.9) -> np.ndarray:
    """``WUPS@threshold`` of each item, from 0 to 1 (Malinowski & Fritz 2014, eq. 7): answers are sets of words between
    commas; each word counts by its nearest in the other set, and the smaller product of both ways counts. A similarity
    below the threshold is taken times 0.1; a threshold of 0 leaves them as they are.

    Args:
      answers: one an item, as ``"chair, table"``.
      truths: likewise.

    Raises:
      ValueError: not as many of both.

    Example:
      >>> animals = WordNet({"dog": [2], "cat": [3]}, {1: [], 2: [1], 3: [1]})
      >>> wups(["dog", "dog"], ["dog", "cat"], animals, threshold=0.0).tolist()
      [1.0, 0.5]
    """

    def near(word: str, others: Sequence[str]) -> float:
        best = max(wordnet.word_similarity(*sorted((word, other))) for other in others)
        return best if best >= threshold else 0.1 * best

    values = []
    for answer, truth in zip(answers, truths, strict=True):
        ours, theirs = ([word.strip() for word in text.split(",") if word.strip()] or [""] for text in (answer, truth))
        one_way = np.prod([near(word, theirs) for word in ours])
        values.append(min(one_way, np.prod([near(word, ours) for word in theirs])))
    return np.asarray(values, np.float64)


def vqa_accuracy_leave_one_out(answers: Sequence[str], people: Sequence[Sequence[str]]) -> np.ndarray:
    """VQA accuracy of each item, from 0 to 1 (Antol et al. 2015; Goyal et al. 2017): the mean over all choices of all
    people but one of ``min(agreeing / 3, 1)``. Strings must be normalised alike.

    Args:
      people: the answers that people gave, ten an item in VQA, at least two.

    Raises:
      ValueError: not as many of both, or an item with fewer than two people.

    Example:
      >>> vqa_accuracy_leave_one_out(["red"], [["red"] * 3 + ["blue"] * 7]).round(3).tolist()
      [0.9]
    """
    values = []
    for answer, given in zip(answers, people, strict=True):
        if len(given) < 2:
            raise ValueError(f"VQA accuracy leaves one person out: {answer!r} has {len(given)} people")
        same = [one == answer for one in given]
        values.append(np.mean([min((sum(same) - one) / 3, 1.0) for one in same]))
    return np.asarray(values, np.float64)
