"""All seeds at once: each is its own run, the epoch is chosen on validation alone, a killed run has the same bits."""

import concurrent.futures
import dataclasses
import functools
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.batches import concat_batches
from mmjax.checkpoint import Checkpoints
from mmjax.errors import UsageError
from mmjax.metrics import compute
from mmjax.resident import fit, is_loopy, prepare
from mmjax.stream import Stream
from mmjax.training import Train
from tests.compiled import cached_programs
from tests.toy import DROPPED, MODEL, SPLITS, TASK, make_batch

SEEDS = (3, 5)
TRAIN = Train(epochs=6, batch_size=16, learning_rate=3e-2, optimizer=optax.adam, select="accuracy")
LOSS, ACCURACY = "validation/loss", "validation/accuracy"


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Compiling is most of the time, and several tests compile the same program."""
    with cached_programs(tmp_path_factory.mktemp("compiled")):
        yield


@functools.cache
def mapped(how):
    """Dropout, Adam, and selection by a metric that ties."""
    return fit(DROPPED, TASK, TRAIN, SPLITS, SEEDS, mapped=how)


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_both_ways_of_mapping_seeds_agree():
    a, b = mapped("vmap"), mapped("map")
    assert (a.mapped, b.mapped) == ("vmap", "map")
    for name in (LOSS, "train/loss", "test/loss"):
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(a.epoch, b.epoch)


def test_what_a_fit_holds():
    found = mapped("vmap")
    assert {value.shape for value in found.history.values()} == {(6, 2)}
    assert {name.split("/")[0] for name in found.history} == {"train", "validation", "test"}
    assert found.outputs["validation"].shape == (2, 20, 4) and found.seconds.keys() == {"compile", "train"}
    assert found.history["train/loss"][-1].max() < 0.8 * found.history["train/loss"][0].min()
    assert not np.array_equal(found.history[LOSS][:, 0], found.history[LOSS][:, 1])


def test_prepared_in_another_thread_it_trains_to_the_same_bits():
    with concurrent.futures.ThreadPoolExecutor() as pool:
        ready = pool.submit(prepare, DROPPED, TASK, TRAIN, SPLITS, SEEDS, mapped="vmap").result()
    found, expected = ready.run(), mapped("vmap")
    assert_same((found.epoch, found.variables, found.outputs), (expected.epoch, expected.variables, expected.outputs))
    assert_same(ready.run().history, found.history)  # and may run again
    assert found.step_ms > 0 and found.seconds["compile"] == ready.compile_seconds > 0
    data = sum(x.nbytes for x in jax.tree.leaves((ready.data, ready.held_out)))
    assert found.peak_mb is None or found.peak_mb * 2**20 > data


def test_a_model_is_traced_once_for_each_thing_it_does():
    calls = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, streams, *, targets=None, train=False):
            calls.append("init" if self.is_initializing() else "train" if train else "predict")
            return nn.Dense(4)(streams["a"].values.mean(1))

    prepare(Counted(), TASK, TRAIN, SPLITS, SEEDS)
    assert sorted(calls) == ["init", "predict", "predict", "train"]  # the second prediction stands in the epoch


def test_keeps_the_earliest_epoch_that_is_best_on_validation():
    found = mapped("vmap")
    scores = found.history[ACCURACY]
    np.testing.assert_array_equal(found.epoch, scores.argmax(0))
    assert any((scores[:, i] == scores[:, i].max()).sum() > 1 for i in range(2))  # else the tie is not tested
    for split in ("validation", "test"):  # the outputs are those of the chosen epoch
        batch = jax.tree.map(jnp.asarray, SPLITS[split])
        for i, epoch in enumerate(found.epoch):
            states = TASK.metrics(jnp.asarray(found.outputs[split][i]), batch)
            np.testing.assert_allclose(
                float(compute(states)["accuracy"]), found.history[f"{split}/accuracy"][epoch, i], rtol=1e-6
            )
            variables = jax.tree.map(lambda x, i=i: x[i], found.variables)
            logits = DROPPED.apply(variables, batch.streams)
            np.testing.assert_allclose(logits, found.outputs[split][i], atol=1e-5)


class Killed(Exception):
    """Stands for a SIGKILL between two epochs."""


def test_a_killed_run_continues_with_the_same_bits_and_test_selects_nothing(tmp_path):
    def kill(number, metrics):
        if number == 3:
            raise Killed

    other = SPLITS["test"].replace(target=SPLITS["test"].target[::-1].copy())
    splits = {**SPLITS, "test": other}
    run = functools.partial(fit, DROPPED, TASK, TRAIN, splits, SEEDS, mapped="vmap", snapshot_seconds=0.0)
    with Checkpoints(tmp_path) as snapshots, pytest.raises(Killed):
        run(snapshots=snapshots, on_epoch=kill)
    seen = []
    with Checkpoints(tmp_path) as snapshots:
        found = run(snapshots=snapshots, on_epoch=lambda number, metrics: seen.append(number))
    assert seen == [3, 4, 5]
    expected = mapped("vmap")
    assert_same((found.epoch, found.variables, found.outputs), (expected.epoch, expected.variables, expected.outputs))
    for name, history in found.history.items():
        assert np.array_equal(history, expected.history[name]) == (not name.startswith("test/"))


def test_stop_at_overrides_selection():
    found = fit(DROPPED, TASK, TRAIN, SPLITS, SEEDS, mapped="vmap", stop_at=(2, 0))
    np.testing.assert_array_equal(found.epoch, (2, 0))
    losses = [
        float(compute(TASK.metrics(jnp.asarray(logits), jax.tree.map(jnp.asarray, SPLITS["validation"])))["loss"])
        for logits in found.outputs["validation"]
    ]
    np.testing.assert_allclose(losses, [found.history[LOSS][2, 0], found.history[LOSS][0, 1]], rtol=1e-5)


def test_a_loss_that_is_not_finite_names_seed_and_epoch():
    train = dataclasses.replace(TRAIN, optimizer=optax.sgd, learning_rate=1e30)
    with pytest.raises(UsageError, match=r"not finite in epoch \d of seed 3 \(\d+ steps\): lower train.learning_rate"):
        fit(MODEL, TASK, train, SPLITS, SEEDS, mapped="vmap")


def test_a_metric_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"train.select='f2' is no metric of the task"):
        fit(MODEL, TASK, dataclasses.replace(TRAIN, select="f2"), SPLITS, SEEDS)


def test_loops_and_convolutions_are_found_wherever_they_stand():
    x = jnp.ones((1, 4, 4, 1))
    scan = jax.jit(lambda x: jax.lax.scan(lambda c, y: (c, c + y), x[0], x)[1])
    conv = nn.Conv(1, (3, 3))
    assert is_loopy(scan, x)
    assert is_loopy(lambda x: conv.init_with_output(jax.random.key(0), x)[0], x)
    assert is_loopy(jax.checkpoint(lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c + i, x)), x)
    assert not is_loopy(lambda x: jnp.tanh(x).sum(), x)


TEN_SEEDS = """
import numpy as np
from mmjax.datasets import from_arrays
from mmjax.encoders import Recurrent
from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.tasks import Classification
from mmjax.training import Train

