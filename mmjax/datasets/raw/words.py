"""Text as ids, by Hugging Face's ``tokenizers``: the vocabulary is that of train, all else is the unknown id 0."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.stream import Stream

__all__ = [
    "SUFFIX",
    "UNKNOWN",
    "encode",
    "encode_padded",
    "fit_parts",
    "fit_tokenizer",
    "split_words",
    "stored_texts",
    "tokenizer_of",
]

UNKNOWN = "[UNK]"
"""The token with id 0."""
SUFFIX = "</w>"
"""Marks a part of a word that ends it, so that ids become words again."""


def fit_tokenizer(texts: Sequence[str], *, size: int = 8_000, kind: str = "words") -> Any:
    """A ``tokenizers.Tokenizer`` fitted on texts of train. Case and Unicode variants (NFKC) are made one.

    Args:
      texts: of train.
      size: ids at most, the unknown one among them; all characters of train are parts, were they more (``bpe``).
      kind: ``words`` (and punctuation marks), where one that train has once is unknown, so that the unknown id is
        trained too; or ``bpe``, parts of words, see ``fit_parts``. Both decode to words and marks between blanks.

    Raises:
      UsageError: another kind, a size below 2, or texts without a word.
    """
    if kind == "bpe":
        return fit_parts(texts, size=size, times=2)
    if kind != "words":
        raise UsageError(f"a tokenizer is 'words', 'bpe' or a tokenizers.Tokenizer, got {kind!r}")
    _check_size(size)
    with extra():
        from tokenizers import Tokenizer, models, trainers
    for times in (2, 1):
        tokenizer = _split_words(Tokenizer(models.WordLevel(unk_token=UNKNOWN)))
        options: dict[str, Any] = {"vocab_size": size, "special_tokens": [UNKNOWN], "show_progress": False}
        tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(min_frequency=times, **options))
        if tokenizer.get_vocab_size() > 1:  # else no word of train stands in it twice
            return tokenizer
    raise UsageError(NO_WORD)


def fit_parts(texts: Sequence[str], *, size: int, marks: Sequence[str] = (), times: int = 0) -> Any:
    """A ``tokenizers.Tokenizer`` of byte pair encoding (Sennrich et al. 2016): the same texts give the same ids.

    Ids: the unknown one, ``marks``, each character that ends a word, all characters, then what is joined, the most
    frequent first; all characters of ``texts`` are parts, were they more than ``size``.

    Args:
      texts: of train.
      size: ids at most.
      marks: parts that no text holds (the end of a sentence).
      times: a pair is joined that occurs so often.

    Raises:
      UsageError: a size below 2, or texts without a word.

    Example:
      >>> parts = fit_parts(["no new news"], size=20)
      >>> parts.encode("news").tokens, parts.decode(parts.encode("a new one").ids)
      (['news</w>'], '[UNK] new one')
    """
    _check_size(size)
    with extra():
        from tokenizers import Tokenizer, decoders, models, trainers
    tokenizer = _split_words(Tokenizer(models.BPE(unk_token=UNKNOWN, end_of_word_suffix=SUFFIX)))
    # The trainer numbers what ends a word in the order of a hash table, which differs from call to call, and lets these
    # numbers decide between pairs of one frequency. Named beforehand they have an order.
    last = {word[-1] for text in texts for word in split_words(tokenizer, text)}
    if not last:
        raise UsageError(NO_WORD)
    first = [UNKNOWN, *marks, *(letter + SUFFIX for letter in sorted(last))]
    ends: dict[str, Any] = {"end_of_word_suffix": SUFFIX}
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=times, special_tokens=first, show_progress=False, **ends
    )
    tokenizer.train_from_iterator(texts, trainer)
    # A tokenizer of its own, for what was named beforehand is special in that one: no text holds it, decoding omits it.
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    parts = _split_words(Tokenizer(models.BPE(model["vocab"], merges, unk_token=UNKNOWN, **ends)))
    parts.add_special_tokens([UNKNOWN, *marks])
    parts.decoder = decoders.BPEDecoder(SUFFIX)
    return parts


NO_WORD = "no text of train holds a word"


def _check_size(size: int) -> None:
    if size < 2:
        raise UsageError(f"a vocabulary has 2 ids or more, got {size}")


def _split_words(tokenizer: Any) -> Any:
    """Words and marks in lower case are what the tokenizer has ids of, or splits."""
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def split_words(tokenizer: Any, text: str) -> list[str]:
    """The words and marks of a text, as the tokenizer sees them before it looks for ids.

    Example:
      >>> split_words(fit_tokenizer(["A dog"]), "Two dogs!")
      ['two', 'dogs', '!']
    """
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def tokenizer_of(kind: str, train: Sequence[str], *, size: int, max_words: int) -> tuple[Any, bool]:
    """The tokenizer of this name: ``words`` or ``bpe``, fitted on ``train``, or ``minilm``, the word pieces of
    ``mmjax.pretrained.minilm``, which cuts at ``max_words`` itself; and whether it sets marks around a text.
    """
    if kind == "minilm":
        from mmjax.pretrained.minilm import tokenizer

        return tokenizer(max_length=max_words), True
    return fit_tokenizer(train, size=size, kind=kind), False


def stored_texts(values: Sequence[Any]) -> list[str]:
    """Texts of a stored example, which holds them as bytes."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def encode(
    tokenizer: Any, texts: Sequence[str | None], length: int, *, marks: bool = False
) -> tuple[list[np.ndarray | None], int]:
    """The ids of each text, at most ``length``, None where there is none; and how many texts were cut. With ``marks``,
    those that the tokenizer sets around a text are among them.
    """
    numbers = [number for number, text in enumerate(texts) if text is not None]
    encodings = tokenizer.encode_batch([str(texts[number]) for number in numbers], add_special_tokens=marks)
    ids: list[np.ndarray | None] = [None] * len(texts)
    cut = 0
    for number, encoding in zip(numbers, encodings):
        cut += len(encoding.ids) > length
        ids[number] = np.asarray(encoding.ids[:length], np.int32) if encoding.ids else None
    return ids, cut


def encode_padded(
    tokenizer: Any, rows: Sequence[Sequence[str]], length: int, *, most: int | None = None, marks: bool = False
) -> Stream:
    """Ids of the texts of each row, ``[rows, most, length]``; a place without text, or without a word, is absent.

    Args:
      tokenizer: what ``fit_tokenizer`` gives.
      rows: texts of each example.
      length: ids of a text at most; more are cut.
      most: texts of a row; None = as many as the longest row has.
      marks: those that the tokenizer sets around a text are among the ids.

    Example:
      >>> words = fit_tokenizer(["a dog", "a cat", "a cat"], kind="words")
      >>> encode_padded(words, [["a cat", "a"], ["a"]], 2).mask.tolist()
      [[[True, True], [True, False]], [[True, False], [False, False]]]
    """
    most = most or max(map(len, rows))
    ids = iter(encode(tokenizer, [text for row in rows for text in row], length, marks=marks)[0])
    values = np.zeros((len(rows), most, length), np.int32)
    mask = np.zeros(values.shape, bool)
    for number, row in enumerate(rows):
        for place, one in zip(range(len(row)), ids):
            if one is not None:
                values[number, place, : len(one)], mask[number, place, : len(one)] = one, True
    return Stream(values, mask)
