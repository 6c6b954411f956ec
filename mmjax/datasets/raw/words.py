"""Text as ids, by Hugging Face's ``tokenizers``: the vocabulary is that of train, all else is the unknown id 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.extras import extra

__all__ = ["UNKNOWN", "encode", "fit_tokenizer"]

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
        trained too; or ``bpe``, parts of words (Sennrich et al. 2016). Both decode to words and marks between blanks.

    Raises:
      UsageError: another kind, a size below 2, or texts without a word.
    """
    with extra():
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    if size < 2:
        raise UsageError(f"a vocabulary has 2 ids or more, got {size}")
    options: dict[str, Any] = {"vocab_size": size, "special_tokens": [UNKNOWN], "show_progress": False}
    if kind not in ("words", "bpe"):
        raise UsageError(f"a tokenizer is 'words', 'bpe' or a tokenizers.Tokenizer, got {kind!r}")
    for times in (2, 1):
        trainer: Any
        if kind == "words":
            trainer = trainers.WordLevelTrainer(min_frequency=times, **options)
            tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        else:
            ends: dict[str, Any] = {"end_of_word_suffix": SUFFIX}
            trainer = trainers.BpeTrainer(min_frequency=times, **ends, **options)
            tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, **ends))
            tokenizer.decoder = decoders.BPEDecoder(SUFFIX)
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.train_from_iterator(texts, trainer)
        if tokenizer.get_vocab_size() > 1:  # else no word of train stands in it twice
            return tokenizer
    raise UsageError("no text of train holds a word")


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
