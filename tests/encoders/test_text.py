"""Text: bags against counts, nested texts against texts one by one, ids that the vocabulary does not have."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import BagOfWords, Categories, Recurrent, RecurrentText, TransformerText
from mmjax.layers import GRU, TokenEmbedding, final_state
from mmjax.stream import Stream, masked_last, masked_sum
from tests.draw import draw_params
from tests.encoders.helpers import QUICK, compiled

VOCABULARY = 7
IDS = jnp.array([[3, 1, 3, 6], [0, 2, 2, 5]])
MASK = jnp.array([[True, True, True, False], [False, True, True, True]])
TEXT = Stream(IDS, MASK)
COUNTS = np.array([[0, 1, 0, 2, 0, 0, 0], [0, 0, 2, 0, 0, 1, 0]])


@pytest.mark.parametrize(
    "fields, bag",
    [
        ({"pool": masked_sum}, COUNTS),
        ({}, COUNTS / 3),
        ({"pool": masked_sum, "distinct": True}, COUNTS > 0),
        ({"distinct": True}, (COUNTS > 0) / 2),
    ],
)
def test_bag_is_a_linear_map_of_counts(fields, bag):
    variables, apply = compiled(BagOfWords(4, VOCABULARY, **fields), TEXT)
    out = apply(variables, TEXT)
    table, bias = variables["params"]["embedding"]["embedding"], variables["params"]["bias"]
    np.testing.assert_allclose(out.values[:, 0], bag @ np.asarray(table) + bias, atol=1e-6)
    np.testing.assert_array_equal(out.mask, [[True], [True]])


def test_bag_with_hidden_layers_is_an_mlp_of_counts():
    variables, apply = compiled(BagOfWords(4, VOCABULARY, hidden_dims=(6,), pool=masked_sum), TEXT)
    params = variables["params"]
    hidden = np.maximum(COUNTS @ np.asarray(params["embedding"]["embedding"]) + params["bias"], 0)
    last = params["mlp"]["dense_0"]
    np.testing.assert_allclose(apply(variables, TEXT).values[:, 0], hidden @ last["kernel"] + last["bias"], atol=1e-5)


class EmbeddingTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_unknown_ids(self):
        table = {"params": {"embedding": jnp.arange(6.0).reshape(3, 2)}}
        ids, mask = jnp.array([[2, 3, -1, 99]]), jnp.array([[True, True, True, False]])
        strict = self.variant(TokenEmbedding(2, 3).apply)(table, ids, mask)
        np.testing.assert_array_equal(strict[0], [[4, 5], [np.nan] * 2, [np.nan] * 2, [0, 0]])
        lenient = self.variant(TokenEmbedding(2, 3, unknown_id=1).apply)(table, ids, mask)
        np.testing.assert_array_equal(lenient[0], [[4, 5], [2, 3], [2, 3], [0, 0]])


NESTED = [
    BagOfWords(4, VOCABULARY, hidden_dims=(5,)),
    RecurrentText(4, VOCABULARY, cell=GRU, bidirectional=True, pool=final_state),
    RecurrentText(4, VOCABULARY, embed_dim=3, pool=masked_last),
    TransformerText(8, VOCABULARY, num_layers=1, max_length=4),
]


@pytest.mark.parametrize("encoder", NESTED, ids=lambda encoder: type(encoder).__name__)
def test_nested_texts_are_encoded_one_by_one(encoder):
    """Utterance 0 of dialogue 1 is not there; each other utterance is its own text, pooled."""
    ids = jnp.stack([IDS, IDS[::-1]])
    mask = jnp.stack([MASK, jnp.zeros_like(MASK).at[1].set(MASK[0])])
    variables, apply = compiled(encoder, TEXT)
    out = apply(variables, Stream(ids, mask))
    np.testing.assert_array_equal(out.mask, [[True, True], [False, True]])
    alone = apply(variables, TEXT)
    pool = getattr(encoder, "pool", None)
    expected = alone.values[:, 0] if isinstance(encoder, BagOfWords) else pool(alone.values, alone.mask)
    chex.assert_trees_all_close(out.values[0], expected, atol=1e-6)
    assert not out.values[1, 0].any()
    chex.assert_trees_all_close(out.values[1, 1], expected[0], atol=1e-6)  # the same words in another dialogue


def test_recurrent_text_is_embedding_then_recurrence():
    encoder = RecurrentText(4, VOCABULARY, embed_dim=3, cell=GRU, bidirectional=True, num_layers=2)
    variables, apply = compiled(encoder, TEXT)
    table = variables["params"]["embedding"]["embedding"]
    recurrent = Recurrent(4, cell=GRU, bidirectional=True, num_layers=2)
    run = jax.jit(recurrent.apply, compiler_options=QUICK)
    expected = run({"params": variables["params"]["recurrent"]}, Stream(table[IDS], MASK))
    chex.assert_trees_all_close(apply(variables, TEXT), expected, atol=1e-6)


def test_words_keep_their_gradient_apart():
    """A word that stands only in padding gets no gradient; one in use does."""
    encoder = BagOfWords(8, VOCABULARY)
    variables = {"params": draw_params(encoder, TEXT)}
    direction = jax.random.normal(jax.random.key(0), (2, 1, 8))

    def loss(variables):
        return (encoder.apply(variables, TEXT).values * direction).sum()

    by_table = jax.jit(jax.grad(loss), compiler_options=QUICK)(variables)["params"]["embedding"]["embedding"]
    np.testing.assert_array_equal(np.asarray(by_table).any(1), COUNTS.any(0))


@pytest.mark.parametrize("sines", [True, False])
def test_transformer_starts_with_words_and_positions_of_one_size(sines):
    """With sines words are scaled to unit variance; with learned positions both start at 0.02."""
    encoder = TransformerText(64, 512, num_layers=1, max_length=None if sines else 8)
    text = Stream.of(jnp.arange(8)[None])
    init = jax.jit(lambda key: encoder.init(key, text)["params"]["embedding"]["embedding"], compiler_options=QUICK)
    np.testing.assert_allclose(np.std(init(jax.random.key(0))), 64**-0.5 if sines else 0.02, rtol=0.05)


def test_errors():
    vectors = Stream.of(jnp.ones((2, 3, 4)))
    for encoder in NESTED:
        with pytest.raises(ValueError, match="expected integer ids"):
            jax.eval_shape(encoder.init, jax.random.key(0), vectors)
    with pytest.raises(ValueError, match=r"self\.unknown_id=7 must be one of the self\.vocab_size=7"):
        jax.eval_shape(BagOfWords(4, VOCABULARY, unknown_id=7).init, jax.random.key(0), TEXT)


def test_a_category_is_its_row_of_the_table():
    speakers = Stream(jnp.array([[1, 5, 0], [2, 2, 9]]), jnp.array([[True, True, False], [True, True, False]]))
    encoder = Categories(4, 3, unknown_id=0)
    variables = encoder.init(jax.random.key(0), speakers)
    table = variables["params"]["embedding"]["embedding"]
    found = encoder.apply(variables, speakers)
    np.testing.assert_array_equal(
        found.values, jnp.stack([table[jnp.array([1, 0, 0])], table[jnp.array([2, 2, 0])]]) * speakers.mask[..., None]
    )
    strict = Categories(4, 3).apply(variables, speakers)
    assert np.isnan(strict.values[0, 1]).all() and np.isfinite(strict.values[1]).all()
    with pytest.raises(ValueError, match="categories are"):
        encoder.apply(variables, Stream(jnp.zeros((2, 3, 4)), jnp.ones((2, 3), bool)))
