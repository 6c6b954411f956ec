"""Audio: the spectrogram against librosa, masks of frames, and that it does not matter how much padding follows."""

import chex
import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from mmjax.encoders.audio import AudioTransformer, SpectrogramEncoder
from mmjax.encoders.spectrogram import LogMel, frame_mask, log_mel_spectrogram, mel_filterbank, mel_spectrogram
from mmjax.stream import Stream
from tests.encoders.helpers import QUICK, compiled

RATE = 8_000
SMALL = {"sample_rate": RATE, "n_fft": 64, "hop_length": 24, "n_mels": 8}


_logmel = jax.jit(lambda stream: LogMel(**SMALL).apply({}, stream), compiler_options=QUICK)


def _waves(samples, batch=2, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, samples)).astype(np.float32) * 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_rate": 8_000, "n_fft": 256, "n_mels": 40},
        {"sample_rate": 16_000, "n_fft": 512, "n_mels": 80, "fmin": 50.0, "fmax": 7_600.0},
        {"sample_rate": 22_050, "n_fft": 401, "n_mels": 20},
    ],
)
def test_filterbank_against_librosa(settings):
    others = {key: value for key, value in settings.items() if key != "sample_rate"}
    expected = librosa.filters.mel(sr=settings["sample_rate"], dtype=np.float64, **others)
    np.testing.assert_allclose(mel_filterbank(**settings), expected.T, atol=1e-8)


class SpectrogramTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_against_librosa(self):
        waves = _waves(8_005)
        for settings in (
            {"n_fft": 256, "hop_length": 80},
            {"n_fft": 256, "hop_length": 100, "win_length": 201, "center": False},
            {"n_fft": 300, "hop_length": 320, "win_length": 200},  # frames that leave samples out
        ):
            spectrogram = self.variant(lambda x, s=settings: mel_spectrogram(x, sample_rate=RATE, n_mels=40, **s))
            expected = librosa.feature.melspectrogram(
                y=waves.astype(np.float64), sr=RATE, n_mels=40, dtype=np.float64, **settings
            ).swapaxes(1, 2)
            got = spectrogram(jnp.asarray(waves))
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_logarithm_against_librosa():
    waves = _waves(2_000)
    waves[1, 500:] = 0  # silence meets the floor
    expected = librosa.power_to_db(
        librosa.feature.melspectrogram(y=waves, sr=RATE, n_fft=64, hop_length=24, n_mels=8), amin=1e-10, top_db=None
    ).swapaxes(1, 2)
    got = 10 / np.log(10) * log_mel_spectrogram(jnp.asarray(waves), **SMALL)
    np.testing.assert_allclose(got, expected, atol=1e-3)  # decibels


def test_the_gradient_at_silence_is_finite():
    gradient = jax.jit(jax.grad(lambda x: log_mel_spectrogram(x, **SMALL).sum()))(jnp.zeros((1, 200)))
    assert (gradient == 0).all()


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("hop", [1, 7, 24, 80])
def test_a_padded_clip_has_the_frames_that_it_has_alone(center, hop):
    lengths = np.arange(64, 400, 7)
    mask = jnp.arange(400) < lengths[:, None]
    alone = 1 + (lengths if center else lengths - 64) // hop  # librosa's number for a clip of this length
    real = np.asarray(frame_mask(mask, n_fft=64, hop_length=hop, center=center))
    assert real.shape[1] == 1 + (400 if center else 336) // hop
    assert (real == (np.arange(real.shape[1]) < alone[:, None])).all()


@pytest.mark.parametrize("center", [True, False])
def test_frame_mask_of_short_clips_and_holes(center):
    mask = np.zeros((4, 400), bool)
    mask[0, :3] = True  # shorter than a frame, yet present
    mask[1, 200] = True
    mask[2, :100] = mask[2, 300:] = True
    real = np.asarray(frame_mask(jnp.asarray(mask), n_fft=64, hop_length=24, center=center))
    assert real.any(1).tolist() == [True, True, True, False]
    assert real[0].tolist() == [True] + [False] * (real.shape[1] - 1)
    assert real[1].sum() == 1
    inside = np.flatnonzero(~real[2])
    assert len(inside) >= 200 // 24 - 1 and (np.diff(inside) == 1).all()


def test_logmel_of_a_padded_clip_is_that_of_the_clip():
    waves, lengths = _waves(400), (400, 250)
    padded = waves.copy()
    padded[1, 250:] = np.nan
    mask = jnp.arange(400) < np.array(lengths)[:, None]
    out = _logmel(Stream(jnp.asarray(padded), mask))
    for row, length in enumerate(lengths):
        alone = _logmel(Stream.of(jnp.asarray(waves[row : row + 1, :length])))
        np.testing.assert_allclose(out.values[row, : alone.length], alone.values[0], atol=2e-5)
        assert alone.mask.all() and out.mask[row].sum() == alone.length
        assert (out.values[row, alone.length :] == 0).all()
        np.testing.assert_allclose(alone.values.mean(), 0, atol=1e-5)
        np.testing.assert_allclose(alone.values.std(), 1, atol=1e-4)


