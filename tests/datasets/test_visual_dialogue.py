"""visual_dialogue: the procedure, its ceilings against brute force on drawn dialogues, and the examples made of it."""

import collections
import itertools

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.visual_dialogue.ceilings import PARTS, ceilings
from mmjax.datasets.visual_dialogue.examples import END_ID, history_ids, question_ids
from mmjax.datasets.visual_dialogue.pictures import shown
from mmjax.datasets.visual_dialogue.procedure import (
    COLOURS,
    KINDS,
    SHAPES,
    TURNS,
    Turn,
    draw,
    first_words,
    options,
    questions,
    reply,
)
from mmjax.errors import UsageError
from mmjax.hypotheses import decode_texts
from mmjax.stream import target_items

PICTURES = list(itertools.product(SHAPES, COLOURS))


@pytest.fixture(scope="module")
def drawn():
    """1,600 dialogues: the picture, what is thought of (read from the first question), and the turns."""
    found = []
    for number in range(1_600):
        picture = PICTURES[number % 24]
        said = draw(np.random.default_rng([7, number]), picture)
        colour, shape = said[0][1].split()[4:6]
        found.append((picture, (shape, colour), said))
    return found


@pytest.fixture(scope="module")
def known():
    return ceilings()


def plain(turn, question):
    """The question with the first of its wordings: which one it is tells nothing."""
    for wording in questions(turn):
        question = question.replace(wording, questions(turn)[0])
    return question


def test_every_reply_follows_from_picture_thought_and_turns(drawn):
    seen = collections.Counter()
    for picture, thought, said in drawn:
        turns = tuple(turn for turn, _, _ in said)
        for number, (turn, question, answer) in enumerate(said):
            assert turn in options(turns[:number]) and answer == reply(turns[:number], turn, picture, thought)
            begin = f"{first_words(thought)} " if number == 0 else ""
            assert question in [begin + wording for wording in questions(turn)]
            seen[turn.kind] += 1
    assert set(seen) == set(KINDS) and sum(seen.values()) == TURNS * len(drawn)
    turns = [(Turn("thought", "shape"), Turn("first"), Turn("other", "colour"), Turn("last"), Turn("open", "shape"))]
    replies = [reply(turns[0][:n], one, ("circle", "red"), ("triangle", "red")) for n, one in enumerate(turns[0])]
    assert replies == [
        "no , it is not a triangle .",
        "you asked whether it is a triangle .",
        "it is red .",
        "i said that it is red .",
        "it is a circle .",
    ]


def test_probabilities_of_the_turns_that_follow_add_up_to_one():
    pending = [()]
    while pending:
        before = pending.pop()
        law = options(before)
        assert sum(law.values()) == pytest.approx(1) and all(p > 0 for p in law.values())
        told = {turn.about for turn in before if turn.kind in ("open", "other")}
        assert all(turn.about not in told for turn in law if turn.about)
        pending += [(*before, turn) for turn in law] if len(before) < 3 else []


def test_each_part_is_clearly_below_all(known):
    assert known[PARTS[-1]] == pytest.approx(1)
    assert known["question"] + 0.2 < known["question+image"] < 0.8 and known["question+history"] < 0.8
    assert known["question"] + 0.2 < known["question+history"]
    assert sum(known["shares"].values()) == pytest.approx(1)
    over_kinds = {p: sum(known["kinds"][k][p] * known["shares"][k] for k in KINDS) for p in PARTS}
    assert over_kinds == pytest.approx({part: known[part] for part in PARTS})


@pytest.mark.parametrize("part", ["question", "question+image"])
def test_ceilings_without_the_history_are_those_of_a_look_up_table(part, drawn, known):
    """Counted on three quarters of the dialogues, asked on the last; question and picture settle the first turn."""
    tables = collections.defaultdict(collections.Counter)
    asked = [
        [((picture if part == "question+image" else None, plain(turn, text)), answer) for turn, text, answer in said]
        for picture, _, said in drawn
    ]
    for pairs in asked[:1_200]:
        for key, answer in pairs:
            tables[key][answer] += 1
    right = []
    for pairs in asked[1_200:]:
        for number, (key, answer) in enumerate(pairs):
            found = tables[key].most_common(1)
            settled = part == "question+image" and number == 0
            right.append(settled or bool(found and found[0][0] == answer))
    error = (0.25 / len(right)) ** 0.5
    assert known[part] - 0.05 < np.mean(right) < known[part] + 3 * error


def posterior(picture, thought):
    """How likely this picture is, given what is thought of: the law of the thought alone."""
    guesses = (thought[0] == picture[0], thought[1] == picture[1])
    return np.prod([0.5 if right else 0.5 / (n - 1) for right, n in zip(guesses, (3, 8))])


