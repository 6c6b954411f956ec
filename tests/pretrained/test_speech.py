"""The speech embedding against the fixture made with the original runtime; clips and their padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.pretrained import SpeechEmbedding, speech_embedding
from mmjax.pretrained.speech import MelFrames, clip_decibels
from mmjax.stream import Stream
from tests.draw import quick_jit


@pytest.fixture(scope="module")
def fixture(data_dir):
    with np.load(data_dir / "pretrained" / "speech_embedding_fixture.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def tower(data_dir):
    return speech_embedding(data_dir / "pretrained" / "speech_embedding.safetensors", tokens=True)


@pytest.fixture(scope="module")
def small():
    """Drawn weights: the module needs no file."""
    module = SpeechEmbedding(tokens=True)
    return module, quick_jit(module.init)(jax.random.key(0), Stream.of(jnp.ones((1, 12_512))))


def test_it_agrees_with_the_fixture(tower, fixture, capsys):
    power = MelFrames().apply({"constants": tower.variables["constants"]["mel"]}, fixture["wave"] / np.float32(2**15))
    mel = clip_decibels(power, jnp.ones(power.shape[:2], bool))
    error = float(abs(mel - fixture["mel"]).max())
    embedded = tower(Stream.of(fixture["wave"])).values
    assert embedded.shape == fixture["embedding"].shape == (2, 9, 96)
    difference = float(abs(embedded - fixture["embedding"]).max())
    loud = tower(Stream.of(fixture["wave"].astype(np.float32))).values
    unscaled = float(abs(loud - fixture["embedding_int16range"]).max())
    with capsys.disabled():
        print(f"\nspeech embedding: mel {error:.1e}, embedding {difference:.1e}, of unscaled samples {unscaled:.1e}")
    assert max(error, difference, unscaled) < 1e-3


def test_windows_are_those_of_each_alone(small):
    module, variables = small
    waves = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16_000)), jnp.float32)
    together = quick_jit(module.apply)(variables, Stream.of(waves)).values
    assert together.shape == (1, 3, 96)
    # each window alone has its own loudest number, so its frames must be within 80 dB: true of noise
    alone = jnp.concatenate([waves[:, i * 1_280 : i * 1_280 + 12_512] for i in range(3)])
    each = quick_jit(module.apply)(variables, Stream.of(alone)).values
    np.testing.assert_allclose(together[0], each[:, 0], atol=1e-4 * float(abs(each).max()))


@pytest.mark.parametrize("samples", [100, 12_000, 12_512, 13_791, 13_792])
def test_padding_reaches_nothing(small, samples):
    """A clip of any length is the same alone, beside a longer one, and padded with NaN."""
    module, variables = small
    draw = np.random.default_rng(samples)
    wave = jnp.asarray(draw.normal(size=(1, samples)) * 0.1, jnp.float32)
    run = quick_jit(module.apply)
    alone = run(variables, Stream.of(wave))
    silence = run(variables, Stream.of(jnp.pad(wave, ((0, 0), (0, max(0, 12_512 - samples))))))
    np.testing.assert_array_equal(alone.values, silence.values)  # a short clip is followed by silence
    assert alone.mask.all() and alone.length == (2 if samples == 13_792 else 1)
    padded = jnp.full((3, 16_000), jnp.nan).at[0, :samples].set(wave[0]).at[1].set(draw.normal(size=16_000))
    mask = jnp.stack([jnp.arange(16_000) < samples, jnp.ones(16_000, bool), jnp.zeros(16_000, bool)])
    among = run(variables, Stream(padded, mask))
    assert among.mask.sum(1).tolist() == [alone.length, 3, 0]
    scale = float(abs(alone.values).max())
    np.testing.assert_allclose(among.values[0, : alone.length], alone.values[0], atol=1e-5 * scale)
    assert not among.values[0, alone.length :].any() and not among.values[2].any()


def test_pooled_is_the_mean_of_windows_and_gradients_are_finite(small):
    module, variables = small
    waves = jnp.asarray(np.random.default_rng(1).normal(size=(2, 14_000)), jnp.float32)
    mask = jnp.stack([jnp.ones(14_000, bool), jnp.zeros(14_000, bool)])
    stream = Stream(jnp.where(mask, waves, jnp.nan), mask)

    @quick_jit
    def run(params):
        def loss(params):
            out = SpeechEmbedding().apply({**variables, "params": params}, stream)
            return (out.values**2).mean(), out

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, out), gradients = run(variables["params"])
    tokens = quick_jit(module.apply)(variables, stream)
    np.testing.assert_allclose(out.values[:1, 0], tokens.values[:1].mean(1), rtol=1e-4, atol=1e-6)
    assert out.mask.tolist() == [[True], [False]] and not out.values[1].any()
    assert all(bool(jnp.isfinite(leaf).all() & (leaf != 0).any()) for leaf in jax.tree.leaves(gradients))


def test_silence_is_finite_and_scale_is_the_published_one():
    power = jnp.array([[[100.0, 1.0]], [[0.0, 0.0]]])
    counted = jnp.ones((2, 1), bool)
    np.testing.assert_allclose(clip_decibels(power, counted), [[[4.0, 2.0]], [[-8.0, -8.0]]], atol=1e-6)
    quiet = clip_decibels(power * jnp.array([[[1.0, 1e-10]]]), counted)[0, 0]
    np.testing.assert_allclose(quiet, [4.0, -4.0], atol=1e-6)


def test_other_sounds_are_refused():
    shape = jax.eval_shape
    with pytest.raises(UsageError, match=r"\[batch, samples\], got \(1, 2, 3\)"):
        shape(SpeechEmbedding().init, jax.random.key(0), Stream.of(jnp.zeros((1, 2, 3))))
    with pytest.raises(UsageError, match="got int32"):
        shape(SpeechEmbedding().init, jax.random.key(0), Stream.of(jnp.zeros((1, 20_000), jnp.int32)))
