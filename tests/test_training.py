"""The step: what it must ignore, what it adds up, what it refuses to learn from."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.errors import UsageError
from mmjax.metrics import compute
from mmjax.training import (
    Train,
    compile_in_haste,
    init_state,
    make_optimizer,
    make_train_step,
    predict,
    warmup_cosine,
)
from tests.draw import quick_jit
from tests.toy import CLASSES, DROPPED, MODEL, TASK, make_batch

# The momentum after one step is the gradient.
TX = optax.with_extra_args_support(optax.sgd(0.1, momentum=0.9))
KEY = jax.random.key(0)
BATCH = jax.tree.map(jnp.asarray, make_batch(8))


@functools.cache
def begin(model=MODEL, tx=TX):
    return quick_jit(lambda key: init_state(model, tx, BATCH.streams, key))(KEY)


@functools.cache
def compiled(model=MODEL, tx=TX):
    return quick_jit(make_train_step(model, TASK, tx))


def run(batch, state=None, model=MODEL, tx=TX):
    """State after one step, and metrics."""
    state, states = compiled(model, tx)(begin(model, tx) if state is None else state, batch, KEY)
    return state, compute(states)


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class TestRowsOfWeightZero:
    weight = jnp.array([1.0, 1, 0, 1, 0, 0, 1, 1])

    def poison(self, batch, value):
        rows = batch.weight <= 0
        streams = {
            name: stream.replace(values=jnp.where(rows[:, None, None], value, stream.values))
            for name, stream in batch.streams.items()
        }
        return batch.replace(streams=streams, target=jnp.where(rows, 10**6, batch.target))

    @pytest.mark.parametrize("value", [1e3, np.nan])
    def test_what_stands_in_them_changes_no_bit(self, value):
        batch = BATCH.replace(weight=self.weight)
        expected = run(batch)
        assert_same(run(self.poison(batch, value)), expected)
        assert int(expected[0].skipped) == 0

    def test_as_many_as_you_like_change_nothing_beyond_rounding(self):
        keep = self.weight > 0
        few = jax.tree.map(lambda x: x[keep], BATCH)
        assert_close(run(BATCH.replace(weight=self.weight)), run(few))

    def test_a_batch_of_nothing_else_changes_no_parameter(self):
        tx = optax.with_extra_args_support(optax.sgd(0.1))
        state, _ = run(BATCH.replace(weight=jnp.zeros(8)), tx=tx)
        assert_same(state.params, begin(tx=tx).params)

    def test_prediction_does_not_see_them(self):
        batch = BATCH.replace(weight=self.weight)
        variables = begin().variables
        assert_same(predict(MODEL, variables, batch), predict(MODEL, variables, self.poison(batch, np.nan)))


def test_weights_are_a_weighted_mean():
    doubled = jax.tree.map(lambda x: jnp.concatenate([x, x[:1]]), BATCH)
    state, _ = run(BATCH.replace(weight=jnp.ones(8).at[0].set(2.0)))
    assert_close(state.params, run(doubled)[0].params)


def test_clipping_bounds_the_gradient_before_the_optimiser():
    tx = make_optimizer(Train(learning_rate=0.5, optimizer=optax.sgd, clip_norm=1.0), 1)
    updates, _ = tx.update({"w": jnp.array([3.0, 4.0])}, tx.init({"w": jnp.zeros(2)}), outputs=None, batch=None)
    np.testing.assert_allclose(updates["w"], [-0.3, -0.4], rtol=1e-6)


def test_a_step_that_is_not_finite_changes_only_its_count():
    streams = {**BATCH.streams, "a": BATCH.streams["a"].replace(values=BATCH.streams["a"].values * jnp.inf)}
    state, _ = run(BATCH.replace(streams=streams))
    assert (int(state.step), int(state.skipped)) == (1, 1)
    assert_same((state.params, state.opt_state), (begin().params, begin().opt_state))
    assert int(run(BATCH, state)[0].skipped) == 1


def test_dropout_follows_key_and_step():
    start = begin(DROPPED)
    again, later = run(BATCH, start, DROPPED)[0], run(BATCH, start.replace(step=jnp.int32(1)), DROPPED)[0]
    assert_same(run(BATCH, start, DROPPED)[0], again)
    kernels = [s.params["head"]["mlp"]["dense_0"]["kernel"] for s in (again, later)]
    assert not np.array_equal(*kernels)


def test_an_optimiser_may_ask_for_outputs_and_batch():
    def update(grads, state, params=None, *, outputs, batch, **extra):
        return jax.tree.map(jnp.zeros_like, grads), {"logits": outputs, "weight": batch.weight}

    shapes = {"logits": jnp.zeros((8, CLASSES)), "weight": jnp.zeros(8)}
    tx = optax.GradientTransformationExtraArgs(lambda params: shapes, update)
    state, _ = run(BATCH, tx=tx)
    np.testing.assert_array_equal(state.opt_state["weight"], BATCH.weight)
    assert_close(state.opt_state["logits"], predict(MODEL, begin().variables, BATCH))


def test_initialisation_sees_every_modality():
    class Asks(nn.Module):
        @nn.compact
        def __call__(self, streams, *, train=False):
            self.variable("facts", "present", lambda: jnp.stack([s.present for _, s in sorted(streams.items())]))
            self.variable("facts", "values", lambda: streams["a"].values)
            return self.param("w", nn.initializers.zeros, ())

    rows = jnp.arange(8) < 3
    streams = {**BATCH.streams, "a": BATCH.streams["a"].absent(rows)}
    streams["a"] = streams["a"].replace(values=jnp.where(rows[:, None, None], jnp.nan, streams["a"].values))
    facts = init_state(Asks(), TX, streams, KEY).collections["facts"]
    assert facts["present"].all() and np.isfinite(facts["values"]).all()


def test_an_initialisation_compiled_in_haste_has_the_same_bits():
    def draw(key):
        wide, deep = jax.random.split(key)
        return nn.initializers.lecun_normal()(wide, (33, 17)), nn.initializers.xavier_uniform()(deep, (17, 5))

    options = compile_in_haste()
    assert options.pop("xla_cpu_use_fusion_emitters") is False  # an XLA without it needs none of this
    slow = jax.jit(draw, compiler_options=options)(KEY)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(draw, compiler_options=compile_in_haste())(KEY), slow)
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        jax.jit(draw, compiler_options={"xla_no_such_choice": False})(KEY)


def test_settings():
    schedule = warmup_cosine(0.1, 100)
    np.testing.assert_allclose(
        [schedule(0), schedule(5), schedule(10), schedule(55), schedule(100)], [0, 0.05, 0.1, 0.05, 0], atol=1e-7
    )
    for name in ("epochs", "batch_size", "accumulate"):
        with pytest.raises(UsageError, match=rf"train.{name} must be at least 1, got 0"):
            Train(**{name: 0})
