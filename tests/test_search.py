"""A trial gives what the same setting gives when it is written into model and optimiser; all trials share a program."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import search
from mmjax.encoders import Recurrent
from mmjax.errors import UsageError
from mmjax.resident import fit, prepare
from mmjax.search import Trial, draw_trials, dropout_rate, own_weight_decay, uses_dropout
from mmjax.training import Train, make_optimizer, warmup_cosine
from tests.compiled import cached_programs
from tests.toy import DROPPED, MODEL, SPLITS, TASK

NAN = float("nan")
TRAIN = Train(epochs=3, batch_size=16, learning_rate=3e-2, select="accuracy")


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    with cached_programs(tmp_path_factory.mktemp("compiled")):
        yield


def test_the_first_trial_is_the_given_setting_and_more_trials_keep_the_ones_before():
    few, many = draw_trials(4), draw_trials(9)
    assert few.learning_rate[0] == 1 and np.isnan([few.weight_decay[0], few.dropout_rate[0]]).all()
    for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(many)):
        np.testing.assert_array_equal(a, b[:4])
    assert ((many.learning_rate >= 0.1) & (many.learning_rate <= 10)).all()
    assert set(many.weight_decay[1:].tolist()) <= {np.float32(x) for x in search.WEIGHT_DECAYS}
    assert set(many.dropout_rate[1:].tolist()) <= {np.float32(x) for x in search.DROPOUT_RATES}
    # the Halton sequence in bases 2, 3 and 5, by hand: (1/2, 1/3, 1/5), (1/4, 2/3, 2/5), (3/4, 1/9, 3/5)
    np.testing.assert_allclose(few.learning_rate[1:], [1, 10**-0.5, 10**0.5], rtol=1e-6)
    np.testing.assert_allclose(few.weight_decay[1:], [1e-4, 1e-2, 0], rtol=1e-6)
    np.testing.assert_allclose(few.dropout_rate[1:], [0.1, 0.2, 0.3], rtol=1e-6)
    everything = draw_trials(200)
    assert np.unique(everything.weight_decay[1:]).size == 5 and np.unique(everything.dropout_rate[1:]).size == 6
    with pytest.raises(UsageError, match="at least 1 trial, got 0"):
        draw_trials(0)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_traced_dropout_rate_draws_as_a_written_one(rate):
    x, rngs = jnp.ones((4, 5)), {"dropout": jax.random.key(1)}

    def dropped(given, own):
        with dropout_rate(given):
            return nn.Dropout(own, broadcast_dims=(1,), deterministic=False).apply({}, x, rngs=rngs)

    expected = nn.Dropout(rate, broadcast_dims=(1,), deterministic=False).apply({}, x, rngs=rngs)
    for given, own in ((rate, 0.5), (NAN, rate)):
        result, grad = jax.jit(jax.value_and_grad(lambda g, own=own: dropped(g, own).sum()))(jnp.float32(given))
        np.testing.assert_array_equal(jax.jit(lambda g, own=own: dropped(g, own))(jnp.float32(given)), expected)
        assert jnp.isfinite(result) and jnp.isfinite(grad)
    with dropout_rate(jnp.float32(0.9)):  # outside training it changes nothing
        np.testing.assert_array_equal(nn.Dropout(0.5, deterministic=True).apply({}, x), x)
    with dropout_rate(jnp.float32(0.5)):
        assert nn.Dropout(0.5, deterministic=False).apply({}, x.astype(jnp.bfloat16), rngs=rngs).dtype == jnp.bfloat16


def test_what_has_a_weight_decay():
    assert own_weight_decay(optax.adamw) == 1e-4
    assert own_weight_decay(functools.partial(optax.adamw, weight_decay=0.5)) == 0.5
    assert own_weight_decay(optax.sgd) is None and own_weight_decay(optax.adam) is None
    assert own_weight_decay(functools.partial(optax.adamw, weight_decay=optax.constant_schedule(0.1))) is None


@pytest.mark.parametrize(
    ("given", "trial", "expected"),
    [
        (
            Train(),
            Trial(3.0, 0.1, NAN),
            Train(learning_rate=3e-3, optimizer=functools.partial(optax.adamw, weight_decay=0.1)),
        ),
        (Train(optimizer=optax.sgd), Trial(0.1, 0.1, NAN), Train(optimizer=optax.sgd, learning_rate=1e-4)),
        (Train(schedule=warmup_cosine), Trial(0.5, NAN, NAN), Train(schedule=warmup_cosine, learning_rate=5e-4)),
        (Train(clip_norm=0.1), Trial(1.0, NAN, NAN), Train(clip_norm=0.1)),
    ],
)
def test_a_trial_updates_as_the_setting_written_out(given, trial, expected):
    params, grads = {"w": jnp.arange(1.0, 4.0)}, {"w": jnp.array([1.0, -2.0, 3.0])}

    @jax.jit
    def twice(trial):
        tx = make_optimizer(given, 10, trial)
        return _updates(tx, tx.init(params), params, grads)

    tx = make_optimizer(expected, 10)
    np.testing.assert_allclose(
        twice(jax.tree.map(jnp.float32, trial)), _updates(tx, tx.init(params), params, grads), rtol=1e-5, atol=1e-9
    )


def _updates(tx, state, params, grads):
    found = []
    for _ in range(3):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        found.append(updates["w"])
    return jnp.stack(found)


def test_trials_of_all_seeds_run_in_one_program_and_each_is_its_own_setting():
    searched = prepare(DROPPED, TASK, TRAIN, SPLITS, (3, 5), search=True)
    assert searched.searched
    found = searched.run(seeds=(3, 3), trials=Trial(*(np.float32(x) for x in ([1, 0.2], [NAN, 0.1], [NAN, 0.5]))))
    own = fit(DROPPED, TASK, TRAIN, SPLITS, (3,))
    _same(found, 0, own)
    other = dataclasses.replace(TRAIN, learning_rate=6e-3, optimizer=functools.partial(optax.adamw, weight_decay=0.1))
    _same(found, 1, fit(_with_rate(DROPPED, 0.5), TASK, other, SPLITS, (3,)))
    assert np.abs(found.history["train/loss"][:, 0] - found.history["train/loss"][:, 1]).max() > 0.01
    again = searched.run()  # nothing said: the given setting of its own seeds
    np.testing.assert_array_equal(again.history["train/loss"][:, 0], found.history["train/loss"][:, 0])


def _same(found, place, alone):
    np.testing.assert_array_equal(found.epoch[place], alone.epoch[0])
    for name, values in alone.history.items():
        np.testing.assert_allclose(found.history[name][:, place], values[:, 0], rtol=2e-3, atol=2e-4, err_msg=name)


def _with_rate(model, rate):
    """The model with every dropout of its modules at one rate."""
    change = {
        field.name: _with_rate(value, rate) if isinstance(value, nn.Module) else value
        for field in dataclasses.fields(model)
        if field.init and field.name not in ("parent", "name")
        for value in [getattr(model, field.name)]
    }
    if "encoders" in change:
        change["encoders"] = {name: _with_rate(encoder, rate) for name, encoder in change["encoders"].items()}
    return type(model)(**change | ({"dropout_rate": rate} if "dropout_rate" in change else {}))


def test_a_trial_that_diverges_is_counted_and_stops_no_other():
    searched = prepare(MODEL, TASK, TRAIN, SPLITS, (3, 5), search=True)
    trials = Trial(*(np.float32(x) for x in ([1, 1e30], [NAN, NAN], [NAN, NAN])))
    found = searched.run(trials=trials, strict=False)
    assert found.diverged.tolist() == [False, True] and np.isfinite(found.history["validation/loss"][:, 0]).all()
    with pytest.raises(UsageError, match="not finite in epoch 1 of seed 9"):
        searched.run(seeds=(8, 9), trials=trials)


def test_whether_a_model_drops_anything():
    streams = jax.tree.map(lambda x: x[:2], SPLITS["train"].streams)

    def train(model):
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        return lambda: model.init(rngs, streams, train=True)

    assert uses_dropout(train(DROPPED)) and not uses_dropout(train(_Linear()))


class _Linear(nn.Module):
    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        return nn.Dense(2)(streams["a"].values[:, 0])


def test_dropout_inside_a_recurrence_is_reached():
    streams = {
        name: s.replace(values=jnp.ones((2, 3, 4)), mask=jnp.ones((2, 3), bool))
        for name, s in list(SPLITS["train"].streams.items())[:1]
    }
    name = next(iter(streams))
    model = Recurrent(dim=4, bidirectional=True, dropout_rate=0.1)
    variables = model.init(jax.random.key(0), streams[name])

    @jax.jit
    def run(rate):
        with dropout_rate(rate):
            return model.apply(variables, streams[name], train=True, rngs={"dropout": jax.random.key(2)}).values

    expected = model.clone(dropout_rate=0.6).apply(
        variables, streams[name], train=True, rngs={"dropout": jax.random.key(2)}
    )
    np.testing.assert_allclose(run(jnp.float32(0.6)), expected.values, rtol=1e-5, atol=1e-6)
