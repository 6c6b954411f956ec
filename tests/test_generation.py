"""Generation against brute force: all sequences of a tiny vocabulary are enumerated and scored one by one."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.caches import Shared
from mmjax.decoder import DecoderBlock, TextDecoder
from mmjax.errors import UsageError
from mmjax.fusion import JointTransformer
from mmjax.generation import _top_k, beam_search, generate_greedily, gnmt_penalty, length_normalisation, sample
from mmjax.layers import TransformerBlock
from mmjax.models import Multimodal
from mmjax.stream import Stream
from mmjax.trie import Trie
from tests.draw import draw_params, draw_streams, quick_jit

END, VOCABULARY, LENGTH, WIDTH = 0, 4, 4, 6
RNG = np.random.default_rng(0)
EMBEDDING, OUT = RNG.normal(size=(VOCABULARY, WIDTH)), 2 * RNG.normal(size=(WIDTH, VOCABULARY))
MEMORY = Stream.of(jnp.asarray(RNG.normal(size=(3, 1, WIDTH)), jnp.float32))


class Speaker(nn.Module):
    """A head without parameters whose logits depend on the memory and on every token so far, in their order."""

    def start(self, memory, max_length):
        return {"said": jnp.zeros((len(memory.mask), WIDTH)), "memory": Shared(memory.zeroed.values[:, 0])}

    def step(self, ids, caches, position):
        said = jnp.where(position == 0, 0.0, 0.7 * caches["said"] + jnp.asarray(EMBEDDING)[ids])
        memory = caches["memory"].value
        state = jnp.tanh(said + jnp.repeat(memory, len(ids) // len(memory), axis=0))
        return state @ jnp.asarray(OUT), {**caches, "said": said}


def log_probability(row, tokens):
    """Nats of the tokens, the end of a sequence among them, computed by NumPy alone."""
    said, total = np.zeros(WIDTH), 0.0
    for i, token in enumerate(tokens):
        if i:
            said = 0.7 * said + EMBEDDING[tokens[i - 1]]
        logits = np.tanh(said + np.asarray(MEMORY.values[row, 0], float)) @ OUT
        total += logits[token] - np.log(np.exp(logits).sum())
    return total


def every_sequence():
    """All that may be generated, as (words, all tokens of it): ended ones, and cut ones of the full length."""
    words = [token for token in range(VOCABULARY) if token != END]
    for length in range(LENGTH):
        for said in itertools.product(words, repeat=length):
            yield said, (*said, END)
    for said in itertools.product(words, repeat=LENGTH):
        yield said, said


def ranked(row, penalty):
    """The sequences of a row, best first, and their scores."""
    scored = [(log_probability(row, tokens) / penalty(len(tokens)), words) for words, tokens in every_sequence()]
    return sorted(scored, reverse=True)


def said(hypotheses, row, place=0):
    tokens = hypotheses.tokens
    return tuple(np.asarray(tokens.values[row, place])[np.asarray(tokens.mask[row, place])].tolist())


def generated(generate, memory=MEMORY, **options):
    options = {"max_length": LENGTH, "end_id": END, **options}
    return quick_jit(lambda m: generate(Speaker(), {}, m, **options))(memory)


def search(**options):
    return generated(beam_search, **options)


@pytest.mark.parametrize(
    "penalty, by_hand",
    [
        (0.0, lambda n: 1),
        (0.9, lambda n: ((5 + n) / 6) ** 0.9),
        (length_normalisation(), lambda n: n),
        (gnmt_penalty(2.0), lambda n: ((5 + n) / 6) ** 2),
    ],
)
def test_a_beam_of_full_width_finds_the_best_of_all_sequences(penalty, by_hand):
    beams = 3**LENGTH
    found = search(beams=beams, n_best=7, length_penalty=penalty)
    lengths = set()
    for row in range(3):
        best = ranked(row, by_hand)[:7]
        assert [said(found, row, place) for place in range(7)] == [words for _, words in best]
        np.testing.assert_allclose(found.scores[row], [score for score, _ in best], rtol=1e-5)
        lengths |= {len(words) for _, words in best}
    assert len(lengths) > 1


def test_a_narrow_beam_scores_what_it_finds_and_never_beats_all():
    for beams in (1, 2, 3):
        found = search(beams=beams, n_best=beams, length_penalty=1.0)
        for row in range(3):
            best = ranked(row, gnmt_penalty(1.0))
            scores = {words: score for score, words in best}
            own = [said(found, row, place) for place in range(beams)]
            assert len(set(own)) == beams
            np.testing.assert_allclose(found.scores[row], [scores[words] for words in own], rtol=1e-5)
            assert (np.diff(found.scores[row]) <= 0).all() and found.scores[row, 0] <= best[0][0] + 1e-5


def test_all_sequences_that_there_are_and_no_more():
    found = search(max_length=1, beams=4, n_best=4)
    assert sorted(said(found, 0, place) for place in range(4)) == [(), (1,), (2,), (3,)]
    found = search(max_length=1, beams=6, n_best=6)
    assert np.isneginf(found.scores[:, 4:]).all() and not found.tokens.mask[:, 4:].any()
    np.testing.assert_allclose(np.exp(found.scores[:, :4]).sum(1), 1, rtol=1e-5)


def test_greedy_generation_takes_the_best_token_each_time_and_is_a_beam_of_one():
    greedy = generated(generate_greedily)
    beam = search(beams=1)
    for row in range(3):
        tokens = []
        while len(tokens) < LENGTH and END not in tokens:
            tokens.append(max(range(VOCABULARY), key=lambda token: log_probability(row, [*tokens, token])))
        assert said(greedy, row) == tuple(token for token in tokens if token != END)
        np.testing.assert_allclose(greedy.scores[row, 0], log_probability(row, tokens), rtol=1e-5)
    np.testing.assert_array_equal(greedy.tokens.values, beam.tokens.values)
    np.testing.assert_array_equal(greedy.tokens.mask, beam.tokens.mask)
    np.testing.assert_allclose(greedy.scores, beam.scores, rtol=1e-5)


def test_without_an_end_all_are_of_full_length():
    for found in (
        search(end_id=None, beams=2),
        generated(generate_greedily, end_id=None),
        generated(sample, end_id=None, key=jax.random.key(0)),
    ):
        assert found.tokens.mask.all() and found.tokens.values.shape == (3, 1, LENGTH)
    best = max(itertools.product(range(VOCABULARY), repeat=LENGTH), key=lambda t: log_probability(0, t))
    assert said(search(end_id=None, beams=VOCABULARY**LENGTH), 0) == best


def test_the_loop_stops_when_no_live_one_can_win():
    """Steps are counted: a speaker that ends at once takes one step of a hundred, one that never ends takes all."""
    steps = []

    class Brief(nn.Module):
        certainty: float

        def start(self, memory, max_length):
            return jnp.zeros(len(memory.mask))

        def step(self, ids, caches, position):
            jax.debug.callback(lambda: steps.append(1))
            return jnp.zeros((len(ids), VOCABULARY)).at[:, END].set(self.certainty), caches

    def count(generate, certainty, **options):
        steps.clear()
        jax.block_until_ready(generate(Brief(certainty), {}, MEMORY, max_length=100, end_id=END, **options))
        jax.effects_barrier()
        return len(steps)

    assert count(generate_greedily, 20.0) == count(beam_search, 20.0) == 1
    assert count(generate_greedily, -300.0) == count(beam_search, -300.0) == 100
    assert count(beam_search, -20.0) == 20  # of three equal words each: after 20 of them an end at once is as good
    # A penalty is a hope for the long ones: log p / 100 ** 1 may still beat what ended after one token.
    assert count(beam_search, 3.0, length_penalty=length_normalisation()) > count(beam_search, 3.0)
    assert count(sample, 20.0, key=jax.random.key(0), samples=5) == 1


def test_batched_equals_one_by_one():
    keys = jax.random.split(jax.random.key(1), 3)
    for generate, options, by_row in (
        (generate_greedily, {}, {}),
        (beam_search, {"beams": 3, "n_best": 2, "length_penalty": 0.8}, {}),
        (sample, {"samples": 4, "top_k": 3}, {"key": keys}),
    ):
        together = generated(generate, **options, **by_row)
        for row in range(3):
            one, own = jax.tree.map(lambda x: x[row : row + 1], (MEMORY, by_row))  # noqa: B023
            alone = generated(generate, one, **options, **own)
            np.testing.assert_array_equal(alone.tokens.values[0], together.tokens.values[row])
            np.testing.assert_array_equal(alone.tokens.mask[0], together.tokens.mask[row])
            np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_a_row_of_weight_0_says_nothing_and_changes_nothing():
    weight = jnp.asarray([1.0, 0.0, 1.0])
    poisoned = MEMORY.replace(values=MEMORY.values.at[1].set(jnp.nan))
    key = jax.random.key(0)
    for generate, options in ((generate_greedily, {}), (beam_search, {"n_best": 2}), (sample, {"key": key})):
        whole = generated(generate, **options)
        without = generated(generate, poisoned, weight=weight, **options)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(without)):
            np.testing.assert_array_equal(a[::2], b[::2])
        assert not without.tokens.mask[1].any() and not without.scores[1].any()
        assert (np.asarray(without.tokens.values[1]) == END).all()


def test_samples_are_as_frequent_as_the_softmax_says():
    """Probabilities of whole sequences against their frequencies among 20,000: within five standard deviations."""
    count = 20_000
    one = jax.tree.map(lambda x: x[:1], MEMORY)
    drawn = generated(sample, one, key=jax.random.key(3), max_length=2, samples=count)
    words = np.where(drawn.tokens.mask[0], drawn.tokens.values[0], END)
    checked = 0
    for first, second in itertools.product(range(VOCABULARY), repeat=2):
        if first == END and second != END:
            continue
        tokens = [END] if first == END else [first, second]
        probability = math.exp(log_probability(0, tokens))
        same = (words == [first, second]).all(1)
        assert abs(same.sum() - count * probability) < 5 * math.sqrt(count * probability) + 1
        np.testing.assert_allclose(drawn.scores[0][same], math.log(probability), rtol=1e-4)
        checked += probability
    assert checked == pytest.approx(1)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.8}, {"top_k": 3, "top_p": 0.9, "temperature": 2.0}, {"top_k": 99}],
)
def test_what_temperature_and_cuts_leave(options):
    count = 8_000
    logits = np.tanh(np.asarray(MEMORY.values[1, 0], float)) @ OUT / options.get("temperature", 1.0)
    likely = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-likely)[: options.get("top_k")]
    kept, total = [], likely[order].sum()
    for token in order:
        if likely[kept].sum() / total < options.get("top_p", 2.0):
            kept.append(token)
    wanted = np.zeros(VOCABULARY)
    wanted[kept] = likely[kept] / likely[kept].sum()
    drawn = generated(sample, key=jax.random.key(5), max_length=1, end_id=None, samples=count, **options)
    frequency = np.bincount(np.asarray(drawn.tokens.values[1, :, 0]), minlength=VOCABULARY) / count
    assert not frequency[wanted == 0].any()
    np.testing.assert_allclose(frequency, wanted, atol=5 * 0.5 / math.sqrt(count))


ANSWERS = [(1,), (1, 2), (2, 2, 3), (3, 1), (3, 1, 1), (3, 3)]
TRIE = Trie.of(ANSWERS, vocab_size=VOCABULARY, end_id=END)


def test_a_trie_holds_the_list_and_nothing_else():
    def walk(words):
        node = 0
        for word in words:
            if (node := int(TRIE.next[node, word])) < 0:
                return False
        return True

    inside = [words for words, tokens in every_sequence() if tokens[-1] == END and walk(tokens)]
    assert sorted(inside) == sorted(ANSWERS) and TRIE.depth == 4


def test_constrained_generation_never_leaves_the_list_and_its_best_is_the_best_of_the_list():
    found = search(beams=8, n_best=6, allowed=TRIE, length_penalty=0.6)
    greedy = generated(generate_greedily, allowed=TRIE, end_id=None)
    drawn = generated(sample, key=jax.random.key(0), samples=300, max_length=5, allowed=TRIE)
    seen = set()
    for row in range(3):
        scored = [(log_probability(row, (*a, END)) / gnmt_penalty(0.6)(len(a) + 1), a) for a in ANSWERS]
        scored.sort(reverse=True)
        assert [said(found, row, place) for place in range(6)] == [answer for _, answer in scored]
        np.testing.assert_allclose(found.scores[row], [score for score, _ in scored], rtol=1e-5)
        assert said(greedy, row) in ANSWERS
        seen |= {said(drawn, row, place) for place in range(300)}
    assert seen <= set(ANSWERS) and len(seen) >= 4


STREAMS = draw_streams({"image": 8, "sound": 8}, length=2, batch=3)
HEAD = TextDecoder(8, VOCABULARY, num_layers=2, block=DecoderBlock(num_heads=2, mlp_dim=8))
MODEL = Multimodal({}, JointTransformer(8, num_layers=1, block=TransformerBlock(num_heads=2), cls_token=False), HEAD)


@pytest.mark.parametrize(
    "generate, more",
    [
        (beam_search, {"beams": 3, "n_best": 3}),
        (sample, {"key": jax.random.key(2), "samples": 3}),
        (generate_greedily, {}),
    ],
)
def test_scores_of_a_whole_model_are_its_teacher_forced_log_probabilities(generate, more):
    """Of hypotheses that change places, of such as never do, and of one alone."""
    words = Stream.of(jnp.zeros((3, LENGTH), jnp.int32))
    variables = {"params": draw_params(MODEL, STREAMS, targets=words, seed=4)}
    options = {"max_length": LENGTH, "end_id": END, **more}
    found = quick_jit(lambda v, s: generate(MODEL, v, s, **options))(variables, STREAMS)
    forced = quick_jit(lambda v, s, t: jax.nn.log_softmax(MODEL.apply(v, s, targets=t), -1))
    sequences = found.tokens.mask.sum(-1)
    assert generate is generate_greedily or sequences.min() < LENGTH
    for place in range(found.scores.shape[1]):
        ids = found.tokens.values[:, place]  # the end stands behind the words, as in a target
        real = jnp.arange(LENGTH) <= sequences[:, place, None]
        nats = forced(variables, STREAMS, Stream(ids, real))
        own = jnp.take_along_axis(nats, ids[..., None], -1)[..., 0]
        np.testing.assert_allclose(jnp.where(real, own, 0).sum(1), found.scores[:, place], rtol=1e-4, atol=1e-5)


def test_seeds_mapped_at_once_say_what_each_says():
    """They end at different steps: a seed that is done waits unchanged for the others."""
    memory, words = Stream.of(STREAMS["image"].values), Stream.of(jnp.zeros((3, LENGTH), jnp.int32))
    head = HEAD.clone(num_layers=1)
    seeds = [draw_params(head, memory, targets=words, seed=seed) for seed in (1, 2, 3)]

    def search(params):
        return beam_search(head, {"params": params}, memory, max_length=LENGTH, end_id=END, beams=2, n_best=2)

    together = quick_jit(jax.vmap(search))(jax.tree.map(lambda *x: jnp.stack(x), *seeds))
    assert len({int(n) for n in together.tokens.mask.sum(-1).max((1, 2))}) > 1
    one = quick_jit(search)
    for number, params in enumerate(seeds):
        alone = one(params)
        np.testing.assert_array_equal(together.tokens.values[number], alone.tokens.values)
        np.testing.assert_array_equal(together.tokens.mask[number], alone.tokens.mask)
        np.testing.assert_allclose(together.scores[number], alone.scores, rtol=1e-4)


@pytest.mark.parametrize("size, count", [(1_000, 3), (1_025, 1), (5_000, 5), (70, 2)])
def test_the_largest_of_long_rows_stand_in_the_same_places(size, count):
    """Ties, minus infinity and a row that ends within a block among them."""
    rows = np.round(np.random.default_rng(size).normal(size=(20, size)), 1).astype(np.float32)
    rows[0], rows[1, ::2], rows[2] = -np.inf, -np.inf, 1.0
    rows[3, -1] = 9.0
    for ours, wanted in zip(_top_k(jnp.asarray(rows), count), jax.lax.top_k(rows, count)):
        np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize(
    "generate, options, message",
    [
        (beam_search, {"beams": 2, "n_best": 3}, r"n_best must be from 1 to beams=2, got 3"),
        (beam_search, {"length_penalty": -1.0}, r"length_penalty must be at least 0, got -1"),
        (generate_greedily, {"max_length": 0}, r"max_length must be at least 1, got 0"),
        (generate_greedily, {"max_length": 3, "allowed": TRIE}, r"max_length=3 is too small .* sequence: 4"),
        (generate_greedily, {"end_id": 2, "allowed": TRIE}, r"end_id=2 is not that of the allowed sequences, 0"),
        (sample, {"temperature": 0.0}, r"temperature must be above 0; generate_greedily .* got 0"),
        (sample, {"top_k": 0}, r"top_k must be at least 1, or None, got 0"),
        (sample, {"top_p": 1.5}, r"top_p must be above 0 and at most 1, or None, got 1.5"),
        (sample, {"samples": 0}, r"samples must be at least 1, got 0"),
    ],
)
def test_says_what_would_be_right(generate, options, message):
    key = {"key": jax.random.key(0)} if generate is sample else {}
    with pytest.raises(UsageError, match=message):
        generate(Speaker(), {}, MEMORY, **{"max_length": LENGTH, **key, **options})


@pytest.mark.parametrize(
    "sequences, message",
    [
        ([], "at least one sequence"),
        ([[1], [2, 0]], r"sequence 1 has the end inside it: \[2, 0\]"),
        ([[4]], r"sequence 0 has token 4, not one of 4 ids"),
    ],
)
def test_a_trie_says_what_would_be_right(sequences, message):
    with pytest.raises(UsageError, match=message):
        Trie.of(sequences, vocab_size=VOCABULARY, end_id=END)
