"""Adapters by what they are: linear maps, sets of queries that read sets of items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import LeNet
from mmjax.pretrained import Adapted, InputDropout, Projector, QFormer, Resampler
from mmjax.stream import Stream
from tests.draw import draw_params, quick_jit, run_compiled

DIM, WIDTH, LENGTH = 8, 5, 6
ADAPTERS = {
    "linear": Projector(DIM),
    "mlp": Projector(DIM, (7,), normalise=True),
    "resampler": Resampler(DIM, num_latents=3, num_heads=2, mlp_dim=6),
    "qformer": QFormer(DIM, num_queries=3, num_layers=3, num_heads=2, mlp_dim=6),
}
POOLING = ("resampler", "qformer")


@pytest.fixture(scope="module")
def stream():
    draw = np.random.default_rng(0)
    mask = jnp.array([[1] * LENGTH, [0, 1, 1, 0, 1, 0], [0] * LENGTH], bool)
    return Stream(jnp.asarray(draw.normal(size=(3, LENGTH, WIDTH)), jnp.float32), mask)


@pytest.fixture(scope="module", params=ADAPTERS)
def adapter(request, stream):
    module = ADAPTERS[request.param]
    return request.param, module, draw_params(module, stream)


def test_padding_reaches_nothing(adapter, stream):
    name, module, params = adapter

    @quick_jit
    def run(values):
        def loss(params, values):
            out = module.apply({"params": params}, stream.replace(values=values), train=True)
            return (out.values**2).sum(), out

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, values)

    hidden = ~stream.mask[..., None]
    clean, poisoned = (run(jnp.where(hidden, fill, stream.values)) for fill in (1e3, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, poisoned)
    (_, out), (gradients, by_values) = clean
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    assert not jnp.where(hidden, by_values, 0).any() and by_values[:2].any()
    assert not out.values[2].any() and not out.mask[2].any()
    assert out.values.shape == (3, 3 if name in POOLING else LENGTH, DIM)


def test_holes_and_order(adapter, stream):
    """An item is what it is wherever it stands; what is not there might as well be cut out."""
    name, module, params = adapter
    whole = run_compiled(module, params, stream)[0]
    kept = np.array([4, 1, 2])  # the real ones of the second example, in another order
    cut = run_compiled(module, params, Stream.of(stream.values[1:2, kept]))[0]
    other = whole.values[1] if name in POOLING else whole.values[1, kept]
    np.testing.assert_allclose(cut.values[0], other, atol=2e-5)


def test_a_linear_projector_is_a_matrix(stream):
    module = ADAPTERS["linear"]
    params = draw_params(module, stream)
    ours = run_compiled(module, params, stream)[0].values
    layer = params["mlp"]["dense_0"]
    theirs = np.where(stream.mask[..., None], stream.values @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def normed(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def test_input_dropout_normalises_and_drops_numbers_in_training_only(stream):
    values = jnp.asarray(np.random.default_rng(0).normal(3, 2, (3, LENGTH, 400)), jnp.float32)
    module, wide, real = InputDropout(0.75), stream.replace(values=values), np.asarray(stream.mask)
    variables = module.init(jax.random.key(0), wide)
    held = np.asarray(module.apply(variables, wide).values)
    standard = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    np.testing.assert_allclose(held, np.where(real[..., None], standard, 0), atol=1e-3)
    trained = np.asarray(module.apply(variables, wide, train=True, rngs={"dropout": jax.random.key(0)}).values)
    dropped = trained == 0
    np.testing.assert_allclose(trained[~dropped], 4 * held[~dropped], rtol=1e-5)
    assert abs(dropped[real].mean() - 0.75) < 0.05
    for example in (0, 1):
        assert len(np.unique(dropped[example][real[example]], axis=0)) == 1  # the same numbers of all its items
    assert (dropped[0, 1] != dropped[1, 1]).any()


def test_without_keys_a_resampler_takes_the_mean_of_items_and_latents(stream):
    module = Resampler(DIM, num_latents=3, num_layers=1, num_heads=2, mlp_dim=6)
    params = draw_params(module, stream)
    params["attention_0"]["key"] = jax.tree.map(jnp.zeros_like, params["attention_0"]["key"])
    params["mlp_0"]["dense_1"] = jax.tree.map(jnp.zeros_like, params["mlp_0"]["dense_1"])
    for norm in ("items_norm_0", "latents_norm_0", "norm"):
        params[norm] = {"scale": jnp.ones(DIM), "bias": jnp.zeros(DIM)}
    ours, sown = run_compiled(module, params, stream)
    attention, project = params["attention_0"], params["project"]
    real = np.array([1, 2, 4])
    items = stream.values[1, real] @ project["kernel"] + project["bias"]
    both = np.concatenate([normed(items), normed(params["queries"])])
    mean = (both @ attention["value"]["kernel"] + attention["value"]["bias"]).mean(0)
    theirs = normed(params["queries"] + mean @ attention["out"]["kernel"])
    np.testing.assert_allclose(ours.values[1], theirs, atol=2e-5)
    weights = sown["attention_0"]["resampler_attention_weights"][0]
    assert weights.shape == (3, 2, 3, LENGTH + 3)
    np.testing.assert_allclose(weights[1, 0, 0], [0, 1 / 6, 1 / 6, 0, 1 / 6, 0, 1 / 6, 1 / 6, 1 / 6], atol=1e-6)


@pytest.mark.parametrize("name", POOLING)
def test_queries_are_a_set(name, stream):
    module = ADAPTERS[name]
    params = draw_params(module, stream)
    turned = {**params, "queries": params["queries"][::-1]}
    ours, theirs = (run_compiled(module, one, stream)[0].values for one in (params, turned))
    np.testing.assert_allclose(ours, theirs[:, ::-1], atol=2e-5)


def test_a_qformer_reads_the_stream_in_every_second_layer(stream):
    params = draw_params(ADAPTERS["qformer"], stream)
    assert {name for name in params if "cross" in name and "norm" not in name} == {"cross_0", "cross_2"}
    for name in ("cross_0", "cross_2"):
        params[name]["out"] = jax.tree.map(jnp.zeros_like, params[name]["out"])
    out = run_compiled(ADAPTERS["qformer"], params, stream)[0].values
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)  # it reads nothing else
    assert float(abs(out[0]).max()) > 0.1


def test_an_adapted_encoder_is_an_encoder():
    images = Stream.of(jnp.ones((2, 1, 8, 8, 3)))
    module = Adapted(LeNet(dim=5, tokens=True), ADAPTERS["qformer"])
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    assert set(variables["params"]) == {"encoder", "adapter"} and out.values.shape == (2, 3, DIM)
    with pytest.raises(ValueError, match="must be"):
        jax.eval_shape(Projector(4).init, jax.random.key(0), images)


@pytest.mark.parametrize("name", ADAPTERS)
def test_bfloat16(name, stream):
    half = stream.replace(values=stream.values.astype(jnp.bfloat16))
    out, variables = jax.eval_shape(ADAPTERS[name].init_with_output, jax.random.key(0), half)
    assert out.values.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
