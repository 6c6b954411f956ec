"""Tokens that stay tokens: the gate's equation by hand, what an absent modality adds, the order of joined tokens."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.fusion import GatedTokens, JoinedTokens
from mmjax.stream import Stream


def streams():
    random = np.random.default_rng(0)
    image, text = random.normal(size=(2, 3, 5)), random.normal(size=(2, 4, 8))
    mask = jnp.asarray([[True, True, False, True], [True, False, False, False]])
    return {
        "image": Stream(jnp.asarray(image, jnp.float32), jnp.asarray([[True, False, True], [True] * 3])),
        "text": Stream(jnp.asarray(text, jnp.float32), mask),
    }


def test_the_gate_is_the_equation_of_the_paper():
    given = streams()
    module = GatedTokens(8, target="text")
    variables = module.init(jax.random.key(0), given)
    fused, sown = module.apply(variables, given, mutable=["intermediates"])
    params = jax.tree.map(np.asarray, variables["params"])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for row in range(2):
        image, text = given["image"], given["text"]
        pooled = np.asarray(image.values[row])[np.asarray(image.mask[row])].mean(0) @ params["value_image"]["kernel"]
        for token in np.flatnonzero(np.asarray(text.mask[row])):
            hidden = np.asarray(text.values[row, token])
            score = pooled @ params["gate_value_image"]["kernel"] + params["gate_value_image"]["bias"]
            gate = sigmoid(score + hidden @ params["gate_token_image"]["kernel"])
            np.testing.assert_allclose(fused.values[row, token], hidden + gate * pooled, atol=1e-5)
            np.testing.assert_allclose(sown["intermediates"]["gate_image"][0][row, token], gate, atol=1e-6)
    np.testing.assert_array_equal(fused.mask, given["text"].mask)


def test_an_absent_image_leaves_the_tokens_as_they_are():
    given = streams()
    module = GatedTokens(8, target="text")
    variables = module.init(jax.random.key(0), given)
    given["image"] = given["image"].absent()
    np.testing.assert_array_equal(module.apply(variables, given).values, given["text"].zeroed.values)


def test_joined_tokens_stand_in_the_order_of_the_names_with_their_marks():
    given = streams()
    module = JoinedTokens(8)
    variables = module.init(jax.random.key(0), given)
    fused = module.apply(variables, given)
    assert fused.mask.tolist() == jnp.concatenate([given["image"].mask, given["text"].mask], 1).tolist()
    mark = variables["params"]["mark_text"]
    np.testing.assert_allclose(fused.values[0, 3], given["text"].values[0, 0] + mark, rtol=1e-6)
    assert not fused.values[1, 4:].any()
