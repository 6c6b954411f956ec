"""Targets of any form: vectors of labels, captions, several answers at once; weights fall on items and nothing else."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import f1_score

from mmjax.batches import concat_batches, take_rows
from mmjax.checks import check_batch
from mmjax.data import Example, Field, Records, ordered_batches
from mmjax.errors import UsageError
from mmjax.losses import cross_entropy
from mmjax.metrics import Mean, compute, merge
from mmjax.progress import read_metrics
from mmjax.resident import fit
from mmjax.sharding import make_mesh
from mmjax.stream import Stream, item_weight, known_target
from mmjax.streaming import fit_streaming
from mmjax.tasks import MultiLabel, Regression
from mmjax.training import Train, init_state, make_train_step
from tests.draw import quick_jit
from tests.toy import MODEL, SPLITS, make_batch

KEY = jax.random.key(0)
SGD = optax.with_extra_args_support(optax.sgd(1.0))
LABELS = 4


def labelled(rows, seed=0, labels=LABELS):
    target = np.random.default_rng(seed).integers(0, 2, (rows, labels)).astype(np.int32)
    return make_batch(rows, seed).replace(target=target)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


class TestVectorsOfLabels:
    @pytest.mark.parametrize("rows", [LABELS, LABELS + 1])  # as many rows as labels: the wrong axis would broadcast
    def test_weights_fall_on_rows(self, rows):
        """With one row left out the gradient is that of the others alone."""
        batch = jax.tree.map(jnp.asarray, labelled(rows))
        keep = np.arange(rows) != 2
        rest = jax.tree.map(lambda x: x[keep], batch)
        poisoned = batch.replace(target=batch.target.at[2].set(7), weight=jnp.asarray(keep, jnp.float32))
        start = quick_jit(lambda: init_state(MODEL, SGD, batch.streams, KEY))()
        step = quick_jit(make_train_step(MODEL, MultiLabel(LABELS), SGD))
        (found, states), (expected, others) = step(start, poisoned, KEY), step(start, rest, KEY)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found.params, expected.params)
        for name, value in compute(others).items():
            np.testing.assert_allclose(compute(states)[name], value, rtol=1e-6)

    def test_loss_and_metrics_are_those_of_the_field(self):
        rng = np.random.default_rng(1)
        logits, batch = rng.normal(size=(50, LABELS)).astype(np.float32), labelled(50, 2)
        weight = (np.arange(50) < 40).astype(np.float32)
        given = logits.copy()
        given[40:] = np.nan
        task, real = MultiLabel(LABELS), slice(0, 40)
        parts = [slice(0, 13), slice(13, 50)]
        whole = batch.replace(weight=weight)
        states = [task.metrics(jnp.asarray(given[p]), take_rows(whole, p)) for p in parts]
        found = compute(merge(*states))
        yes, true = logits[real] > 0, batch.target[real]
        probability = 1 / (1 + np.exp(-logits[real].astype(np.float64)))
        loss = -np.log(np.where(true, probability, 1 - probability)).mean()
        assert float(found["loss"]) == pytest.approx(loss, rel=1e-5)
        for average in ("micro", "macro"):
            expected = f1_score(true, yes, average=average, zero_division=0)
            assert float(found[f"labels_f1_{average}"]) == pytest.approx(expected, rel=1e-5)
        assert float(found["labels_exact"]) == pytest.approx((yes == true).all(1).mean())

    def test_they_train_in_both_feeds(self, tmp_path):
        train = Train(epochs=3, batch_size=8, learning_rate=3e-2, optimizer=optax.adam, select="labels_f1_macro")
        splits = {"train": labelled(40, 1), "validation": labelled(10, 2), "test": labelled(9, 3)}
        for batch in splits.values():  # what can be learned: the sign of the first numbers
            batch.target[:] = batch.streams["a"].values[:, 0, :LABELS] > 0
        found = fit(MODEL, MultiLabel(LABELS), train, splits, [0])
        assert found.history["test/labels_f1_micro"][-1, 0] > 0.6 and found.outputs["test"].shape == (1, 9, LABELS)
        mesh = make_mesh(devices=jax.devices()[:1])
        streamed = fit_streaming(MODEL, MultiLabel(LABELS), train, splits, workdir=tmp_path, mesh=mesh)
        assert streamed.metrics["test/labels_f1_micro"] > 0.6

    def test_what_is_not_0_or_1_is_refused(self):
        task = MultiLabel(LABELS)
        batch = labelled(6)
        batch.target[4, 1] = 2
        with pytest.raises(UsageError, match=r"^x: example 4: labels \[.*2.*\] are not all 0 or 1"):
            check_batch("x", batch, task=task)
        with pytest.raises(UsageError, match=r"must be 0 or 1 in an array of shape \(6, 4\), got int32 \(6,\)"):
            check_batch("x", make_batch(6), task=task)


@pytest.mark.parametrize("shape", [(6, 3), (6, 6), (1, 6)])
def test_a_loss_of_another_shape_is_refused_when_it_is_traced(shape):
    @dataclasses.dataclass(frozen=True)
    class Wrong(MultiLabel):
        def loss(self, outputs, batch):
            return jnp.zeros(shape) * outputs.sum()

    batch = labelled(6)
    expected = r"the loss of the task has the shape \(\d, \d\): it must be one value per labelled item, \(6,\), or a"
    with pytest.raises(UsageError, match=expected):
        start = jax.eval_shape(lambda: init_state(MODEL, SGD, batch.streams, KEY))
        jax.eval_shape(make_train_step(MODEL, Wrong(LABELS), SGD), start, batch, KEY)
    with pytest.raises(ValueError, match=r"values must be one per labelled item, \(6,\) as their weights, got"):
        Mean.of(jnp.zeros((6, 6)), jnp.ones(6))


class TestSeveralScores:
    def test_loss_and_metrics_are_means_over_them(self):
        rng = np.random.default_rng(0)
        target, outputs = rng.normal(size=(2, 30, 3)).astype(np.float32)
        outputs += target
        batch = make_batch(30).replace(target=target)
        task = Regression()
        np.testing.assert_allclose(task.loss(outputs, batch), ((outputs - target) ** 2).mean(1), rtol=1e-5)
        parts = [slice(0, 11), slice(11, 30)]
        states = [task.metrics(jnp.asarray(outputs[p]), jax.tree.map(lambda x, p=p: x[p], batch)) for p in parts]
        found = compute(merge(*states))
        assert float(found["mae"]) == pytest.approx(np.abs(outputs - target).mean(), rel=1e-5)
        r = np.mean([np.corrcoef(outputs[:, i], target[:, i])[0, 1] for i in range(3)])
        assert float(found["pearson"]) == pytest.approx(r, abs=1e-5)

    def test_they_train(self):
        splits = {k: b.replace(target=b.streams["b"].values[:, 0, :4] * 1.0) for k, b in SPLITS.items()}
        train = Train(epochs=6, batch_size=8, learning_rate=3e-2, optimizer=optax.adam)
        history = fit(MODEL, Regression(), train, splits, [0]).history
        assert history["test/mae"][-1, 0] < 0.7 * history["test/mae"][0, 0] and history["test/pearson"][-1, 0] > 0.5


WORDS = 5


class Captioner(nn.Module):
    """Says the next word from the picture and the word before; a learned scale stands beside the logits."""

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        picture = nn.Dense(8)(streams["a"].values[:, 0])
        before = jnp.pad(targets["caption"].values, [(0, 0), (1, 0)])[:, :-1]
        hidden = picture[:, None] + nn.Embed(WORDS, 8)(before)
        return {"logits": nn.Dense(WORDS)(hidden), "scale": self.param("scale", nn.initializers.ones, (WORDS,))}


@dataclasses.dataclass(frozen=True)
class Captioning:
    """Nats of a caption's words, summed; the number of a picture is a second answer."""

    lower_is_better = frozenset({"loss"})

    def loss(self, outputs, batch):
        caption = batch.target["caption"]
        nats = cross_entropy(outputs["logits"] * outputs["scale"], caption.values)
        return jnp.where(caption.mask, nats, 0).sum(1)

    def metrics(self, outputs, batch):
        weight = item_weight(batch)
        return {"loss": Mean.of(self.loss(outputs, batch), weight), "number": Mean.of(batch.target["number"], weight)}


