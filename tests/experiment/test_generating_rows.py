"""Rows whose task says sentences: what is kept of them is text, and every analysis asks them again."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.datasets.base import Card, Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, Table, run_table
from mmjax.experiment.analyses import Measure
from mmjax.hypotheses import decode_texts, encode_texts, first_texts, pack, unpack
from mmjax.losses import cross_entropy
from mmjax.metrics import Mean
from mmjax.stream import Batch, Stream, item_weight, known_target
from mmjax.training import Train

WORDS = ("a", "dog", "cat", "runs", "é")
LENGTH, NAMES = 3, ("left", "right")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})


class Speaker(nn.Module):
    """Words of both streams, each of its own place."""

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        seen = sum(nn.Dense(LENGTH * 8, name=name)(s.zeroed.values[:, 0]) for name, s in sorted(streams.items()))
        return nn.Dense(len(WORDS))(seen.reshape(-1, LENGTH, 8))


@dataclasses.dataclass(frozen=True)
class Saying:
    scores = ("sentence_exact",)
    lower_is_better = frozenset({"loss"})

    def loss(self, outputs, batch):
        words = known_target(batch)["words"]
        return jnp.where(words.mask, cross_entropy(outputs, words.values), 0).sum(1)

    def metrics(self, outputs, batch):
        return {"loss": Mean.of(self.loss(outputs, batch), item_weight(batch))}

    def generate(self, model, variables, batch):
        logits = model.apply(variables, batch.streams, targets=None, train=False)
        best = jnp.stack([logits.argmax(-1), logits.argmin(-1)], axis=1)
        return {"ids": best, "scores": jnp.stack([logits.max((1, 2)), logits.min((1, 2))], axis=1)}

    def spell(self, outputs, tokenizers):
        vocabulary = tokenizers["words"]
        texts = np.empty(outputs["ids"].shape[:-1], object)
        for place in np.ndindex(texts.shape):
            texts[place] = " ".join(vocabulary[word] for word in outputs["ids"][place])
        return pack(texts, outputs["scores"])

    def check_target(self, target, real):
        return None


def draw(rows, first):
    rng = np.random.default_rng(first)
    words = rng.integers(0, len(WORDS), (rows, LENGTH)).astype(np.int32)
    shown = np.eye(len(WORDS), dtype=np.float32)[words]
    halves = {"left": shown[:, :1].reshape(rows, 1, -1), "right": shown[:, 1:].reshape(rows, 1, -1)}
    streams = {name: Stream(values, np.ones((rows, 1), bool)) for name, values in halves.items()}
    target = {
        "words": Stream(words, np.ones(words.shape, bool)),
        "text": encode_texts([[" ".join(WORDS[w] for w in row)] for row in words]),
    }
    number = np.arange(rows, dtype=np.int32)
    return Batch(streams, target, np.ones(rows, np.float32), number, first + number)


def table(**fields):
    splits = {"train": draw(64, 0), "validation": draw(12, 100), "test": draw(10, 200)}
    card = Card("saying", "words", dict.fromkeys(NAMES, "feature"), None, primary_metric="")
    data = Dataset(card, splits, "1", "0", "drawn", tokenizers={"words": WORDS})
    rows = [
        *(Row(name, model=Speaker(), streams=(name,)) for name in NAMES),
        Row("both", model=Speaker(), role="concatenation"),
    ]
    train = Train(epochs=30, batch_size=8, learning_rate=3e-2)
    return Table(title="Saying", dataset=data, task=Saying(), rows=rows, seeds=2, train=train, **fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saying")
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
        text = run_table(table(), workdir=folder, measure=Measure(levels=1, draws=1, seeds=1), say=lines.append)
    return folder, text


def test_what_is_kept_is_text_and_its_score(run):
    store = RecordStore(run[0])
    outputs = store.logits("both", "test")
    assert outputs.shape[:3] == (2, 10, 2)
    texts, numbers = unpack(outputs)
    right = decode_texts(table().dataset.splits["test"].target["text"])
    assert [[text] for text in texts[0, :, 0]] == right
    assert (numbers[..., 0] > numbers[..., 1]).all()


def test_metrics_are_the_loss_of_the_chosen_epoch_and_the_scores_of_what_was_said(run):
    store = RecordStore(run[0])
    history = store.history("both")
    for seed, record in enumerate(store.records("both")):
        assert record["metrics"]["sentence_exact"] == 1.0
        assert record["metrics"]["loss"] == pytest.approx(history["test/loss"][record["epoch"] - 1, seed])
    # one modality alone knows one word of three, or two
    assert max(r["metrics"]["sentence_exact"] for name in NAMES for r in store.records(name)) < 0.9


def test_loss_of_batches_is_that_of_the_whole(run):
    """Held-out data is measured batch by batch: 12 and 10 rows in batches of 8."""
    from mmjax.resident import fit

    one = table()
    splits = one.dataset.splits
    train = dataclasses.replace(one.train, epochs=1)
    fitted = fit(Speaker(), one.task, train, splits, [0])
    assert fitted.outputs == {"validation": (), "test": ()}
    variables = jax.tree.map(lambda x: x[0], fitted.variables)
    for split in ("validation", "test"):
        logits = Speaker().apply(variables, splits[split].streams)
        expected = one.task.loss(logits, splits[split]).mean()
        assert fitted.history[f"{split}/loss"][0, 0] == pytest.approx(float(expected), rel=1e-5)


def test_outputs_that_are_not_finite_name_the_example():
    from mmjax.resident import fit

    one = table()
    splits = dict(one.dataset.splits)

    class Breaks(Speaker):
        @nn.compact
        def __call__(self, streams, *, targets=None, train=False):
            logits = Speaker(name="inner")(streams)
            return jnp.where(streams["left"].values[:, 0, :1, None] > 1, jnp.nan, logits)

    values = splits["test"].streams["left"].values.copy()
    values[9, 0, 0] = 2
    left = splits["test"].streams["left"].replace(values=values)
    splits["test"] = splits["test"].replace(streams={**splits["test"].streams, "left": left})
    with pytest.raises(UsageError, match="test: outputs for example 9 are not finite"):
        fit(Breaks(), one.task, one.train, splits, [0])


def test_the_table_has_patterns_of_presence_and_interactions(run):
    row = {one["name"]: one for one in json.loads((run[0] / "table.json").read_text())["rows"]}["both"]
    assert row["mean"] == 1.0
    shares = row["interaction"]["shapley"]
    assert set(shares) == set(NAMES)
    store = RecordStore(run[0])
    _, analysis = store.analysis("both")
    assert unpack(analysis["pattern/left+right"])[0][0, :, 0].tolist() == first_texts(store.logits("both", "test")[0])
    assert "emap/gap" not in analysis and row["interaction"]["emap"] is None
    gate = row["interaction"]["gate"]
    assert all(gate[name]["matters"] and gate[name]["gain"] > 0.5 for name in NAMES)
    assert "✓" in run[1]


def test_there_is_no_ensemble_of_sentences(run):
    names = {one["name"] for one in json.loads((run[0] / "table.json").read_text())["rows"]}
    assert names == {"left", "right", "both", "both: left shuffled"}
