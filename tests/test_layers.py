"""The shared layers: each against its formula or against Flax, and all of them against their masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from mmjax.layers import (
    MLP,
    Dense,
    LayerNorm,
    LearnedPositions,
    MultiHeadAttention,
    TransformerBlock,
    attend,
    max_pool,
    pool_modalities,
    project_streams,
    sinusoidal_positions,
)
from mmjax.stream import Stream
from tests.draw import draw_params, draw_streams, quick_jit, run

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 3, 8)), jnp.float32)
CONTEXT = jnp.asarray(RNG.normal(size=(2, 4, 5)), jnp.float32)
MASK = jnp.asarray([[True, False, True, True], [False] * 4])  # a hole, and a row with nothing to attend to
HEADS = MultiHeadAttention(8, num_heads=2)
BLOCK = TransformerBlock(num_heads=2, mlp_dim=6)


def test_dense_is_flax_dense_and_so_is_its_gradient():
    params = draw_params(Dense(6), X)

    def loss(module, params, x):
        return jnp.sin(module.apply({"params": params}, x)).sum()

    both = quick_jit(lambda: [jax.value_and_grad(loss, argnums=(1, 2))(cls(6), params, X) for cls in (Dense, nn.Dense)])
    ours, theirs = both()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
    assert list(draw_params(Dense(6, use_bias=False), X)) == ["kernel"]


def test_mlp_by_hand():
    module = MLP((4, 2), activation=nn.relu)
    params = draw_params(module, X)
    first, second = (params[f"dense_{i}"] for i in range(2))
    hidden = np.maximum(X @ first["kernel"] + first["bias"], 0)
    np.testing.assert_allclose(run(module, params, X)[0], hidden @ second["kernel"] + second["bias"], atol=1e-5)


@pytest.mark.parametrize("module", [Dense(6), MLP((4, 2)), LayerNorm()], ids=lambda module: type(module).__name__)
def test_the_type_of_the_input_is_the_type_of_the_computation(module):
    half = X.astype(jnp.bfloat16)
    result, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), half))
    assert result.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    told, _ = jax.eval_shape(lambda: module.clone(dtype=jnp.float32).init_with_output(jax.random.key(0), half))
    assert told.dtype == jnp.float32


def test_attention_follows_its_equation():
    query, key = (RNG.normal(size=(2, 3, 2, 4)).astype(np.float32) for _ in range(2))
    value = RNG.normal(size=(2, 3, 2, 5)).astype(np.float32)
    mask = np.asarray([[[True, True, False], [True, False, False], [True, True, True]]] * 2)
    mixed, weights = attend(*map(jnp.asarray, (query, key, value, mask)))
    scores = np.einsum("bthk,bshk->bhts", query, key) / 2
    expected = softmax(np.where(mask[:, None], scores, -np.inf), axis=-1)
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(mixed, np.einsum("bhts,bshv->bthv", expected, value), rtol=1e-4, atol=1e-6)


def test_heads_are_flax_heads():
    params = draw_params(HEADS, X, mask=jnp.ones((2, 3), bool))
    theirs = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8, out_features=8)
    split = {
        n: {k: leaf.reshape(*leaf.shape[:-1], 2, 4) for k, leaf in params[n].items()} for n in params if n != "out"
    }
    split["out"] = {"kernel": params["out"]["kernel"].reshape(2, 4, 8), "bias": jnp.zeros(8)}
    mask = jnp.asarray([[True, False, True], [True, True, False]])
    expected = theirs.apply({"params": split}, X, mask=mask[:, None, None])
    np.testing.assert_allclose(run(HEADS, params, X, mask=mask)[0], expected, rtol=1e-5, atol=1e-5)


def test_nothing_to_attend_to_gives_exactly_zero_and_finite_gradients():
    params = draw_params(HEADS, X, CONTEXT, mask=MASK)
    mixed, reported = run(HEADS, params, X, CONTEXT, mask=MASK)
    weights = reported["cross_attention_weights"][0]
    assert not mixed[1].any() and not weights[1].any()
    np.testing.assert_allclose(weights[0].sum(-1), 1, rtol=1e-6)
    assert not weights[0, ..., 1].any()

    def loss(params, context):
        return (HEADS.apply({"params": params}, X, context, mask=MASK) * X).sum()

    by_params, by_context = quick_jit(jax.grad(loss, (0, 1)))(params, CONTEXT)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(by_params))
    assert not by_context[1].any() and not by_context[0, 1].any() and by_context[0, 0].any()


def test_a_mask_per_query_hides_items_from_it_alone():
    params = draw_params(HEADS, X, mask=jnp.ones((2, 3), bool))
    causal = jnp.broadcast_to(jnp.tri(3, dtype=bool), (2, 3, 3))
    first, _ = run(HEADS, params, X, mask=causal)
    changed, _ = run(HEADS, params, X.at[:, 2].set(7.0), mask=causal)
    np.testing.assert_array_equal(changed[:, :2], first[:, :2])
    assert np.abs(changed[:, 2] - first[:, 2]).max() > 1e-2


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"self.num_heads=3 must divide self.dim=8"):
        draw_params(MultiHeadAttention(8, num_heads=3), X, mask=jnp.ones((2, 3), bool))


def test_a_block_is_two_residual_steps():
    """``y = x + attention(norm(x))``, ``y + mlp(norm(y))``, each part applied by itself."""
    mask = jnp.asarray([[True, False, True], [False] * 3])
    params = draw_params(BLOCK, X, mask=mask)

    def norm(name, x):
        return run(LayerNorm(), params[name], x)[0]

    y = X + run(HEADS, params["attention"], norm("attention_norm", X), mask=mask)[0]
    y = y + run(MLP((6, 8)), params["mlp"], norm("mlp_norm", y))[0]
    np.testing.assert_allclose(run(BLOCK, params, X, mask=mask)[0], y, rtol=1e-5, atol=1e-5)


def test_layers_made_of_one_template_have_parameters_of_their_own():
    class Deep(nn.Module):
        block: nn.Module = BLOCK

        @nn.compact
        def __call__(self, x, mask):
            for i in range(2):
                x = self.block.clone(name=f"block_{i}", parent=self)(x, mask=mask)
            return x

    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            return Deep(name="first")(x, mask) + Deep(name="second")(x, mask)

    mask = jnp.ones((2, 3), bool)
    params = draw_params(Two(), X, mask)
    assert {name: sorted(part) for name, part in params.items()} == {
        "first": ["block_0", "block_1"],
        "second": ["block_0", "block_1"],
    }


def test_a_block_reads_its_context_in_any_order_and_only_where_it_is_real():
    params = draw_params(BLOCK, X, CONTEXT, mask=MASK)

    apply = quick_jit(lambda context, mask: BLOCK.apply({"params": params}, X, context, mask=mask))
    result = apply(CONTEXT, MASK)
    other = apply(CONTEXT.at[0, 1].set(1e3).at[1].set(1e3), MASK)
    np.testing.assert_array_equal(result, other)
    shuffled = apply(CONTEXT[:, ::-1], MASK[:, ::-1])
    np.testing.assert_allclose(shuffled, result, atol=1e-5)


def test_positions_are_sines_and_cosines():
    table = sinusoidal_positions(5, 7)
    assert table.shape == (5, 7)
    for position in range(5):
        for channel in range(7):
            angle = position / 10_000 ** (channel // 2 * 2 / 7)
            expected = np.cos(angle) if channel % 2 else np.sin(angle)
            np.testing.assert_allclose(table[position, channel], expected, atol=1e-6)


def test_learned_positions_are_added_up_to_their_number():
    params = draw_params(LearnedPositions(3), X)
    np.testing.assert_allclose(run(LearnedPositions(3), params, X)[0], X + params["positions"], atol=1e-6)
    np.testing.assert_allclose(
        run(LearnedPositions(3), params, X[:, :2])[0], X[:, :2] + params["positions"][:2], atol=1e-6
    )
    with pytest.raises(ValueError, match=r"3 items is longer than self.max_length=2"):
        draw_params(LearnedPositions(2), X)


@pytest.mark.parametrize("window, size", [(2, (5, 7)), (3, (6, 7))])
def test_max_pool_is_flax_max_pool_and_so_is_its_gradient(window, size):
    x = jnp.asarray(RNG.normal(size=(2, *size, 3)), jnp.float32)

    pools = [lambda x: max_pool(x, window), lambda x: nn.max_pool(x, (window, window), (window, window))]

    @quick_jit
    def values_and_gradients(x):
        return [(pool(x), jax.grad(lambda x, pool=pool: jnp.sin(pool(x)).sum())(x)) for pool in pools]

    (ours, our_gradient), (theirs, their_gradient) = values_and_gradients(x)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(our_gradient, their_gradient, atol=1e-6)


class Pools(nn.Module):
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, streams):
        return pool_modalities(streams, 4, dtype=self.dtype)


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, streams):
        return project_streams(streams, 4)


STREAMS = draw_streams({"narrow": 3, "right": 4}, length=3, batch=2)
HOLED = {**STREAMS, "narrow": STREAMS["narrow"].replace(mask=jnp.asarray([[True, False, True], [False] * 3]))}


def test_only_a_stream_of_another_width_is_projected():
    params = draw_params(Tokens(), STREAMS)
    assert list(params) == ["project_narrow"]
    tokens, _ = run(Tokens(), params, STREAMS)
    np.testing.assert_array_equal(tokens["right"].values, STREAMS["right"].values)
    expected = STREAMS["narrow"].values @ params["project_narrow"]["kernel"] + params["project_narrow"]["bias"]
    np.testing.assert_allclose(tokens["narrow"].values, expected, rtol=1e-5, atol=1e-6)


def test_the_bias_of_a_projection_does_not_fill_the_padding():
    params = draw_params(Tokens(), HOLED)
    tokens, _ = run(Tokens(), params, HOLED)
    assert not np.asarray(tokens["narrow"].values)[~np.asarray(HOLED["narrow"].mask)].any()
    pools, _ = run(Pools(), params, HOLED)
    np.testing.assert_array_equal(pools.mask, [[True, True], [False, True]])
    assert not pools.values[1, 0].any()


def test_pooling_then_projecting_is_projecting_then_pooling():
    params = draw_params(Tokens(), HOLED)
    tokens, _ = run(Tokens(), params, HOLED)
    pools, _ = run(Pools(), params, HOLED)
    np.testing.assert_allclose(pools.values[0, 0], tokens["narrow"].values[0, ::2].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pools.values[:, 1], STREAMS["right"].values.mean(1), rtol=1e-5, atol=1e-6)


def test_pooled_modalities_compute_in_the_type_they_are_told():
    pools = jax.eval_shape(lambda: Pools(jnp.bfloat16).init_with_output(jax.random.key(0), STREAMS)[0])
    assert pools.values.dtype == jnp.bfloat16
    assert isinstance(pools, Stream)
