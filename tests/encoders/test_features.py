"""Feature encoders: the convolution against its definition, windows that do not depend on the length, positions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.features import FeatureMLP, FeatureTransformer, TemporalConv
from mmjax.stream import Stream
from tests.draw import draw_params
from tests.encoders.helpers import QUICK, compiled


def _stream(length=7, width=3, seed=0):
    return Stream.of(jnp.asarray(np.random.default_rng(seed).normal(size=(2, length, width)), jnp.float32))


def _convolve(x, kernel, bias, stride, left):
    """Float64 by definition: token i is the sum over k of item ``i * stride - left + k`` times ``kernel[k]``."""
    kernel = np.asarray(kernel, np.float64).reshape(-1, x.shape[-1], kernel.shape[-1])
    out = np.zeros((len(x), -(-x.shape[1] // stride), kernel.shape[-1])) + np.asarray(bias, np.float64)
    for i in range(out.shape[1]):
        for k, tap in enumerate(kernel):
            at = i * stride - left + k
            if 0 <= at < x.shape[1]:
                out[:, i] += np.asarray(x[:, at], np.float64) @ tap
    return out


class ConvTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_against_a_loop(self):
        stream = _stream()
        for size, stride, causal, left in [(3, 1, False, 1), (3, 2, False, 0), (5, 2, False, 1), (4, 2, True, 2)]:
            encoder = TemporalConv(4, kernel_size=size, strides=(stride,), causal=causal)
            params = draw_params(encoder, stream)
            out = self.variant(encoder.apply)({"params": params}, stream)
            expected = _convolve(stream.values, params["conv_0"]["kernel"], params["conv_0"]["bias"], stride, left)
            np.testing.assert_allclose(out.values, expected, atol=1e-5)


def test_conv_masks_follow_strides_and_holes():
    stream = _stream(5).replace(mask=jnp.array([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0]], bool))
    encoder = TemporalConv(4, kernel_size=2, strides=(2, 2))
    out = jax.eval_shape(encoder.init_with_output, jax.random.key(0), stream)[0]
    assert out.values.shape == (2, 2, 4)
    variables, apply = compiled(encoder, stream)
    np.testing.assert_array_equal(apply(variables, stream).mask, [[True, True], [True, False]])


def test_conv_padding_after_the_end_changes_nothing():
    """Three layers with biases: what padding would hold after the first must not leak back in."""
    encoder = TemporalConv(4, strides=(1, 2, 1))
    for length in (6, 7):
        stream = _stream(length)
        longer = Stream(
            jnp.pad(stream.values, ((0, 0), (0, 5), (0, 0)), constant_values=jnp.nan),
            jnp.pad(stream.mask, ((0, 0), (0, 5))),
        )
        variables, apply = compiled(encoder, stream)
        short, long = apply(variables, stream), apply(variables, longer)
        np.testing.assert_allclose(long.values[:, : short.length], short.values, atol=1e-6)
        assert not long.values[:, short.length :].any() and not long.mask[:, short.length :].any()


def test_causal_conv_does_not_see_the_future():
    encoder = TemporalConv(4, strides=(1, 1), causal=True)
    stream = _stream()
    variables = {"params": draw_params(encoder, stream)}

    def at_3(x):
        return encoder.apply(variables, Stream.of(x)).values[:, 3].sum()

    by_input = jax.jit(jax.grad(at_3), compiler_options=QUICK)
    seen = np.asarray(by_input(stream.values)).any((0, 2))
    assert not seen[4:].any() and seen[3]


def test_mlp_is_the_same_on_every_item_and_flattens():
    encoder = FeatureMLP(4, hidden_dims=(5,))
    images = Stream.of(jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 1)))
    vectors = images.replace(values=images.values.reshape(2, 3, 4))
    variables, apply = compiled(encoder, images)
    out = apply(variables, images)
    chex.assert_trees_all_close(out, apply(variables, vectors))
    hidden = jax.nn.gelu(
        vectors.values @ variables["params"]["mlp"]["dense_0"]["kernel"] + variables["params"]["mlp"]["dense_0"]["bias"]
    )
    last = variables["params"]["mlp"]["dense_1"]
    chex.assert_trees_all_close(out.values, hidden @ last["kernel"] + last["bias"], atol=1e-5)


def test_transformer_knows_positions_and_projects_only_where_it_must():
    stream = _stream(width=8)
    for max_length, names in [(None, {"stack"}), (7, {"positions", "stack"})]:
        encoder = FeatureTransformer(8, num_layers=1, max_length=max_length)
        variables, apply = compiled(encoder, stream)
        assert set(variables["params"]) == names
        turned = apply(variables, stream.replace(values=stream.values[:, ::-1]))
        assert float(jnp.abs(turned.values[:, ::-1] - apply(variables, stream).values).max()) > 1e-3
    shapes = jax.eval_shape(FeatureTransformer(8).init, jax.random.key(0), _stream(width=3))["params"]
    assert shapes["project"]["kernel"].shape == (3, 8)


@pytest.mark.parametrize(
    "encoder, message",
    [
        (
            TemporalConv(4, kernel_size=2, strides=(1, 3)),
            r"self\.strides=\(1, 3\) must be .* from 1 to self\.kernel_size=2",
        ),
        (TemporalConv(4, strides=()), r"self\.strides=\(\)"),
        (FeatureTransformer(8, max_length=6), r"7 items is longer than self\.max_length=6"),
        (FeatureTransformer(6), r"self\.num_heads=4 must divide self\.dim=6"),
    ],
)
def test_errors(encoder, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(encoder.init, jax.random.key(0), _stream())
