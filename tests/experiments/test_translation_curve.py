"""The curve of a translation table: every pair once an epoch, the same bits after a kill, a control of images."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import _curve
from experiments._translation import gated, noise_images, translator
from mmjax.datasets.base import Card, Dataset
from mmjax.datasets.multi30k.vocabulary import END_ID, fit_units, pair_target, with_end
from mmjax.experiment import Paper, Row, Table
from mmjax.stream import Batch, Stream
from mmjax.training import Train
from mmjax.translation import Translation

WORDS = {"a": "ein", "dog": "hund", "cat": "kater", "runs": "läuft", "sits": "sitzt"}


def dataset(rows=(40, 8, 8)):
    random, splits, texts = np.random.default_rng(0), {}, {}
    for split, count in zip(("train", "validation", "test"), rows):
        chosen = [random.choice(list(WORDS), random.integers(1, 8)).tolist() for _ in range(count)]
        texts[split] = [" ".join(one) for one in chosen], [" ".join(WORDS[word] for word in one) for one in chosen]
    tokenizer = fit_units([*texts["train"][0], *texts["train"][1]], size=100)
    for split, (source, target) in texts.items():
        number = np.arange(len(source))
        streams = {"text": with_end(tokenizer, source, 20)}
        splits[split] = Batch(
            streams, pair_target(tokenizer, target, 20), np.ones(len(number), np.float32), number, number
        )
    card = Card("toy", "words", {"text": "text"}, None, primary_metric="")
    return Dataset(card, splits, "1", "sha", "toy", tokenizers={"text": tokenizer})


@pytest.fixture
def table(monkeypatch):
    data = dataset()
    for name, value in (("DIM", 8), ("LAYERS", 1), ("HEADS", 2), ("FFN", 8)):
        monkeypatch.setattr(f"experiments._translation.{name}", value)
    monkeypatch.setattr(_curve, "SHAPES", 2)
    row = Row(
        "gated with noise",
        model=translator(data.tokenizers["text"].get_vocab_size(), gated()),
        view=lambda dataset: noise_images(dataset, width=6),
        paper=Paper(41.0, "a paper"),
    )
    made = Table("toy", data, Translation(END_ID, max_length=10), rows=[row], train=Train())
    monkeypatch.setattr(_curve.tables, "find", lambda name: made)
    monkeypatch.setattr(_curve, "load_dataset", lambda table, **folders: data)
    return made


def test_every_pair_stands_once_in_an_epoch_and_fits_its_shape():
    train = dataset().splits["train"]
    buckets = _curve.plan(train, 60)
    batches = _curve.schedule(buckets, 3)
    assert sorted(np.concatenate([numbers[counts] for _, numbers, counts in batches])) == list(range(40))
    for shape, numbers, counts in batches:
        whole, part = train.target["tokens"], _curve.cut(train, numbers, counts, buckets.lengths[shape])
        assert (part.target["tokens"].mask.sum(1) == whole.mask[numbers].sum(1))[counts].all()
        assert part.streams["text"].mask.sum() == train.streams["text"].mask[numbers].sum()
        assert part.weight.tolist() == counts.tolist()
    assert len(buckets.rows) == 3 and [one[1].tolist() for one in _curve.schedule(buckets, 4)] != [
        one[1].tolist() for one in batches
    ]


def test_a_killed_run_continues_to_the_same_bits(table, tmp_path, capsys):
    how = ["toy", "--every", "2", "--tokens", "60", "--warmup", "2", "--rate", "1e-2"]
    assert _curve.main([*how, "--workdir", str(tmp_path / "whole"), "--updates", "6"]) == 0
    for updates in ("2", "6"):
        assert _curve.main([*how, "--workdir", str(tmp_path / "parts"), "--updates", updates]) == 0
    curves = [json.loads((tmp_path / one / "gated-with-noise/curve.json").read_text()) for one in ("whole", "parts")]
    points = [[{k: v for k, v in p.items() if k != "seconds_per_update"} for p in one["points"]] for one in curves]
    assert points[0] == points[1] and [p["update"] for p in points[0]] == [2, 4, 6]
    states = [np.load(tmp_path / one / "gated-with-noise/state.npz") for one in ("whole", "parts")]
    for name in states[0].files:
        np.testing.assert_array_equal(states[0][name], states[1][name])
    said = capsys.readouterr().out
    assert "not reached: needs an accelerator" in said
    assert said.strip().endswith((tmp_path / "parts/curve.md").read_text().strip())
    assert (tmp_path / "parts/curve.png").read_bytes() == (tmp_path / "whole/curve.png").read_bytes()
    assert _curve.main([*how, "--workdir", str(tmp_path / "parts"), "--updates", "8", "--tokens", "80"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_noise_is_fixed_for_an_example_and_has_the_moments_of_the_images():
    data = dataset((400, 50, 50))
    random = np.random.default_rng(1)
    splits = {}
    for split, batch in data.splits.items():
        values = random.normal(3, 2, (batch.size, 4, 5)).astype(np.float32)
        splits[split] = batch.replace(
            streams={**batch.streams, "image": Stream(values, np.ones(values.shape[:2], bool))}
        )
    with_images = dataclasses.replace(data, splits=splits)
    made = noise_images(with_images).splits["train"].streams["image"].values
    assert np.abs(made.mean((0, 1)) - 3).max() < 0.3 and np.abs(made.std((0, 1)) - 2).max() < 0.2
    again = noise_images(with_images).splits["train"].streams["image"].values
    np.testing.assert_array_equal(made, again)
    assert np.abs(np.corrcoef(made.ravel(), splits["train"].streams["image"].values.ravel())[0, 1]) < 0.05
    alone = noise_images(data, width=6).splits["test"].streams["image"].values
    assert alone.shape == (50, 1, 6) and np.abs(alone.mean()) < 0.3
