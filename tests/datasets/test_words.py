"""Tokenizers of this library: fitted on train, their ids become text again."""

import pytest

from mmjax.datasets.raw.words import UNKNOWN, encode_padded, fit_parts, fit_tokenizer

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


def test_byte_pairs_of_the_same_texts_are_the_same():
    """The library's trainer numbers what ends a word anew at every call."""
    texts = [f"{a}{b} {b}{c}{a}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    first, *others = (fit_tokenizer(texts, kind="bpe", size=80).to_str() for _ in range(8))
    assert set(others) == {first}
    marked = fit_parts(texts, size=80, marks=["[END]"])
    assert marked.token_to_id("[END]") == 1
    assert marked.decode([1, *marked.encode("ai").ids], skip_special_tokens=True) == "ai"


def test_rows_of_texts_are_padded_to_the_longest_row_or_as_asked():
    tokenizer = fit_tokenizer(TRAIN)
    stream = encode_padded(tokenizer, [["two dogs", "", "running dogs running"], ["a cat"]], 2, most=4)
    assert stream.mask.tolist() == [
        [[True, True], [False, False], [True, True], [False, False]],
        [[True, True], [False, False], [False, False], [False, False]],
    ]
    said = tokenizer.decode_batch(stream.values[stream.mask.any(-1)].tolist())
    assert said == ["two dogs", "running dogs", "a cat"]
    assert not stream.values[~stream.mask].any()
