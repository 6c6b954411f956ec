"""Tables whose target is no array, from the first row to the report: a sentence, a label per step, several answers."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.datasets.base import Card, Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.scores import Score, register, score, scores
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.experiment.baselines import decide, logistic
from mmjax.fusion import decision
from mmjax.losses import cross_entropy
from mmjax.metrics import Mean
from mmjax.stream import Batch, Stream, item_weight, known_target, target_items
from mmjax.training import Train

NAMES, WORDS, BIG = ("left", "right"), 4, 50
TRAIN = Train(epochs=4, batch_size=8, learning_rate=3e-2)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})


class Speaker(nn.Module):
    """Logits of a word per step from all streams and the word before, and beside them much that nobody asks for."""

    forced: bool = True

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        seen = sum(nn.Dense(8, name=name)(stream.zeroed.values) for name, stream in sorted(streams.items()))
        if self.forced:
            caption = targets["caption"] if isinstance(targets, dict) else targets
            before = jnp.pad(caption.zeroed.values, [(0, 0), (1, 0)])[:, :-1]
            seen = seen + nn.Embed(WORDS, 8)(before)
        return {"logits": nn.Dense(WORDS)(nn.relu(seen)), "big": jnp.repeat(seen, BIG, axis=-1)}


@dataclasses.dataclass(frozen=True)
class Speaking:
    """Nats of the words of a sentence, and a pull on what is not kept: the loss needs whole outputs."""

    scores = ("tokens_accuracy", "tokens_nats")
    lower_is_better = frozenset({"loss"})

    def loss(self, outputs, batch):
        caption = known_target(batch)
        caption = caption["caption"] if isinstance(caption, dict) else caption
        nats = jnp.where(caption.mask, cross_entropy(outputs["logits"], caption.values), 0)
        pull = jnp.square(outputs["big"]).reshape(*nats.shape, -1).mean(-1)
        each = nats + 1e-3 * jnp.where(caption.mask, pull, 0)
        return each if batch.index.ndim > 1 else each.sum(1)

    def metrics(self, outputs, batch):
        return {"loss": Mean.of(self.loss(outputs, batch), item_weight(batch))}

    def keep(self, outputs):
        return outputs["logits"]


def draw(rows, first, target_of, *, steps=False, length=4):
    """Sentences of which each modality shows half of the words."""
    rng = np.random.default_rng(first)
    words = rng.integers(1, WORDS, (rows, length)).astype(np.int32)
    mask = np.arange(length) < rng.integers(1, length + 1, rows)[:, None]
    mask[0] = True
    shown = np.eye(WORDS, dtype=np.float32)[words]
    streams = {name: Stream(shown * (np.arange(length) % 2 == k)[:, None], mask) for k, name in enumerate(NAMES)}
    group = np.arange(first, first + rows, dtype=np.int32)
    index = np.arange(rows, dtype=np.int32)
    if steps:
        index = np.where(mask, np.cumsum(mask).reshape(mask.shape) - 1, -1).astype(np.int32)
        group = np.where(mask, group[:, None], -1).astype(np.int32)
    return Batch(streams, target_of(Stream(words, mask)), np.ones(rows, np.float32), index, group)


def sentences(target_of=lambda words: words, *, metric="", **fields):
    sizes = {"train": 24, "validation": 12, "test": 10}
    firsts = (0, 100, 200)
    splits = {k: draw(n, first, target_of, **fields) for (k, n), first in zip(sizes.items(), firsts)}
    card = Card("sentences", "words", dict.fromkeys(NAMES, "feature"), None, primary_metric=metric)
    return Dataset(card, splits, "1", "0", "drawn")


def table(dataset, forced=True, **fields):
    model = Speaker(forced)
    rows = [
        *(Row(name, model=model, streams=(name,)) for name in NAMES),
        Row("both", model=model, role="concatenation"),
        Row("vote", fit=functools.partial(decide, rule=decision.mean_of_logits), members=NAMES, role="mean of logits"),
    ]
    given = {"task": Speaking(), "seeds": 2, "train": TRAIN, "rows": rows, **fields}
    return Table(title="Sentences", dataset=dataset, **given)


def alone(dataset, forced=True, **fields):
    """The fusion by itself, of one seed."""
    one = table(dataset, forced, **fields)
    return dataclasses.replace(one, rows=[dataclasses.replace(one.pick(["both"])[0], role="")], seeds=1)


def finished(one, folder):
    lines = []
    measure = Measure(levels=1, draws=1, seeds=1)
    text = run_table(one, workdir=folder, measure=measure, say=lines.append)
    rows = {row["name"]: row for row in json.loads((folder / "table.json").read_text())["rows"]}
    return text, rows, RecordStore(folder), lines


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
        return folder, *finished(table(sentences()), folder)


class TestSentences:
    def test_score_is_that_of_the_kept_logits_and_the_words(self, run):
        _, text, rows, store, _ = run
        target, group = store.targets("test")
        expected = sentences().splits["test"]
        np.testing.assert_array_equal(target.values, expected.target.values)
        np.testing.assert_array_equal(target.mask, expected.target.mask)
        np.testing.assert_array_equal(group, expected.group)
        for name in ("both", "vote"):
            logits = store.logits(name, "test")
            assert logits.shape == (2, 10, 4, WORDS)
            right = (logits.argmax(-1) == target.values) & target.mask
            assert rows[name]["mean"] == pytest.approx(right.sum((1, 2)).mean() / target.mask.sum())
        members = np.stack([store.logits(name, "test") for name in NAMES])
        np.testing.assert_allclose(store.logits("vote", "test"), members.mean(0), rtol=1e-5)
        assert rows["both"]["mean"] > 0.5 and "Accuracy of steps in percent" in text

    def test_records_hold_the_loss_of_whole_outputs_and_the_scores(self, run):
        _, _, _, store, _ = run
        history = store.history("both")
        for seed, record in enumerate(store.records("both")):
            at = record["epoch"] - 1
            for split, metrics in (("test", record["metrics"]), ("validation", record["validation_metrics"])):
                assert metrics["loss"] == pytest.approx(float(history[f"{split}/loss"][at, seed]))
                assert set(metrics) == {"loss", "tokens_accuracy", "tokens_nats"}
        assert set(store.records("vote")[0]["metrics"]) == {"tokens_accuracy", "tokens_nats"}

    def test_patterns_and_noise_are_measured_and_interactions_say_why_not(self, run):
        _, _, rows, store, _ = run
        for name in ("both", "vote"):
            patterns = store.records(name)[0]["per_mask"]
            assert set(patterns) == {"left+right", "left", "right", "none"}
            assert patterns["left+right"] == pytest.approx(store.records(name)[0]["metrics"]["tokens_accuracy"])
            assert rows[name]["robustness"]["noise"]["all"]["mean"][0] == pytest.approx(rows[name]["mean"])
            assert "several parts" in rows[name]["interaction_note"] and rows[name]["interaction"] is None

    def test_the_same_call_finds_it_done(self, run):
        folder, text, _, _, _ = run
        again, *_, lines = finished(table(sentences()), folder)
        assert again == text and sum("done before" in line for line in lines) == 6  # with two controls


def test_splits_of_other_lengths_are_padded_to_one(tmp_path):
    data = sentences()
    test = data.splits["test"]
    short = Stream(test.target.values[:, :3], test.target.mask[:, :3])
    data = dataclasses.replace(data, splits={**data.splits, "test": test.replace(target=short)})
    _, rows, store, _ = finished(alone(data), tmp_path)
    target, _ = store.targets("test")
    assert target.mask.shape == (10, 4) and not target.mask[:, 3].any()
    np.testing.assert_array_equal(target.values[:, :3], short.values)
    right = (store.logits("both", "test")[0].argmax(-1) == target.values) & target.mask
    assert rows["both"]["mean"] == pytest.approx(right.sum() / short.mask.sum())


def test_a_label_per_step_is_an_item(tmp_path):
    data = sentences(metric="accuracy", steps=True)
    data = dataclasses.replace(data, card=dataclasses.replace(data.card, num_classes=WORDS))

    @dataclasses.dataclass(frozen=True)
    class Labelling(Speaking):
        scores = ("accuracy",)

    _, rows, store, _ = finished(alone(data, forced=False, task=Labelling()), tmp_path)
    target, _ = store.targets("test")
    test = data.splits["test"]
    np.testing.assert_array_equal(target, np.asarray(test.target.values)[np.asarray(test.target.mask)])
    logits = store.logits("both", "test")
    assert logits.shape == (1, len(target), WORDS) and rows["both"]["calibration"] is not None
    assert rows["both"]["mean"] == pytest.approx((logits.argmax(-1) == target).mean())
    assert "label per step" in rows["both"]["interaction_note"]


def test_several_answers_by_a_score_of_ones_own(tmp_path):
    if "first_word" not in scores():
        items = lambda outputs, target: (outputs.argmax(-1)[..., 0] == target["caption"].values[:, 0]) + 0.0  # noqa: E731
        register(
            Score.share("first_word", "share of first words that are right", "first", outputs="other", items=items)
        )
    data = sentences(lambda words: {"caption": words, "number": np.arange(len(words.mask))}, metric="first_word")

    @dataclasses.dataclass(frozen=True)
    class First(Speaking):
        scores = ("first_word",)

    _, rows, store, _ = finished(alone(data, task=First()), tmp_path)
    target, _ = store.targets("test")
    np.testing.assert_array_equal(target["number"], np.arange(10))
    expected = score("first_word").of(store.logits("both", "test"), target).mean()
    assert rows["both"]["mean"] == pytest.approx(expected)


def test_a_linear_classifier_of_sentences_is_refused(tmp_path):
    one = table(sentences(), rows=[Row("linear", fit=functools.partial(logistic, C=1.0))])
    with pytest.raises(UsageError, match="row 'linear' is for one class or score an item, the target of sentences has"):
        finished(one, tmp_path)


def test_a_label_that_the_mask_hides_is_an_error():
    batch = sentences(steps=True).splits["test"]
    mask = np.asarray(batch.target.mask).copy()
    mask[0, 1] = False
    with pytest.raises(ValueError, match=r"no label at \[0, 1\]"):
        target_items(batch.replace(target=Stream(batch.target.values, mask)))
