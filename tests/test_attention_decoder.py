"""The attention LSTM against its equations written out in NumPy, and against itself step by step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.attention_decoder import AttentionLSTMDecoder
from mmjax.generation import beam_search
from mmjax.stream import Stream
from tests.draw import draw_params, quick_jit

RNG = np.random.default_rng(0)
END, VOCABULARY, LENGTH, ITEMS = 0, 5, 4, 4
MEMORY = Stream(
    jnp.asarray(RNG.normal(size=(3, ITEMS, 6)), jnp.float32),
    jnp.asarray([[True] * 4, [True, False, True, False], [False] * 4]),
)
TARGETS = Stream(
    jnp.asarray(RNG.integers(0, VOCABULARY, (3, LENGTH)), jnp.int32),
    jnp.asarray([[True] * 4, [True, True, False, False], [True, False, True, True]]),
)
DECODER = AttentionLSTMDecoder(8, VOCABULARY, attention_dim=7)
PARAMS = draw_params(DECODER, MEMORY, targets=TARGETS)
COLLECTIONS = ["losses", "intermediates"]


@quick_jit
def forced(params, memory, targets):
    logits, sown = DECODER.apply({"params": params}, memory, targets=targets, mutable=COLLECTIONS)
    return logits, sown["intermediates"]["annotation_attention_weights"][0], sown["losses"]["attention_coverage"][0]


LOGITS, WEIGHTS, COVERAGE = forced(PARAMS, MEMORY, TARGETS)


def by_hand(row):
    """Logits and weights of a row, its real items and real tokens alone: the equations of the paper, one at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    items = np.asarray(MEMORY.values[row], np.float64)[np.asarray(MEMORY.mask[row])]
    mean = items.mean(0) if len(items) else np.zeros(6)
    h = np.tanh(mean @ p["init_hidden"]["kernel"] + p["init_hidden"]["bias"])
    c = np.tanh(mean @ p["init_memory"]["kernel"] + p["init_memory"]["bias"])
    words = np.asarray(TARGETS.values[row])[np.asarray(TARGETS.mask[row])]
    word, logits, weights = p["first"], [], []
    for token in words:
        hidden = np.tanh(items @ p["annotation"]["kernel"] + p["annotation"]["bias"] + h @ p["query"])
        alpha = np.exp(hidden @ p["score"][:, 0])
        alpha = alpha / alpha.sum() if len(items) else alpha
        z = sigmoid(h @ p["gate"] + p["gate_bias"])[0] * (alpha @ items if len(items) else np.zeros(6))
        gates = word @ p["word"]["kernel"] + h @ p["state"] + z @ p["context"] + p["bias"]
        i, f, o, g = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        deep = word + h @ p["out_hidden"]["kernel"] + z @ p["out_context"]["kernel"]
        logits.append(deep @ p["out"]["kernel"] + p["out"]["bias"])
        weights.append(alpha)
        word = p["embedding"]["embedding"][token]
    return np.stack(logits), np.stack(weights)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_it_is_the_equations_of_the_paper(row):
    """Also with masked items, without any, and with a hole in the words: as if it were not there."""
    logits, weights = by_hand(row)
    real, items = np.asarray(TARGETS.mask[row]), np.asarray(MEMORY.mask[row])
    np.testing.assert_allclose(LOGITS[row][real], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(WEIGHTS[row][real][:, items], weights, rtol=1e-4, atol=1e-5)
    assert not np.asarray(LOGITS[row])[~real].any() and not np.asarray(WEIGHTS[row])[~real].any()
    assert not np.asarray(WEIGHTS[row])[:, ~items].any()
    np.testing.assert_allclose(COVERAGE[row], np.square(1 - weights.sum(0)).sum(), rtol=1e-4, atol=1e-5)


def test_teacher_forced_logits_are_those_of_steps():
    variables = {"params": PARAMS}
    words = Stream.of(TARGETS.values)
    wanted, weights, _ = forced(PARAMS, MEMORY, words)
    cache = DECODER.apply(variables, MEMORY, LENGTH, method="start")
    step = quick_jit(lambda *now: DECODER.apply(variables, *now, method="step"))
    before = jnp.full(3, 3)  # whatever stands before the first
    for position in range(LENGTH):
        logits, cache = step(before, cache, position)
        np.testing.assert_allclose(logits, wanted[:, position], rtol=1e-5, atol=1e-5)
        before = words.values[:, position]
    explained = DECODER.apply(variables, MEMORY, words, method="explain")
    np.testing.assert_allclose(explained, weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(explained.sum(-1)[:2], 1, rtol=1e-6)


def test_padding_never_matters_and_gets_no_gradient():
    def loss(params, values, ids):
        state = {"params": params}
        memory, targets = MEMORY.replace(values=values), TARGETS.replace(values=ids)
        logits, sown = DECODER.apply(state, memory, targets=targets, mutable=COLLECTIONS)
        waves = jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)
        return (logits * waves).sum() + sown["losses"]["attention_coverage"][0].sum(), logits

    gradient = quick_jit(jax.grad(loss, (0, 1), has_aux=True))
    results = []
    for poison, word in ((0.0, 0), (jnp.nan, 10**6)):
        values = jnp.where(MEMORY.mask[..., None], MEMORY.values, poison)
        results.append(gradient(PARAMS, values, jnp.where(TARGETS.mask, TARGETS.values, word)))
    jax.tree.map(np.testing.assert_array_equal, *results)
    (by_params, by_memory), _ = results[0]
    assert all(np.isfinite(leaf).all() and np.asarray(leaf).any() for leaf in jax.tree.leaves(by_params))
    assert not np.asarray(by_memory)[~np.asarray(MEMORY.mask)].any() and np.asarray(by_memory[0]).any()


def test_several_captions_of_an_example_are_as_one_by_one():
    captions = Stream(
        jnp.asarray(RNG.integers(0, VOCABULARY, (3, 2, LENGTH)), jnp.int32),
        jnp.arange(LENGTH) < jnp.asarray([[4, 2], [3, 0], [0, 0]])[..., None],
    )
    logits, weights, coverage = forced(PARAMS, MEMORY, captions)
    each = [forced(PARAMS, MEMORY, Stream(captions.values[:, i], captions.mask[:, i])) for i in range(2)]
    for place in range(2):
        np.testing.assert_allclose(logits[:, place], each[place][0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights[:, place], each[place][1], rtol=1e-5, atol=1e-5)
    alone = [one[2] for one in each]
    np.testing.assert_allclose(coverage, [(alone[0][0] + alone[1][0]) / 2, alone[0][1], 0], rtol=1e-5)


def test_the_regulariser_is_weighted_and_can_be_left_out():
    def sown(**fields):
        decoder = DECODER.clone(**fields)
        return decoder.apply({"params": PARAMS}, MEMORY, targets=TARGETS, mutable=["losses"])[1].get("losses", {})

    np.testing.assert_allclose(sown(coverage=0.5)["attention_coverage"][0], 0.5 * COVERAGE, rtol=1e-6)
    assert not sown(coverage=0.0)


def test_a_beam_of_full_width_is_exact():
    """Against all sequences, each scored by teacher forcing."""
    options = {"max_length": 3, "end_id": END, "beams": 64, "n_best": 4}
    found = quick_jit(lambda m: beam_search(DECODER, {"params": PARAMS}, m, **options))(MEMORY)
    words = [word for word in range(VOCABULARY) if word != END]
    ended = [(*w, END) for n in range(3) for w in itertools.product(words, repeat=n)]
    every = ended + list(itertools.product(words, repeat=3))
    ids = np.zeros((len(every), 3), np.int32)
    mask = np.zeros((len(every), 3), bool)
    for place, tokens in enumerate(every):
        ids[place, : len(tokens)], mask[place, : len(tokens)] = tokens, True
    targets = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), Stream(ids, mask))
    nats = jax.nn.log_softmax(forced(PARAMS, MEMORY, targets)[0], -1)
    nats = np.where(mask, np.take_along_axis(np.asarray(nats), np.asarray(targets.values)[..., None], -1)[..., 0], 0)
    for row in range(3):
        scores = nats[row].sum(-1)
        best = np.argsort(-scores)[:4]
        np.testing.assert_allclose(found.scores[row], scores[best], rtol=1e-4)
        for place, number in enumerate(best):
            said = np.asarray(found.tokens.values[row, place])[np.asarray(found.tokens.mask[row, place])]
            assert tuple(said) == tuple(token for token in every[number] if token != END)


def test_bfloat16_keeps_its_state_in_float32():
    decoder = DECODER.clone(dtype=jnp.bfloat16)
    cache = decoder.apply({"params": PARAMS}, MEMORY, LENGTH, method="start")
    logits, cache = decoder.apply({"params": PARAMS}, jnp.zeros(3, int), cache, 0, method="step")
    assert logits.dtype == cache.hidden.dtype == cache.memory.dtype == jnp.float32
    np.testing.assert_allclose(logits[:, :], LOGITS[:, 0], rtol=0.1, atol=0.1)


def test_says_what_it_needs():
    with pytest.raises(ValueError, match=r"AttentionLSTMDecoder predicts a sequence given .* got NoneType"):
        draw_params(DECODER, MEMORY)