@dataclasses.dataclass(frozen=True)
class Keeping(Captioning):
    """Keeps the logits alone; its loss and metrics are of whole outputs."""

    def keep(self, outputs):
        return outputs["logits"]


def captioned(rows, length, seed=0):
    rng = np.random.default_rng(seed)
    words = np.arange(1, rows + 1)[:, None] % WORDS * np.ones((1, length), np.int32)
    mask = np.arange(length) < rng.integers(1, length + 1, rows)[:, None]
    caption = Stream(np.where(mask, words, 0).astype(np.int32), mask)
    return make_batch(rows, seed).replace(target={"caption": caption, "number": np.arange(rows, dtype=np.float32)})


CAPTIONED = {"train": captioned(20, 3), "validation": captioned(9, 4, 1), "test": captioned(7, 2, 2)}


class TestCaptions:
    train = Train(epochs=2, batch_size=8, learning_rate=3e-2, optimizer=optax.adam)

    def test_held_out_loss_is_teacher_forced_and_what_has_no_rows_stays_whole(self):
        found = fit(Captioner(), Captioning(), self.train, CAPTIONED, [0, 1])
        assert found.outputs["test"]["logits"].shape == (2, 7, 4, WORDS)  # padded to the longest held-out caption
        assert found.outputs["validation"]["scale"].shape == (2, WORDS)
        for split in ("validation", "test"):
            batch = jax.tree.map(jnp.asarray, CAPTIONED[split])
            for seed, epoch in enumerate(found.epoch):
                variables = jax.tree.map(lambda x, seed=seed: x[seed], found.variables)
                outputs = Captioner().apply(variables, batch.streams, targets=batch.target)
                loss = compute(Captioning().metrics(outputs, batch))["loss"]
                assert found.history[f"{split}/loss"][epoch, seed] == pytest.approx(float(loss), rel=1e-5)
        assert found.history["test/number"][0, 0] == 3.0

    def test_what_a_task_does_not_keep_is_in_no_outputs(self):
        train = dataclasses.replace(self.train, epochs=1)
        whole, kept = (fit(Captioner(), task, train, CAPTIONED, [0]) for task in (Captioning(), Keeping()))
        for split in ("validation", "test"):
            np.testing.assert_allclose(kept.outputs[split], whole.outputs[split]["logits"], rtol=1e-5)
            np.testing.assert_allclose(kept.history[f"{split}/loss"], whole.history[f"{split}/loss"], rtol=1e-5)

    def test_padding_and_rows_of_weight_0_change_no_bit(self):
        batch = jax.tree.map(jnp.asarray, CAPTIONED["train"]).replace(weight=jnp.ones(20).at[4].set(0))
        caption = batch.target["caption"]
        words = jnp.where(caption.mask, caption.values, 3).at[4].set(2)
        other = batch.replace(target={"caption": caption.replace(values=words), "number": batch.target["number"]})
        other.target["number"] = other.target["number"].at[4].set(jnp.nan)
        start = quick_jit(lambda: init_state(Captioner(), SGD, batch.streams, KEY, targets=batch.target))()
        step = quick_jit(make_train_step(Captioner(), Captioning(), SGD))
        same(step(start, other, KEY), step(start, batch, KEY))
        same(known_target(other)["caption"].mask[4], np.zeros(3, bool))

    def test_accumulation_sums_them_too(self):
        batch = jax.tree.map(jnp.asarray, CAPTIONED["train"])
        start = quick_jit(lambda: init_state(Captioner(), SGD, batch.streams, KEY, targets=batch.target))()
        found, expected = (
            quick_jit(make_train_step(Captioner(), Captioning(), SGD, accumulate=k))(start, batch, KEY) for k in (4, 1)
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)

    def test_both_feeds_take_them(self, tmp_path):
        mesh = make_mesh(devices=jax.devices()[:1])

        def to_example(row, rng):
            batch = CAPTIONED["train"]
            caption = batch.target["caption"]
            words = caption.values[row][caption.mask[row]]
            streams = {name: s.values[row] for name, s in batch.streams.items()}
            return Example(streams, {"caption": words, "number": float(row)})

        items = {"a": (1, (8,), np.float32), "b": (1, (4,), np.float32)}
        target = {"caption": Field(length=3), "number": Field(dtype=np.float32)}
        records = Records(range(20), to_example, items, target=target)
        same(next(ordered_batches(records, 20)).target, CAPTIONED["train"].target)
        runs = {}
        for name, train in {"memory": CAPTIONED["train"], "records": records}.items():
            splits = {**CAPTIONED, "train": train}
            arguments = {"workdir": tmp_path / name, "mesh": mesh, "log_every": 1}
            fit_streaming(Captioner(), Captioning(), self.train, splits, **arguments)
            runs[name] = [line["train/loss"] for line in read_metrics(tmp_path / name) if "train/loss" in line]
        assert len(runs["memory"]) == 6 and runs["memory"] == runs["records"]


