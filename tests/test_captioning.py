"""Several captions of one example: loss and gradients are those of each by itself, and what is said comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.captioning import NO_HYPOTHESIS, Captioning, Items, PerCaption, decode_ids
from mmjax.datasets.raw.words import fit_tokenizer
from mmjax.decoder import TextDecoder
from mmjax.errors import UsageError
from mmjax.hypotheses import encode_texts, unpack
from mmjax.metrics import compute
from mmjax.models import Multimodal
from mmjax.stream import Batch, Stream
from mmjax.training import predict

VOCAB, END = 9, 8
HEAD = TextDecoder(8, vocab_size=VOCAB)


def alone(head):
    """A head as a model of one stream."""
    return Multimodal({}, Items(), head)


def batch(rows=3, captions=2, words=5, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, words + 1, (rows, captions))
    mask = np.arange(words) < lengths[..., None]
    ids = np.where(mask, rng.integers(0, END, mask.shape), 0)
    np.put_along_axis(ids, lengths[..., None] - 1, END, axis=-1)
    image = Stream(rng.normal(size=(rows, 4, 6)).astype(np.float32), np.ones((rows, 4), bool))
    target = {"tokens": Stream(ids.astype(np.int32), mask), "text": encode_texts([["a dog"]] * rows)}
    number = np.arange(rows)
    return Batch({"image": image}, target, np.ones(rows, np.float32), number, number)


@pytest.fixture(scope="module")
def trained():
    """Logits and variables of a head with several captions, jitted."""
    data, head = batch(), PerCaption(HEAD)
    memory = data.streams["image"]
    variables = jax.jit(head.init)(jax.random.key(0), memory, targets=data.target)
    return data, head, variables, jax.jit(lambda v, m, t: head.apply(v, m, targets=t))


def test_captions_of_an_example_are_what_each_gives_alone(trained):
    data, _, variables, apply = trained
    memory, tokens = data.streams["image"], data.target["tokens"]
    logits = apply(variables, memory, data.target)
    assert logits.shape == (3, 2, 5, VOCAB)
    inner = {"params": variables["params"]["head"]}
    for place in range(2):
        alone = HEAD.apply(inner, memory, targets=Stream(tokens.values[:, place], tokens.mask[:, place]))
        np.testing.assert_allclose(logits[:, place], alone, atol=1e-5)


def test_the_loss_is_the_mean_over_the_tokens_of_all_captions(trained):
    data, _, variables, apply = trained
    logits = np.asarray(apply(variables, data.streams["image"], data.target), np.float64)
    tokens, task = data.target["tokens"], Captioning(END)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [
        np.mean([-log_p[row, c, t, tokens.values[row, c, t]] for c, t in zip(*np.nonzero(tokens.mask[row]))])
        for row in range(3)
    ]
    np.testing.assert_allclose(task.loss(jnp.asarray(logits, jnp.float32), data), expected, rtol=1e-5)
    smooth = Captioning(END, label_smoothing=0.1).loss(jnp.asarray(logits, jnp.float32), data)
    uniform = [-log_p[row][tokens.mask[row]].mean() for row in range(3)]
    np.testing.assert_allclose(smooth, 0.9 * np.array(expected) + 0.1 * np.array(uniform), rtol=1e-5)
    found = compute(task.metrics(jnp.asarray(logits, jnp.float32), data))
    np.testing.assert_allclose(found["loss"], np.mean(expected), rtol=1e-5)
    right = (logits.argmax(-1) == tokens.values)[tokens.mask].mean()
    np.testing.assert_allclose(found["token_accuracy"], right, rtol=1e-5)
    assert found["loss"] == compute(Captioning(END, label_smoothing=0.1).metrics(jnp.float32(logits), data))["loss"]


def test_padding_and_rows_of_weight_0_reach_nothing(trained):
    data, head, variables, _ = trained
    task, memory = Captioning(END), data.streams["image"]
    tokens = data.target["tokens"]

    @jax.jit
    def value(variables, data):
        def loss(variables):
            logits = head.apply(variables, data.streams["image"], targets=data.target)
            logits = jnp.where(data.target["tokens"].mask[..., None], logits, jnp.nan)
            return jnp.sum(jnp.where(data.weight > 0, task.loss(logits, data), 0)), task.metrics(logits, data)

        return jax.value_and_grad(loss, has_aux=True)(variables)

    data = data.replace(weight=np.float32([1, 1, 0]))
    other = np.where(tokens.mask & (np.arange(3) < 2)[:, None, None], tokens.values, 7)
    poisoned = data.replace(target={**data.target, "tokens": tokens.replace(values=other)})
    values = np.where((np.arange(3) < 2)[:, None, None], memory.values, 1e3)
    poisoned = poisoned.replace(streams={"image": memory.replace(values=values.astype(np.float32))})
    first, second = value(variables, data), value(variables, poisoned)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_what_is_generated_is_spelt_best_first():
    tokenizer = fit_tokenizer(["a dog runs on the grass . a dog runs on the grass ."], size=END)
    data = batch()
    model = alone(PerCaption(HEAD))
    variables = jax.jit(model.init)(jax.random.key(1), data.streams, targets=data.target)
    assert jax.jit(lambda v, b: predict(model, v, b))(variables, data).shape == (3, 2, 5, VOCAB)
    task = Captioning(END, max_length=4, beams=3, n_best=3, also=(1,))
    data = data.replace(weight=np.float32([1, 1, 0]), target=None)
    said = jax.jit(lambda v, b: task.generate(model, v, b))(variables, data)
    texts, scores = unpack(task.spell(jax.device_get(said), {"text": tokenizer}))
    assert texts.shape == (3, 4) and (np.diff(scores[:2, :3]) <= 0).all()
    greedy = Captioning(END, max_length=4).spell(
        jax.device_get(Captioning(END, max_length=4).generate(model, variables, data)), {"text": tokenizer}
    )
    assert texts[:, 3:].tolist() == unpack(greedy)[0].tolist()
    assert (texts[2] == "").all() and set(" ".join(texts[0]).split()) <= set("a dog runs on the grass .".split())
    with pytest.raises(UsageError, match=r"tokenizer is 'text'; the data set has \['words'\]"):
        task.spell(said, {"words": tokenizer})


def test_missing_hypotheses_are_finite():
    tokenizer = fit_tokenizer(["a dog a dog"], size=END)
    head = PerCaption(TextDecoder(4, vocab_size=3))
    memory = Stream.of(jnp.ones((1, 2, 3)))
    model, words = alone(head), Stream(jnp.zeros((1, 1, 2), int), jnp.ones((1, 1, 2), bool))
    variables = model.init(jax.random.key(0), {"image": memory}, targets=words)
    task = Captioning(end_id=2, max_length=1, beams=9, n_best=9)  # 3 sequences of at most a word
    number = np.arange(1)
    said = task.generate(model, variables, Batch({"image": memory}, None, np.ones(1), number, number))
    texts, scores = unpack(task.spell(said, {"text": tokenizer}))
    assert (scores[0, 3:] == np.float32(NO_HYPOTHESIS)).all() and (texts[0, 3:] == "").all()
    np.testing.assert_allclose(np.exp(scores[0, :3]).sum(), 1, rtol=1e-5)


def test_texts_have_the_shape_of_their_ids():
    tokenizer = fit_tokenizer(["a dog a dog"], size=9)
    vocabulary = tokenizer.get_vocab()
    ids = np.array([[[vocabulary["dog"], vocabulary["a"], 77], [0, vocabulary["a"], 77]]])
    mask = np.array([[[True, True, False], [True, True, False]]])
    assert decode_ids(tokenizer, ids, mask).tolist() == [["dog a", "a"]]


def test_wrong_targets_and_numbers_are_told(trained):
    data, head, variables, _ = trained
    with pytest.raises(ValueError, match="Items takes one stream"):
        Items().apply({}, {"a": data.streams["image"], "b": data.streams["image"]})
    with pytest.raises(ValueError, match="pass targets, a Stream of ids"):
        head.apply(variables, data.streams["image"])
    with pytest.raises(UsageError, match="n_best from 1 to beams"):
        Captioning(END, beams=2, n_best=3)
    task, real = Captioning(END), np.ones(3, bool)
    with pytest.raises(UsageError, match="a dict with a Stream 'tokens'"):
        task.check_target(np.zeros(3), real)
    assert task.check_target(data.target, real) is None
    tokens = data.target["tokens"]
    none = tokens.replace(mask=tokens.mask & (np.arange(3) != 1)[:, None, None])
    where, why = task.check_target({"tokens": none}, real)
    assert where == (1,) and "no caption" in why
