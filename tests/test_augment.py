"""Augmentation is of training batches alone, by the key of seed and step: nothing else of a run changes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.checkpoint import Checkpoints
from mmjax.datasets import from_arrays
from mmjax.errors import UsageError
from mmjax.experiment import Row
from mmjax.experiment.checks import check_model
from mmjax.experiment.identity import config_hash
from mmjax.resident import fit
from mmjax.streaming import fit_streaming
from mmjax.training import Train, init_state, make_train_step
from tests.compiled import cached_programs
from tests.draw import quick_jit
from tests.experiment import small
from tests.streaming_run import one_device
from tests.toy import DROPPED, MODEL, SPLITS, TASK, make_batch

SEEDS = (3, 5)
TRAIN = Train(epochs=3, batch_size=16, learning_rate=3e-2, optimizer=optax.adam, select="accuracy")
FROZEN = dataclasses.replace(TRAIN, epochs=2, learning_rate=0.0)
BATCH = jax.tree.map(jnp.asarray, make_batch(8))
KEY = jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    with cached_programs(tmp_path_factory.mktemp("compiled")):
        yield


def same(batch, key):
    return batch


def shift(batch, key, by=3.0):
    streams = {name: stream.replace(values=stream.values + by) for name, stream in batch.streams.items()}
    return batch.replace(streams=streams)


def jitter(batch, key):
    """Noise of its own for every stream."""
    keys = jax.random.split(key, len(batch.streams))
    streams = {
        name: stream.replace(values=stream.values + jax.random.normal(one, stream.values.shape))
        for one, (name, stream) in zip(keys, sorted(batch.streams.items()))
    }
    return batch.replace(streams=streams)


def with_augment(augment, train=TRAIN):
    return dataclasses.replace(train, augment=augment)


@functools.cache
def resident(augment, train=TRAIN):
    return fit(DROPPED, TASK, with_augment(augment, train), SPLITS, SEEDS, mapped="vmap")


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def parts(found):
    return found.epoch, found.variables, found.outputs, found.history


def test_the_identity_changes_no_bit():
    assert_same(parts(resident(same)), parts(resident(None)))


def test_a_shift_changes_train_only():
    """Nothing is learned, so that what is measured on held-out data can only change with the data."""
    plain, shifted = resident(None, FROZEN), resident(shift, FROZEN)
    assert_same((shifted.variables, shifted.outputs), (plain.variables, plain.outputs))
    changed = {name for name, values in shifted.history.items() if not np.array_equal(values, plain.history[name])}
    assert "train/loss" in changed and all(name.startswith("train/") for name in changed)


class Killed(Exception):
    """Stands for a SIGKILL between two epochs."""


def test_after_a_resume_the_same_keys_give_the_same_bits(tmp_path):
    def kill(number, metrics):
        if number == 1:
            raise Killed

    run = functools.partial(
        fit, DROPPED, TASK, with_augment(jitter), SPLITS, SEEDS, mapped="vmap", snapshot_seconds=0.0
    )
    with Checkpoints(tmp_path) as snapshots, pytest.raises(Killed):
        run(snapshots=snapshots, on_epoch=kill)
    with Checkpoints(tmp_path) as snapshots:
        found = run(snapshots=snapshots)
    assert_same(parts(found), parts(resident(jitter)))
    assert not np.array_equal(found.history["train/loss"], resident(None).history["train/loss"])


def losses_at(augment, step=0, key=KEY, **options):
    tx = optax.with_extra_args_support(optax.sgd(0.0))
    state = init_state(MODEL, tx, BATCH.streams, KEY).replace(step=jnp.int32(step))
    states = quick_jit(make_train_step(MODEL, TASK, tx, augment=augment, **options))(state, BATCH, key)[1]
    return float(states["loss"].compute()[""])


def test_every_step_and_seed_has_a_key_of_its_own():
    first = losses_at(jitter)
    assert first == losses_at(jitter)
    assert len({first, losses_at(jitter, step=1), losses_at(jitter, key=jax.random.key(1)), losses_at(None)}) == 4


def test_all_parts_of_an_update_are_augmented_together():
    assert losses_at(jitter, accumulate=2) == pytest.approx(losses_at(jitter), rel=1e-5)


def test_labels_and_weights_may_change_too():
    def one_left(batch, key):
        return batch.replace(weight=batch.weight * (batch.index == 2))

    def relabelled(batch, key):
        return batch.replace(target=(batch.target + 1) % 4)

    assert losses_at(one_left) == pytest.approx(losses_at(lambda b, k: one_left(shift(b, k, 0.0), k)))
    assert len({losses_at(one_left), losses_at(relabelled), losses_at(None)}) == 3


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (lambda batch, key: batch.replace(target=batch.target[:4]), ".target is int32[8], augmented int32[4]"),
        (lambda batch, key: batch.replace(weight=batch.weight > 0), ".weight is float32[8], augmented bool[8]"),
        (lambda batch, key: batch.streams, "is float32[8, 1, 8], augmented nothing"),
    ],
)
def test_another_form_is_refused(augment, words):
    with pytest.raises(UsageError, match=r"train\.augment must keep shapes and dtypes: ") as error:
        losses_at(augment)
    assert words in str(error.value)


def test_it_is_part_of_the_digest_and_checked_with_the_row():
    data = from_arrays({"a": np.ones((30, 8)), "b": np.ones((30, 4))}, np.arange(30) % 4)
    row = Row("row", model=MODEL)

    def hashed(augment):
        return config_hash(small.table(dataset=data, rows=[row], train=with_augment(augment)), row, data)

    digests = {hashed(one) for one in (None, shift, jitter, functools.partial(shift, by=1.0))}
    assert len(digests) == 4 and hashed(shift) in digests
    with pytest.raises(UsageError, match=r"train\.augment must keep shapes"):
        check_model(MODEL, TASK, with_augment(lambda batch, key: batch.replace(weight=batch.weight[:1])), data)


def test_the_streaming_feed_augments_training_batches_only(tmp_path):
    def run(augment):
        workdir = tmp_path / getattr(augment, "__name__", "plain")
        return fit_streaming(MODEL, TASK, with_augment(augment, FROZEN), SPLITS, workdir=workdir, mesh=one_device())

    plain, shifted = run(None), run(shift)
    assert_same(shifted.variables, plain.variables)
    assert {k: v for k, v in shifted.metrics.items() if "loss" in k} == {
        k: v for k, v in plain.metrics.items() if "loss" in k
    }
    with pytest.raises(UsageError, match=r"train\.augment"):  # another run
        fit_streaming(MODEL, TASK, with_augment(jitter, FROZEN), SPLITS, workdir=tmp_path / "shift", mesh=one_device())