class TestRecords:
    def test_vectors_and_steps(self):
        def to_example(row, rng):
            return Example({"x": np.ones((1, 1))}, np.arange(2 * row + 2).reshape(-1, 2))

        records = Records([0, 1], to_example, {"x": (1, (1,), np.float32)}, steps=2, target=Field((2,), np.int32))
        batch = next(ordered_batches(records, 2))
        np.testing.assert_array_equal(batch.target, [[[0, 1], [0, 0]], [[0, 1], [2, 3]]])
        np.testing.assert_array_equal(batch.index, [[0, -1], [2, 3]])

    def test_another_shape_is_a_bad_record(self):
        records = Records([0], lambda r, rng: Example({}, [1, 0]), {"x": (1, (), np.float32)}, target=Field((3,)))
        with pytest.raises(UsageError, match=r"ValueError: target has shape \(2,\), its field \(3,\)"):
            next(ordered_batches(records, 1))
        with pytest.raises(UsageError, match="leave out steps or length"):
            Records([0], None, {}, steps=2, target=Field(length=3))


class TestJoining:
    def test_captions_are_padded_and_numbers_are_not(self):
        both = concat_batches(CAPTIONED["train"], CAPTIONED["validation"])
        caption = both.target["caption"]
        assert caption.values.shape == (29, 4) and not caption.mask[:20, 3].any()
        np.testing.assert_array_equal(caption.mask[20:], CAPTIONED["validation"].target["caption"].mask)
        np.testing.assert_array_equal(both.target["number"], [*range(20), *range(9)])

    def test_labels_per_step_are_padded_and_vectors_of_labels_are_not(self):
        index = np.arange(6, dtype=np.int32)

        def steps(count, width):
            labels = index[:count].reshape(-1, width)
            return make_batch(count // width).replace(target=labels, index=labels, group=labels)

        both = concat_batches(steps(6, 3), steps(4, 2))
        np.testing.assert_array_equal(both.index, [[0, 1, 2], [3, 4, 5], [0, 1, -1], [2, 3, -1]])
        with pytest.raises(UsageError, match=r"differ in the items of targets: shapes \(2, 4\), \(2, 3\)"):
            concat_batches(labelled(2), labelled(2, labels=3))
        with pytest.raises(UsageError, match="differ in the structure of their targets"):
            concat_batches(make_batch(20), CAPTIONED["train"])
        narrow = make_batch(2)
        narrow = narrow.replace(streams={**narrow.streams, "b": Stream(np.ones((2, 1, 3)), np.ones((2, 1), bool))})
        with pytest.raises(UsageError, match=r"differ in the items of stream 'b': shapes \(2, 1, 4\), \(2, 1, 3\)"):
            concat_batches(make_batch(2), narrow)

    def test_rows_are_taken_from_every_part(self):
        some = take_rows(CAPTIONED["train"], [5, 2])
        np.testing.assert_array_equal(some.target["number"], [5, 2])
        np.testing.assert_array_equal(some.target["caption"].mask, CAPTIONED["train"].target["caption"].mask[[5, 2]])
        np.testing.assert_array_equal(some.index, [0, 1])