def test_the_ceiling_with_the_history_is_that_of_the_pictures_it_leaves(drawn, known):
    """For each turn all 24 pictures that agree with the replies so far, weighed by Bayes' rule, vote on the reply."""
    right, expected = [], []
    for picture, thought, said in drawn[::2]:
        turns = tuple(turn for turn, _, _ in said)
        left = {one: posterior(one, thought) for one in PICTURES}
        for number, (turn, _, answer) in enumerate(said):
            votes = collections.Counter()
            for one, weight in left.items():
                votes[reply(turns[:number], turn, one, thought)] += weight
            best, weight = votes.most_common(1)[0]
            right.append(best == answer)
            expected.append(weight / sum(votes.values()))
            left = {one: w for one, w in left.items() if reply(turns[:number], turn, one, thought) == answer}
        assert picture in left
    assert abs(np.mean(expected) - known["question+history"]) < 4 * np.std(expected) / len(expected) ** 0.5
    assert abs(np.mean(right) - known["question+history"]) < 4 * (0.25 / len(right)) ** 0.5


def test_an_uneven_law_raises_the_ceiling_of_a_part():
    one = np.zeros((3, 8))
    one[1, 2] = 1.0  # a single picture: the history tells all but what the first turn has not yet said
    found = ceilings(one)
    assert found["question+history"] == pytest.approx(1)
    assert found["question"] == pytest.approx(found["question+image"])


def test_what_a_picture_shows_follows_from_the_answers():
    asked = ["what shape is present?", "is there not a red shape?", "does the image contain a blue circle?"]
    assert shown(asked, ["circle", "yes", "yes"]) == ("circle", "blue")
    assert shown(asked[:2], ["circle", "yes"]) is None
    others = [f"is there a {colour} shape?" for colour in COLOURS if colour != "teal"]
    assert shown([asked[0], *others], ["circle", *["no"] * 7]) == ("circle", "teal")
    assert shown([asked[0], "is no triangle present?"], ["circle", "no"]) is None  # they contradict each other


def test_histories_hold_what_came_before():
    class Letters:
        def encode_batch(self, texts, add_special_tokens):
            return [type("Encoding", (), {"ids": [ord(letter) for letter in text.replace(" ", "")]}) for text in texts]

    stream = history_ids(Letters(), [[("a", "b"), ("c", "d"), ("e", "f")], [("x", "y")]])
    assert stream.values.shape[:3] == (2, 3, 2)
    read = [
        ["".join(map(chr, ids[mask])) for ids, mask in zip(*turn)] for turn in zip(stream.values[0], stream.mask[0])
    ]
    assert read == [["", ""], ["ab", ""], ["ab", "cd"]]
    assert stream.mask[1, 1, 0].sum() == 2 and not stream.values[~stream.mask].any()
    assert question_ids(Letters(), [["abc"]]).mask.sum() == 3


def test_options():
    with pytest.raises(UsageError, match="seed is 0 or more"):
        datasets.card("visual_dialogue", seed=-1)


def test_the_real_pictures(data_dir, tmp_path):
    dataset = datasets.load("visual_dialogue", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [2544, 192, 528]
    assert dataset.facts["bayes_accuracy"] == pytest.approx(1)
    words, batch = dataset.tokenizers["reply"], dataset.splits["test"]
    target = target_items(batch)
    texts = [text for (text,) in decode_texts(target["text"])]
    for ids, mask, text in zip(target["tokens"].values, target["tokens"].mask, texts):
        *said, end = ids[mask].tolist()
        assert words.decode(said) == text and end == END_ID and END_ID not in said
    shares = np.bincount(target["kind"]) / len(target["kind"])
    known = dataset.facts["ceilings"]["shares"]
    np.testing.assert_allclose(shares, [known[kind] for kind in KINDS], atol=0.03)
    for split in dataset.splits.values():  # as many of each kind: what an open question is told
        told = collections.Counter(
            text.split()[-2] for (text,) in decode_texts(target_items(split)["text"]) if text.startswith("it is")
        )
        assert set(told) == {*SHAPES, *COLOURS}
    _colours_are_those_of_the_pixels(dataset)


def _colours_are_those_of_the_pixels(dataset):
    """The pixels that differ from the corner are near the mean of those of all pictures of that colour."""
    means, named = [], []
    for split in ("train", "test"):
        batch = dataset.splits[split]
        texts = decode_texts(target_items(batch)["text"])
        for row, image in enumerate(batch.streams["image"].values[:, 0].astype(float)):
            told = [text.split()[2] for (text,) in texts[TURNS * row : TURNS * (row + 1)] if text.startswith("it is")]
            colour = next((word for word in told if word in COLOURS), None)
            if colour:
                differs = np.abs(image - image[0, 0]).sum(-1) > 60
                means.append(np.median(image[differs], axis=0))
                named.append(COLOURS.index(colour))
    means, named = np.stack(means), np.asarray(named)
    centres = np.stack([np.median(means[named == one], axis=0) for one in range(len(COLOURS))])
    nearest = np.abs(means[:, None] - centres).sum(-1).argmin(1)
    assert (nearest == named).mean() > 0.97
