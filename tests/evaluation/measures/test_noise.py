import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.measures import noise
from mmjax.evaluation.measures.noise import NOISES, default_noise, default_noises, snr_db
from mmjax.stream import Stream
from mmjax.training import compile_effort

KEY = jax.random.key(3)
CHANCELESS = ("blur", "clipping")


def sample(kind, dtype=np.float32):
    """Three rows with a padded tail, a hole, and one row that lacks the modality; rubbish where the mask is False."""
    draw = np.random.default_rng(0)
    length, item = {
        "image": (1, (4, 6, 1)), "video": (5, (4, 6, 1)), "audio": (150, ()), "text": (9, ()), "feature": (7, (3,)),
    }[kind]  # fmt: skip
    mask = np.ones((3, length), bool)
    mask[0, 2 * length // 3 + 1 :], mask[1, 1 : 1 + length // 4], mask[2] = False, False, False
    if kind == "text":
        values = draw.integers(1, 20, (3, length)).astype(np.int32)
        values[~mask] = 77
        return Stream(values, mask)
    values = draw.uniform(-0.5, 1, (3, length, *item)).astype(np.float32)
    if dtype != np.float32:
        info = np.iinfo(dtype)
        values = draw.integers(info.min // 2, info.max // 2, values.shape).astype(dtype)
        values[~mask] = 99
    else:
        values[0, 0], values[~mask] = -0.0, np.nan
    return Stream(values, mask)


@functools.cache
def compiled(function):
    return jax.jit(function, compiler_options=compile_effort(0))


def run(function, stream, severity):
    return compiled(function)(stream, KEY, severity)


def bits(stream):
    return np.asarray(stream.values).tobytes(), np.asarray(stream.mask).tobytes()


def rate(changed, expected):
    """Whether a share agrees with a probability to four standard errors."""
    return abs(changed.mean() - expected) <= 4 * np.sqrt(expected * (1 - expected) / changed.size)


@pytest.mark.parametrize("name", {family.apply: name for name, family in NOISES.items()}.values())  # each once
def test_every_family_keeps_what_all_promise(name):
    family = NOISES[name]
    stream = sample(family.kind)
    levels = jnp.array([0, 0.05, 0.5, 1.0])
    many = jax.jit(
        jax.vmap(jax.vmap(family.apply, (None, None, 0)), (None, 0, None)), compiler_options=compile_effort(0)
    )
    keys = jax.random.split(KEY, 2)
    noisy = many(stream, keys, levels)
    assert noisy.values.dtype == stream.values.dtype and noisy.mask.shape == (2, 4, *stream.mask.shape)
    for draw in range(2):
        assert bits(jax.tree.map(lambda x: x[draw, 0], noisy)) == bits(stream)  # noqa: B023
    values, mask = np.asarray(noisy.values), np.asarray(noisy.mask)
    assert not (mask & ~stream.mask).any()
    padding = values[:, :, ~stream.mask]
    np.testing.assert_array_equal(padding, np.broadcast_to(stream.values[~stream.mask], padding.shape))  # NaN too
    assert np.isfinite(values[:, :, stream.mask]).all()
    assert not values[~mask & stream.mask].any()  # what is dropped is zero
    different = (values[:, 3] != values[:, 0]) & stream.mask.reshape(1, *stream.mask.shape, *[1] * (values.ndim - 4))
    assert different.any() or (~mask[:, 3] & stream.mask).any()
    assert (bits(jax.tree.map(lambda x: x[0, 2], noisy)) == bits(jax.tree.map(lambda x: x[1, 2], noisy))) == (
        family.name in CHANCELESS
    )
    # rubbish in the padding changes nothing that is real
    other = stream.replace(values=np.where(np.isin(stream.values, stream.values[stream.mask]), stream.values, 5))
    again = many(other.replace(values=other.values.astype(stream.values.dtype)), keys, levels)
    np.testing.assert_array_equal(np.asarray(again.values)[:, :, stream.mask], values[:, :, stream.mask])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("video/gaussian", np.uint8), ("image/salt_and_pepper", np.uint8), ("image/blur", np.uint8),
     ("video/occlusion", np.uint8), ("audio/white_noise", np.int16), ("audio/clipping", np.int16),
     ("audio/packet_loss", np.int16)],
)  # fmt: skip
def test_integers_stay_integers(name, dtype):
    family = NOISES[name]
    stream = sample(family.kind, dtype)
    assert bits(run(family.apply, stream, 0.0)) == bits(stream)
    noisy = run(family.apply, stream, 0.6)
    assert noisy.values.dtype == dtype
    assert (np.asarray(noisy.values)[~stream.mask] == 99).all()
    assert (np.asarray(noisy.values) != stream.values).any()


