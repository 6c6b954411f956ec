"""Accumulation: parts of a batch, one after the other, make the update of the whole; schedules count updates."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.metrics import compute
from mmjax.progress import read_metrics
from mmjax.resident import fit
from mmjax.sharding import make_mesh
from mmjax.streaming import fit_streaming
from mmjax.training import Train, init_state, make_train_step, warmup_cosine
from tests.draw import quick_jit
from tests.sown import PerRow, Sows, values
from tests.toy import MODEL, TASK, make_batch

KEY = jax.random.key(0)
SGD = optax.with_extra_args_support(optax.sgd(1.0))


class Scale(nn.Module):
    """One weight; its loss per row is the weight times the row's value. The outputs also hold a matrix without rows."""

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        w = self.param("w", nn.initializers.zeros, ())
        return {"loss": w * streams["x"].values[:, 0, 0], "matrix": jnp.ones((4, 2)) * w}


FIVE = values(0, 0, 0, 0, 20)  # the mean is 4; means of 4 and of 1, averaged, are 10


@pytest.mark.parametrize("size, accumulate", [(5, 1), (4, 2), (2, 3), (1, 5), (1, 8)])
def test_five_examples_make_one_mean_in_both_feeds(tmp_path, size, accumulate):
    train = Train(epochs=1, batch_size=size, accumulate=accumulate, learning_rate=1.0, optimizer=optax.sgd)
    splits = {"train": FIVE, "validation": FIVE, "test": FIVE}
    resident = fit(Scale(), PerRow(), train, splits, [0])
    assert float(resident.variables["params"]["w"][0]) == pytest.approx(-4.0)
    mesh = make_mesh(devices=jax.devices()[:1])
    streamed = fit_streaming(Scale(), PerRow(), train, splits, workdir=tmp_path, mesh=mesh)
    assert float(streamed.variables["params"]["w"]) == pytest.approx(-4.0)


@pytest.mark.parametrize("rows", [12, 11, 7])
def test_parts_make_the_update_of_one_batch(rows):
    """Whatever the last ones hold: what counts is summed over all parts and divided once."""
    batch = jax.tree.map(jnp.asarray, make_batch(12)).replace(weight=(jnp.arange(12) < rows) * 1.5)
    start = quick_jit(lambda: init_state(MODEL, SGD, batch.streams, KEY))()
    whole = quick_jit(make_train_step(MODEL, TASK, SGD))(start, batch, KEY)
    parts = quick_jit(make_train_step(MODEL, TASK, SGD, accumulate=3))(start, batch, KEY)
    found, expected = ((state, compute(states)) for state, states in (parts, whole))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert int(parts[0].step) == 1


def test_losses_that_modules_sow_are_summed_likewise():
    batch = values(0, 1, 2, 3, 4, 5, 6, np.nan).replace(weight=jnp.ones(8).at[7].set(0.0))
    start = init_state(Sows(), SGD, batch.streams, KEY)
    state, _ = quick_jit(make_train_step(Sows(), PerRow(), SGD, accumulate=4))(start, batch, KEY)
    # d/drow of the mean of row^2 * (0..6) is 2 * 3 * 3; d/dwhole of whole^2 is 2 * 5.
    assert float(start.params["row"] - state.params["row"]) == pytest.approx(18)
    assert float(start.params["whole"] - state.params["whole"]) == pytest.approx(10)
    assert float(state.collections["batch_stats"]["count"]) == 4  # the model's own state saw four parts


def test_a_loss_over_the_batch_sees_a_part_and_counts_by_what_that_holds():
    # Rows 0, 2, 4 (sum 12) and 1, 3 (sum 3) with the matrix's weight 1: d/dw (13 w)^2 and (4 w)^2 at w = 1.
    batch = values(2, 1, 4, 2, 6, 9).replace(weight=jnp.array([1.0, 1, 1, 1, 1, 0]))
    state = init_state(Scale(), SGD, batch.streams, KEY).replace(params={"w": jnp.float32(1)})
    state, _ = make_train_step(Scale(), PerRow(whole=True), SGD, accumulate=2)(state, batch, KEY)
    assert float(1 - state.params["w"]) == pytest.approx(2 * (3 / 5 * 13**2 + 2 / 5 * 4**2))


def test_an_optimiser_sees_outputs_and_batch_of_all_parts_in_order():
    def update(grads, state, params=None, *, outputs, batch, **extra):
        return jax.tree.map(jnp.zeros_like, grads), {**outputs, "index": batch.index}

    batch = values(*range(8))
    shapes = {"loss": jnp.zeros(8), "matrix": jnp.zeros((4, 2)), "index": batch.index}
    tx = optax.GradientTransformationExtraArgs(lambda params: shapes, update)
    state = init_state(Scale(), tx, batch.streams, KEY).replace(params={"w": jnp.float32(3)})
    found = make_train_step(Scale(), PerRow(), tx, accumulate=4)(state, batch, KEY)[0].opt_state
    np.testing.assert_array_equal(found["loss"], 3.0 * np.arange(8))
    np.testing.assert_array_equal(found["index"], np.arange(8))
    assert found["matrix"].shape == (4, 2)


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_a_schedule_counts_updates_and_ends_with_the_last(feed, tmp_path):
    """10 examples in batches of 2, four of them an update: 2 updates an epoch, the second of one batch."""
    asked = []

    def schedule(rate, total):
        asked.append(total)
        return warmup_cosine(rate, total)

    train = Train(epochs=3, batch_size=2, accumulate=4, learning_rate=1.0, optimizer=optax.sgd, schedule=schedule)
    data = values(*[1.0] * 10)  # each update takes the rate of its step from the weight
    splits = {"train": data, "validation": data, "test": data}
    if feed == "resident":
        w = fit(Scale(), PerRow(), train, splits, [0]).history["validation/loss"][:, 0]
    else:
        mesh = make_mesh(devices=jax.devices()[:1])
        fit_streaming(Scale(), PerRow(), train, splits, workdir=tmp_path, mesh=mesh)
        w = [line["validation/loss"] for line in read_metrics(tmp_path) if "validation/loss" in line]
    assert set(asked) == {6}
    rates = [float(warmup_cosine(1.0, 6)(step)) for step in range(6)]
    np.testing.assert_allclose(w, -np.cumsum(rates)[1::2], rtol=1e-5)
    assert rates[-1] < 0.1  # the rate comes down within the training
