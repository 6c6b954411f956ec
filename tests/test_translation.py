"""The task of translation: its loss is that of all tokens of a batch; what is said comes back as words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.datasets.multi30k.vocabulary import END_ID, fit_units, pair_target, with_end
from mmjax.decoder import TextDecoder
from mmjax.encoders import TransformerText
from mmjax.errors import UsageError
from mmjax.fusion import JoinedTokens
from mmjax.hypotheses import unpack
from mmjax.layers import TokenEmbedding, TransformerBlock
from mmjax.losses import cross_entropy
from mmjax.metrics import compute, merge
from mmjax.models import Multimodal
from mmjax.stream import Batch, Stream
from mmjax.tasks import generates
from mmjax.training import Train, init_state, make_optimizer, make_train_step
from mmjax.translation import Translation, inverse_square_root, token_nats

PAIRS = [
    ("a dog runs", "ein hund läuft"),
    ("a cat", "eine katze"),
    ("dogs", "hunde"),
    ("a cat runs", "eine katze läuft"),
]
TOKENIZER = fit_units([text for pair in PAIRS for text in pair], size=80)
TASK = Translation(END_ID, max_length=12, beams=2)


def batch():
    source, target = zip(*PAIRS)
    number = np.arange(len(PAIRS))
    streams = {"text": with_end(TOKENIZER, source, 20)}
    return Batch(streams, pair_target(TOKENIZER, target, 20), np.ones(len(PAIRS), np.float32), number, number)


DATA = batch()
LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(*DATA.target["tokens"].mask.shape, 80)), jnp.float32)


def test_the_loss_is_the_mean_over_all_tokens_of_the_rows_that_count():
    weight = np.asarray([1, 0, 1, 1], np.float32)
    data = DATA.replace(weight=weight)
    tokens = data.target["tokens"]
    mask = np.asarray(tokens.mask) & (weight > 0)[:, None]
    each = np.asarray(cross_entropy(LOGITS, jnp.asarray(tokens.values), label_smoothing=0.1))
    np.testing.assert_allclose(TASK.loss(LOGITS, data), each[mask].mean(), rtol=1e-5)
    plain = np.asarray(cross_entropy(LOGITS, jnp.asarray(tokens.values)))
    metrics = compute(TASK.metrics(LOGITS, data))
    np.testing.assert_allclose(metrics["loss"], plain[mask].mean(), rtol=1e-5)
    right = np.asarray(LOGITS.argmax(-1) == tokens.values)
    np.testing.assert_allclose(metrics["token_accuracy"], right[mask].mean(), rtol=1e-6)


def test_metrics_of_parts_are_those_of_the_whole():
    parts = [jax.tree.map(lambda x, at=at: x[at], (DATA, LOGITS)) for at in (slice(0, 1), slice(1, None))]
    merged = compute(merge(*(TASK.metrics(logits, data) for data, logits in parts)))
    whole = compute(TASK.metrics(LOGITS, DATA))
    np.testing.assert_allclose(merged["loss"], whole["loss"], rtol=1e-6)


def test_padding_reaches_neither_loss_nor_gradient():
    tokens = DATA.target["tokens"]
    poisoned = jnp.where(tokens.mask[..., None], LOGITS, jnp.nan)
    loss, gradient = jax.value_and_grad(TASK.loss)(poisoned, DATA)
    expected, wanted = jax.value_and_grad(TASK.loss)(LOGITS, DATA)
    assert loss == expected
    np.testing.assert_array_equal(gradient, wanted)
    assert (token_nats(poisoned, tokens.values, tokens.mask)[~tokens.mask] == 0).all()


def test_the_schedule_of_the_transformer():
    schedule = inverse_square_root(5e-3, 0, warmup=2_000)
    np.testing.assert_allclose([schedule(0), schedule(999), schedule(1_999), schedule(7_999)],
                               [2.5e-6, 2.5e-3, 5e-3, 2.5e-3], rtol=1e-5)  # fmt: skip


def test_four_sentences_are_learned_and_said_in_words():
    vectors = TokenEmbedding(16, 80, embedding_init=jax.nn.initializers.normal(0.25))
    encoder = TransformerText(16, 80, 1, TransformerBlock(num_heads=2, mlp_dim=16), vectors=vectors)
    model = Multimodal({"text": encoder}, JoinedTokens(16), TextDecoder(16, 80, vectors=vectors, tied=True))
    tx = make_optimizer(Train(learning_rate=2e-2), 60)
    state = init_state(model, tx, DATA.streams, jax.random.key(0), targets=DATA.target, task=TASK)
    step = jax.jit(make_train_step(model, TASK, tx))
    for _ in range(60):
        state, _ = step(state, DATA, jax.random.key(1))
    assert generates(TASK)
    said = jax.jit(lambda v: TASK.generate(model, v, DATA))(state.variables)
    texts, scores = unpack(TASK.spell(said, {"text": TOKENIZER}))
    assert texts[:, 0].tolist() == [target for _, target in PAIRS]
    assert (scores[:, 0] < 0).all() and scores[:, 0].min() > -2


def test_says_what_it_needs():
    with pytest.raises(UsageError, match="dict with a Stream 'tokens'"):
        TASK.check_target(DATA.target["tokens"], np.ones(4, bool))
    empty = {"tokens": Stream(DATA.target["tokens"].values, DATA.target["tokens"].mask & (np.arange(4) != 2)[:, None])}
    assert TASK.check_target(empty, np.ones(4, bool)) == ((2,), "no translation")
    assert TASK.check_target(DATA.target, np.ones(4, bool)) is None
    with pytest.raises(UsageError, match=r"tokenizer is 'text'; the data set has \['words'\]"):
        TASK.spell({}, {"words": TOKENIZER})
