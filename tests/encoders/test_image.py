"""Images: the convolution rewrite, patch order, and that every image is encoded alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from mmjax.encoders.convolution import ConvPool, conv_pool
from mmjax.encoders.image import LeNet, ResidualBlock, ResNet, ViT
from mmjax.encoders.patches import patchify
from mmjax.stream import Stream
from tests.draw import draw_params, run
from tests.encoders.helpers import QUICK, compiled

MASK = jnp.array([[True, False, True], [True, True, False]])


def _images(shape=(2, 3, 8, 8, 1), mask=MASK, seed=0):
    return Stream(jax.random.normal(jax.random.key(seed), shape), mask)


def _parts(size, channels, features, kernel):
    keys = jax.random.split(jax.random.key(1), 3)
    weights = jax.random.normal(keys[1], (kernel, kernel, channels, features)) / kernel
    return jax.random.normal(keys[0], (2, *size, channels)), weights, jax.random.normal(keys[2], (features,))


def test_space_to_depth_is_exact():
    def both(*parts):
        def loss(x, weights, bias, rewrite):
            y = conv_pool(x, weights, bias, space_to_depth=rewrite)
            return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

        return [jax.grad(loss, (0, 1, 2), has_aux=True)(*parts, rewrite) for rewrite in (False, True)]

    both = jax.jit(both, compiler_options=QUICK)
    x, weights, bias = _parts((9, 12), 3, 4, 5)
    flat = (
        jnp.zeros_like(x).at[0, 2, 2, 0].set(1.0)
    )  # constant regions: every patch is a tie, which shares its gradient
    for image in (x, flat):
        plain, fast = both(image, weights, bias)
        for expected, got in zip(jax.tree.leaves(plain), jax.tree.leaves(fast)):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got / scale, expected / scale, atol=3e-6)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_conv_pool_against_scipy(size):
    x, weights, bias = _parts((9, 6), 1, 1, size)
    expected = scipy.signal.correlate2d(np.float64(x[0, :, :, 0]), np.float64(weights[:, :, 0, 0]), mode="same")
    expected = expected[:8].reshape(4, 2, 3, 2).max((1, 3)) + float(bias[0])
    both = jax.jit(lambda *parts: [conv_pool(*parts, space_to_depth=s) for s in (False, True)], compiler_options=QUICK)
    for got in both(x, weights, bias):
        np.testing.assert_allclose(got[0, :, :, 0], expected, rtol=1e-5, atol=1e-6)


def test_conv_pool_module_has_one_set_of_parameters():
    x = jnp.ones((1, 8, 8, 1))
    trees = [jax.eval_shape(ConvPool(4, 5, s).init, jax.random.key(0), x) for s in (False, True)]
    assert trees[0] == trees[1]
    with pytest.raises(ValueError, match="odd size"):
        conv_pool(x, jnp.ones((4, 4, 1, 2)), jnp.zeros(2), space_to_depth=True)


def test_lenet_5_has_the_parameters_of_the_paper():
    images = jax.ShapeDtypeStruct((1, 1, 28, 28, 1), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    shapes = jax.eval_shape(LeNet(dim=10).init, jax.random.key(0), Stream(images, mask))["params"]
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes.items()}
    # C1, F6 and the output as published; C3 is fully connected here, and C5 sees 7 by 7 places instead of 5 by 5
    assert sizes == {"conv_0": 156, "conv_1": 2416, "dense_0": 784 * 120 + 120, "dense_1": 10_164, "out": 850}


def test_lenet_does_not_depend_on_the_rewrite():
    images = _images()
    plain, fast = (LeNet(8, channels=(4,), hidden_dims=(), space_to_depth=s) for s in (False, True))
    variables, apply = compiled(plain, images)
    _, apply_fast = compiled(fast, images)
    chex.assert_trees_all_close(apply(variables, images), apply_fast(variables, images), atol=3e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda **fields: LeNet(8, channels=(4,), hidden_dims=(), **fields),
        lambda **fields: ResNet(8, widths=(4, 8), stage_sizes=(1, 1), num_groups=2, **fields),
        lambda **fields: ViT(8, num_layers=1, **fields),
    ],
    ids=["LeNet", "ResNet", "ViT"],
)
def test_every_image_is_encoded_alone(make):
    images = _images()
    encoder = make(tokens=True)
    variables, apply = compiled(encoder, images)
    out = apply(variables, images)
    per_image = out.length // 3
    chex.assert_shape(out.values, (2, 3 * per_image, 8))
    assert (out.mask == jnp.repeat(MASK, per_image, axis=1)).all()
    other = images.values.at[1, 1].set(jnp.nan)  # a real image that must touch no token but its own
    other = apply(variables, images.replace(values=other)).values.reshape(2, 3, -1)
    assert np.isnan(other[1, 1]).all()
    same = out.values.reshape(2, 3, -1).at[1, 1].set(jnp.nan)
    np.testing.assert_array_equal(other, same)
    if isinstance(encoder, LeNet):  # its one token is a dense layer over all places
        return
    _, apply_pooled = compiled(make(), images)
    one = apply_pooled(variables, images)
    np.testing.assert_allclose(out.values.reshape(2, 3, -1, 8).mean(2), one.values, atol=2e-6)


def test_resnet_20_has_the_published_size():
    images = Stream(jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((1, 1), jnp.bool_))
    encoder = ResNet(10, stage_sizes=(3, 3, 3))
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), images)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # 0.27M (He et al. 2016, table 6); their skips have no parameters, ours two 1 by 1 convolutions with norms
    assert size - (16 * 32 + 32 * 64 + 2 * (32 + 64)) == 269_722
    tokens = jax.eval_shape(ResNet(10, tokens=True).init_with_output, jax.random.key(0), images)[0]
    assert tokens.values.shape == (1, 64, 10)


@pytest.mark.parametrize("side", [8, 7])
def test_symmetric_padding_is_that_of_pytorch(side):
    """A stride of 2 sees the places 0, 2, ... of the convolution with one row of zeros on every side."""
    x = np.random.default_rng(0).normal(size=(1, side, side, 1)).astype(np.float32)
    results = {}
    for symmetric in (True, False):
        block = ResidualBlock(1, stride=2, num_groups=1, symmetric_padding=symmetric)
        params = draw_params(block, x)
        results[symmetric] = run(block, params, x)[0]

    def norm(y, name):
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-6)
        return y * np.float64(params[name]["scale"]) + np.float64(params[name]["bias"])

    def conv(y, name, stride=1):
        kernel = np.float64(params[name]["kernel"][..., 0, 0])
        padded = np.pad(y, len(kernel) // 2)
        return scipy.signal.correlate2d(padded, kernel, mode="valid")[::stride, ::stride]

    image = np.float64(x[0, :, :, 0])
    y = np.maximum(norm(conv(image, "conv_0", 2), "norm_0"), 0)
    y = norm(conv(y, "conv_1"), "norm_1") + norm(conv(image, "skip", 2), "skip_norm")
    np.testing.assert_allclose(results[True][0, :, :, 0], np.maximum(y, 0), rtol=1e-4, atol=1e-5)
    assert (np.abs(results[True] - results[False]).max() > 1e-2) == (side % 2 == 0)  # an odd side is padded alike


def test_patches_are_in_order_and_flattened_row_by_row():
    image = jnp.arange(4 * 6).reshape(1, 4, 6, 1)
    patches = patchify(image, 2, 3)
    assert patches.shape == (1, 2, 2, 6)
    assert patches[0, 0, 1].tolist() == [3, 4, 5, 9, 10, 11]
    assert patches[0, 1, 0].tolist() == [12, 13, 14, 18, 19, 20]
    with pytest.raises(ValueError, match="4 by 6"):
        patchify(image, 3, 3)


def test_vit_token_sees_only_its_patch_before_attention():
    images = _images((1, 1, 8, 8, 1), jnp.ones((1, 1), bool))
    encoder = ViT(8, num_layers=0, tokens=True)
    variables, _ = compiled(encoder, images)

    def tokens(values):
        return encoder.apply(variables, images.replace(values=values)).values[0]

    sees = np.abs(jax.jit(jax.jacobian(tokens), compiler_options=QUICK)(images.values)).sum((1, 2, 3, 6)) > 0
    expected = np.kron(np.eye(4).reshape(4, 2, 2), np.ones((4, 4))) > 0
    assert (sees == expected).all()


def test_class_token():
    images = _images()
    encoder = ViT(8, num_layers=0, class_token=True)  # without blocks the output is the norm of the token itself
    variables, apply = compiled(encoder, images)
    out = apply(variables, images)
    token, norm = np.float64(variables["params"]["class_token"]), variables["params"]["stack"]["norm"]
    expected = (token - token.mean()) / np.sqrt(token.var() + 1e-6) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(out.values, np.where(MASK[..., None], expected, 0), rtol=1e-4)
    tokens = jax.eval_shape(ViT(8, num_layers=0, class_token=True, tokens=True).apply, variables, images)
    assert tokens.values.shape == (2, 12, 8)


def test_integer_pixels_are_scaled():
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8, 3), np.uint8))
    encoder = LeNet(4, channels=(2,), hidden_dims=())
    variables, apply = compiled(encoder, Stream.of(pixels))
    out = apply(variables, Stream.of(pixels))
    same = apply(variables, Stream.of(pixels.astype(jnp.float32) / 255))
    assert out.values.dtype == jnp.float32
    chex.assert_trees_all_close(out, same, atol=1e-6)


def test_wrong_input_is_named():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="uint8"):
        jax.eval_shape(LeNet(4).init, key, Stream.of(jnp.zeros((1, 1, 8, 8, 1), jnp.int32)))
    with pytest.raises(ValueError, match=r"\[batch, t, h, w, c\]"):
        jax.eval_shape(ResNet(4).init, key, Stream.of(jnp.zeros((1, 8, 8, 1))))
    with pytest.raises(ValueError, match="4 by 4 or more"):
        jax.eval_shape(LeNet(4).init, key, Stream.of(jnp.zeros((1, 1, 3, 8, 1))))
    with pytest.raises(ValueError, match="num_groups"):
        jax.eval_shape(ResNet(4, widths=(6, 6, 6)).init, key, _images())
    with pytest.raises(ValueError, match="stage_sizes"):
        jax.eval_shape(ResNet(4, stage_sizes=(1,)).init, key, _images())
