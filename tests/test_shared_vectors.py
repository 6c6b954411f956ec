"""Word vectors that source, target and output share: one table, the same logits step by step and all at once."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.decoder import DecoderBlock, TextDecoder
from mmjax.encoders import TransformerText
from mmjax.fusion import JoinedTokens
from mmjax.generation import generate_greedily
from mmjax.layers import TokenEmbedding, TransformerBlock
from mmjax.models import Multimodal
from mmjax.stream import Stream

VOCABULARY, DIM = 9, 8


def model(shared: bool) -> Multimodal:
    vectors = TokenEmbedding(DIM, VOCABULARY, embedding_init=jax.nn.initializers.normal(0.3)) if shared else None
    encoder = TransformerText(DIM, VOCABULARY, 1, TransformerBlock(num_heads=2, mlp_dim=8), vectors=vectors)
    head = TextDecoder(DIM, VOCABULARY, 1, DecoderBlock(num_heads=2, mlp_dim=8), vectors=vectors, tied=shared)
    return Multimodal({"text": encoder}, JoinedTokens(DIM), head)


STREAMS = {"text": Stream(jnp.asarray([[3, 4, 5], [6, 7, 0]]), jnp.asarray([[True] * 3, [True, True, False]]))}
TARGETS = Stream.of(jnp.asarray([[2, 8, 5, 1], [4, 3, 1, 1]]))


def tables(params):
    return [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if VOCABULARY in leaf.shape and leaf.ndim > 1]  # fmt: skip


def test_source_target_and_output_have_one_table():
    variables = model(shared=True).init(jax.random.key(0), STREAMS, targets=TARGETS)
    assert len(tables(variables["params"])) == 1
    apart = model(shared=False).init(jax.random.key(0), STREAMS, targets=TARGETS)
    assert len(tables(apart["params"])) == 3


def test_logits_are_products_with_the_vectors_of_the_words():
    head = TextDecoder(DIM, VOCABULARY, num_layers=0, tied=True)
    memory = Stream.of(jnp.ones((2, 1, DIM)))
    logits, variables = head.init_with_output(jax.random.key(0), memory, targets=TARGETS)
    params = variables["params"]
    first = jnp.asarray(params["first"]) * DIM**0.5 + jnp.tile(jnp.asarray([0.0, 1.0]), DIM // 2)  # its position
    normal = (first - first.mean()) / jnp.sqrt(first.var() + 1e-6)
    np.testing.assert_allclose(logits[:, 0], jnp.stack([params["embedding"]["embedding"] @ normal] * 2), atol=1e-4)


def test_generation_says_what_teacher_forcing_scores():
    """Greedy tokens are the best ones given themselves, and their log-probabilities are those of teacher forcing."""
    net = model(shared=True)
    variables = net.init(jax.random.key(1), STREAMS, targets=TARGETS)
    said = generate_greedily(net, variables, STREAMS, max_length=4)
    tokens = Stream.of(said.tokens.values[:, 0])
    logits = jax.nn.log_softmax(net.apply(variables, STREAMS, targets=tokens))
    assert (logits.argmax(-1) == tokens.values).all()
    scores = jnp.take_along_axis(logits, tokens.values[..., None], -1)[..., 0].sum(1)
    np.testing.assert_allclose(said.scores[:, 0], scores, rtol=1e-5)
