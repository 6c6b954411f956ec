"""The decoder: a step at a time with a cache against all steps at once; what it sees; greedy generation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.decoder import DecoderBlock, TextDecoder
from mmjax.fusion import JointTransformer
from mmjax.generation import generate_greedily
from mmjax.layers import MLP, LayerNorm, MultiHeadAttention, TransformerBlock
from mmjax.models import Multimodal
from mmjax.stream import Stream
from tests.draw import draw_params, draw_streams, quick_jit, run

RNG = np.random.default_rng(0)
VOCABULARY, LENGTH = 7, 5
MEMORY = Stream(
    jnp.asarray(RNG.normal(size=(3, 4, 6)), jnp.float32),  # of another width than the decoder
    jnp.asarray([[True] * 4, [True, False, True, False], [False] * 4]),
)
TARGETS = Stream(
    jnp.asarray(RNG.integers(0, VOCABULARY, (3, LENGTH)), jnp.int32),
    jnp.arange(LENGTH) < jnp.asarray([5, 3, 4])[:, None],
)
DECODER = TextDecoder(8, VOCABULARY, num_layers=2, block=DecoderBlock(num_heads=2, mlp_dim=8))
PARAMS = draw_params(DECODER, MEMORY, targets=TARGETS)


@quick_jit
def forced(params, memory, targets):
    return DECODER.apply({"params": params}, memory, targets=targets)


LOGITS = forced(PARAMS, MEMORY, TARGETS)


def test_a_block_is_three_residual_steps():
    """Each part applied by itself: attention over what stands before, attention to the memory, one MLP."""
    block = DecoderBlock(dim=8, num_heads=2, mlp_dim=6)
    x = jnp.asarray(RNG.normal(size=(3, LENGTH, 8)), jnp.float32)
    params = draw_params(block, x, MEMORY, mask=TARGETS.mask)
    heads = MultiHeadAttention(8, num_heads=2)

    def part(module, name, *args, **kwargs):
        return run(module, params[name], *args, **kwargs)[0]

    causal = jnp.tri(LENGTH, dtype=bool) & TARGETS.mask[:, None]
    y = x + part(heads, "self_attention", part(LayerNorm(), "self_norm", x), mask=causal)
    context = part(LayerNorm(), "memory_norm", MEMORY.zeroed.values)
    y = y + part(heads, "cross_attention", part(LayerNorm(), "cross_norm", y), context, mask=MEMORY.mask)
    y = y + part(MLP((6, 8)), "mlp", part(LayerNorm(), "mlp_norm", y))
    np.testing.assert_allclose(part_of(block, params, x), y, rtol=1e-5, atol=1e-5)
    assert sorted(params) == sorted(
        ["self_norm", "self_attention", "cross_norm", "memory_norm", "cross_attention", "mlp_norm", "mlp"]
    )


def part_of(block, params, x):
    return run(block, params, x, MEMORY, mask=TARGETS.mask)[0]


def test_step_by_step_with_a_cache_are_the_logits_of_all_steps_at_once():
    def start(decoder, memory):
        return decoder.start(memory, LENGTH)

    variables = {"params": PARAMS}
    caches = DECODER.apply(variables, MEMORY, method=start)
    step = quick_jit(lambda *now: DECODER.apply(variables, *now, method="step"))
    before = jnp.full(3, 3)  # whatever stands before the first
    for position in range(LENGTH):
        logits, caches = step(before, caches, position)
        real = np.asarray(TARGETS.mask[:, position])
        np.testing.assert_allclose(logits[real], LOGITS[real, position], rtol=1e-5, atol=1e-5)
        before = TARGETS.values[:, position]
    assert caches[1][0].keys.value.shape == (3, 2, LENGTH, 4) and len(caches[1]) == 2


def test_a_token_depends_on_those_before_it_alone():
    for position in range(LENGTH):
        other = TARGETS.values.at[:, position].set((TARGETS.values[:, position] + 1) % VOCABULARY)
        changed = np.asarray(forced(PARAMS, MEMORY, TARGETS.replace(values=other)) != LOGITS).any(-1)
        assert not changed[:, : position + 1].any()
        later = np.asarray(TARGETS.mask[:, position + 1 :])
        assert later.size == 0 or changed[:, position + 1 :][later].all()


def test_padding_of_memory_and_targets_never_matters():
    def loss(params, values, ids):
        logits = DECODER.apply({"params": params}, MEMORY.replace(values=values), targets=TARGETS.replace(values=ids))
        return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum(), logits

    gradient = quick_jit(jax.grad(loss, (0, 1), has_aux=True))
    results = []
    for poison, word in ((0.0, 0), (jnp.nan, 10**6)):
        values = jnp.where(MEMORY.mask[..., None], MEMORY.values, poison)
        results.append(gradient(PARAMS, values, jnp.where(TARGETS.mask, TARGETS.values, word)))
    jax.tree.map(np.testing.assert_array_equal, *results)
    (by_params, by_memory), logits = results[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((by_params, by_memory)))
    assert not np.asarray(by_memory)[~np.asarray(MEMORY.mask)].any() and np.asarray(by_memory[0]).any()
    assert not np.asarray(logits)[~np.asarray(TARGETS.mask)].any()
    alone = jax.tree.map(lambda x: x[1:2], TARGETS)
    shorter, _ = run(DECODER, PARAMS, Stream.of(MEMORY.values[1:2, ::2]), targets=alone)
    np.testing.assert_allclose(shorter, LOGITS[1:2], rtol=1e-5, atol=1e-5)


def test_several_captions_of_an_example_are_as_one_by_one():
    """Logits and gradients of ``[batch, captions, length]`` against a call for each place, poison in the padding."""
    captions = Stream(
        jnp.asarray(RNG.integers(0, VOCABULARY, (3, 2, LENGTH)), jnp.int32),
        jnp.arange(LENGTH) < jnp.asarray([[5, 2], [3, 0], [4, 1]])[..., None],
    )
    captions = captions.replace(values=jnp.where(captions.mask, captions.values, 10**6))
    waves = jnp.cos(jnp.arange(3 * 2 * LENGTH * VOCABULARY)).reshape(3, 2, LENGTH, VOCABULARY)

    def together(params, values):
        logits = DECODER.apply({"params": params}, MEMORY.replace(values=values), targets=captions)
        return (logits * waves).sum(), logits

    def apart(params, values):
        memory = MEMORY.replace(values=values)
        each = [
            DECODER.apply({"params": params}, memory, targets=Stream(captions.values[:, i], captions.mask[:, i]))
            for i in range(2)
        ]
        logits = jnp.stack(each, 1)
        return (logits * waves).sum(), logits

    results = [quick_jit(jax.grad(f, (0, 1), has_aux=True))(PARAMS, MEMORY.values) for f in (together, apart)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results)
    assert results[0][1].shape == waves.shape and not results[0][1][1, 1].any()


def test_tied_embeddings_are_one_table_at_both_ends():
    tied = DECODER.clone(tied=True)
    params = draw_params(tied, MEMORY, targets=TARGETS)
    assert "out" not in params and params["bias"].shape == (VOCABULARY,)
    table = params["embedding"]["embedding"]
    untied = {name: value for name, value in params.items() if name != "bias"}
    untied["out"] = {"kernel": table.T, "bias": params["bias"]}
    wanted = forced(untied, MEMORY, TARGETS)
    logits, _ = run(tied, params, MEMORY, targets=TARGETS)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)
    short = tied.apply({"params": params}, MEMORY, LENGTH, method="start")
    first, _ = tied.apply({"params": params}, jnp.zeros(3, int), short, 0, method="step")
    np.testing.assert_allclose(first, wanted[:, 0], rtol=1e-5, atol=1e-5)


def test_says_what_it_needs():
    with pytest.raises(ValueError, match=r"TextDecoder predicts a sequence given .* got NoneType"):
        draw_params(DECODER, MEMORY)
    with pytest.raises(ValueError, match=r"needs its width: dim=\.\.\."):
        draw_params(DecoderBlock(), jnp.zeros((1, 2, 8)), MEMORY, mask=jnp.ones((1, 2), bool))


STREAMS = draw_streams({"image": 8, "sound": 8}, length=2, batch=3)
MODEL = Multimodal({}, JointTransformer(8, num_layers=1, block=TransformerBlock(num_heads=2), cls_token=False), DECODER)


def test_greedy_generation_takes_the_best_token_given_its_own():
    """Each generated token is the best by the teacher-forced logits of the sequence generated so far."""

    def first(hypotheses):
        return jax.tree.map(lambda x: x[:, 0], hypotheses.tokens)

    variables = {"params": draw_params(MODEL, STREAMS, targets=TARGETS, seed=4)}
    generate = quick_jit(lambda v, s: generate_greedily(MODEL, v, s, max_length=LENGTH))
    words = first(generate(variables, STREAMS))
    assert words.mask.all() and words.values.shape == (3, LENGTH)
    logits = quick_jit(lambda v, s, t: MODEL.apply(v, s, targets=t))(variables, STREAMS, words)
    np.testing.assert_array_equal(logits.argmax(-1), words.values)
    end = int(words.values[0, 2])
    ended = first(generate_greedily(MODEL, variables, STREAMS, max_length=LENGTH, end_id=end))
    for row in range(3):
        places = np.flatnonzero(words.values[row] == end)
        length = places[0] if len(places) else LENGTH
        np.testing.assert_array_equal(ended.mask[row], np.arange(LENGTH) < length)
        np.testing.assert_array_equal(ended.values[row, :length], words.values[row, :length])
        assert (np.asarray(ended.values[row, length:]) == end).all()
