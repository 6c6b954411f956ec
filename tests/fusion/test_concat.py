"""Concatenation early and late: where the join stands, and what it equals when everything is linear."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import Concat, EarlyConcat
from mmjax.heads import ClassificationHead
from mmjax.layers import Dense
from mmjax.models import Multimodal
from mmjax.stream import Stream
from tests.draw import draw_params, draw_streams, run

WIDTHS = {"audio": 3, "text": 5}
STREAMS = draw_streams(WIDTHS, length=2)


def test_late_concatenation_is_a_sum_of_blocks():
    streams = draw_streams({"audio": 4, "text": 4}, length=2)
    module = Concat(4)
    params = draw_params(module, streams)
    fused, _ = run(module, params, streams)
    kernel, bias = params["mlp"]["dense_0"]["kernel"], params["mlp"]["dense_0"]["bias"]
    blocks = streams["audio"].values.mean(1) @ kernel[:4] + streams["text"].values.mean(1) @ kernel[4:]
    np.testing.assert_allclose(fused.values[:, 0], blocks + bias, rtol=1e-5, atol=1e-5)


def test_early_with_a_linear_head_is_a_sum_of_unimodal_logits():
    model = Multimodal({}, EarlyConcat(4, hidden_dims=()), ClassificationHead(3, pool=None))
    params = draw_params(model, STREAMS)
    logits, _ = run(model, params, STREAMS)
    join, head = params["fusion"]["mlp"]["dense_0"], params["head"]["mlp"]["dense_0"]
    kernel = join["kernel"] @ head["kernel"]  # [3 + 5, classes]: a block per modality
    bias = join["bias"] @ head["kernel"] + head["bias"]
    unimodal = STREAMS["audio"].values @ kernel[:3] + STREAMS["text"].values @ kernel[3:]
    np.testing.assert_allclose(logits, unimodal + bias, rtol=1e-4, atol=1e-4)


def test_a_step_is_real_where_anything_is_and_the_rest_is_a_block_of_zeros():
    mask = jnp.asarray([[True, False]] * 4)
    streams = {"audio": STREAMS["audio"].replace(mask=mask), "text": STREAMS["text"].replace(mask=~mask)}
    filled = {name: Stream.of(stream.zeroed.values) for name, stream in streams.items()}
    module = EarlyConcat(4)
    params = draw_params(module, streams)
    fused, expected = run(module, params, streams)[0], run(module, params, filled)[0]
    assert fused.mask.all()
    np.testing.assert_array_equal(fused.values, expected.values)
    nothing, _ = run(module, params, {name: stream.absent() for name, stream in streams.items()})
    assert not nothing.mask.any() and not nothing.values.any()


def test_raw_items_of_any_shape_are_flattened():
    image = Stream.of(jnp.arange(24.0).reshape(2, 1, 2, 3, 2))
    vector = Stream.of(image.values.reshape(2, 1, 12))
    module = EarlyConcat(4)
    params = draw_params(module, {"image": image})
    np.testing.assert_array_equal(
        run(module, params, {"image": image})[0].values, run(module, params, {"image": vector})[0].values
    )


class Doubled(Dense):
    """An encoder that is linear, and says so by doubling."""

    def __call__(self, stream, *, train=False):
        return stream.replace(values=2 * super().__call__(stream.values)).zeroed


def test_any_encoder_serves_as_the_joint_model():
    module = EarlyConcat(4, joint=Doubled(4))
    params = draw_params(module, STREAMS)
    fused, _ = run(module, params, STREAMS)
    joined = np.concatenate([STREAMS["audio"].values, STREAMS["text"].values], -1)
    expected = 2 * (joined @ np.asarray(params["joint"]["kernel"]) + params["joint"]["bias"])
    np.testing.assert_allclose(fused.values, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"width 4, not self.dim=5"):
        draw_params(EarlyConcat(5, joint=Doubled(4)), STREAMS)


def test_steps_must_be_aligned():
    streams = {**STREAMS, "text": Stream.of(jnp.zeros((4, 3, 5)))}
    with pytest.raises(ValueError, match=r"aligned steps.*'audio': 2, 'text': 3"):
        draw_params(EarlyConcat(4), streams)
    with pytest.raises(ValueError, match=r"'text' holds int32: give it an encoder"):
        draw_params(EarlyConcat(4), {**STREAMS, "text": Stream.of(jnp.zeros((4, 2), jnp.int32))})
