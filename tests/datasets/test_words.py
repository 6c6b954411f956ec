"""Tokenizers of this library: fitted on train, their ids become text again."""

import pytest

from mmjax.datasets.raw.words import UNKNOWN, fit_tokenizer

TRAIN = ["Two dogs are running, running!", "A dog runs; two cats are watching.", "The dogs watch a running cat."] * 2


@pytest.mark.parametrize("kind, size", [("words", 100), ("bpe", 100), ("bpe", 40)])
def test_ids_become_words_and_marks_between_blanks(kind, size):
    tokenizer = fit_tokenizer(TRAIN, kind=kind, size=size)
    ids = tokenizer.encode("Two cats, watching a DOG!").ids
    assert tokenizer.decode(ids) == "two cats , watching a dog !"
    assert tokenizer.get_vocab_size() <= size and tokenizer.token_to_id(UNKNOWN) == 0


def test_parts_of_words_spell_words_that_train_lacks():
    parts, words = (fit_tokenizer(TRAIN, kind=kind, size=60) for kind in ("bpe", "words"))
    said = "a cat watches running cats"
    assert parts.decode(parts.encode(said).ids) == said
    assert words.encode(said).ids.count(0) == 1
    small = fit_tokenizer(TRAIN, kind="bpe", size=30)
    assert len(small.encode(said).ids) > len(parts.encode(said).ids)
