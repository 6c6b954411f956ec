"""Word vectors out of a text file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.datasets.raw.words import fit_tokenizer
from mmjax.encoders import Recurrent
from mmjax.errors import UsageError
from mmjax.pretrained import Adapted, glove, read_word_vectors
from mmjax.stream import Stream

FILE = "the 1 2 3\ndog 4 5 6\n. . . 0 1 -1\ncafé 0.5 -0.25 1e-2\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "glove.3d.txt"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture
def tokenizer():
    return fit_tokenizer(["the dog the dog", "a café a café"])


def test_words_with_spaces_and_accents(path):
    file = read_word_vectors(path, ["dog", ". . .", "café", "cat"])
    assert {word: vector.tolist() for word, vector in file.vectors.items()} == {
        "dog": [4, 5, 6],
        ". . .": [0, 1, -1],
        "café": [0.5, -0.25, pytest.approx(0.01)],
    }
    np.testing.assert_allclose(file.mean, [5.5 / 4, 7.75 / 4, 8.01 / 4], rtol=1e-6)
    assert file.lacking == ("cat",)


def test_a_heading_is_no_word(path):
    plain = read_word_vectors(path, ["dog"])
    path.write_text("4 3\n" + FILE, encoding="utf-8")
    headed = read_word_vectors(path, ["dog"])
    np.testing.assert_array_equal(headed.mean, plain.mean)
    assert headed.sha256 != plain.sha256


def test_tower_gives_each_word_its_vector_and_the_lacking_ones_the_mean(path, tokenizer):
    tower, lacking = glove(path, tokenizer)
    assert lacking == ("[UNK]", "a")
    ids = np.asarray([tokenizer.encode("the café a dog bird").ids], np.int32)
    vectors = tower(Stream.of(ids)).values[0]
    mean = np.asarray([5.5, 7.75, 8.01]) / 4
    np.testing.assert_allclose(vectors, [[1, 2, 3], [0.5, -0.25, 0.01], mean, [4, 5, 6], mean], rtol=1e-6)


def test_nested_sentences_are_means_of_their_words(path, tokenizer):
    tower, _ = glove(path, tokenizer)
    the, dog = (tokenizer.token_to_id(word) for word in ("the", "dog"))
    ids = np.asarray([[[the, dog, 99], [-7, -7, -7]]], np.int32)
    mask = np.asarray([[[True, True, False], [False, False, False]]])
    sentences = tower(Stream(ids, mask))
    assert sentences.values[0].tolist() == [[2.5, 3.5, 4.5], [0, 0, 0]] and sentences.mask.tolist() == [[True, False]]


def test_frozen_vectors_do_not_learn_and_others_begin_with_them(path, tokenizer):
    tower, _ = glove(path, tokenizer)
    ids = Stream.of(jnp.asarray([[tokenizer.token_to_id("dog")]]))
    table = tower.variables["params"]["embedding"]["embedding"]
    frozen = Adapted(tower.encoder(), Recurrent(4)).init(jax.random.key(0), ids)
    assert set(frozen) == {"frozen", "params"} and list(frozen["params"]) == ["adapter"]
    learning = tower.encoder(frozen=False).init(jax.random.key(0), ids)
    np.testing.assert_array_equal(learning["params"]["embedding"]["embedding"], table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the 1 2\ndog 1\n", "line 2 must be a word and 2 numbers"),
        ("the 1 x\n", "line 1 must be a word and its numbers"),
        ("the 1 2\ndog 1 nan\n", "line 2"),
        ("le 1 2\n", "none of the 1 words"),
    ],
)
def test_a_damaged_file_is_told_by_line(tmp_path, text, words):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_word_vectors(path, ["dog"])


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"no word vectors at .*glove.txt: give the path of a text file"):
        read_word_vectors(tmp_path / "glove.txt", ["dog"])
