"""WUPS on a WordNet written by hand, and VQA accuracy by hand."""

import itertools
import os

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.scores.answers import read_wordnet, vqa_accuracy_leave_one_out, wups

DATA = """  1 the licence
00000001 03 n 01 entity 0 000 | that which is
00000002 05 n 02 animal 0 beast 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | it lives
00000003 05 n 01 dog 0 001 @ 00000002 n 0000 | barks; "it @ home"
00000004 05 n 01 cat 0 002 @ 00000002 n 0000 + 00000009 v 0101 | purrs
00000005 06 n 01 chair 0 001 @ 00000001 n 0000 | to sit on
00000006 05 n 01 Laika 0 001 @i 00000003 n 0000 | flew
00000007 05 n 01 pet 0 001 @ 00000001 n 0000 | kept
00000008 05 n 01 lapdog 0 002 @ 00000003 n 0000 @ 00000007 n 0000 | small
"""
INDEX = """  1 the licence
animal n 1 1 ~ 1 0 00000002
beast n 1 1 ~ 1 0 00000002
cat n 2 1 @ 2 0 00000005 00000004
chair n 1 1 @ 1 1 00000005
dog n 1 1 @ 1 1 00000003
entity n 1 0 1 0 00000001
laika n 1 1 @i 1 0 00000006
lap_dog n 1 1 @ 1 0 00000008
pet n 1 1 @ 1 0 00000007
"""


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "data.noun").write_text(DATA)
    (folder / "index.noun").write_text(INDEX)
    return read_wordnet(folder)


def test_similarities_follow_from_depths(wordnet):
    assert [wordnet.depth(one) for one in (1, 2, 3, 6, 8)] == [1, 2, 3, 4, 4]
    cases = {
        ("dog", "dog"): 1.0,
        ("animal", "beast"): 1.0,  # one synset
        ("dog", "animal"): 2 * 2 / (3 + 2),
        ("laika", "dog"): 2 * 3 / (4 + 3),
        ("laika", "lap dog"): 2 * 3 / (4 + 4),
        ("dog", "chair"): 2 * 1 / (3 + 2),
        ("cat", "chair"): 1.0,  # the first sense of this cat is to sit on
        ("dog", "cat"): 2 * 2 / (3 + 3),  # the nearest sense counts
        ("pet", "lap dog"): 2 * 2 / (2 + 3),
        ("dog", "nonsense"): 0.0,
        ("nonsense", "nonsense"): 1.0,
    }
    for (one, other), expected in cases.items():
        assert wordnet.word_similarity(one, other) == pytest.approx(expected), (one, other)
        assert wordnet.word_similarity(other, one) == pytest.approx(expected)
    for a, b in itertools.product(range(1, 9), repeat=2):
        assert 0 < wordnet.similarity(a, b) == wordnet.similarity(b, a) <= 1


def test_wups_is_the_smaller_product_of_both_ways(wordnet):
    answers, truths = ["dog", "dog", "dog, chair", "2"], ["cat", "dog, chair", "dog", "2"]
    near = 2 / 5  # of dog and chair
    np.testing.assert_allclose(wups(answers, truths, wordnet, threshold=0.0), [4 / 6, near, near, 1])
    np.testing.assert_allclose(wups(answers, truths, wordnet), [0.4 / 6, 0.1 * near, 0.1 * near, 1])
    np.testing.assert_allclose(wups(["laika"], ["dog"], wordnet, threshold=0.8), [6 / 7])
    with pytest.raises(ValueError, match="zip"):
        wups(["dog"], [], wordnet)


def test_mistakes_are_said(tmp_path, monkeypatch):
    monkeypatch.delenv("MMJAX_WORDNET", raising=False)
    with pytest.raises(UsageError, match="set MMJAX_WORDNET"):
        read_wordnet()
    with pytest.raises(UsageError, match=r"needs WordNet's data\.noun"):
        read_wordnet(tmp_path)
    (tmp_path / "data.noun").write_text("no synset\n")
    with pytest.raises(UsageError, match="not in WordNet's form"):
        read_wordnet(tmp_path)


def test_the_real_wordnet():
    if not os.environ.get("MMJAX_WORDNET"):
        pytest.skip("MMJAX_WORDNET is not set: no WordNet")
    real = read_wordnet()
    assert len(real.above) == 82_115  # of version 3.0
    assert round(real.word_similarity("dog", "cat"), 3) == 0.857


def test_vqa_accuracy_leaves_each_person_out_once():
    ten = ["yes"] * 2 + ["no"] * 8
    found = vqa_accuracy_leave_one_out(["yes", "no", "maybe"], [ten] * 3)
    np.testing.assert_allclose(found, [(2 * (1 / 3) + 8 * (2 / 3)) / 10, 1.0, 0.0])
    choices = [[p for i, p in enumerate(ten) if i != left] for left in range(10)]
    np.testing.assert_allclose(found[0], np.mean([min(c.count("yes") / 3, 1) for c in choices]))
    with pytest.raises(ValueError, match="has 1 people"):
        vqa_accuracy_leave_one_out(["yes"], [["yes"]])
