"""Identities of attention over modalities (A1.4): what the weights are, and what they do."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from mmjax.fusion import AdditiveAttention, DotProductAttention, WeightedSum
from mmjax.stream import Stream
from tests.draw import draw_params, draw_streams, run

DIM = 6
STREAMS = draw_streams({"audio": DIM, "text": DIM, "video": DIM})
TOKENS = np.stack([STREAMS[name].values[:, 0] for name in sorted(STREAMS)], axis=1)  # [batch, modality, dim]
MODULES = [AdditiveAttention(DIM), DotProductAttention(DIM), DotProductAttention(DIM, conditional=True)]
every_module = pytest.mark.parametrize("module", MODULES, ids=["additive", "dot", "conditional"])


def fuse(module, streams=STREAMS, params=None):
    """The fused vectors ``[batch, dim]`` and the weights ``[batch, modality]``."""
    params = draw_params(module, STREAMS) if params is None else params
    result, reported = run(module, params, streams)
    return np.asarray(result.values[:, 0]), np.asarray(reported["modality_weights"][0])


def zeros(tree):
    return {name: zeros(leaf) if isinstance(leaf, dict) else jnp.zeros_like(leaf) for name, leaf in tree.items()}


def test_additive_follows_its_equation():
    module = AdditiveAttention(DIM, hidden_dim=3)
    params = draw_params(module, STREAMS)
    fused, weights = fuse(module, params=params)
    hidden = np.tanh(TOKENS @ np.asarray(params["hidden"]["kernel"]) + params["hidden"]["bias"])
    expected = softmax((hidden @ params["score"]["kernel"])[..., 0], axis=-1)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    np.testing.assert_allclose(fused, np.einsum("bm,bmd->bd", expected, TOKENS), rtol=1e-5, atol=1e-6)


def test_dot_follows_its_equation():
    params = draw_params(MODULES[1], STREAMS)
    _, weights = fuse(MODULES[1], params=params)
    np.testing.assert_allclose(weights, softmax(TOKENS @ params["query"], axis=-1), rtol=1e-5)


def test_conditional_dot_compares_the_query_of_the_mean_with_keys():
    params = draw_params(MODULES[2], STREAMS)
    _, weights = fuse(MODULES[2], params=params)
    query = TOKENS.mean(1) @ params["query"]["kernel"] + params["query"]["bias"]
    scores = np.einsum("bd,bmd->bm", query, TOKENS @ np.asarray(params["key"]["kernel"])) / np.sqrt(DIM)
    np.testing.assert_allclose(weights, softmax(scores, axis=-1), rtol=1e-5)


@every_module
def test_weights_are_a_distribution_and_the_result_lies_in_the_hull(module):
    fused, weights = fuse(module)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    assert (fused >= TOKENS.min(1) - 1e-6).all() and (fused <= TOKENS.max(1) + 1e-6).all()
    assert weights.std() > 0.01, "weights that do not depend on the example prove nothing here"


@every_module
def test_zero_scores_give_the_mean(module):
    fused, weights = fuse(module, params=zeros(draw_params(module, STREAMS)))
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(fused, TOKENS.mean(1), atol=1e-6)


@every_module
def test_a_single_present_modality_passes_unchanged(module):
    streams = {name: stream if name == "text" else stream.absent() for name, stream in STREAMS.items()}
    fused, weights = fuse(module, streams)
    np.testing.assert_array_equal(weights, np.tile([0.0, 1.0, 0.0], (len(weights), 1)))
    np.testing.assert_array_equal(fused, TOKENS[:, 1])


@every_module
def test_an_absent_modality_is_one_that_was_never_there(module):
    absent, weights = fuse(module, {**STREAMS, "text": STREAMS["text"].absent()})
    without, others = fuse(module, {name: STREAMS[name] for name in ("audio", "video")})
    np.testing.assert_allclose(absent, without, atol=1e-6)
    np.testing.assert_allclose(weights[:, [0, 2]], others, atol=1e-6)


@every_module
def test_weights_follow_their_modality(module):
    renamed = {"z": STREAMS["audio"], "y": STREAMS["text"], "x": STREAMS["video"]}
    fused, weights = fuse(module)
    again, permuted = fuse(module, renamed)
    np.testing.assert_allclose(permuted, weights[:, ::-1], rtol=1e-5)
    np.testing.assert_allclose(again, fused, atol=1e-6)


def test_a_constant_added_to_every_score_changes_no_weight():
    params = draw_params(MODULES[1], STREAMS)
    along = 3 * params["query"] / (params["query"] @ params["query"])  # raises every score by 3
    shifted = {name: Stream.of(stream.values + along) for name, stream in STREAMS.items()}
    fused, weights = fuse(MODULES[1], params=params)
    moved, same = fuse(MODULES[1], shifted, params)
    np.testing.assert_allclose(same, weights, atol=1e-6)
    np.testing.assert_allclose(moved, fused + along, atol=1e-5)


def test_a_sharper_query_tends_to_the_argmax():
    params = draw_params(MODULES[1], STREAMS)
    fused, weights = fuse(MODULES[1], params={"query": 1e4 * params["query"]})
    best = np.argmax(TOKENS @ params["query"], axis=-1)
    np.testing.assert_allclose(weights, np.eye(3)[best], atol=1e-6)
    np.testing.assert_allclose(fused, TOKENS[np.arange(len(best)), best], atol=1e-5)


def test_a_weighted_sum_follows_its_equation_over_the_modalities_present():
    module = WeightedSum(DIM)
    params = {"score_audio": jnp.float32(0.3), "score_text": jnp.float32(-1.2), "score_video": jnp.float32(2.0)}
    _, weights = fuse(module, params=params)
    np.testing.assert_allclose(weights, np.tile(softmax([0.3, -1.2, 2.0]), (len(weights), 1)), rtol=1e-6)
    fused, weights = fuse(module, {**STREAMS, "text": STREAMS["text"].absent()}, params)
    first, last = softmax([0.3, 2.0])
    np.testing.assert_allclose(weights, np.tile([first, 0, last], (len(weights), 1)), rtol=1e-6)
    np.testing.assert_allclose(fused, first * TOKENS[:, 0] + last * TOKENS[:, 2], rtol=1e-5, atol=1e-6)


def test_a_weighted_sum_starts_as_the_mean():
    fused, _ = fuse(WeightedSum(DIM), params={f"score_{name}": jnp.float32(0) for name in STREAMS})
    np.testing.assert_allclose(fused, TOKENS.mean(1), rtol=1e-5, atol=1e-6)