def test_gaussian_noise_has_the_deviation_it_says():
    picture = Stream(np.full((2, 1, 60, 60, 1), 0.5, np.float32), np.ones((2, 1), bool))
    error = np.asarray(run(noise.gaussian_pixels, picture, 0.3).values) - 0.5
    assert error.std() == pytest.approx(0.3, rel=0.03) and abs(error.mean()) < 0.015
    grey = picture.replace(values=np.full(picture.values.shape, 128, np.uint8))
    error = np.asarray(run(noise.gaussian_pixels, grey, 0.1).values).astype(float) - 128
    assert error.std() == pytest.approx(25.5, rel=0.03)
    extreme = np.asarray(run(noise.gaussian_pixels, grey, 1.0).values)
    assert extreme.min() == 0 and extreme.max() == 255  # cut off, never wrapped round
    features = Stream(np.zeros((4, 3, 600), np.float32), np.ones((4, 3), bool))
    assert np.asarray(run(noise.gaussian_features, features, 0.5).values).std() == pytest.approx(1.0, rel=0.03)
    assert np.asarray(run(noise.gaussian_features, features, 1.0).values).std() == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_white_noise_has_the_ratio_it_says_for_every_clip(dtype):
    draw = np.random.default_rng(1)
    wave = draw.normal(size=(3, 400)) * np.array([[0.001], [0.02], [0.05]])
    mask = np.ones((3, 400), bool)
    mask[1, 50:] = False  # a short clip: its ratio must not depend on luck or padding
    if dtype == np.int16:
        wave = np.round(wave * 32768 * [[50], [1], [1]])
    stream = Stream(wave.astype(dtype), mask)
    for severity, wanted in [(0.1, 30.0), (0.55, 10.0), (1.0, -10.0)]:
        assert snr_db(severity) == pytest.approx(wanted)
        noisy = np.asarray(run(noise.white_noise, stream, severity).values, np.float64)
        for row in range(3):
            clean = stream.values[row, mask[row]].astype(np.float64)
            error = noisy[row, mask[row]] - clean
            measured = 10 * np.log10((clean**2).mean() / (error**2).mean())
            assert measured == pytest.approx(wanted, abs=0.1)
    assert (np.asarray(run(noise.white_noise, stream, 1.0).values)[1, 50:] == stream.values[1, 50:]).all()
    silent = stream.replace(values=np.zeros_like(stream.values))
    assert not np.asarray(run(noise.white_noise, silent, 1.0).values).any()


