"""EfficientNet-Lite0 against the fixture made with the original network, and what every encoder of images keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.errors import UsageError
from mmjax.files import DamagedFile
from mmjax.pretrained import EfficientNetLite0, efficientnet_lite0
from mmjax.pretrained.efficientnet import Widths, depthwise, model_pixels, tensor_sources
from mmjax.stream import Stream
from tests.draw import quick_jit

SMALL = dict(size=16, stem=4, stages=(Widths(1, 3, 1, 1, 4), Widths(2, 5, 2, 2, 6)), head_dim=5)
STAGE_ENDS = (0, 2, 4, 7, 10, 14, 15)


@pytest.fixture(scope="module")
def weights(data_dir):
    return data_dir / "pretrained" / "efficientnet_lite0.safetensors"


@pytest.fixture(scope="module")
def fixture(data_dir):
    with np.load(data_dir / "pretrained" / "efficientnet_lite0_fixture.npz") as file:
        return dict(file)


def test_every_stage_agrees_with_the_fixture(weights, fixture, capsys):
    tower = efficientnet_lite0(weights, logits=True)
    stream = Stream.of(fixture["pixels"][:, None])
    wanted = [fixture["gap_stem"], *(fixture[f"gap_block{i}"] for i in STAGE_ENDS)]
    errors = []
    for i, want in enumerate(wanted):
        stream = quick_jit(lambda s, i=i: tower.module.apply(tower.variables, s, stages=slice(i, i + 1)))(stream)
        errors.append(float(abs(stream.values.mean((2, 3))[:, 0] - want).max()))
    features = {"params": {k: v for k, v in tower.variables["params"].items() if k != "classes"}}
    features["batch_stats"] = tower.variables["batch_stats"]
    last = slice(len(wanted), None)
    pooled = quick_jit(lambda s: EfficientNetLite0().apply(features, s, stages=last))(stream)
    tokens = quick_jit(lambda s: EfficientNetLite0(tokens=True).apply(features, s, stages=last))(stream)
    logits = quick_jit(lambda s: tower.module.apply(tower.variables, s, stages=last))(stream)
    assert (pooled.values.shape, tokens.values.shape) == ((2, 1, 1280), (2, 49, 1280))
    errors.append(float(abs(pooled.values[:, 0] - fixture["pooled"]).max()))
    errors.append(float(abs(tokens.values.mean(1) - fixture["pooled"]).max()))
    errors.append(float(abs(logits.values[:, 0] - fixture["logits"]).max()))
    with capsys.disabled():
        print(f"\nEfficientNet-Lite0: pooled {errors[-3]:.1e}, logits {errors[-1]:.1e}, any stage {max(errors):.1e}")
    assert len(errors) == 11 and max(errors) < 1e-4
    assert logits.values[:, 0].argmax(-1).tolist() == [442, 985]  # bell cote, daisy


def test_tower_is_the_published_file_or_says_what_is_not(weights, tmp_path):
    tower = efficientnet_lite0(weights, tokens=True, head=False)
    assert tower.module.dim == 320 and len(jax.tree.leaves(tower.variables)) == 247 - 2 - 5
    tensors = load_file(weights)
    assert {source.name for source in tensor_sources().values()} == set(tensors)
    del tensors["_bn0.bias"]
    tensors["_blocks.3._project_conv.weight"] = tensors["_blocks.3._project_conv.weight"][:, :, 0, 0].copy()
    save_file(tensors | {"mine": np.zeros(2, np.float32)}, path := tmp_path / "changed.safetensors")
    with pytest.raises(DamagedFile, match="that of the published file dd7070"):
        efficientnet_lite0(path)
    needed = r"missing: _bn0.bias \[32\]; left over: mine \[2\]; .*_project_conv.weight is float32 \[40, 144\] where"
    with pytest.raises(UsageError, match=needed):
        efficientnet_lite0(path, sha256=None)


def test_preprocessing_is_that_of_pil():
    image = pytest.importorskip("PIL.Image")
    samples = pytest.importorskip("sklearn.datasets").load_sample_images().images
    raw = np.stack(samples)[:, None, :90, :120]
    for size in (64, 112):
        shape = size, size
        pil = [np.asarray(image.fromarray(x).resize(shape, image.Resampling.BICUBIC), float) for x in raw[:, 0]]
        ours = model_pixels(Stream.of(raw), size).values[:, 0] * 128 + 127
        difference = np.round(abs(ours - np.stack(pil)), 3)
        assert difference.max() <= 1 and (difference == 0).mean() > 0.998  # PIL's weights are fixed-point numbers
        gradient = jax.grad(lambda x, size=size: model_pixels(Stream.of(x), size).values.sum())(
            raw[:1] / np.float32(255)
        )
        assert (gradient > 0).mean() > 0.9
    ours = model_pixels(Stream.of(raw), 64).values[:, 0] * 128 + 127
    same = model_pixels(Stream.of(raw[:, :, :64, :64]), 64).values * 128 + 127
    np.testing.assert_allclose(same, raw[:, :, :64, :64], atol=1e-4)  # pixels at their size are left alone
    floats = model_pixels(Stream.of(raw.astype(np.float32) / 255), 64).values * 128 + 127
    assert (abs(floats[:, 0] - ours) < 1e-3).mean() > 0.999


def test_grey_is_three_equal_channels_and_others_are_refused():
    grey = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 1, 5, 6, 1)), jnp.uint8)
    one, three = (model_pixels(Stream.of(x), 4).values for x in (grey, jnp.repeat(grey, 3, -1)))
    np.testing.assert_allclose(one, three, atol=1e-6)
    assert len(np.unique(one)) > 4
    with pytest.raises(UsageError, match=r"3 channels .* got 4"):
        model_pixels(Stream.of(jnp.zeros((1, 1, 4, 4, 4), jnp.uint8)), 4)
    with pytest.raises(UsageError, match=r"self.head=False"):
        jax.eval_shape(EfficientNetLite0(logits=True, head=False).init, jax.random.key(0), Stream.of(grey))


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 1), (8, 5, 2), (7, 3, 2), (9, 5, 1)])
def test_depthwise_is_the_convolution_in_groups(size, kernel, stride):
    x = jax.random.normal(jax.random.key(0), (2, size, size + 1, 3))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, 1, 3))
    stock = jax.lax.conv_general_dilated(
        x, weights, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    )
    np.testing.assert_allclose(depthwise(x, weights, stride), stock, atol=2e-6)


@pytest.mark.parametrize("tokens", [False, True])
def test_an_image_sees_itself_alone(tokens):
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.uniform(size=(3, 2, 12, 10, 3)), jnp.float32)
    mask = jnp.array([[True, True], [False, True], [False, False]])
    net = EfficientNetLite0(tokens=tokens, **SMALL)
    variables = quick_jit(net.init)(jax.random.key(0), Stream.of(images))
    poisoned = jnp.where(mask[..., None, None, None], images, jnp.nan)

    @quick_jit
    def run(values, mask, weights):
        def loss(w):
            return (net.apply({**variables, "params": w}, Stream(values, mask), train=True).values ** 2).sum()

        return net.apply(variables, Stream(values, mask)), jax.grad(loss)(weights)

    clean, poison = run(images, mask, variables["params"]), run(poisoned, mask, variables["params"])
    jax.tree.map(np.testing.assert_array_equal, clean, poison)
    out = clean[0]
    per_image = 16 if tokens else 1
    assert out.values.shape == (3, 2 * per_image, 5)
    np.testing.assert_array_equal(out.mask, np.repeat(mask, per_image, 1))
    assert not out.values[2].any() and out.values[0].any()
    alone = quick_jit(net.apply)(variables, Stream.of(images[1:2, 1:]))
    np.testing.assert_allclose(out.values[1:2, per_image:], alone.values, atol=1e-5)


def test_bfloat16_gives_bfloat16_and_keeps_its_parameters():
    net = EfficientNetLite0(dtype=jnp.bfloat16, **SMALL)
    out, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), Stream.of(jnp.ones((1, 1, 8, 8, 3))))
    assert out.values.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
