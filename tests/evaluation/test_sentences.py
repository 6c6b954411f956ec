"""Scores of sentences: against sacreBLEU, coco-caption's own code on tokenised text, and numbers by hand."""

import importlib.metadata

import numpy as np
import pytest
import sacrebleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mmjax.errors import UsageError
from mmjax.evaluation.scores import score
from mmjax.evaluation.scores.bleu import caption_words
from mmjax.evaluation.scores.captions import cider_d, rouge_l
from mmjax.hypotheses import encode_texts, pack
from tests.evaluation.sentences import texts

SAID, WANTED = texts(40)
OUTPUTS, TARGET = pack(SAID, np.zeros((2, 40, 2))), encode_texts(WANTED)
PADDED = [[*some, None, None][:3] for some in WANTED]
FIRST = [[said[0] for said in of_seed] for of_seed in SAID]
TOKENISED = {item: [caption_words(one) for one in some] for item, some in enumerate(WANTED)}


def coco(scorer, seed):
    """A score of coco-caption on tokenised text."""
    return scorer.compute_score(TOKENISED, {item: [caption_words(one)] for item, one in enumerate(FIRST[seed])})


@pytest.mark.parametrize(
    ("name", "peer"),
    [("bleu", sacrebleu.BLEU()), ("bleu_tokens", sacrebleu.BLEU(tokenize="none")), ("chrf", sacrebleu.CHRF())],
)
def test_the_score_and_its_signature_are_those_of_sacrebleu(name, peer):
    expected = [peer.corpus_score(said, list(zip(*PADDED))).score / 100 for said in FIRST]
    assert 0.2 < expected[0] < 0.9
    np.testing.assert_allclose(score(name).of(OUTPUTS, TARGET), expected, rtol=1e-12)
    parts = str(peer.get_signature()).split("|")
    assert all(part in score(name).convention for part in parts if not part.startswith("nrefs"))
    assert importlib.metadata.version("sacrebleu") in score(name).convention


def test_a_draw_of_items_is_what_sacrebleu_gives_for_them():
    drawn = np.random.default_rng(1).integers(0, 40, (3, 40))
    weight = np.stack([np.bincount(one, minlength=40) for one in drawn])
    for name, peer in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        expected = [
            peer.corpus_score([FIRST[0][i] for i in some], list(zip(*(PADDED[i] for i in some)))).score / 100
            for some in drawn
        ]
        np.testing.assert_allclose(score(name).resampled(OUTPUTS, TARGET, weight)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("orders", [1, 2, 3, 4])
def test_bleu_of_captions_is_that_of_coco_caption(orders):
    expected = [coco(Bleu(4), seed)[0][orders - 1] for seed in (0, 1)]
    np.testing.assert_allclose(score(f"bleu{orders}_captions").of(OUTPUTS, TARGET), expected, rtol=1e-6)


def test_the_penalty_is_the_only_difference_between_the_two_conventions():
    short = pack([[["a dog"]], [["a dog runs"]]], np.zeros((2, 1, 1)))
    target = encode_texts([["a dog runs on grass"]])
    np.testing.assert_allclose(score("bleu1_captions_nopenalty").of(short, target), [1, 1])
    np.testing.assert_allclose(score("bleu1_captions").of(short, target), np.exp([1 - 5 / 2, 1 - 5 / 3]))


def test_smoothing_counts_orders_without_a_match_as_sacrebleu_does():
    said, wanted = "a dog sat on it", "a dog lay on it"  # 3 of 5 words... no trigram and no 4-gram matches
    outputs, target = pack([[[said]]], np.zeros((1, 1, 1))), encode_texts([[wanted]])
    expected = sacrebleu.BLEU().corpus_score([said], [[wanted]]).score / 100
    np.testing.assert_allclose(score("bleu").of(outputs, target), expected, rtol=1e-12)
    np.testing.assert_allclose(expected, (4 / 5 * 2 / 4 * (1 / 2) / 3 * (1 / 4) / 2) ** 0.25)
    assert score("bleu4_captions").of(outputs, target) == 0


def test_cider_and_rouge_are_those_of_coco_caption_item_by_item():
    for name, scorer in (("cider_d", Cider()), ("rouge_l", Rouge())):
        for seed in (0, 1):
            mean, each = coco(scorer, seed)
            np.testing.assert_allclose(score(name).per_item(OUTPUTS, TARGET)[seed], each, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(score(name).of(OUTPUTS, TARGET)[seed], mean, rtol=1e-9)


def test_cider_by_hand():
    """Two items, so that an n-gram of one item weighs log 2 and one of both 0."""
    said, wanted = ["a dog", "a cat"], [["a dog"], ["a bird"]]
    # "a" weighs 0: orders 1 and 2 of the first are exact, orders 3 and 4 have no n-gram
    np.testing.assert_allclose(cider_d(said, wanted), [10 * 2 / 4, 0])


def test_rouge_by_hand():
    # the longest common subsequence of "a dog runs" and "a dog" is 2: precision 2/3, recall 1
    np.testing.assert_allclose(rouge_l(["a dog runs"], [["a dog"]]), 2.44 * (2 / 3) / (1 + 1.44 * 2 / 3))
    np.testing.assert_allclose(rouge_l(["dog a"], [["a dog", "dog"]]), 2.44 * 0.5 / (1 + 1.44 * 0.5))


@pytest.mark.parametrize("name", ["bleu", "chrf", "bleu4_captions", "cider_d", "rouge_l"])
def test_nothing_said_is_worth_nothing_and_a_reference_everything(name):
    wanted = [["a dog runs on grass"], ["two girls sit in red water"]]
    target = encode_texts(wanted)
    silent, exact = pack([[[""]] * 2], np.zeros((1, 2, 1))), pack([wanted], np.zeros((1, 2, 1)))
    np.testing.assert_allclose(score(name).of(silent, target), 0, atol=1e-12)
    np.testing.assert_allclose(score(name).of(exact, target), 10 if name == "cider_d" else 1)


def test_other_outputs_are_refused():
    with pytest.raises(UsageError, match=r"row 'text': bleu needs outputs \[seeds, items, hypotheses, 1 \+ bytes\]"):
        score("bleu").check(np.zeros((2, 40, 5)), TARGET, "text")
    with pytest.raises(UsageError, match="a target, a Stream, of the same items"):
        score("cider_d").check(OUTPUTS[:, :30], TARGET, "text")
    with pytest.raises(UsageError, match="got outputs"):
        score("bleu").check(OUTPUTS, {"words": TARGET}, "text")
    score("cider_d").check(OUTPUTS, TARGET, "text")


def test_references_may_stand_in_a_dict():
    target = {"text": TARGET, "words": np.zeros(40)}
    for name in ("bleu", "cider_d"):
        score(name).check(OUTPUTS, target, "text")
        np.testing.assert_array_equal(score(name).of(OUTPUTS, target), score(name).of(OUTPUTS, TARGET))


def test_words_of_a_caption_are_runs_of_letters_and_digits():
    assert caption_words("Two men's T-shirts , no. 23 !") == "two men s t shirts no 23"
    assert caption_words("ﬁne Ünal") == "fine ünal"
