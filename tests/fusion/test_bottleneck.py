"""Attention bottlenecks (A3.5): what passes between modalities, when, and through what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import BottleneckFusion
from mmjax.layers import LayerNorm, TransformerBlock
from tests.draw import draw_params, draw_streams
from tests.draw import run_compiled as run

STREAMS = draw_streams({"audio": 3, "text": 8}, length=3, batch=3)
BLOCK = TransformerBlock(num_heads=2, mlp_dim=8)
MODULE = BottleneckFusion(8, num_layers=3, start_layer=1, num_bottlenecks=2, block=BLOCK)
PARAMS = draw_params(MODULE, STREAMS)
RESULT = run(MODULE, PARAMS, STREAMS)[0]


def test_the_layers_are_those_of_the_equations():
    """Once more from the blocks alone, with nothing masked."""
    block, norm = BLOCK, LayerNorm()

    def layer(name, i, x):
        return block.apply({"params": PARAMS[f"block_{name}_{i}"]}, x, mask=jnp.ones(x.shape[:2], bool))

    audio = STREAMS["audio"].values @ PARAMS["project_audio"]["kernel"] + PARAMS["project_audio"]["bias"]
    x = {
        name: jnp.concatenate([jnp.tile(PARAMS[f"token_{name}"], (3, 1, 1)), values], axis=1)
        for name, values in (("audio", audio), ("text", STREAMS["text"].values))
    }
    z = jnp.tile(PARAMS["bottleneck"], (3, 1, 1))
    x = {name: layer(name, 0, values) for name, values in x.items()}
    for i in (1, 2):
        out = {name: layer(name, i, jnp.concatenate([values, z], axis=1)) for name, values in x.items()}
        x = {name: values[:, :4] for name, values in out.items()}
        z = (out["audio"][:, 4:] + out["text"][:, 4:]) / 2
    for place, name in enumerate(("audio", "text")):
        expected = norm.apply({"params": PARAMS[f"norm_{name}"]}, x[name][:, 0])
        np.testing.assert_allclose(RESULT.values[:, place], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("start_layer", "reaches"), [(3, False), (2, False), (1, True)])
def test_another_modality_is_heard_after_two_fused_layers_and_not_before(start_layer, reaches):
    module = MODULE.clone(start_layer=start_layer)

    def audio_token(text):
        streams = {**STREAMS, "text": STREAMS["text"].replace(values=text)}
        return (module.apply({"params": PARAMS}, streams).values[:, 0] ** 2).sum()

    slope = jax.jit(jax.grad(audio_token))(jnp.asarray(STREAMS["text"].values))
    assert (np.abs(slope).max() > 1e-4) if reaches else not np.asarray(slope).any()


def test_the_bottleneck_is_the_mean_over_the_modalities_present():
    some = {**STREAMS, "text": STREAMS["text"].absent(jnp.array([True, False, False]))}
    result, _ = run(MODULE, PARAMS, some)
    alone, _ = run(MODULE, PARAMS, {"audio": STREAMS["audio"]})
    np.testing.assert_allclose(result.values[0, 0], alone.values[0, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.values[1:], RESULT.values[1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.mask, [[True, False], [True, True], [True, True]])
    assert not result.values[0, 1].any()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("start_layer", 4, "start_layer=4 must lie"), ("num_bottlenecks", 0, "num_bottlenecks=0 must be at least 1")],
)
def test_fields_that_do_not_fit_are_told(field, value, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(MODULE.clone(**{field: value}).init, jax.random.key(0), STREAMS)
