"""Sentences as arrays and back, whatever they hold."""

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.hypotheses import concatenate, decode_texts, encode_texts, first_texts, pack, unpack

TEXTS = [["a dog runs", "zwei große Hunde", ""], ["狗", "x" * 40, "été"]]
SCORES = [[-0.125, -1.0, -7.0], [0.0, -1e-3, -3.4e38]]


def test_texts_and_scores_come_back():
    outputs = pack(TEXTS, SCORES)
    assert outputs.dtype == np.float32 and outputs.shape == (2, 3, 41)
    texts, scores = unpack(outputs)
    assert texts.tolist() == TEXTS
    np.testing.assert_array_equal(scores, np.float32(SCORES))
    assert first_texts(outputs) == ["a dog runs", "狗"]


def test_parts_of_different_width_are_joined():
    joined = concatenate([pack([["ab"]], [[1.0]]), pack([["abcdef"]], [[2.0]])], axis=0)
    assert unpack(joined)[0].tolist() == [["ab"], ["abcdef"]]


def test_references_come_back_and_items_may_have_fewer():
    texts = [["a dog", "große Hunde"], [], ["a cat"]]
    stream = encode_texts(texts)
    assert stream.values.shape == (3, 2, 12) and stream.values.dtype == np.uint8
    assert decode_texts(stream) == texts
    poisoned = stream.replace(values=np.where(stream.mask, stream.values, 255))
    assert decode_texts(poisoned) == texts


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pack([["a"]], [[1.0, 2.0]]), "every hypothesis needs a score"),
        (lambda: pack([["a\0b"]], [[1.0]]), "NUL"),
        (lambda: encode_texts([["a", ""]]), "empty"),
    ],
)
def test_errors_say_what_is_wrong(make, words):
    with pytest.raises(UsageError, match=words):
        make()
