"""Weights of a tower at a path of a model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import FeatureMLP, LeNet
from mmjax.encoders.stages import count_stages
from mmjax.errors import UsageError
from mmjax.experiment.settings import describe, digest
from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.pretrained import Tower, put_weights
from mmjax.resident import fit
from mmjax.stream import Stream
from mmjax.training import Train
from tests.draw import quick_jit
from tests.toy import CLASSES, SPLITS, TASK

ENCODER = FeatureMLP(dim=4, hidden_dims=(3,))
STREAMS = {name: Stream.of(jnp.ones((2, 1, 5))) for name in "ab"}


@pytest.fixture(scope="module")
def tower():
    return Tower(ENCODER, jax.tree.map(np.asarray, ENCODER.init(jax.random.key(9), STREAMS["a"])), "digest")


def test_weights_stand_in_the_model_and_nothing_else_changes(tower):
    model = Multimodal({"a": ENCODER, "b": ENCODER.clone()}, Concat(dim=4), ClassificationHead(3))
    variables = quick_jit(model.init)(jax.random.key(0), STREAMS)
    put = put_weights(variables, {"encoders/a": tower})
    assert jax.tree.structure(put) == jax.tree.structure(variables)
    for name, tree in put["params"].items():
        want = tower.variables["params"] if name == "encoders_a" else variables["params"][name]
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), tree, want)), name
    encoded = model.apply(put, STREAMS, method="encode")
    np.testing.assert_allclose(encoded["a"].values, tower(STREAMS["a"]).values, rtol=1e-6)


def test_seeds_get_the_same_weights(tower):
    variables = jax.vmap(lambda key: nn.Sequential([ENCODER]).init(key, STREAMS["a"]))(
        jax.random.split(jax.random.key(0))
    )
    put = put_weights(variables, {"layers_0": tower})
    shapes = jax.tree.map(jnp.shape, put)
    assert shapes == jax.tree.map(jnp.shape, variables)
    first, second = (jax.tree.map(lambda x, seed=seed: x[seed], put) for seed in (0, 1))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), first, second))


def test_what_does_not_fit_is_named(tower):
    variables = {"params": {"image": {"out": {"kernel": jnp.ones((2, 2))}}}}
    with pytest.raises(UsageError, match=r"no variables at params/sound; there are \['image'\]"):
        put_weights(variables, {"sound": tower})
    wrong = (
        r"\['dense_0'\]\['bias'\] is nothing in the model, \[3\] in the weights; .*\['out'\]\['kernel'\] is \[2, 2\]"
    )
    with pytest.raises(UsageError, match=wrong):
        put_weights(variables, {"image": tower})


@pytest.mark.parametrize("frozen", [True, False])
def test_a_model_begins_with_the_published_weights(tower, frozen):
    model = Multimodal({"a": tower.encoder(frozen=frozen), "b": ENCODER.clone()}, Concat(dim=4), ClassificationHead(3))
    variables = quick_jit(model.init)(jax.random.key(0), STREAMS)
    plain = Multimodal({"a": ENCODER, "b": ENCODER.clone()}, Concat(dim=4), ClassificationHead(3))
    drawn = quick_jit(plain.init)(jax.random.key(0), STREAMS)
    place = variables["frozen" if frozen else "params"]
    jax.tree.map(np.testing.assert_array_equal, place["encoders_a"], tower.variables["params"])
    assert ("encoders_a" in variables["params"]) != frozen
    assert jax.tree.structure(variables["params"]["encoders_b"]) == jax.tree.structure(drawn["params"]["encoders_b"])
    outputs = model.apply(variables, STREAMS)
    rest = {name: tree for name, tree in variables["params"].items() if name != "encoders_a"}
    whole = {"params": {**rest, "encoders_a": tower.variables["params"]}}
    np.testing.assert_array_equal(outputs, plain.apply(whole, STREAMS))
    again = put_weights(variables, {"encoders/a": tower})
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_a_table_can_describe_and_stage_it(tower):
    described = digest(describe(tower.encoder()))
    other = jax.tree.map(lambda x: x + 1, tower.variables)
    assert digest(describe(Tower(ENCODER, tower.variables, "digest").encoder())) == described
    assert digest(describe(Tower(ENCODER, other, "digest").encoder())) != described
    images = Stream.of(jnp.ones((1, 1, 8, 8, 1)))
    net = LeNet(dim=3, channels=(2,), hidden_dims=())
    staged = Tower(net, quick_jit(net.init)(jax.random.key(0), images), "").encoder()
    assert count_stages(staged) == 2
    middle = staged.apply(variables := quick_jit(staged.init)(jax.random.key(1), images), images, stages=slice(0, 1))
    last = staged.apply(variables, middle, stages=slice(1, 2))
    np.testing.assert_allclose(last.values, staged.apply(variables, images).values, rtol=1e-6)


def test_all_seeds_of_a_fit_keep_the_frozen_weights():
    encoder = FeatureMLP(dim=4, hidden_dims=(3,))
    weights = encoder.init(jax.random.key(9), SPLITS["train"].streams["a"])
    tower = Tower(encoder, jax.tree.map(np.asarray, weights), "digest")
    model = Multimodal({"a": tower.encoder()}, Concat(dim=4), ClassificationHead(CLASSES))
    found = fit(model, TASK, Train(epochs=2, batch_size=20, learning_rate=0.1), SPLITS, (0, 1), mapped="vmap")
    kept, learned = found.variables["frozen"]["encoders_a"], found.variables["params"]
    assert set(learned) == {"fusion", "head"}
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, [y, y]), kept, tower.variables["params"])
    assert found.history["train/loss"][1].max() < found.history["train/loss"][0].min()
