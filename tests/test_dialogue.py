"""Replies: no turn sees itself or a later one, what is absent tells nothing, and generation says what was learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tokenizers import Tokenizer, models

from mmjax.decoder import TextDecoder
from mmjax.dialogue import History, Replies, ReplyHead, TurnFusion
from mmjax.encoders import FeatureMLP, RecurrentText
from mmjax.errors import UsageError
from mmjax.hypotheses import unpack
from mmjax.layers import GRU, final_state
from mmjax.metrics import compute
from mmjax.models import Multimodal
from mmjax.stream import Batch, Stream, masked_last

VOCABULARY, TURNS, WORDS, DIM = 7, 3, 4, 8


def make_batch(rows=4, seed=0):
    draw = np.random.default_rng(seed)
    question = draw.integers(1, VOCABULARY, (rows, TURNS, WORDS)).astype(np.int32)
    mask = np.arange(WORDS) < draw.integers(1, WORDS + 1, (rows, TURNS, 1))
    before = np.tri(TURNS, k=-1, dtype=bool)[:, : TURNS - 1]
    history = np.broadcast_to(question[:, None, : TURNS - 1], (rows, TURNS, TURNS - 1, WORDS))
    heard = np.broadcast_to(mask[:, None, : TURNS - 1], history.shape) & before[None, :, :, None]
    tokens = draw.integers(1, VOCABULARY, (rows, TURNS, WORDS)).astype(np.int32)
    ends = draw.integers(1, WORDS, (rows, TURNS, 1))
    tokens = np.where(np.arange(WORDS) == ends, 0, tokens)
    streams = {
        "image": Stream(draw.normal(size=(rows, 5, 3)).astype(np.float32), np.ones((rows, 5), bool)),
        "question": Stream(question, mask),
        "history": Stream(np.where(heard, history, 0), heard),
    }
    number = np.arange(rows * TURNS, dtype=np.int32).reshape(rows, TURNS)
    target = {"tokens": Stream(tokens, np.arange(WORDS) <= ends)}
    return Batch(streams, target, np.ones(rows, np.float32), number, number // TURNS)


BATCH = jax.tree.map(jnp.asarray, make_batch())
ENCODERS = {
    "image": FeatureMLP(DIM),
    "question": RecurrentText(DIM, VOCABULARY, cell=GRU, bidirectional=True, pool=final_state),
    "history": History(DIM, VOCABULARY, word_dim=6),
}
MODEL = Multimodal(ENCODERS, TurnFusion(DIM), ReplyHead(TextDecoder(DIM, VOCABULARY)))
TASK = Replies(max_length=WORDS, beams=2, n_best=2)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), BATCH.streams, targets=BATCH.target)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(MODEL.apply)


def test_a_turn_sees_what_came_before_it_alone(variables, apply):
    whole = apply(variables, BATCH.streams, targets=BATCH.target)
    history = BATCH.streams["history"]
    later = history.values.at[:, 2].set(3)
    changed = apply(variables, {**BATCH.streams, "history": history.replace(values=later)}, targets=BATCH.target)
    np.testing.assert_array_equal(whole[:, :2], changed[:, :2])
    assert np.abs(whole[:, 2] - changed[:, 2]).max() > 1e-3


def test_a_history_is_the_last_state_over_the_turns_before(variables):
    history = BATCH.streams["history"]
    own = {"params": variables["params"]["encoders_history"]}
    found = History(DIM, VOCABULARY, word_dim=6).apply(own, history)
    np.testing.assert_array_equal(found.mask, np.tile(np.arange(TURNS) > 0, (4, 1)))
    assert not found.values[:, 0].any()
    short = Stream(history.values[:, 2:3, :1], history.mask[:, 2:3, :1])  # after the first turn alone
    first = History(DIM, VOCABULARY, word_dim=6).apply(own, short)
    np.testing.assert_allclose(found.values[:, 1], first.values[:, 0], atol=1e-6)
    with pytest.raises(ValueError, match="a history is ids"):
        History(DIM, VOCABULARY).init(jax.random.key(0), BATCH.streams["question"])
    assert masked_last(found.values, found.mask).shape == (4, DIM)


def test_what_is_absent_or_padding_reaches_nothing(variables, apply):
    def loss(params, streams):
        outputs = MODEL.apply({"params": params}, streams, targets=BATCH.target)
        return TASK.loss(outputs, BATCH.replace(streams=streams)).sum()

    gradient = jax.jit(jax.value_and_grad(loss))
    for name in ("image", "history"):
        without = {**BATCH.streams, name: BATCH.streams[name].absent()}
        values = without[name].values
        other = jnp.full_like(values, jnp.nan if values.dtype.kind == "f" else VOCABULARY - 1)
        one = gradient(variables["params"], without)
        two = gradient(variables["params"], {**without, name: without[name].replace(values=other)})
        jax.tree.map(np.testing.assert_array_equal, one, two)
        assert np.isfinite(one[0])
        lost = jax.tree.leaves(one[1][f"encoders_{name}"])
        assert all(not leaf.any() for leaf in lost)


def test_the_loss_is_the_sum_over_the_words_of_a_turn(variables, apply):
    outputs = np.asarray(apply(variables, BATCH.streams, targets=BATCH.target), np.float64)
    tokens = BATCH.target["tokens"]
    logs = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    each = -np.take_along_axis(logs, np.asarray(tokens.values)[..., None], -1)[..., 0]
    expected = np.where(tokens.mask, each, 0).sum(-1)
    np.testing.assert_allclose(TASK.loss(outputs, BATCH), expected, rtol=1e-5)
    padded = jnp.where(tokens.mask[..., None], outputs, jnp.nan)
    np.testing.assert_allclose(TASK.loss(padded, BATCH), expected, rtol=1e-5)
    right = ((outputs.argmax(-1) == tokens.values) | ~tokens.mask).all(-1).mean()
    metrics = compute(TASK.metrics(outputs, BATCH))
    np.testing.assert_allclose(metrics["reply_accuracy_forced"], right, rtol=1e-6)


def test_what_was_learned_is_said(variables):
    tx = optax.adam(2e-2)

    @jax.jit
    def step(params, state):
        loss = lambda p: TASK.loss(MODEL.apply({"params": p}, BATCH.streams, targets=BATCH.target), BATCH).mean()  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        change, state = tx.update(gradient, state)
        return optax.apply_updates(params, change), state, value

    params, state = variables["params"], tx.init(variables["params"])
    for _ in range(150):
        params, state, value = step(params, state)
    assert value < 0.1
    said = jax.jit(lambda batch: TASK.generate(MODEL, {"params": params}, batch))(BATCH.replace(target=None))
    assert said["ids"].shape == (4, TURNS, 2, WORDS) and said["scores"].shape == (4, TURNS, 2)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    texts, scores = unpack(TASK.spell(jax.device_get(said), {"question": words}))
    tokens = BATCH.target["tokens"]
    for place in np.ndindex(4, TURNS):
        ids = np.asarray(tokens.values[place])[np.asarray(tokens.mask[place])]
        assert texts[place][0] == " ".join(f"w{i}" for i in ids[:-1])  # without its end
    assert (scores[..., 0] > scores[..., 1]).all()
    # the score is the log-probability: minus the loss of the reply
    outputs = MODEL.apply({"params": params}, BATCH.streams, targets=BATCH.target)
    np.testing.assert_allclose(scores[..., 0], -TASK.loss(outputs, BATCH), atol=1e-4)


def test_wrong_targets_get_one_line():
    real = np.ones((4, TURNS), bool)
    assert TASK.check_target(make_batch().target, real) is None
    with pytest.raises(UsageError, match="Stream 'tokens'"):
        TASK.check_target({"tokens": np.zeros((4, TURNS))}, real)
    silent = make_batch().target["tokens"]
    mask = silent.mask.copy()
    mask[1, 2] = False
    assert TASK.check_target({"tokens": Stream(silent.values, mask)}, real) == ((1, 2), "turn (1, 2) has no reply")
    with pytest.raises(ValueError, match="replies are learned from targets"):
        MODEL.init(jax.random.key(0), BATCH.streams)
    with pytest.raises(ValueError, match="turns are streams of one length"):
        TurnFusion(DIM).init(jax.random.key(0), {"image": BATCH.streams["image"]})
