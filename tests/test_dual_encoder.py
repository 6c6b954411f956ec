"""The shared space: unit vectors, one for each item asked for, a capped scale, and nothing from what is not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.dual_encoder import _capped
from mmjax.encoders import BagOfWords, FeatureMLP
from mmjax.models import DualEncoder
from mmjax.stream import Stream

RNG = np.random.default_rng(0)
STREAMS = {
    "image": Stream(RNG.normal(size=(4, 2, 6)).astype(np.float32), np.asarray([[1, 1], [1, 0], [0, 1], [0, 0]], bool)),
    "sound": Stream(RNG.normal(size=(4, 1, 3)).astype(np.float32), np.asarray([[1], [0], [1], [1]], bool)),
    "text": Stream(RNG.integers(0, 9, (4, 3, 5)).astype(np.int32), RNG.uniform(size=(4, 3, 5)) < 0.6),
}
STREAMS["text"].mask[1, 1], STREAMS["text"].mask[3] = False, False
ENCODERS = {"image": FeatureMLP(8, hidden_dims=(8,)), "text": BagOfWords(8, vocab_size=9)}


def model(**fields):
    return DualEncoder(ENCODERS, dim=5, several=("text",), **fields)


def test_embeddings_are_unit_vectors_where_something_is():
    outputs, _ = model().init_with_output(jax.random.key(0), STREAMS)
    assert {name: s.values.shape for name, s in outputs.embeddings.items()} == {
        "image": (4, 1, 5), "sound": (4, 1, 5), "text": (4, 3, 5)
    }  # fmt: skip
    for name, stream in outputs.embeddings.items():
        there = STREAMS[name].mask.any(-1) if name == "text" else STREAMS[name].mask.any(-1)[:, None]
        np.testing.assert_array_equal(stream.mask, there)
        np.testing.assert_allclose(np.linalg.norm(stream.values, axis=-1), there, atol=1e-6)
    assert outputs.scale == pytest.approx(1 / 0.07) and outputs.bias == 0 and not outputs.train


def test_what_is_not_there_reaches_nothing():
    module = model(hidden_dims=(7,))
    variables = module.init(jax.random.key(0), STREAMS)
    seed = {name: RNG.normal(size=(4, 3, 5)) for name in STREAMS}

    def value(params, fill):
        streams = {}
        for name, stream in STREAMS.items():
            mask = stream.mask.reshape(*stream.mask.shape, *(1,) * (stream.values.ndim - stream.mask.ndim))
            bad = fill if name != "text" else 7
            streams[name] = Stream(jnp.where(mask, stream.values, bad), jnp.asarray(stream.mask))
        found = module.apply({"params": params}, streams).embeddings
        return sum((found[name].values * seed[name][:, : found[name].values.shape[1]]).sum() for name in found)

    clean = jax.value_and_grad(value)(variables["params"], 0.0)
    for bad in (1e3, np.nan):
        jax.tree.map(np.testing.assert_array_equal, jax.value_and_grad(value)(variables["params"], bad), clean)
    moved = [name for name, g in clean[1].items() if any(np.abs(x).max() > 0 for x in jax.tree.leaves(g))]
    assert {"project_image", "project_text", "project_sound"} <= set(moved)


def test_the_scale_is_capped_and_comes_back():
    outputs, variables = model(scale=10.0, bias=-10.0).init_with_output(jax.random.key(0), STREAMS)
    assert outputs.scale == pytest.approx(10) and outputs.bias == -10
    params = {**variables["params"], "log_scale": jnp.float32(9.0)}
    assert model().apply({"params": params}, STREAMS).scale == pytest.approx(100)
    assert model(max_scale=None).apply({"params": params}, STREAMS).scale == pytest.approx(np.exp(9), rel=1e-5)
    gradient = jax.grad(lambda x, sign: sign * _capped(x, 2.0))
    assert [gradient(1.0, 1.0), gradient(1.0, -1.0), gradient(3.0, 1.0), gradient(3.0, -1.0)] == [1, -1, 1, 0]
    with pytest.raises(ValueError, match="scale=200"):
        model(scale=200.0).init(jax.random.key(0), STREAMS)


def test_a_name_without_a_stream_is_refused():
    with pytest.raises(ValueError, match="no stream 'video'"):
        DualEncoder(ENCODERS, dim=5, several=("video",)).init(jax.random.key(0), STREAMS)


def test_without_a_width_of_its_own_the_space_is_that_of_the_encoders():
    streams = {"image": Stream.of(jnp.asarray([[[3.0, 4.0]]])), "text": Stream.of(jnp.asarray([[[0.0, 2.0]]]))}
    model = DualEncoder({}, dim=None)
    outputs, variables = model.init_with_output(jax.random.key(0), streams)
    assert list(variables["params"]) == ["log_scale"]
    np.testing.assert_allclose(outputs.embeddings["image"].values, [[[0.6, 0.8]]], rtol=1e-6)
    np.testing.assert_allclose(outputs.embeddings["text"].values, [[[0, 1]]], atol=1e-6)
