"""Identities of what looks at another modality: product, guided and stacked attention, FiLM blocks; per item."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from mmjax.fusion import Concat, FiLMBlocks, GuidedAttention, Product, StackedAttention
from mmjax.models import PerItem
from mmjax.stream import Stream
from tests.draw import draw_params, draw_streams, run

DIM = 4
MAP = draw_streams({"image": 3}, length=6)["image"]
STREAMS = {"image": MAP, "text": draw_streams({"text": 5})["text"]}


def affine(params, x):
    return x @ np.asarray(params["kernel"]) + (np.asarray(params["bias"]) if "bias" in params else 0)


def both(params):
    """Projected tokens and query, in float64."""
    tokens = affine(params["project_image"], np.asarray(MAP.values, np.float64))
    return tokens, affine(params["project_text"], np.asarray(STREAMS["text"].values, np.float64)).mean(1)


def look(params, tokens, keys, query):
    weights = softmax(np.tanh(keys + query[:, None]) @ np.asarray(params["kernel"])[:, 0], axis=1)
    return np.einsum("bt,btd->bd", weights, tokens), weights


def test_a_product_is_that_of_the_pooled_modalities():
    module = Product(DIM, activation=jnp.tanh)
    params = draw_params(module, STREAMS)
    tokens, query = both(params)
    np.testing.assert_allclose(
        run(module, params, STREAMS)[0].values[:, 0], np.tanh(tokens.mean(1)) * np.tanh(query), rtol=1e-4, atol=1e-6
    )
    alone = run(module, params, {**STREAMS, "image": MAP.absent()})[0]
    np.testing.assert_allclose(alone.values[:, 0], np.tanh(query), rtol=1e-4, atol=1e-6)


def test_guided_attention_is_its_formula():
    module = GuidedAttention(DIM, target="image")
    params = draw_params(module, STREAMS)
    tokens, query = both(params)
    found, weights = look(
        params["score_image"], tokens, affine(params["key_image"], tokens), affine(params["query"], query)
    )
    fused, reported = run(module, params, STREAMS)
    expected = np.tanh(affine(params["look_image"], found)) * np.tanh(affine(params["ask"], query))
    np.testing.assert_allclose(fused.values[:, 0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reported["guided_to_image_attention_weights"][0][:, 0, 0], weights, rtol=1e-4, atol=1e-6)


def test_each_look_of_stacked_attention_refines_the_question():
    module = StackedAttention(DIM, target="image", hidden_dim=7)
    params = draw_params(module, STREAMS)
    tokens, u = both(params)
    maps = []
    for i in range(2):
        keys, about = affine(params[f"key_{i}_image"], tokens), affine(params[f"query_{i}_image"], u)
        found, weights = look(params[f"score_{i}_image"], tokens, keys, about)
        u = u + found
        maps.append(weights)
    fused, reported = run(module, params, STREAMS)
    np.testing.assert_allclose(fused.values[:, 0], u, rtol=1e-4, atol=1e-5)
    reported = reported["guided_to_image_attention_weights"][0]
    np.testing.assert_allclose(reported[:, :, 0], np.stack(maps, 1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("module", [StackedAttention(DIM, target="image"), GuidedAttention(DIM, target="image")])
def test_a_hidden_place_is_not_looked_at(module):
    params = draw_params(module, STREAMS)
    mask = np.ones(MAP.mask.shape, bool)
    mask[:, 2] = False
    _, reported = run(module, params, {**STREAMS, "image": Stream(MAP.values, mask)})
    weights = np.asarray(reported["guided_to_image_attention_weights"][0])
    assert (weights[..., 2] == 0).all() and (weights[..., 3] > 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def reference_blocks(params, tokens, query, shape):
    """Perez et al. by a loop over places."""
    x = tokens
    rows, columns = np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1])
    places = np.asarray([(r, c) for r in rows for c in columns])
    for i in range(2):
        gamma, beta = np.split(affine(params[f"film_{i}"], query), 2, axis=-1)
        x = np.maximum(affine(params[f"in_{i}_image"], np.concatenate([x, np.tile(places, (len(x), 1, 1))], -1)), 0)
        maps = x.reshape(len(x), *shape, -1)
        padded, kernel = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0))), np.asarray(params[f"mix_{i}_image"]["kernel"])
        y = np.zeros_like(maps)
        for r in range(shape[0]):
            for c in range(shape[1]):
                y[:, r, c] = np.einsum("bklc,klcd->bd", padded[:, r : r + 3, c : c + 3], kernel)
        y = y.reshape(x.shape)
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        x = x + np.maximum((1 + gamma[:, None]) * y + beta[:, None], 0)
    return x.mean(1)


def test_film_blocks_are_their_formula():
    module = FiLMBlocks(DIM, target="image", shape=(2, 3))
    params = draw_params(module, STREAMS)
    tokens, query = both(params)
    expected = reference_blocks(params, tokens, query, (2, 3))
    np.testing.assert_allclose(run(module, params, STREAMS)[0].values[:, 0], expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="has 6 tokens"):
        FiLMBlocks(DIM, target="image", shape=(3, 3)).init(jax.random.key(0), STREAMS)


def test_each_question_is_answered_as_if_it_were_alone():
    questions = draw_streams({"text": 5}, length=3)["text"]
    questions = Stream(questions.values, np.asarray(questions.mask) & (np.arange(3) != 1))
    module = PerItem(StackedAttention(DIM, target="image"), items="text")
    params = draw_params(module, {"image": MAP, "text": questions})
    together, _ = run(module, params, {"image": MAP, "text": questions})
    assert together.values.shape == (len(MAP.mask), 3, DIM)
    for place in range(3):
        one = Stream(questions.values[:, place : place + 1], questions.mask[:, place : place + 1])
        alone, _ = run(module.fusion, params["fusion"], {"image": MAP, "text": one})
        np.testing.assert_allclose(together.values[:, place], alone.values[:, 0], rtol=1e-4, atol=1e-5)


def test_per_item_needs_a_pooled_fusion_and_its_stream():
    class Tokens(nn.Module):
        @nn.compact
        def __call__(self, streams, *, train=False):
            return streams["image"]

    with pytest.raises(ValueError, match="needs a pooled fusion, Tokens gave 6"):
        PerItem(Tokens(), items="text").init(jax.random.key(0), STREAMS)
    with pytest.raises(ValueError, match="no stream 'question'"):
        PerItem(Concat(DIM), items="question").init(jax.random.key(0), STREAMS)
