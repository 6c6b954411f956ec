"""Frozen parts: no gradient is computed and no bit changes; learning rates of parts."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.encoders import FeatureMLP
from mmjax.errors import UsageError
from mmjax.freezing import Frozen, by_path
from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.paths import find_part, longest_match
from mmjax.search import own_weight_decay
from mmjax.stream import Batch, Stream
from mmjax.tasks import Classification
from mmjax.training import Train, init_state, make_optimizer, make_train_step

DECAY = functools.partial(optax.adamw, weight_decay=0.5)


def batch_of(rows=6):
    draw = np.random.default_rng(0)
    streams = {n: Stream.of(jnp.asarray(draw.normal(size=(rows, 2, 5)), jnp.float32)) for n in ("image", "text")}
    number = jnp.arange(rows)
    return Batch(streams, number % 3, jnp.ones(rows), number, number)


def model_of(image):
    return Multimodal({"image": image, "text": FeatureMLP(4, (3,))}, Concat(dim=4), ClassificationHead(3))


def train(model, optimizer, steps=3, **fields):
    settings = Train(optimizer=optimizer, learning_rate=0.05, **fields)
    tx, batch, task = make_optimizer(settings, steps), batch_of(), Classification(num_classes=3)
    start = init_state(model, tx, batch.streams, jax.random.key(0), task=task)
    step = jax.jit(make_train_step(model, task, tx))
    state = start
    for _ in range(steps):
        state, _ = step(state, batch, jax.random.key(1))
    assert state.skipped == 0
    return start, state, tx


def changed(before, after):
    """Names of the parts in which a bit changed."""
    same = jax.tree.map(lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), before, after)
    return {name for name, tree in same.items() if not all(jax.tree.leaves(tree))}


def test_what_is_frozen_is_no_parameter_and_keeps_every_bit():
    start, end, tx = train(model_of(Frozen(FeatureMLP(4, (3,)))), DECAY, clip_norm=1.0)
    assert set(start.params) == {"encoders_text", "fusion", "head"} and set(start.collections["frozen"]) == {
        "encoders_image"
    }
    assert changed(start.params, end.params) == set(start.params)
    assert changed(start.collections["frozen"], end.collections["frozen"]) == set()
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tx.init(start.params))]
    assert len(shapes) < 3 * len(jax.tree.leaves(start.variables))


def products(model, variables, gradient, streams=None):
    """How many matrix products a forward pass, or one with its gradient, computes."""

    def loss(params):
        return model.apply({**variables, "params": params}, streams or batch_of().streams, train=True).sum()

    program = jax.make_jaxpr(jax.grad(loss) if gradient else loss)(variables["params"])
    return str(program).count("dot_general")


def test_there_is_no_backward_pass_through_what_is_frozen():
    layers = 3
    counts = []
    for encoder in (Frozen(FeatureMLP(4, (3,) * (layers - 1))), FeatureMLP(4, (3,) * (layers - 1))):
        model = model_of(encoder)
        variables = model.init(jax.random.key(0), batch_of().streams)
        forward, both = (products(model, variables, gradient) for gradient in (False, True))
        counts.append((forward, both - forward))
    (forward, without), (same, whole) = counts
    assert forward == same > 0
    # a product for the kernel of each layer, and for the input of each but the first, which is data
    assert whole - without >= 2 * layers - 1
    # what is left: kernels of the text encoder (2), fusion and head, and inputs between them
    alone = Multimodal({"text": FeatureMLP(4, (3,))}, Concat(dim=4), ClassificationHead(3))
    streams = {"text": batch_of().streams["text"], "image": Stream.of(jnp.ones((6, 1, 4)))}
    variables = alone.init(jax.random.key(0), streams)
    forward, both = (products(alone, variables, gradient, streams) for gradient in (False, True))
    assert without == both - forward  # as many as where the encoder's output is data


def test_gradients_by_inputs_of_a_frozen_part_are_as_ever():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
    dense = nn.Dense(4)
    variables = Frozen(dense).init(jax.random.key(0), x)
    ours = jax.grad(lambda x: (Frozen(dense).apply(variables, x) ** 2).sum())(x)
    theirs = jax.grad(lambda x: (dense.apply({"params": variables["frozen"]}, x) ** 2).sum())(x)
    np.testing.assert_array_equal(ours, theirs)
    assert (ours != 0).all()


def test_a_frozen_part_has_no_dropout():
    module = Frozen(FeatureMLP(4, (50,), dropout_rate=0.5))
    stream = batch_of().streams["image"]
    variables = module.init(jax.random.key(0), stream)
    np.testing.assert_array_equal(
        module.apply(variables, stream, train=True).values, module.apply(variables, stream).values
    )


@pytest.mark.parametrize("optimizer", [DECAY, functools.partial(optax.lamb, weight_decay=0.5)])
def test_a_factor_of_zero_changes_no_bit(optimizer):
    model = model_of(FeatureMLP(4, (3,)))
    start, end, tx = train(model, by_path({"encoders/image": 0.0, "head/mlp/dense_0/bias": 0}, optimizer))
    assert changed(start.params, end.params) == {"encoders_text", "fusion", "head"}
    assert changed(start.params["head"]["mlp"]["dense_0"], end.params["head"]["mlp"]["dense_0"]) == {"kernel"}
    frozen = len(jax.tree.leaves(start.params["encoders_image"])) + 1
    moments = 2 * (len(jax.tree.leaves(start.params)) - frozen)
    assert sum(jnp.ndim(leaf) > 0 for leaf in jax.tree.leaves(tx.init(start.params))) == moments
    tx = by_path({"a": 0.0}, optax.sgd)(0.1)
    zero = {"a": -jnp.zeros(2)}
    updates, _ = tx.update({"a": jnp.ones(2)}, tx.init(zero), zero)
    assert np.signbit(optax.apply_updates(zero, updates)["a"]).all()  # also not the sign of 0


def test_a_factor_is_a_learning_rate():
    params = {"a": {"x": jnp.ones(3), "y": jnp.ones(2)}, "b": jnp.ones(2)}
    gradients = jax.tree.map(lambda x: x * jnp.arange(1.0, 1 + x.size), params)

    def after(optimizer, rate, steps=4):
        tx = optimizer(rate)
        state, now = tx.init(params), params
        for _ in range(steps):
            updates, state = tx.update(gradients, state, now)
            now = optax.apply_updates(now, updates)
        return now

    ours = after(by_path({"a": 0.1, "a/y": 3.0}, DECAY), 0.02)
    for part, factor in ((("a", "x"), 0.1), (("a", "y"), 3.0), (("b",), 1.0)):
        theirs = after(DECAY, 0.02 * factor)
        for key in part:
            theirs = theirs[key]
        mine = functools.reduce(lambda tree, key: tree[key], part, ours)
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    everything = after(by_path({"": 0.0, "b": 1.0}, DECAY), 0.02)
    assert changed(params, everything) == {"b"}


def test_a_search_finds_and_sets_the_weight_decay():
    optimizer = by_path({"a": 0.5}, DECAY)
    assert own_weight_decay(optimizer) == 0.5 and own_weight_decay(by_path({}, optax.sgd)) is None
    params = {"a": jnp.ones(()), "b": jnp.ones(())}
    tx = functools.partial(optimizer, weight_decay=0.0)(0.1)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert updates == {"a": 0.0, "b": 0.0}


def test_paths_and_factors_that_are_wrong_are_named():
    params = {"encoders_image": {"out": jnp.ones(1)}, "head": jnp.ones(1)}
    with pytest.raises(UsageError, match="no parameters at 'encoders/sound'; there are encoders_image/out, head"):
        by_path({"encoders/sound": 0.0}, optax.sgd)(0.1).init(params)
    with pytest.raises(UsageError, match="'head' is multiplied by a number from 0 up, got -1"):
        by_path({"head": -1})
    assert find_part(params, "encoders/im") is None and find_part(params, "encoders_image/out") == (
        "encoders_image",
        "out",
    )
    assert longest_match(params, {"encoders/image": 2}, 0) == {"encoders_image": {"out": 2}, "head": 0}
