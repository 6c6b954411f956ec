"""Pairs of spoken and written digits: what never crosses splits, the degradations, converters, and the real files."""

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.fsdd_digits import convert_esc10, convert_fsdd, convert_mnist, pairs
from mmjax.errors import UsageError
from tests.datasets import originals

SIZES = (40, 20, 10)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Fixtures in the originals' forms and the data folder converted from them."""
    folder = tmp_path_factory.mktemp("fsdd")
    waves, images = originals.fsdd(folder / "recordings"), originals.mnist(folder / "idx")
    convert_fsdd.convert(folder / "recordings", folder / "data" / "fsdd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_mnist, "SHARD", 200)
        convert_mnist.convert(folder / "idx", folder / "data" / "mnist")
    return folder, waves, images


def load(made, tmp_path, **options):
    defaults = {"sizes": SIZES, "snr_db": None, "image_energy": 1.0, "image_noise": 0.0}
    return datasets.load("fsdd_digits", data_dir=made[0] / "data", cache_dir=tmp_path, **(defaults | options))


def test_converted_files_hold_the_originals(made):
    folder, waves, images = made
    with np.load(folder / "data" / "fsdd" / "fsdd_1of3.npz") as file:
        assert list(file["speaker_name"]) == list("abcdef") and set(file["speaker"]) == {2, 3}
        for clip in (0, 17, 39):
            name = f"{file['label'][clip]}_{'abcdef'[file['speaker'][clip]]}_{file['take'][clip]}.wav"
            np.testing.assert_array_equal(file["wave"][file["offset"][clip] : file["offset"][clip + 1]], waves[name])
    with np.load(folder / "data" / "mnist" / "mnist_train_2of3.npz") as file:
        np.testing.assert_array_equal(file["image"], images["train images"][400:])
        np.testing.assert_array_equal(file["label"], images["train labels"][400:])
    with np.load(folder / "data" / "mnist" / "mnist_test.npz") as file:
        np.testing.assert_array_equal(file["image"], images["t10k images"])


def test_recordings_images_and_speakers_never_cross(made, tmp_path):
    _, waves, images = made
    names = [f"{d}_{s}_{t}.wav" for s in "abcdef" for d in range(10) for t in range(2)]
    pixels = {image.tobytes(): ("train", i) for i, image in enumerate(images["train images"])}
    pixels |= {image.tobytes(): ("test", i) for i, image in enumerate(images["t10k images"])}
    dataset = load(made, tmp_path, fold=4)
    used_images, used_recordings, speakers = [], [], []
    for batch in dataset.splits.values():
        image, audio = batch.streams["image"], batch.streams["audio"]
        assert image.values.shape[1:] == (1, 28, 28, 1) and audio.values.shape[1:] == (pairs.SAMPLES,)
        found = [pixels[np.round(x * 255).astype(np.uint8).tobytes()] for x in image.values]
        used_images.append(set(found))
        assert len(used_images[-1]) == batch.size
        labels = [images["train labels" if part == "train" else "t10k labels"][i] for part, i in found]
        np.testing.assert_array_equal(labels, batch.target)
        used_recordings.append({names[i] for i in batch.group})
        assert len(used_recordings[-1]) == batch.size
        speakers.append({name[2] for name in used_recordings[-1]})
        assert [int(names[i][0]) for i in batch.group] == batch.target.tolist()
        assert np.ptp(np.bincount(batch.target, minlength=10)) == 0
        for row, recording in enumerate(batch.group):
            samples = waves[names[recording]][: pairs.SAMPLES].astype(float)
            real = audio.values[row][audio.mask[row]]
            assert len(real) == len(samples)
            np.testing.assert_allclose(np.sqrt(np.mean(real**2)), pairs.LOUDNESS, rtol=1e-3)
            assert np.corrcoef(real, samples)[0, 1] > 0.9999
    assert speakers == [set("abcd"), {"f"}, {"e"}]
    for used in (used_images, used_recordings):
        assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])
    assert {part for part, _ in used_images[2]} == {"test"} and {part for part, _ in used_images[1]} == {"train"}


def test_every_speaker_tests_once_and_validates_once():
    parts = [pairs.speakers_of(fold) for fold in range(6)]
    assert sorted(test[0] for _, _, test in parts) == sorted(v[0] for _, v, _ in parts) == list(range(6))
    assert all(sorted((*a, *b, *c)) == list(range(6)) for a, b, c in parts)


def test_the_same_options_give_the_same_data_and_others_do_not(made, tmp_path):
    first = load(made, tmp_path / "a")
    assert first.sha256 == load(made, tmp_path / "b").sha256
    assert len({first.sha256, load(made, tmp_path, fold=1).sha256, load(made, tmp_path, seed=1).sha256}) == 3
    noisy = load(made, tmp_path, image_noise=0.5)
    difference = noisy.splits["test"].streams["image"].values - first.splits["test"].streams["image"].values
    assert abs(difference.std() - 0.5) < 0.02
    np.testing.assert_array_equal(noisy.splits["test"].group, first.splits["test"].group)