arrays = {name: np.random.default_rng(0).normal(size=(60, 5, 8)).astype(np.float32) for name in "abc"}
data = from_arrays(arrays, np.arange(60) % 2, split=(0.6, 0.2, 0.2), name="sequences")
model = Multimodal({n: Recurrent(64, bidirectional=True) for n in arrays}, Concat(64), ClassificationHead(2))
found = fit(model, Classification(2), Train(epochs=1), data.splits, range(10), mapped="vmap")
print(len(found.epoch), "seeds")
"""


def test_ten_seeds_of_two_way_recurrences_begin_on_two_threads():
    """Six QRs of ten times four matrices at once used to wait for each other for ever, nearly every time."""
    settings = {**os.environ, "NPROC": "2", "XLA_FLAGS": ""}
    run = [sys.executable, "-c", TEN_SEEDS]
    ended = subprocess.run(run, env=settings, capture_output=True, text=True, timeout=200)
    assert ended.stdout == "10 seeds\n", ended.stderr


class TestConcat:
    def test_pads_to_a_common_length(self):
        a, b = make_batch(2, 0), make_batch(3, 1)
        long = Stream(np.ones((3, 4, 8), np.float32), np.ones((3, 4), bool))
        both = concat_batches(a, b.replace(streams={**b.streams, "a": long}))
        assert both.size == 5 and both.streams["a"].values.shape == (5, 4, 8)
        np.testing.assert_array_equal(both.streams["a"].mask.sum(1), [1, 1, 4, 4, 4])
        np.testing.assert_array_equal(both.index, [0, 1, 0, 1, 2])

    def test_refuses_other_streams(self):
        a = make_batch(2)
        with pytest.raises(UsageError, match=r"splits differ in their streams: \[\['a', 'b'\], \['a'\]\]"):
            concat_batches(a, a.replace(streams={"a": a.streams["a"]}))
