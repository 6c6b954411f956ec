"""An encoder run stage by stage is the encoder; what stands between two stages is a stream of feature maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import FrameVideo, LeNet, ResNet, SpectrogramEncoder, TemporalConv, TransformerText, ViT
from mmjax.encoders.stages import count_stages
from mmjax.stream import Stream
from tests.draw import draw_params
from tests.encoders.helpers import QUICK
from tests.encoders.test_contract import CASES, ENCODERS, build, make_stream

STAGED = [
    pytest.param(name, case, id=f"{name}-{i}")
    for name in CASES
    for i, case in enumerate(CASES[name])
    if hasattr(ENCODERS[name], "num_stages") and not case.nested
]


def in_stages(encoder, stream):
    """The streams after every stage."""
    after = []
    for i in range(count_stages(encoder)):
        stream = encoder(stream, stages=slice(i, i + 1))
        after.append(stream)
    return after


@pytest.mark.parametrize("name, case", STAGED)
def test_stages_one_by_one_are_the_encoder(name, case):
    encoder, stream = build(name, case), make_stream(case)
    variables = {"params": draw_params(encoder, stream)}
    both = jax.jit(lambda v, s: (encoder.apply(v, s), encoder.apply(v, s, method=in_stages)), compiler_options=QUICK)
    whole, after = both(variables, stream)
    assert len(after) == encoder.num_stages >= 1
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), after[-1], whole)
    for between in after:
        assert between.values.shape[:2] == between.mask.shape and between.values.ndim >= 3


def shapes(encoder, *shape):
    """Shapes of the values after every stage."""
    stream = Stream.of(jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct(shape[:2], bool))
    variables = jax.eval_shape(encoder.init, jax.random.key(0), stream)
    after = jax.eval_shape(functools.partial(encoder.apply, method=in_stages), variables, stream)
    return [stream.values.shape for stream in after]


def test_items_between_stages_are_feature_maps():
    residual = ResNet(5, widths=(8, 16), stage_sizes=(1, 1))
    assert shapes(residual, 2, 3, 8, 8, 1) == [(2, 3, 8, 8, 8), (2, 3, 4, 4, 16), (2, 3, 5)]
    assert shapes(LeNet(5), 2, 3, 8, 8, 1) == [(2, 3, 4, 4, 6), (2, 3, 2, 2, 16), (2, 3, 5)]
    tokens = (2, 3, 5, 8)  # four patches and the class token
    assert shapes(ViT(8, num_layers=1, class_token=True), 2, 3, 8, 8, 1) == [tokens, tokens, (2, 3, 8)]
    sound = SpectrogramEncoder(5, channels=(2, 3))
    assert shapes(sound, 2, 9, 8) == [(2, 5, 4, 2), (2, 3, 2, 3), (2, 1, 5)]
    video = FrameVideo(5, LeNet(5))
    assert shapes(video, 2, 3, 8, 8, 1) == [(2, 3, 4, 4, 6), (2, 3, 2, 2, 16), (2, 3, 5), (2, 1, 5)]


def test_stages_draw_dropout_of_their_own():
    encoder = TemporalConv(64, kernel_size=1, strides=(1, 1, 1), dropout_rate=0.5, activation=jnp.ones_like)
    stream = Stream.of(jnp.ones((1, 1, 64)))
    layer = {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}  # a layer passes on what dropout left of the ones
    variables = {"params": {f"conv_{i}": layer for i in range(3)}}

    def dropped(encoder, stream):
        return [encoder(stream, train=True, stages=slice(i, i + 1)).values for i in (1, 2)]

    first, second = encoder.apply(variables, stream, method=dropped, rngs={"dropout": jax.random.key(0)})
    assert 0.2 < np.asarray(first != second).mean() < 0.8


def test_a_nested_text_has_no_stages():
    ids = Stream.of(jnp.zeros((2, 3, 4), jnp.int32), jnp.ones((2, 3, 4), bool))
    encoder = TransformerText(8, 5, num_layers=1)
    with pytest.raises(ValueError, match=r"as a whole, not in stages; its mask is \(2, 3, 4\)"):
        jax.eval_shape(lambda: encoder.init(jax.random.key(0), ids, stages=slice(0, 1)))
