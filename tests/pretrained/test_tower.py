"""Weights of a tower at a path of a model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import FeatureMLP
from mmjax.errors import UsageError
from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.pretrained import Tower, put_weights
from mmjax.stream import Stream

ENCODER = FeatureMLP(dim=4, hidden_dims=(3,))
STREAMS = {name: Stream.of(jnp.ones((2, 1, 5))) for name in "ab"}


@pytest.fixture(scope="module")
def tower():
    return Tower(ENCODER, jax.tree.map(np.asarray, ENCODER.init(jax.random.key(9), STREAMS["a"])), "digest")


def test_weights_stand_in_the_model_and_nothing_else_changes(tower):
    model = Multimodal({"a": ENCODER, "b": ENCODER}, Concat(dim=4), ClassificationHead(3))
    variables = jax.jit(model.init)(jax.random.key(0), STREAMS)
    put = put_weights(variables, {"encoders_a": tower})
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
    with pytest.raises(UsageError, match=r"no variables at 'params/sound': at 'sound' there are \['image'\]"):
        put_weights(variables, {"sound": tower})
    wrong = (
        r"\['dense_0'\]\['bias'\] is nothing in the model, \[3\] in the weights; .*\['out'\]\['kernel'\] is \[2, 2\]"
    )
    with pytest.raises(UsageError, match=wrong):
        put_weights(variables, {"image": tower})
