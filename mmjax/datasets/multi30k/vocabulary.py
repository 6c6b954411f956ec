"""Ids of a language pair: one vocabulary for source and target, so that their vectors can be shared.

Id 0 is the unknown unit, id 1 the end of a sentence. A unit is a part of a word (byte pair encoding, Sennrich et al.
2016); one that ends its word is written ``unit</w>`` inside the tokenizer, which so gives words back.
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.datasets.raw.words import SUFFIX, UNKNOWN, fit_parts, split_words
from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.hypotheses import encode_texts
from mmjax.stream import Stream

__all__ = ["END_ID", "fit_units", "pair_target", "plain", "published_units", "with_end"]

END, END_ID = "[END]", 1
JOINER = "@@"


def plain(line: str) -> str:
    """The words of a line of units.

    Example:
      >>> plain("a giant pul@@ ley system .")
      'a giant pulley system .'
    """
    return " ".join(line.split()).replace(JOINER + " ", "")


def published_units(train: Sequence[str], merges: Sequence[str]) -> Any:
    """A ``tokenizers.Tokenizer`` that splits words as ``subword-nmt`` did, given its merges.

    Its ids are those units of train, the most frequent first, then the units that only a merge passes through, so that
    any text of train's letters has ids.

    Args:
      train: lines of units, both languages.
      merges: lines of the file of codes: two units that are joined, the first join first.

    Raises:
      UsageError: a line of merges that is not two units.

    Example:
      >>> tokenizer = published_units(["a do@@ g", "a do@@ ve"], ["d o", "g </w>", "v e</w>"])
      >>> tokenizer.encode("a dog").tokens, tokenizer.decode(tokenizer.encode("a dove").ids)
      (['a</w>', 'do', 'g</w>'], 'a dove')
    """
    with extra():
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    pairs = [line.split() for line in merges if line.strip() and not line.startswith("#version")]
    for pair in pairs:
        if len(pair) != 2:
            raise UsageError(f"a merge is of two units, got {' '.join(pair)!r}")
    counts = collections.Counter(_inner(unit) for line in train for unit in line.split())
    passed = {unit for one, other in pairs for unit in (one, other, one + other)} - set(counts)
    units = [*sorted(counts, key=lambda unit: (-counts[unit], unit)), *sorted(passed)]
    vocabulary = {unit: number for number, unit in enumerate([UNKNOWN, END, *units])}
    known = [(one, other) for one, other in pairs]
    model = models.BPE(vocab=vocabulary, merges=known, end_of_word_suffix=SUFFIX, unk_token=UNKNOWN)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(SUFFIX)
    return tokenizer


def _inner(unit: str) -> str:
    return unit.removesuffix(JOINER) if unit.endswith(JOINER) else unit + SUFFIX


def fit_units(train: Sequence[str], size: int = 10_000) -> Any:
    """A ``tokenizers.Tokenizer`` of byte pair encoding fitted on texts of both languages; case is made one.

    Marks stand apart from words; texts come back as words and marks between blanks.

    Raises:
      UsageError: a size below 2, or texts without a word.

    Example:
      >>> tokenizer = fit_units(["A dog, a dog.", "Ein Hund"], size=60)
      >>> tokenizer.decode(tokenizer.encode("a Hund.").ids)
      'a hund .'
    """
    return fit_parts(train, size=size, marks=[END])


def with_end(tokenizer: Any, texts: Sequence[str], length: int) -> Stream:
    """Ids and the end of each text, int32 ``[texts, at most length]``, as wide as the longest; longer texts are cut
    before the end.

    Example:
      >>> with_end(fit_units(["a b"], size=20), ["a b", "b"], length=8).mask.tolist()
      [[True, True, True], [True, True, False]]
    """
    rows = [[*encoding.ids[: length - 1], END_ID] for encoding in tokenizer.encode_batch(list(texts))]
    width = max(map(len, rows))
    mask = np.arange(width) < np.asarray([len(row) for row in rows])[:, None]
    values = np.zeros(mask.shape, np.int32)
    values[mask] = np.concatenate([np.asarray(row, np.int32) for row in rows])
    return Stream(values, mask)


def pair_target(tokenizer: Any, texts: Sequence[str], length: int) -> dict[str, Stream]:
    """What is to be said: ``tokens``, ids with an end, and ``text``, the one reference of each item, as words and marks
    between blanks.

    Example:
      >>> from mmjax.hypotheses import decode_texts
      >>> decode_texts(pair_target(fit_units(["A dog."], size=20), ["A dog."], length=8)["text"])
      [['a dog .']]
    """
    return {
        "tokens": with_end(tokenizer, texts, length),
        "text": encode_texts([[" ".join(split_words(tokenizer, text))] for text in texts]),
    }
