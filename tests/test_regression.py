"""Scores far from zero: a network starts at their mean, trains on their deviations and answers in their units."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import Concat
from mmjax.heads import RegressionHead
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.stream import Stream
from mmjax.streaming import evaluate_streaming, fit_streaming
from mmjax.tasks import Regression
from mmjax.training import Train, predict
from tests.streaming_run import one_device
from tests.toy import make_batch

MODEL = Multimodal({}, Concat(8), RegressionHead(hidden_dims=(8,)))
TRAIN = Train(epochs=3, batch_size=16, learning_rate=1e-2)


def scores(rows, seed, mean=0.0, deviation=1.0):
    batch = make_batch(rows, seed)
    return batch.replace(target=(mean + deviation * (batch.target - 1.5)).astype(np.float32))


def splits(**units):
    return {name: scores(rows, seed, **units) for name, rows, seed in
            (("train", 40, 1), ("validation", 20, 2), ("test", 20, 3))}  # fmt: skip


def test_units_change_nothing_but_the_units():
    """The same scores in other units: the same network, its answers in those units."""
    plain = fit(MODEL, Regression(), TRAIN, splits(), (0, 1))
    moved = fit(MODEL, Regression(), TRAIN, splits(mean=4096.0, deviation=64.0), (0, 1))
    for name in ("validation", "test"):
        np.testing.assert_allclose(moved.outputs[name], 4096 + 64 * plain.outputs[name], rtol=1e-4)
    np.testing.assert_allclose(moved.history["test/mae"], 64 * plain.history["test/mae"], rtol=2e-3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4),
        moved.variables["params"], plain.variables["params"],
    )  # fmt: skip
    target = moved.variables["target"]["head"]
    train = splits(mean=4096.0, deviation=64.0)["train"].target.astype(np.float64)
    np.testing.assert_allclose(target["mean"], [train.mean()] * 2, rtol=1e-6)
    np.testing.assert_allclose(target["deviation"], [train.std()] * 2, rtol=1e-6)


def test_the_first_prediction_is_about_the_mean_and_that_of_nothing_is_the_mean():
    data = splits(mean=1000.0, deviation=0.5)
    first = fit(MODEL, Regression(), dataclasses.replace(TRAIN, epochs=1, learning_rate=1e-9), data, (0,))
    assert np.abs(first.outputs["test"] - 1000).max() < 3
    trained = fit(MODEL, Regression(), TRAIN, data, (0,))
    variables = jax.tree.map(lambda x: x[0], trained.variables)
    blank = data["test"].replace(
        streams={name: Stream(s.values, np.zeros_like(s.mask)) for name, s in data["test"].streams.items()}
    )
    mean = data["train"].target.astype(np.float64).mean()
    np.testing.assert_allclose(predict(MODEL, variables, blank), np.full(20, mean), rtol=1e-6)
    # a network beats the constant here, and would not if it had to find a thousand first
    constant = np.abs(data["test"].target - np.median(data["train"].target)).mean()
    assert trained.history["test/mae"][-1, 0] < 0.95 * constant
    grads = jax.grad(lambda p: (predict(MODEL, {**variables, "params": p}, blank) ** 2).sum())(variables["params"])
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))


def test_without_training_a_head_answers_in_units_of_the_deviation():
    batch = scores(4, 0)
    variables = MODEL.init(jax.random.key(0), batch.streams)
    assert jax.tree.map(float, variables["target"]) == {"head": {"mean": 0.0, "deviation": 1.0}}
    alone = MODEL.apply({"params": variables["params"]}, batch.streams)  # parameters of elsewhere
    np.testing.assert_array_equal(alone, MODEL.apply(variables, batch.streams))
    moved = {**variables, "target": {"head": {"mean": jnp.float32(5), "deviation": jnp.float32(2)}}}
    np.testing.assert_allclose(MODEL.apply(moved, batch.streams), 5 + 2 * alone, rtol=1e-6)


def test_the_streaming_feed_does_the_same(tmp_path):
    data = splits(mean=4096.0, deviation=64.0)
    train = dataclasses.replace(TRAIN, batch_size=8)
    found = fit_streaming(MODEL, Regression(), train, data, workdir=tmp_path, mesh=one_device())
    head = found.variables["target"]["head"]
    target = data["train"].target.astype(np.float64)
    np.testing.assert_allclose([head["mean"], head["deviation"]], [target.mean(), target.std()], rtol=1e-5)
    constant = np.abs(data["test"].target - np.median(target)).mean()
    assert found.metrics["test/mae"] < 1.5 * constant
    again = evaluate_streaming(MODEL, Regression(), train, data["test"], workdir=tmp_path, mesh=one_device())
    for name, value in again.items():  # the loss too: its units are those of the target, not of the split
        assert value == pytest.approx(found.metrics[f"test/{name}"], rel=1e-5)