def test_logmel_types_and_plain_values():
    waves = jnp.asarray(_waves(400))
    raw = LogMel(**SMALL, win_length=64, standardize=False).apply({}, Stream.of(waves))
    chex.assert_trees_all_close(raw.values, log_mel_spectrogram(waves, **SMALL), atol=1e-5)
    integers = jnp.round(waves * 2**15).astype(jnp.int16)
    scaled = _logmel(Stream.of(integers.astype(jnp.float32) / 2**15))
    chex.assert_trees_all_close(_logmel(Stream.of(integers)), scaled, atol=1e-5)
    half = jax.eval_shape(_logmel, Stream.of(waves.astype(jnp.bfloat16)))
    assert half.values.dtype == jnp.bfloat16
    defaults = jax.eval_shape(LogMel(sample_rate=8_000).apply, {}, Stream.of(jnp.zeros((1, 8_000))))
    assert defaults.values.shape == (1, 101, 64)


def test_silence_and_absence_stay_finite():
    waves = Stream(jnp.zeros((2, 400)), jnp.array([[True], [False]]) & jnp.ones((1, 400), bool))
    out = _logmel(waves)
    chex.assert_tree_all_finite(out.values)
    assert out.mask.any(1).tolist() == [True, False]


ENCODERS = {
    "SpectrogramEncoder": lambda **fields: SpectrogramEncoder(8, channels=(4, 4), **fields),
    "AudioTransformer": lambda **fields: AudioTransformer(8, patch_size=(3, 4), num_layers=1, **fields),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("tokens", [True, False])
def test_more_padding_changes_nothing(name, tokens):
    encoder = ENCODERS[name](frontend=LogMel(**SMALL), tokens=tokens)
    lengths = np.array([400, 262])  # 17 and 11 frames: neither fills the last window of pooling
    mask = jnp.arange(400) < lengths[:, None]
    values = jnp.where(mask, _waves(400), jnp.nan)
    variables, apply = compiled(encoder, Stream(values, mask))
    short = apply(variables, Stream(values, mask))
    long = Stream(jnp.pad(values, ((0, 0), (0, 150)), constant_values=jnp.nan), jnp.pad(mask, ((0, 0), (0, 150))))
    long = apply(variables, long)
    if tokens:
        assert long.length > short.length
        assert not long.mask[:, short.length :].any() and (long.values[:, short.length :] == 0).all()
    np.testing.assert_array_equal(long.mask[:, : short.length], short.mask)
    np.testing.assert_allclose(long.values[:, : short.length], short.values, atol=2e-5)


def test_tokens_along_time_are_those_with_a_real_frame():
    mask = jnp.arange(21) < jnp.array([21, 9, 0])[:, None]
    frames = Stream(jnp.ones((3, 21, 8)), mask)
    encoder = ENCODERS["SpectrogramEncoder"](tokens=True)  # two halvings: a token for every 4 frames
    variables, apply = compiled(encoder, frames)
    out = apply(variables, frames)
    chex.assert_shape(out.values, (3, 6, 8))
    assert out.mask.sum(1).tolist() == [6, 3, 0]
    encoder = ENCODERS["AudioTransformer"](tokens=True)  # 3 frames and 4 of 8 bands: two tokens for every 3 frames
    out = jax.eval_shape(encoder.init_with_output, jax.random.key(0), frames)[0]
    chex.assert_shape(out.values, (3, 14, 8))


def test_patches_of_the_spectrogram_are_in_order_of_time_then_frequency():
    frames = Stream.of(jax.random.normal(jax.random.key(0), (1, 5, 8)))
    encoder = AudioTransformer(8, patch_size=(3, 4), num_layers=0, tokens=True)
    variables, _ = compiled(encoder, frames)

    def tokens(values):
        return encoder.apply(variables, frames.replace(values=values)).values[0]

    sees = (
        np.abs(jax.jit(jax.jacobian(tokens), compiler_options=QUICK)(frames.values)).sum((1, 2)) > 0
    )  # [token, frame, band]
    expected = np.kron(np.eye(4).reshape(4, 2, 2), np.ones((3, 4)))[:, :5] > 0
    assert (sees == expected).all()


def test_wrong_input_is_named():
    key, waves = jax.random.key(0), Stream.of(jnp.zeros((1, 100)))

    def shapes(module, stream):
        return jax.eval_shape(module.init, key, stream)

    with pytest.raises(ValueError, match="frontend=LogMel"):
        shapes(SpectrogramEncoder(8), waves)
    with pytest.raises(ValueError, match="8 bands, got 4"):
        shapes(SpectrogramEncoder(8), Stream.of(jnp.zeros((1, 10, 4))))
    with pytest.raises(ValueError, match="do not tile"):
        shapes(AudioTransformer(8), Stream.of(jnp.zeros((1, 16, 10))))
    with pytest.raises(ValueError, match="int16 or floating"):
        shapes(LogMel(), Stream.of(jnp.zeros((1, 100), jnp.int32)))
    with pytest.raises(ValueError, match="shorter than one frame"):
        shapes(LogMel(center=False), waves)
    with pytest.raises(ValueError, match="hop_length=0"):
        shapes(LogMel(hop_length=0), waves)
    with pytest.raises(ValueError, match="win_length=600"):
        shapes(LogMel(win_length=600), waves)
    with pytest.raises(ValueError, match="half the sample rate"):
        mel_filterbank(8_000, 256, 40, fmax=5_000)
    with pytest.raises(ValueError, match="holds no bin"):
        mel_filterbank(8_000, 64, 128)