def test_removing_energy_leaves_the_named_share():
    images = np.random.RandomState(0).rand(200, 30) * np.arange(1, 31)
    mean, axes = pairs._axes(images, 0.25)
    left = pairs.remove_energy(images, mean, axes).var(0).sum() / images.var(0).sum()
    one_less = pairs.remove_energy(images, mean, axes[:, :-1]).var(0).sum() / images.var(0).sum()
    assert left <= 0.25 < one_less
    np.testing.assert_array_equal(pairs.remove_energy(images, *pairs._axes(images, 1.0)), images)


@pytest.mark.parametrize("snr_db", [10.0, -5.0])
def test_mixing_has_the_named_signal_to_noise_ratio(snr_db):
    random = np.random.RandomState(0)
    wave = random.standard_normal(500) * 0.05
    clip = np.concatenate([np.zeros(5000), random.standard_normal(3000) * 1000])  # mostly silent
    for _ in range(5):
        noise = pairs.mix(wave, [clip, clip[4000:]], snr_db, random) - wave
        assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(snr_db)
    short = pairs.mix(wave, [clip[-100:]], snr_db, random) - wave  # a clip shorter than the recording goes round
    assert np.abs(short[:100] - short[100:200]).max() < 1e-12


def test_noise_clips_come_from_ogg_files(made, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    random = np.random.RandomState(0)
    for kind in ("001 - Dog bark", "002 - Rain"):
        (tmp_path / "esc10" / kind).mkdir(parents=True)
        for fold in range(1, 6):
            tone = 0.3 * np.sin(np.arange(44_100 // 2) * 2 * np.pi * 440 / 44_100) + 0.05 * random.standard_normal(
                22_050
            )
            soundfile.write(tmp_path / "esc10" / kind / f"{fold}-12{fold}-A.ogg", tone, 44_100)
    data = tmp_path / "data"
    data.mkdir()
    for name in ("fsdd", "mnist"):
        (data / name).symlink_to(made[0] / "data" / name)
    convert_esc10.convert(tmp_path / "esc10", data / "esc10_8k")
    with np.load(data / "esc10_8k" / "esc10_fold3.npz") as file:
        assert file["wave"].shape == (2, 40_000) and list(file["length"]) == [4000, 4000]
        assert list(file["class_name"]) == ["Dog bark", "Rain"] and list(file["clip_id"]) == [123, 123]
        spectrum = np.abs(np.fft.rfft(file["wave"][0][:4000].astype(float)))
        assert np.argmax(spectrum) == 440 // 2  # 0.5 s: bins of 2 Hz
    options = {"data_dir": data, "cache_dir": tmp_path / "cache", "sizes": SIZES}
    noisy, clean = (datasets.load("fsdd_digits", snr_db=snr, **options) for snr in (0.0, None))
    for split in ("train", "test"):
        a, b = noisy.splits[split].streams["audio"], clean.splits[split].streams["audio"]
        np.testing.assert_array_equal(a.mask, b.mask)
        ratio = (b.values**2).sum(1) / ((a.values - b.values) ** 2).sum(1)
        np.testing.assert_allclose(ratio, 1, rtol=0.02)
    (tmp_path / "esc10" / "002 - Rain" / "3-123-A.ogg").write_bytes(b"no ogg")
    with pytest.raises(UsageError, match="cannot read"):
        convert_esc10.convert(tmp_path / "esc10", tmp_path / "out")


def test_missing_noise_files_are_named(made, tmp_path):
    with pytest.raises(UsageError, match=r"esc10_fold1\.npz is missing\. Fetch .*ESC-10"):
        load(made, tmp_path, snr_db=10.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(fold=6), "fold is one of"),
        (dict(fold="all"), "fold is one of"),
        (dict(sizes=(2001, 500, 500)), "sizes are three numbers"),
        (dict(sizes=(9, 10, 10)), "sizes are three numbers"),
        (dict(image_energy=0.0), "image_energy"),
        (dict(image_noise=-0.1), "image_noise"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(UsageError, match=words):
        datasets.card("fsdd_digits", **options)


def test_converters_refuse_other_files(made, tmp_path):
    with pytest.raises(UsageError, match="six speakers"):
        convert_fsdd.convert(tmp_path, tmp_path / "out")
    (tmp_path / "0_a_0.wav").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="cannot read"):
        convert_fsdd.read_wave(tmp_path / "0_a_0.wav")
    with pytest.raises(UsageError, match="cannot read"):
        convert_mnist.convert(tmp_path, tmp_path / "out")
    content = (made[0] / "idx" / "t10k-labels-idx1-ubyte").read_bytes()
    (tmp_path / "cut").write_bytes(content[:-1])
    with pytest.raises(UsageError, match="truncated"):
        convert_mnist.read_idx(tmp_path, "cut", 1)
    with pytest.raises(UsageError, match="no '001 - NAME"):
        convert_esc10.convert(tmp_path, tmp_path / "out")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("fsdd_digits", data_dir=data_dir, cache_dir=tmp_path, sizes=(200, 100, 100))
    assert [batch.size for batch in dataset.splits.values()] == [200, 100, 100]
    assert dataset.card.group == "recording" and dataset.majority() == 0.1
    for batch in dataset.splits.values():
        assert (np.bincount(batch.target) * 10 == batch.size).all()
        assert np.abs(batch.streams["audio"].values).max() <= 1
    recordings = dataset.splits["test"].group
    assert recordings.min() >= 0 and recordings.max() < 500  # the first speaker's