def test_white_noise_is_white():
    tone = Stream(np.sin(np.arange(4096) / 5).astype(np.float32)[None], np.ones((1, 4096), bool))
    error = np.asarray(run(noise.white_noise, tone, 0.5).values)[0] - tone.values[0]
    power = np.abs(np.fft.rfft(error))[1:-1] ** 2
    low, high = power[: len(power) // 2].mean(), power[len(power) // 2 :].mean()
    assert low / high == pytest.approx(1, abs=0.15)


def test_clipping_keeps_the_power_and_cuts_where_it_says():
    wave = np.sin(np.arange(1000) * 2 * np.pi / 100).astype(np.float32)[None] * 0.3
    stream = Stream(wave, np.ones(wave.shape, bool))
    for severity in (0.25, 1.0):
        cut = np.asarray(run(noise.clipping, stream, severity).values, np.float64)
        assert (cut**2).mean() == pytest.approx((wave.astype(np.float64) ** 2).mean(), rel=1e-4)
        limit = 0.3 * 10 ** (-40 * severity / 20)
        expected = np.clip(wave.astype(np.float64), -limit, limit)
        np.testing.assert_allclose(cut, expected * np.sqrt((wave**2).mean() / (expected**2).mean()), atol=1e-5)


def test_packets_fall_silent_whole():
    stream = Stream(np.ones((40, 210), np.float32), np.arange(210) < np.full((40, 1), 200))
    lost = np.asarray(run(noise.packet_loss, stream, 0.3).values)[:, :200].reshape(40, 50, 4)
    assert (lost == lost[..., :1]).all()
    assert rate(lost[..., 0] == 0, 0.3)
    assert (np.asarray(run(noise.packet_loss, stream, 1.0).values)[:, 200:] == 1).all()  # padding stays as it was


def test_tokens_are_deleted_at_the_rate_and_nested():
    stream = Stream(np.full((50, 40), 4, np.int32), np.arange(40) < np.full((50, 1), 30))
    masks = {}
    for severity in (0.2, 0.7, 1.0):
        noisy = run(noise.drop_items, stream, severity)
        masks[severity] = np.asarray(noisy.mask)
        assert rate(~masks[severity][:, :30], severity)
        assert not np.asarray(noisy.values)[:, :30][~masks[severity][:, :30]].any()
    assert not (masks[0.7] & ~masks[0.2]).any()
    assert not masks[1.0].any()  # then the text is absent


def test_tokens_become_other_ids_of_the_vocabulary():
    ids = np.random.default_rng(0).integers(0, 8, (60, 50)).astype(np.int32)
    stream = Stream(ids, np.ones(ids.shape, bool))
    replace = functools.partial(noise.replace_tokens, vocabulary=10, first=2)
    found, ordinary = np.asarray(run(replace, stream, 0.4).values), ids >= 2
    assert rate((found != ids)[ordinary], 0.4)
    assert (found[~ordinary] == ids[~ordinary]).all()  # special ids stay
    found = np.asarray(run(replace, stream, 1.0).values)
    assert (found != ids)[ordinary].all() and found[ordinary].min() == 2 and found[ordinary].max() == 9
    counts = np.bincount(found[ids == 5], minlength=10)  # evenly over the seven others
    assert counts[5] == 0 and (abs(counts[[2, 3, 4, 6, 7, 8, 9]] / counts.sum() - 1 / 7) < 0.08).all()
    padded = Stream(np.array([[3, 5, 900]], np.int32), np.array([[True, True, False]]))
    guessed = np.asarray(run(noise.replace_tokens, padded, 1.0).values)
    assert guessed[0, :2].max() <= 5 and guessed[0, 2] == 900  # padding is no part of the vocabulary


def test_salt_and_pepper_hits_whole_pixels_at_the_rate():
    stream = Stream(np.full((3, 2, 30, 30, 3), 100, np.uint8), np.ones((3, 2), bool))
    found = np.asarray(run(noise.salt_and_pepper, stream, 0.4).values)
    hit = found[..., 0] != 100
    assert rate(hit, 0.4) and (found == found[..., :1]).all()
    assert set(np.unique(found)) == {0, 100, 255} and rate(found[..., 0][hit] == 255, 0.5)


def test_blur_spreads_a_point_by_its_deviation():
    picture = np.zeros((1, 1, 40, 60, 1), np.float32)
    picture[0, 0, 20, 30, 0] = 1
    stream = Stream(picture, np.ones((1, 1), bool))
    spread = np.asarray(run(noise.blur, stream, 0.3).values, np.float64)[0, 0, :, :, 0]  # s.d. 0.3 * 40 / 4 = 3 pixels
    assert spread.sum() == pytest.approx(1, rel=1e-3)
    across = spread.sum(0)
    assert np.sqrt((across * (np.arange(60) - 30) ** 2).sum()) == pytest.approx(3, rel=0.01)
    flat = stream.replace(values=np.full(picture.shape, 0.7, np.float32))
    np.testing.assert_allclose(np.asarray(run(noise.blur, flat, 1.0).values), 0.7, rtol=1e-5)


def test_the_window_has_its_area_and_one_place_in_a_video():
    stream = Stream(np.ones((6, 3, 40, 20, 2), np.float32), np.ones((6, 3), bool))
    found = np.asarray(run(noise.occlusion, stream, 0.25).values)
    black = found == 0
    np.testing.assert_allclose(black.mean((2, 3, 4)), 0.25, atol=0.08)
    assert (black == black[:, :1]).all()
    assert len({black[row, 0].tobytes() for row in range(6)}) > 1
    assert not np.asarray(run(noise.occlusion, stream, 1.0).values).any()


def test_features_drop_out_at_the_rate():
    stream = Stream(np.ones((20, 5, 30), np.float32), np.ones((20, 5), bool))
    assert rate(np.asarray(run(noise.drop_features, stream, 0.25).values) == 0, 0.25)
    assert not np.asarray(run(noise.drop_features, stream, 1.0).values).any()


def test_jitter_takes_real_items_from_nearby():
    mask = np.ones((30, 24), bool)
    mask[:, 20:], mask[:, 3:5] = False, False
    place = np.cumsum(mask, 1) - 1.0
    stream = Stream(np.where(mask, place, -9).astype(np.float32)[..., None], mask)
    for severity in (0.2, 1.0):
        found = np.asarray(run(noise.jitter, stream, severity).values)[..., 0]
        distance = np.abs(found - stream.values[..., 0])[mask]
        assert 0 < distance.max() <= round(18 * severity) and found[mask].min() >= 0
        assert (found[~mask] == -9).all()


def test_nested_masks_take_the_innermost_axis_as_the_clip():
    wave = np.random.default_rng(2).normal(size=(2, 3, 50)).astype(np.float32) * np.array([1, 10, 100])[:, None]
    stream = Stream(wave.astype(np.float32), np.ones((2, 3, 50), bool))
    error = np.asarray(run(noise.white_noise, stream, 1.0).values) - stream.values
    ratio = 10 * np.log10((stream.values**2).mean(-1) / (error**2).mean(-1))
    np.testing.assert_allclose(ratio, -10, atol=0.01)
    assert run(noise.jitter, stream, 0.5).values.shape == (2, 3, 50)


def test_defaults_are_those_of_the_data_cards():
    from mmjax.datasets import avletters, cmu_mosi, fsdd_digits
    from mmjax.datasets.base import KINDS

    assert default_noise("feature").scale == cmu_mosi.CARD.noise["text"] == avletters.CARD.noise["audio"]
    assert default_noise("video").scale == avletters.CARD.noise["video"]
    assert "SNR 30" in fsdd_digits.CARD.noise["audio"] and "SNR 30" in default_noise("audio").scale
    assert [default_noise(kind).kind for kind in KINDS] == list(KINDS)
    assert {name: family.raw for name, family in default_noises({"a": "audio", "b": "feature"}).items()} == {
        "a": True, "b": False,
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"'smell' is not one of audio"):
        default_noise("smell")


def test_what_does_not_fit_is_refused():
    ids = sample("text")
    with pytest.raises(ValueError, match="int32"):
        noise.gaussian_pixels(ids, KEY, 0.5)
    with pytest.raises(ValueError, match="standardised, got int32"):
        noise.gaussian_features(ids, KEY, 0.5)
    with pytest.raises(ValueError, match="tokens are integers"):
        noise.replace_tokens(sample("feature"), KEY, 0.5)
    with pytest.raises(ValueError, match="pictures are"):
        noise.occlusion(sample("feature"), KEY, 0.5)
