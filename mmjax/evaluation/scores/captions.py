"""CIDEr-D and ROUGE-L of a caption against its references, as coco-caption defines them, in NumPy.

Outputs and target are as in ``mmjax.evaluation.scores.bleu``, words those of ``caption_words``: the tokenizer of
coco-caption is a program in Java, so numbers differ from it by how a few words are split.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.evaluation.scores.bleu import caption_words, references
from mmjax.evaluation.scores.score import Score
from mmjax.hypotheses import first_texts

__all__ = ["SCORES", "cider_d", "rouge_l"]

_ORDERS, _SIGMA, _BETA = 4, 6.0, 1.2


def cider_d(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each item ``[items]`` (Vedantam et al. 2015, eq. 4 to 6; 10 is the highest).

    The mean over n = 1 to 4 and over references of the clipped cosine of TF-IDF vectors of n-grams, times a Gaussian
    penalty of the difference in length (sigma 6). An n-gram's document frequency is the number of items with it in a
    reference; lengths are counted in bigrams, as coco-caption does.

    Args:
      said: words of each item's hypothesis, with spaces between.
      wanted: those of its references.

    Example:
      >>> cider_d(["a dog runs fast", "a cat"], [["a dog runs fast"], ["a cat sits still here"]]).round(2).tolist()
      [10.0, 2.21]
    """
    items, most = len(said), max(map(len, wanted))
    sides = [list(said), *([some[j] if j < len(some) else "" for some in wanted] for j in range(most))]
    number: dict[str, int] = {}
    ids = [[[number.setdefault(word, len(number)) for word in text.split()] for text in side] for side in sides]
    counts = np.array([len(some) for some in wanted], np.float64)
    delta = np.stack([_bigrams(ids[0]) - _bigrams(side) for side in ids[1:]])
    penalty = np.exp(-(delta**2) / (2 * _SIGMA**2))
    total = np.zeros(items)
    for order in range(1, _ORDERS + 1):
        grams = _count_ngrams(ids, order)
        frequency = np.asarray((sum(grams[1:]) > 0).sum(0), np.float64).ravel()
        idf = np.log(items) - np.log(np.maximum(frequency, 1))
        vectors = [one.multiply(idf).tocsr() for one in grams]
        norms = [np.sqrt(np.asarray(one.multiply(one).sum(1)).ravel()) for one in vectors]
        for vector, norm, factor in zip(vectors[1:], norms[1:], penalty):
            both = np.asarray(vectors[0].minimum(vector).multiply(vector).sum(1)).ravel()
            length = norms[0] * norm
            total += factor * np.divide(both, length, out=np.zeros(items), where=length > 0)
    return 10 * total / (_ORDERS * counts)


def _bigrams(side: list[list[int]]) -> np.ndarray:
    return np.array([max(len(text) - 1, 0) for text in side], np.float64)


def _count_ngrams(sides: list[list[list[int]]], order: int) -> list[Any]:
    """How often each item has each n-gram, sparse ``[items, n-grams]``, of each side."""
    from scipy.sparse import csr_array

    number: dict[tuple[int, ...], int] = {}
    found = []
    for side in sides:
        rows, columns = [], []
        for item, text in enumerate(side):
            here = [number.setdefault(tuple(text[i : i + order]), len(number)) for i in range(len(text) - order + 1)]
            columns += here
            rows += [item] * len(here)
        found.append((rows, columns))
    shape = (len(sides[0]), max(len(number), 1))
    return [csr_array((np.ones(len(rows)), (rows, columns)), shape=shape) for rows, columns in found]


def rouge_l(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> np.ndarray:
    """ROUGE-L of each item ``[items]``, 0 to 1 (Lin & Och 2004), beta 1.2.

    Of the longest common subsequence, the best precision and the best recall over the references, which may be two of
    them, as coco-caption does.

    Example:
      >>> rouge_l(["a dog runs"], [["a dog"]]).round(3).tolist()
      [0.83]
    """
    number: dict[str, int] = {}
    pairs = [(item, reference) for item, some in enumerate(wanted) for reference in some]
    left = _padded([said[item] for item, _ in pairs], number, -1)
    right = _padded([reference for _, reference in pairs], number, -2)
    longest = np.zeros((right.shape[1] + 1, len(pairs)), np.int64)
    for one in left.T:
        before, longest = longest, np.zeros_like(longest)
        for place, other in enumerate(right.T, 1):
            new = np.where(one == other, before[place - 1] + 1, 0)
            longest[place] = np.maximum(new, np.maximum(before[place], longest[place - 1]))
    shares = [longest[-1] / np.maximum((side >= 0).sum(1), 1) for side in (left, right)]
    first = np.concatenate([[0], np.cumsum([len(some) for some in wanted])[:-1]])
    precision, recall = (np.maximum.reduceat(share, first) for share in shares)
    below = recall + _BETA**2 * precision
    return np.where(below > 0, (1 + _BETA**2) * precision * recall / np.maximum(below, 1e-300), 0.0)


def _padded(texts: Sequence[str], number: dict[str, int], padding: int) -> np.ndarray:
    words = [[number.setdefault(word, len(number)) for word in text.split()] for text in texts]
    ids = np.full((len(words), max(max(map(len, words)), 1)), padding)
    for row, some in zip(ids, words):
        row[: len(some)] = some
    return ids


def _of_items(function: Any) -> Any:
    def items(outputs: Any, target: Any) -> np.ndarray:
        wanted = [[caption_words(one) for one in some] for some in references(target)]
        return np.stack([function([caption_words(one) for one in first_texts(of_seed)], wanted) for of_seed in outputs])

    return items


_WORDS = "lower-cased words without punctuation, definition of coco-caption, mean over items"
SCORES = (
    Score(
        "cider_d",
        f"CIDEr-D of {_WORDS}; document frequencies of the references that are scored, 10 is the highest",
        "CIDEr-D",
        "sentences",
        items=_of_items(cider_d),
    ),
    Score.share("rouge_l", f"ROUGE-L of {_WORDS}; beta 1.2", "ROUGE-L", outputs="sentences", items=_of_items(rouge_l)),
)
