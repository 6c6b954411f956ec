"""Attributions against known answers: closed forms, hand-computed rollouts, scores whose reasons are known."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from mmjax import datasets, fusion
from mmjax.datasets import moving_digits
from mmjax.encoders import BagOfWords, FeatureMLP, FrameVideo, LeNet, TransformerText
from mmjax.evaluation.interpretation import (
    attention_maps,
    attention_rollout,
    collect,
    completeness,
    gradient_times_input,
    integrated_gradients,
    modality_weights,
    model_score,
    per_item,
    per_modality,
    rank_correlation,
    reinitialise,
    relevance_mass,
    removal_curves,
    token_weights,
    weight_randomisation,
)
from mmjax.heads import ClassificationHead, RegressionHead
from mmjax.layers import TransformerBlock
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.stream import Stream, masked_sum
from mmjax.tasks import Classification
from mmjax.training import Train
from tests.draw import draw_params, draw_streams, quick_jit

RNG = np.random.default_rng(0)
BATCH, WORDS, FRAMES, VOCAB = 3, 5, 2, 11


def mixed_streams(seed=0):
    """Ids with padding, videos of bytes, vectors; the last example has no video."""
    rng = np.random.default_rng(seed)
    text = np.arange(WORDS) < np.array([5, 3, 2])[:, None]
    video = np.arange(FRAMES) < np.array([2, 1, 0])[:, None]
    return {
        "text": Stream(rng.integers(0, VOCAB, (BATCH, WORDS)).astype(np.int32), text),
        "video": Stream(rng.integers(0, 256, (BATCH, FRAMES, 8, 8, 1)).astype(np.uint8), video),
        "sound": Stream.of(rng.normal(size=(BATCH, 1, 6)).astype(np.float32)),
    }


ENCODERS = {
    "text": TransformerText(8, VOCAB, num_layers=0),  # word vectors, positions and a norm
    "video": FrameVideo(8, LeNet(8, channels=(4,), hidden_dims=(), kernel_size=3), pool=None),
    "sound": FeatureMLP(8),
}
TWO_HEADS = TransformerBlock(num_heads=2)
MODEL = Multimodal(ENCODERS, fusion.JointTransformer(8, 1, block=TWO_HEADS), ClassificationHead(4))
STREAMS = mixed_streams()


@functools.cache
def variables(model=MODEL, seed=0):
    """As initialised, with parameters that are no neutral zeros."""
    return {"params": draw_params(model, STREAMS, seed=seed, scale=1.0)}


def test_integrated_gradients_have_their_closed_forms():
    x, b, w = RNG.normal(size=(3, 2, 4)), RNG.normal(size=(3, 2, 4)), RNG.normal(size=4)
    streams = {"x": Stream.of(jnp.asarray(x, jnp.float32))}
    linear = lambda s: (s["x"].values @ jnp.asarray(w, jnp.float32)).sum(1)  # noqa: E731
    found = integrated_gradients(linear, streams, {"x": b.astype(np.float32)}, steps=2)
    np.testing.assert_allclose(found["x"], (x - b) * w, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient_times_input(linear, streams)["x"], x * w, rtol=1e-5)
    square = lambda s: (s["x"].values ** 2).sum((1, 2))  # noqa: E731
    found = integrated_gradients(square, streams, {"x": b.astype(np.float32)}, steps=2)
    np.testing.assert_allclose(found["x"], x**2 - b**2, rtol=2e-5, atol=1e-5)


def test_a_product_is_shared_equally_between_its_factors():
    a, b = RNG.normal(size=(2, 4, 1, 1)).astype(np.float32)
    streams = {"a": Stream.of(jnp.asarray(a)), "b": Stream.of(jnp.asarray(b))}
    found = integrated_gradients(lambda s: (s["a"].values * s["b"].values)[:, 0, 0], streams, steps=4)
    for name in "ab":
        np.testing.assert_allclose(found[name], a * b / 2, rtol=1e-5)
    np.testing.assert_allclose(sum(per_modality(found).values()), (a * b)[:, 0, 0], rtol=1e-5)


def test_the_score_of_word_vectors_is_the_model():
    score, inputs = model_score(MODEL, variables(), STREAMS, np.array([0, 3, 1]))
    logits = quick_jit(MODEL.apply)(variables(), STREAMS)
    call = quick_jit(lambda score, streams: score(streams))
    np.testing.assert_allclose(call(score, inputs), logits[np.arange(3), [0, 3, 1]], rtol=1e-5, atol=1e-6)
    table = variables()["params"]["encoders_text"]["embedding"]["embedding"]
    expected = np.where(STREAMS["text"].mask[..., None], np.asarray(table)[STREAMS["text"].values], 0)
    np.testing.assert_array_equal(inputs["text"].values, expected)
    real = STREAMS["video"].mask[..., None, None, None]
    np.testing.assert_allclose(inputs["video"].values, np.where(real, STREAMS["video"].values / 255, 0), rtol=1e-6)
    predicted, _ = model_score(MODEL, variables(), STREAMS, kind="probability")
    np.testing.assert_allclose(call(predicted, inputs), jax.nn.softmax(logits).max(-1), rtol=1e-5)
    logp, _ = model_score(MODEL, variables(), STREAMS, kind="log_probability")
    np.testing.assert_allclose(call(logp, inputs), jax.nn.log_softmax(logits).max(-1), rtol=1e-4, atol=1e-5)


def test_attributions_are_complete_and_exactly_zero_in_padding_whatever_stands_there():
    score, inputs = model_score(MODEL, variables(), STREAMS)
    found = integrated_gradients(score, inputs, steps=512)
    total, change = completeness(score, inputs, found)
    assert np.abs(change).min() > 0.5
    np.testing.assert_allclose(total, change, rtol=0.01)
    for name, values in found.items():
        assert not np.asarray(values)[~np.asarray(STREAMS[name].mask)].any() and np.asarray(values).any()
    poisoned = {}
    for name, stream in inputs.items():
        mask = np.asarray(stream.mask).reshape(*stream.mask.shape, *(1,) * (stream.values.ndim - 2))
        poisoned[name] = stream.replace(values=jnp.where(mask, stream.values, jnp.nan))
    again = integrated_gradients(score, poisoned, steps=512)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    jax.tree.map(
        np.testing.assert_array_equal,
        {n: np.isfinite(v).all() for n, v in gradient_times_input(score, poisoned).items()},
        dict.fromkeys(found, True),
    )


def test_an_example_is_explained_alone_and_by_other_parameters_without_another_trace():
    calls = []
    score, inputs = model_score(MODEL, variables(), STREAMS, np.zeros(3, int))
    whole = integrated_gradients(score, inputs, steps=512)
    alone, given = model_score(
        MODEL, variables(), jax.tree.map(lambda x: x[np.ones(3, int)], STREAMS), np.zeros(3, int)
    )
    for name, values in integrated_gradients(alone, given, steps=512).items():
        np.testing.assert_allclose(values, np.repeat(whole[name][1:2], 3, 0), rtol=1e-3, atol=1e-5)

    def traced(streams):
        calls.append(1)
        return score(streams)

    for _ in range(2):
        gradient_times_input(traced, inputs)
    assert len(calls) == 1
    other = integrated_gradients(score.replace(variables=variables(seed=1)), inputs, steps=512)
    assert np.abs(other["sound"] - whole["sound"]).max() > 1e-3


def test_nested_ids_and_bags_of_distinct_words():
    ids = np.array([[[1, 1, 2], [3, 0, 0]], [[4, 5, 1], [0, 0, 0]]], np.int32)
    mask = np.array([[[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]], bool)
    streams = {"text": Stream(ids, mask)}
    model = Multimodal({"text": BagOfWords(8, VOCAB, distinct=True)}, fusion.Concat(8), RegressionHead())
    params = {"params": draw_params(model, streams)}
    score, inputs = model_score(model, params, streams)
    assert inputs["text"].values.shape == (2, 2, 3, 8)
    np.testing.assert_allclose(quick_jit(score)(inputs), quick_jit(model.apply)(params, streams), rtol=1e-6)
    found = per_item(gradient_times_input(score, inputs), inputs)["text"]
    assert found.shape == mask.shape and not found[~mask].any()
    assert found[0, 0, 1] == 0 and found[0, 0, 0] != 0  # the second 1 of a sentence does not count


class TwoTexts(nn.Module):
    """Two streams of ids whose tables stand in no encoder of theirs."""

    @nn.compact
    def __call__(self, streams, *, train=False):
        bags = [BagOfWords(4, VOCAB, name=f"bag_{n}")(s).values[:, 0] for n, s in sorted(streams.items())]
        return sum(bags).sum(-1)


def test_what_cannot_be_told_is_said():
    ids = {n: Stream.of(jnp.zeros((2, 3), jnp.int32)) for n in "ab"}
    with pytest.raises(ValueError, match=r"which of the streams \['a', 'b'\] the table bag_a/embedding"):
        model_score(TwoTexts(), {"params": draw_params(TwoTexts(), ids)}, ids)
    with pytest.raises(ValueError, match="kind='odds' must be one of"):
        model_score(MODEL, variables(), STREAMS, kind="odds")
    per_word = Multimodal(
        {"sound": ENCODERS["sound"]}, fusion.JointTransformer(8, 1, cls_token=False), ClassificationHead(4, pool=None)
    )
    sound = {"sound": STREAMS["sound"]}
    with pytest.raises(ValueError, match=r"outputs \(3, 1, 4\), a label per step"):
        model_score(per_word, {"params": draw_params(per_word, sound)}, sound)
    total = lambda s: s["x"].values.sum((1, 2))  # noqa: E731
    x = {"x": Stream.of(jnp.ones((2, 1, 2)))}
    with pytest.raises(ValueError, match="baseline of 'y' is given; the streams of floats are"):
        integrated_gradients(total, x, {"y": 0.0})
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        integrated_gradients(total, x, steps=0)
    with pytest.raises(ValueError, match="no stream of floats"):
        gradient_times_input(total, {"x": Stream.of(jnp.ones((2, 3), jnp.int32))})
    with pytest.raises(ValueError, match=r"attribution of 'x' is \(2, 3\)"):
        removal_curves(total, x, {"x": np.zeros((2, 3))})


def test_rollout_by_hand():
    first = np.array([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.8, 0.0]]])
    second = np.array([[[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]])
    maps = [np.stack([first, first], 1), np.stack([second * 0.5, second * 1.5], 1)]
    mixed = [0.5 * np.eye(3) + 0.5 * a[0] for a in (first, second)]
    expected = mixed[1] @ mixed[0]
    np.testing.assert_allclose(attention_rollout(maps)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(attention_rollout(maps).sum(-1), 1, rtol=1e-6)
    mask = np.array([[True, True, False]])  # no attention to the third: its row and column are padding
    found = np.asarray(attention_rollout(maps, mask))[0]
    np.testing.assert_allclose(found[:2, :2], expected[:2, :2], rtol=1e-6)
    assert not found[2].any() and not found[:, 2].any()
    nothing = [np.zeros((1, 1, 3, 3))]  # nothing to attend to: a token stays itself
    np.testing.assert_array_equal(attention_rollout(nothing)[0], np.eye(3))
    with pytest.raises(ValueError, match="maps of one length"):
        attention_rollout([np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 2, 2))])


def test_token_weights_of_a_joint_transformer_are_its_rollout():
    weights = token_weights(MODEL, variables(), STREAMS)
    assert {name: value.shape for name, value in weights.items()} == {"sound": (3, 1), "text": (3, 5), "video": (3, 2)}
    for name, value in weights.items():
        np.testing.assert_array_equal(np.asarray(value) > 0, STREAMS[name].mask)
    np.testing.assert_allclose(sum(value.sum(1) for value in weights.values()), 1, rtol=1e-5)
    maps = attention_maps(collect(MODEL, variables(), STREAMS), "fusion", role="joint")
    assert [m.shape for m in maps] == [(3, 2, 9, 9)]
    row = np.asarray(maps[0]).mean(1)[:, 0, 1:]  # of one layer: halved by the residual, then made to sum to 1
    np.testing.assert_allclose(
        np.concatenate([weights[n] for n in sorted(weights)], 1), row / row.sum(1, keepdims=True), rtol=1e-4, atol=1e-6
    )
    by_modality = modality_weights(MODEL, variables(), STREAMS)
    assert by_modality["video"][2] == 0
    np.testing.assert_allclose(by_modality["text"], weights["text"].sum(1), rtol=1e-6)


@pytest.mark.parametrize("options", [{"per_modality": True}, {"cls_token": False}])
def test_token_weights_of_other_joint_transformers(options):
    model = MODEL.clone(fusion=fusion.JointTransformer(8, 1, block=TWO_HEADS, **options))
    weights = token_weights(model, variables(model), STREAMS)
    lengths = (1, 1, 1) if "per_modality" in options else (1, 5, 2)
    assert tuple(value.shape[1] for value in weights.values()) == lengths and not weights["video"][2].any()
    np.testing.assert_allclose(sum(value.sum(1) for value in weights.values()), 1, rtol=1e-5)


@pytest.mark.parametrize("method", [fusion.AdditiveAttention(8), fusion.GMU(8), fusion.GMU(8, normalise=True)])
def test_modality_weights_are_those_that_the_fusion_reports(method):
    model = MODEL.clone(fusion=method)
    weights = modality_weights(model, variables(model), STREAMS)
    assert list(weights) == ["sound", "text", "video"] and weights["video"][2] == 0
    sown = collect(model, variables(model), STREAMS)
    if isinstance(method, fusion.GMU):
        np.testing.assert_allclose(weights["text"], sown["fusion/modality_gates"][:, 1].mean(-1), rtol=1e-6)
    else:
        np.testing.assert_array_equal(weights["text"], sown["fusion/modality_weights"][:, 1])
    if not isinstance(method, fusion.GMU) or method.normalise:
        np.testing.assert_allclose(sum(weights.values()), 1, rtol=1e-5)


def test_a_fusion_without_weights_says_so():
    model = MODEL.clone(fusion=fusion.Concat(8))
    with pytest.raises(ValueError, match="reports no weights of modalities; what it reports: nothing"):
        modality_weights(model, variables(model), STREAMS)
    with pytest.raises(ValueError, match=r"one transformer over the tokens of \['sound', 'text', 'video'\].*nothing"):
        token_weights(model, variables(model), STREAMS)


def test_layers_stand_in_order_of_their_numbers():
    model = Multimodal({}, fusion.JointTransformer(4, num_layers=11), RegressionHead())
    x = {"x": Stream.of(jnp.ones((1, 2, 4)))}
    blocks = [path.split("/")[1] for path in collect(model, {"params": draw_params(model, x)}, x)]
    assert blocks == [*(f"block_{i}" for i in range(11)), "joint_modalities"]


class TwoTowers(nn.Module):
    """Each modality attends to itself, then to the other."""

    @nn.compact
    def __call__(self, streams, *, train=False):
        audio, text = streams["audio"], streams["text"]
        own = TransformerBlock(name="audio")(audio.values, mask=audio.mask)
        y = TransformerBlock(name="context")(own, text.values, mask=text.mask)
        y = TransformerBlock(name="named")(y, text.values, mask=text.mask, role="audio_to_text")
        return Stream(y, audio.mask)


def test_a_square_map_of_another_stream_is_not_self_attention():
    model = Multimodal({}, TwoTowers(), RegressionHead())
    streams = draw_streams({"audio": 4, "text": 4}, length=3)  # as many queries as keys
    held = {"params": draw_params(model, streams)}
    sown = collect(model, held, streams)
    for role, module in {"self": "audio", "cross": "context", "audio_to_text": "named"}.items():
        (weights,) = attention_maps(sown, "fusion", role=role)
        np.testing.assert_array_equal(weights, sown[f"fusion/{module}/attention/{role}_attention_weights"])
    assert not attention_maps(sown, "encoders_audio")
    for weigh in (token_weights, modality_weights):
        with pytest.raises(ValueError, match=r"it reports|what it reports"):
            weigh(model, held, streams)


def test_bottlenecks_of_the_length_of_all_tokens_are_not_taken_for_a_joint_transformer():
    model = Multimodal({}, fusion.BottleneckFusion(4, 1, 1), RegressionHead())
    streams = {**draw_streams({"audio": 4}, length=4), **draw_streams({"text": 4})}  # 4 and a learned token make 5 too
    with pytest.raises(ValueError, match="one transformer over the tokens"):
        token_weights(model, {"params": draw_params(model, streams)}, streams)


def test_tokens_are_told_from_pooled_modalities_by_what_the_fusion_says():
    model = Multimodal({}, fusion.JointTransformer(4, 1, cls_token=False), RegressionHead())
    streams = {**draw_streams({"audio": 4}), **draw_streams({"text": 4}, length=2)}  # 3 tokens: not 2 and a learned one
    held = {"params": draw_params(model, streams)}
    weights = token_weights(model, held, streams)
    (weights_of,) = attention_maps(collect(model, held, streams), "fusion", role="joint")
    rollout = attention_rollout([weights_of])
    np.testing.assert_allclose(jnp.concatenate([weights["audio"], weights["text"]], 1), rollout.mean(1), rtol=1e-5)


WEIGHTS = np.array([[4.0, 1.0, 3.0, 2.0, 9.0], [1.0, 2.0, 9.0, 9.0, 9.0]], np.float32)
ITEMS = {"x": Stream(jnp.asarray(WEIGHTS[..., None]), np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool))}


def additive(streams):
    return masked_sum(streams["x"].values, streams["x"].mask)[:, 0]


def test_deletion_and_insertion_of_an_additive_score_by_hand():
    curves = removal_curves(additive, ITEMS, {"x": WEIGHTS}, points=5, draws=40)
    np.testing.assert_array_equal(curves.fraction, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curves.deletion[:, 0], [10, 6, 3, 1, 0])  # 4, 3, 2 and 1 go, in this order
    np.testing.assert_allclose(curves.insertion[:, 0], [0, 4, 7, 9, 10])
    np.testing.assert_allclose(curves.deletion[:, 1], [3, 3, 1, 0, 0])  # two units: half of one rounds to even
    assert curves.areas["deletion"][0] == pytest.approx(0.25 * (5 + 6 + 3 + 1))
    np.testing.assert_allclose(curves.areas["random"][0], 5, atol=0.35)
    assert (curves.areas["deletion"] < curves.areas["random"]).all()
    assert (curves.areas["random"] < curves.areas["insertion"]).all()
    again = removal_curves(additive, ITEMS, {"x": WEIGHTS}, points=5, draws=40)
    np.testing.assert_array_equal(curves.random, again.random)
    backwards = removal_curves(additive, ITEMS, {"x": -WEIGHTS}, points=5, draws=1)
    assert (backwards.areas["deletion"] > curves.areas["random"]).all()


def test_parts_of_items_are_replaced_by_the_baseline_and_all_streams_are_one_order():
    pixels = np.array([[[[3.0, 1.0]]]], np.float32)
    streams = {"image": Stream.of(jnp.asarray(pixels[..., None])), "word": Stream.of(jnp.full((1, 1, 1), 2.0))}

    def score(streams):
        return (
            streams["image"].values.sum((1, 2, 3, 4)) + masked_sum(streams["word"].values, streams["word"].mask)[:, 0]
        )

    given = {"image": pixels, "word": np.full((1, 1), 2.0)}
    curves = removal_curves(score, streams, given, points=4, draws=2, baseline={"image": 0.5})
    np.testing.assert_allclose(curves.deletion[:, 0], [6, 3.5, 1.5, 1.0])  # 3, then the word, then 1
    np.testing.assert_allclose(curves.insertion[:, 0], [1.0, 3.5, 5.5, 6])
    np.testing.assert_allclose(curves.random[:, [0, -1], 0], [[6, 1]] * 2)


def test_rank_correlation_is_spearmans_over_what_is_real():
    a, b = RNG.normal(size=(3, 4, 5)).round(1), RNG.normal(size=(3, 4, 5)).round(1)
    mask = RNG.random((3, 4, 5)) < 0.7
    found = rank_correlation(a, b, mask)
    np.testing.assert_allclose(found, [spearmanr(a[i][mask[i]], b[i][mask[i]]).statistic for i in range(3)])
    assert np.isnan(rank_correlation(a, np.ones_like(b), mask)).all()
    assert np.isnan(rank_correlation(a, b, np.zeros_like(mask))).all()


def test_fresh_weights_change_attributions_but_not_an_edge_detector():
    model = MODEL.clone(fusion=fusion.Concat(8))
    attribute = functools.partial(integrated_gradients, steps=8)
    found = weight_randomisation(model, variables(model), STREAMS, attribute)
    assert list(found) == ["head", "fusion", "all"] and set(found["all"]) == {"sound", "text", "video"}
    video = [found[stage]["video"][:2].mean() for stage in found]  # the third example has none
    assert np.isnan(found["all"]["video"][2]) and max(video) < 0.95 and video[2] < 0.8

    def edges(score, inputs):
        return {"video": inputs["video"].values}

    blind = weight_randomisation(model, variables(model), STREAMS, edges)
    assert all(blind[stage]["video"][0] == pytest.approx(1) for stage in blind)


def test_fresh_weights_are_those_of_an_initialisation():
    model = MODEL.clone(fusion=fusion.Concat(8))
    fresh = reinitialise(model, STREAMS, seed=3)
    again, other = reinitialise(model, STREAMS, seed=3), reinitialise(model, STREAMS, seed=4)
    jax.tree.map(np.testing.assert_array_equal, fresh, again)
    kernel = lambda v: v["params"]["head"]["mlp"]["dense_0"]["kernel"]  # noqa: E731
    assert jax.tree.structure(fresh) == jax.tree.structure(variables(model)) and (kernel(fresh) != kernel(other)).all()


def test_relevance_mass_by_hand():
    found = relevance_mass(np.array([[3.0, -1.0, 0.0], [0.0, 0.0, 0.0]]), np.array([[0, 1, 1], [1, 0, 0]], bool))
    assert found[0] == 0.25 and np.isnan(found[1])


def test_a_trained_model_looks_at_the_digit_and_at_the_word_that_speaks():
    options = {"frames": 2, "words": 4, "noise": 0.1}
    dataset, truth = datasets.load("moving_digits", **options), moving_digits.truth(**options)["test"]
    image = LeNet(16, channels=(8, 16), hidden_dims=(), kernel_size=3)
    encoders = {"video": FrameVideo(16, image), "text": BagOfWords(16, len(moving_digits.VOCABULARY))}
    model = Multimodal(encoders, fusion.Concat(16, hidden_dims=(32,)), ClassificationHead(10))
    train = Train(epochs=6, batch_size=32, learning_rate=5e-3)
    learned = fit(model, Classification(10), train, dataset.splits, [0])
    assert learned.history["test/accuracy"][-1, 0] > 0.5
    chosen = jax.tree.map(lambda x: x[0], learned.variables)
    test = jax.tree.map(lambda x: x[:64], dataset.splits["test"])
    score, inputs = model_score(model, chosen, test.streams, test.target)
    found = integrated_gradients(score, inputs, steps=32)
    pixels, words = np.asarray(found["video"]).sum(-1), np.asarray(per_item(found, inputs)["text"])
    assert relevance_mass(pixels, truth.inside[:64]).mean() > 0.6  # a quarter of the pixels
    speaks = np.arange(4) == truth.word[:64, None]
    assert relevance_mass(words, speaks).mean() > 0.6  # a third of the words
    assert (np.abs(words).argmax(1) == truth.word[:64]).mean() > 0.9
    chance = score.replace(kind="probability")
    areas = removal_curves(chance, inputs, {"video": pixels, "text": words}, points=6, draws=1).areas
    assert areas["deletion"].mean() < areas["random"].mean() - 0.05 < areas["insertion"].mean() - 0.1
