"""Video: frames then time, and tubelets: order, holes, and that it does not matter how much padding follows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.features import FeatureTransformer
from mmjax.encoders.image import LeNet, ViT
from mmjax.encoders.recurrent import Recurrent
from mmjax.encoders.video import FrameVideo, TubeletTransformer
from mmjax.stream import Stream, masked_last, masked_mean
from tests.encoders.helpers import QUICK, compiled

MASK = jnp.array([[True, False, True, True, False], [True, True, False, False, False], [False] * 5])


def _video(mask=MASK, side=4, seed=0):
    return Stream(jax.random.normal(jax.random.key(seed), (*mask.shape, side, side, 1)), mask)


def _frames():
    return LeNet(8, channels=(2,), hidden_dims=(), kernel_size=3)


def _more(stream, count):
    pads = [(0, 0), (0, count)]
    values = jnp.pad(stream.values, pads + [(0, 0)] * 3, constant_values=jnp.nan)
    return Stream(values, jnp.pad(stream.mask, pads))


def test_without_a_temporal_model_it_is_the_mean_of_the_frames():
    video = _video()
    encoders = [FrameVideo(8, _frames(), pool=pool) for pool in (None, masked_mean, masked_last)]
    variables, _ = compiled(encoders[0], video)
    apply = jax.jit(lambda v, x: [encoder.apply(v, x) for encoder in encoders], compiler_options=QUICK)
    tokens, mean, last = apply(variables, video)
    assert (tokens.mask == MASK).all()
    expected = [np.asarray(row)[real].mean(0) if real.any() else np.zeros(8) for row, real in zip(tokens.values, MASK)]
    np.testing.assert_allclose(mean.values[:, 0], expected, atol=1e-6)
    assert mean.mask[:, 0].tolist() == [True, True, False]
    np.testing.assert_allclose(last.values[:2, 0], [tokens.values[0, 3], tokens.values[1, 1]], atol=1e-6)


def test_the_order_of_frames_matters_to_a_temporal_model_alone():
    video = _video()
    order = jnp.array([3, 1, 0, 2, 4])
    swapped = jax.tree.map(lambda x: x[:1, order], video)
    difference = {}
    for name, temporal in {"none": None, "recurrent": Recurrent(8)}.items():
        encoder = FrameVideo(8, _frames(), temporal)
        variables, apply = compiled(encoder, video)
        difference[name] = np.abs(apply(variables, video).values[0] - apply(variables, swapped).values[0]).max()
    assert difference["none"] < 1e-6
    assert difference["recurrent"] > 1e-3


@pytest.mark.parametrize(
    "encoder",
    [
        FrameVideo(8, _frames(), FeatureTransformer(8, 1), pool=None),
        TubeletTransformer(8, (2, 2, 2), 1, tokens=True),
    ],
    ids=["frames", "tubelets"],
)
def test_more_padding_changes_nothing(encoder):
    video = _video()
    variables, apply = compiled(encoder, video)
    out, long = apply(variables, video), apply(variables, _more(video, 4))
    np.testing.assert_array_equal(long.mask[:, : out.length], out.mask)
    np.testing.assert_allclose(long.values[:, : out.length], out.values, atol=2e-6)
    assert not long.mask[:, out.length :].any()
    chex.assert_tree_all_finite(long.values)


def test_a_tubelet_is_real_if_one_of_its_frames_is():
    video = _video()
    encoder = TubeletTransformer(8, (2, 2, 4), 0, tokens=True)
    variables, apply = compiled(encoder, video)
    out = apply(variables, video)
    chex.assert_shape(out.values, (3, 6, 8))  # 3 steps of 2 frames, 2 places
    steps = [[True, True, False], [True, False, False], [False, False, False]]
    assert (out.mask == jnp.repeat(jnp.array(steps), 2, axis=1)).all()
    _, apply = compiled(encoder.clone(tokens=False), video)
    count = np.maximum(out.mask.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(apply(variables, video).values[:, 0], out.values.sum(1) / count, atol=1e-6)


def test_tubelet_embedding_is_a_strided_convolution_over_time_and_space():
    video = _video(jnp.ones((1, 4), bool))
    encoder = TubeletTransformer(8, (2, 2, 2), 0, tokens=True)
    variables, apply = compiled(encoder, video)
    parts = variables["params"]
    kernel = parts["embed"]["kernel"].reshape(2, 2, 2, 1, 8)
    embedded = jax.lax.conv_general_dilated(
        video.values, kernel, (2, 2, 2), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    embedded = (embedded + parts["embed"]["bias"]).reshape(2, 4, 8) + parts["positions"]["places"]
    angle = np.arange(2)[:, None] / 10_000 ** (np.arange(4) / 4)
    embedded = embedded + np.stack([np.sin(angle), np.cos(angle)], -1).reshape(2, 1, 8)
    x = np.float64(embedded).reshape(8, 8)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    norm = parts["stack"]["norm"]
    out = apply(variables, video)
    np.testing.assert_allclose(out.values[0], x * norm["scale"] + norm["bias"], atol=1e-5)


def test_wrong_parts_are_named():
    video = _video(side=8)

    def shapes(encoder):
        return jax.eval_shape(encoder.init, jax.random.key(0), video)

    with pytest.raises(ValueError, match="tokens=False"):
        shapes(FrameVideo(8, ViT(8, num_layers=0, tokens=True)))
    with pytest.raises(ValueError, match=r"self\.dim=4"):
        shapes(FrameVideo(4, _frames()))
    with pytest.raises(ValueError, match="do not tile"):
        shapes(TubeletTransformer(8, (2, 3, 3)))
