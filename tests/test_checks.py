"""The boundary: what JAX would clamp, wrap or score without a word is refused, by split, stream and example."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.checks import check_batch, check_splits, describe_largest, first_nonfinite, vocabularies
from mmjax.data import Example, Field, Records, ordered_batches
from mmjax.datasets import from_arrays
from mmjax.encoders import BagOfWords, TransformerText
from mmjax.errors import UsageError
from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.sharding import make_mesh
from mmjax.stream import Batch, Stream
from mmjax.streaming import evaluate_streaming, fit_streaming
from mmjax.tasks import Classification, Regression
from mmjax.training import Train
from tests.toy import MODEL, SPLITS, TASK, make_batch

TRAIN = Train(epochs=2, batch_size=16, select="accuracy", optimizer=optax.sgd)


def changed(batch, **fields):
    """A copy with one entry of some arrays replaced: ``target=(3, -1)``."""
    copies = {name: np.array(getattr(batch, name)) for name in fields}
    for name, (place, value) in fields.items():
        copies[name][place] = value
    return batch.replace(**copies)


def run(feed, splits, tmp_path, model=MODEL, task=TASK, train=TRAIN):
    if feed == "resident":
        return fit(model, task, train, splits, [0], mapped="map")
    mesh = make_mesh(devices=jax.devices()[:1])
    return fit_streaming(model, task, train, splits, workdir=tmp_path, mesh=mesh)


both_feeds = pytest.mark.parametrize("feed", ["resident", "streaming"])


class TestLabels:
    @both_feeds
    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_one_that_is_no_class_is_refused_in_every_split(self, feed, split, tmp_path):
        splits = {**SPLITS, split: changed(SPLITS[split], target=(7, -1))}
        with pytest.raises(UsageError, match=rf"^{split}: example 7: label -1 is not one of 4 classes, 0 to 3$"):
            run(feed, splits, tmp_path)

    def test_records_are_checked_when_they_are_read(self, tmp_path):
        def to_example(row, rng):
            return Example({"a": np.zeros((1, 8)), "b": np.ones((1, 4))}, row % 5)

        items = {"a": (1, (8,), np.float32), "b": (1, (4,), np.float32)}
        splits = {**SPLITS, "train": Records(range(3, 40), to_example, items)}  # record 1 has label 4
        with pytest.raises(UsageError, match=r"train: example \d*[16]: label 4 is not one of 4 classes"):
            run("streaming", splits, tmp_path)

    def test_any_label_may_stand_where_nothing_counts(self):
        batch = changed(make_batch(8), target=(2, 99), weight=(2, 0.0))
        check_batch("x", batch, task=TASK)
        check_batch("x", changed(batch, index=(4, -1), target=(4, -7)), task=TASK)
        with pytest.raises(UsageError, match="x: example 3: label 99"):
            check_batch("x", changed(batch, target=(3, 99)), task=TASK)

    def test_a_label_per_step_is_named_by_its_step(self):
        batch = make_batch(4)
        index = np.arange(8, dtype=np.int32).reshape(4, 2)
        batch = batch.replace(target=np.zeros((4, 2), np.int32), index=index, group=index)
        with pytest.raises(UsageError, match=r"^x: example 2, step 1: label 9 is not"):
            check_batch("x", changed(batch, target=((2, 1), 9)), task=TASK)

    def test_classes_are_integers_and_scores_are_finite(self):
        batch = make_batch(4)
        with pytest.raises(UsageError, match=r"^x: class labels must be integers of shape \(4,\), got float32 \(4,\)"):
            check_batch("x", batch.replace(target=np.zeros(4, np.float32)), task=TASK)
        scores = batch.replace(target=np.array([0, 1, np.nan, 2], np.float32))
        with pytest.raises(UsageError, match=r"^x: example 2: target is NaN or infinity"):
            check_batch("x", scores, task=Regression())
        whole = check_batch("x", batch.replace(target=np.arange(4)), task=Regression())  # stars are scores too
        assert whole.target.dtype == np.int32
        with pytest.raises(UsageError, match=r"^x: target \(3,\) and index \(4,\) must agree|differ in their number"):
            check_batch("x", batch.replace(target=np.zeros(3, np.int32)), task=TASK)


WORDS = BagOfWords(vocab_size=10, dim=8)


def read(encoder=WORDS):
    return Multimodal({"text": encoder}, Concat(8), ClassificationHead(4))


def sentences(*ids, dtype=np.int32):
    rows = len(ids)
    stream = Stream(np.asarray(ids, dtype), np.ones((rows, len(ids[0])), bool))
    index = np.arange(rows, dtype=np.int32)
    return Batch({"text": stream}, index % 4, np.ones(rows, np.float32), index, index)


GOOD = sentences(*[[i % 10, 3] for i in range(8)])


class TestIds:
    @both_feeds
    @pytest.mark.parametrize("split, id_", [("test", 10), ("validation", 10), ("train", -1)])
    def test_one_that_the_encoder_does_not_know_is_refused(self, feed, split, id_, tmp_path):
        bad = sentences(*[[1, 2], [1, 2], [2, id_], [0, 0]])
        splits = {"train": GOOD, "validation": GOOD, "test": GOOD, split: bad}
        expected = (
            rf"^{split}: stream 'text': example 2 holds id {id_}, and its encoder knows 0 to 9 \(vocab_size=10\)$"
        )
        with pytest.raises(UsageError, match=expected):
            run(feed, splits, tmp_path, model=read())

    def test_padding_may_hold_any(self):
        bad = sentences([1, 99], [2, 3])
        bad = bad.replace(streams={"text": bad.streams["text"].replace(mask=np.array([[True, False], [True, True]]))})
        check_splits({"test": bad}, model=read())
        with pytest.raises(UsageError, match=r"^name: test: stream 'text': example 0 holds id 99"):
            check_splits({"test": sentences([1, 99], [2, 3])}, model=read(), name="name")

    def test_an_encoder_that_maps_unknown_ids_has_no_limit(self):
        assert vocabularies(read()) == {"text": 10}
        assert vocabularies(read(WORDS.clone(unknown_id=0))) == {}

        class Wrapper(nn.Module):
            inner: nn.Module

        deep = TransformerText(vocab_size=7, dim=8, num_layers=1)
        assert vocabularies(Wrapper(read(Wrapper(deep)))) == {"text": 7}
        assert vocabularies(MODEL) == {} == vocabularies(None)

    def test_beyond_32_bits_they_would_wrap(self):
        splits = {"train": sentences([1, 2**32 + 5], dtype=np.int64)}
        with pytest.raises(UsageError, match="train: stream 'text': example 0 holds an integer beyond int32"):
            check_splits(splits)
        assert int(jnp.asarray(np.array(2**32 + 5)).item()) == 5  # what jax makes of it
        narrow = check_splits({"train": sentences([1, 7], dtype=np.int64)})["train"].streams["text"].values
        assert narrow.dtype == np.int32 and narrow.tolist() == [[1, 7]]
        with pytest.raises(UsageError, match=r"example 1 holds 4294967301: ids are from 0 to 2\*\*31 - 1"):
            from_arrays({"text": np.array([[1], [2**32 + 5], [3]])}, [0, 1, 0], kinds={"text": "text"})


class TestValues:
    @both_feeds
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_and_infinity_are_refused(self, feed, value, tmp_path):
        values = np.array(SPLITS["test"].streams["b"].values)
        values[5, 0, 2] = value
        stream = SPLITS["test"].streams["b"].replace(values=values)
        splits = {**SPLITS, "test": SPLITS["test"].replace(streams={**SPLITS["test"].streams, "b": stream})}
        with pytest.raises(UsageError, match=r"^test: stream 'b': example 5 holds NaN or infinity; repair it, or mark"):
            run(feed, splits, tmp_path)

    def test_so_are_doubles_that_become_infinite_and_what_is_no_number(self):
        batch = make_batch(3)
        stream = Stream(np.array([[1.0], [1e39], [0.0]]), np.ones((3, 1), bool))
        with pytest.raises(UsageError, match="x: stream 'a': example 1 holds NaN or infinity"):
            check_batch("x", batch.replace(streams={"a": stream}))
        for values in (np.array([["a"]] * 3), np.ones((3, 1), complex)):
            with pytest.raises(UsageError, match=r"x: stream 'a' holds (<U1|complex128), not numbers"):
                check_batch("x", batch.replace(streams={"a": Stream(values, stream.mask)}))
        half = Stream(jnp.array([[1.0], [jnp.nan], [0.0]], jnp.bfloat16), stream.mask)
        with pytest.raises(UsageError, match="example 1 holds NaN"):
            check_batch("x", batch.replace(streams={"a": half}))

    def test_weights_are_numbers_from_0_up(self):
        for weight in (-1.0, np.nan):
            with pytest.raises(UsageError, match=r"^x: weights are numbers from 0 up"):
                check_batch("x", changed(make_batch(3), weight=(1, weight)))

    def test_records_convert_without_loss_or_not_at_all(self):
        def records(value, target, dtype=np.float32, field=np.int32):
            items = {"a": (1, (), dtype)}
            return Records([0], lambda row, rng: Example({"a": [value]}, target), items, target=Field((), field))

        def first(source):
            return next(ordered_batches(source, 1))

        assert first(records(1.5, 2.7, field=np.float32)).target[0] == np.float32(2.7)
        for source, reason in [
            (records(1.5, 2.7), "target holds 2.7, which is no finite int32"),
            (records(np.nan, 2), "stream 'a' holds nan, which is no finite float32"),
            (records(2**32 + 5, 2, np.int32), "stream 'a' holds 4294967301, which is no finite int32"),
            (records(300, 2, np.uint8), "stream 'a' holds 300, which is no finite uint8"),
        ]:
            with pytest.raises(UsageError, match=f"record 0 cannot be read .ValueError: {reason}"):
                first(source)


class Breaks(nn.Module):
    """Finite in training; in evaluation NaN for examples that begin above 100, or for all once ``w`` moved."""

    moved: bool = False

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        w = self.param("w", nn.initializers.zeros, (4,))
        first = streams["a"].values[:, 0, 0]
        broken = jnp.any(w != 0) if self.moved else first > 100
        logits = w * jnp.ones((len(first), 1))
        return logits if train else jnp.where(jnp.broadcast_to(broken, first.shape)[:, None], jnp.nan, logits)


@functools.cache
def with_outlier(split):
    values = np.array(SPLITS[split].streams["a"].values)
    values[6, 0, 0] = 101
    stream = SPLITS[split].streams["a"].replace(values=values)
    return {**SPLITS, split: SPLITS[split].replace(streams={"a": stream, "b": SPLITS[split].streams["b"]})}


class TestOutputs:
    @both_feeds
    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_that_are_not_finite_are_an_error_and_no_score(self, feed, split, tmp_path):
        with pytest.raises(UsageError, match=rf"^{split}: outputs for example 6 are not finite"):
            run(feed, with_outlier(split), tmp_path, model=Breaks())

    @both_feeds
    def test_so_is_divergence_at_the_very_last_step(self, feed, tmp_path):
        train = dataclasses.replace(TRAIN, epochs=1, batch_size=40)
        with pytest.raises(UsageError, match=r"^validation: outputs for example 0 are not finite"):
            run(feed, SPLITS, tmp_path, model=Breaks(moved=True), train=train)

    def test_evaluation_of_a_checkpoint_refuses_them_too(self, tmp_path):
        run("streaming", SPLITS, tmp_path, model=Breaks())
        mesh = make_mesh(devices=jax.devices()[:1])
        with pytest.raises(UsageError, match="outputs for example 6 are not finite"):
            evaluate_streaming(Breaks(), TASK, TRAIN, with_outlier("test")["test"], workdir=tmp_path, mesh=mesh)

    def test_a_metric_that_is_no_number_chooses_no_epoch(self):
        @dataclasses.dataclass(frozen=True)
        class Undefined(Classification):
            def metrics(self, outputs, batch):
                loss = super().metrics(outputs, batch)["loss"]
                return {"loss": loss, "accuracy": loss.replace(total=0 * loss.total, weight=0 * loss.weight)}

        with pytest.raises(UsageError, match=r"^validation accuracy was no number in any epoch of seed 0$"):
            fit(MODEL, Undefined(4), TRAIN, SPLITS, [0], mapped="map")

    def test_the_first_row_is_found_where_it_counts(self):
        batch = jax.tree.map(jnp.asarray, make_batch(6))
        outputs = jnp.zeros((6, 4)).at[2, 1].set(jnp.nan).at[4, 0].set(jnp.inf)
        assert int(first_nonfinite(outputs, batch)) == 2
        assert int(first_nonfinite(outputs, changed(batch, weight=(2, 0.0)))) == 4
        assert int(first_nonfinite({"x": jnp.zeros((6, 4)), "scale": jnp.float32(1)}, batch)) == -1
        assert int(first_nonfinite({"x": jnp.zeros((6, 4)), "scale": jnp.float32(jnp.nan)}, batch)) == 0
        index = jnp.arange(12).reshape(6, 2).at[3, 1].set(-1)
        steps = jnp.zeros((6, 2, 4)).at[3, 1].set(jnp.nan).at[5, 0].set(jnp.nan)
        assert int(first_nonfinite(steps, batch.replace(index=index))) == 5


def test_numbers_far_from_scale_are_named_when_training_breaks(tmp_path):
    large = SPLITS["train"].streams["b"]
    large = large.replace(values=large.values * np.float32(1e30))
    train = SPLITS["train"].replace(streams={"a": SPLITS["train"].streams["a"], "b": large})
    assert "stream 'b' holds numbers up to" in describe_largest(train) and describe_largest(SPLITS["train"]) == ""
    for feed in ("resident", "streaming"):
        with pytest.raises(UsageError, match=r"not finite in epoch 1 .*; stream 'b' holds numbers up to \de\+30:"):
            run(feed, {**SPLITS, "train": train}, tmp_path / feed)


def test_settings_that_cannot_be():
    for name, value in [("learning_rate", -1.0), ("learning_rate", float("nan")), ("clip_norm", 0.0)]:
        with pytest.raises(UsageError, match=rf"^train.{name} must be .*, got {value}"):
            Train(**{name: value})
    with pytest.raises(UsageError, match="patience must be at least 1 epoch, or None, got -5"):
        fit_streaming(MODEL, TASK, TRAIN, SPLITS, workdir="nowhere", patience=-5)
