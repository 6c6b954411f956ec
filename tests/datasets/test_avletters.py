"""AVLetters: converter, both splits, and the real files."""

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.avletters.convert import convert, read_lips, read_mfcc
from mmjax.errors import UsageError
from tests.datasets import originals


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("avletters")
    clips = originals.avletters(folder / "original")
    convert(folder / "original", folder / "data" / "avletters")
    return folder, clips


def test_pictures_are_halved_by_rounded_means(made):
    folder, clips = made
    pictures, features = clips["B2_S03"]
    halved = read_lips(folder / "original" / "Lips" / "B2_S03-lips.mat")
    blocks = pictures.astype(float).reshape(-1, 30, 2, 40, 2).mean((2, 4))
    np.testing.assert_array_equal(halved, np.floor(blocks + 0.5))
    np.testing.assert_array_equal(read_mfcc(folder / "original/Audio/mfcc/Clean/B2_S03.mfcc"), features)


def test_the_published_split_is_by_repetition(made, tmp_path):
    folder, clips = made
    dataset = datasets.load("avletters", data_dir=folder / "data", cache_dir=tmp_path)
    assert dataset.card.groups_cross and "All speakers" in dataset.card.caution
    for repetition, batch in enumerate(dataset.splits.values(), start=1):
        assert batch.size == 20 and set(batch.group) == set(range(10))
        for row in (0, 7, 19):
            stem = f"{'AB'[batch.target[row]]}{repetition}_S{batch.group[row]:02d}"
            pictures, features = clips[stem]
            video, audio = batch.streams["video"], batch.streams["audio"]
            assert video.mask[row].sum() == len(pictures) and audio.mask[row].sum() == len(features)
            np.testing.assert_array_equal(audio.values[row][audio.mask[row]], features)
            assert video.values.dtype == np.uint8 and video.values.shape[2:] == (30, 40, 1)
            np.testing.assert_array_equal(
                video.values[row][video.mask[row]][..., 0],
                (pictures.astype(int).reshape(-1, 30, 2, 40, 2).sum((2, 4)) + 2) // 4,
            )


def test_speakers_can_be_left_out(made, tmp_path):
    dataset = datasets.load("avletters", data_dir=made[0] / "data", cache_dir=tmp_path, split="speakers")
    assert [set(batch.group) for batch in dataset.splits.values()] == [set(range(6)), {6, 7}, {8, 9}]
    assert not dataset.card.groups_cross and dataset.card.name != datasets.card("avletters").name
    with pytest.raises(UsageError, match="'published' or 'speakers'"):
        datasets.card("avletters", split="random")


def test_the_converter_refuses_other_files(made, tmp_path):
    with pytest.raises(UsageError, match="there is no Lips"):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "x.mfcc").write_bytes((made[0] / "original/Audio/mfcc/Clean/A1_S00.mfcc").read_bytes()[:-4])
    with pytest.raises(UsageError, match="no HTK file"):
        read_mfcc(tmp_path / "x.mfcc")
    (tmp_path / "x.mat").write_bytes(b"no matlab")
    with pytest.raises(UsageError, match="no MATLAB file"):
        read_lips(tmp_path / "x.mat")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("avletters", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [260, 260, 260]
    frames = sum(batch.streams["video"].mask.sum() for batch in dataset.splits.values())
    audio = sum(batch.streams["audio"].mask.sum() for batch in dataset.splits.values())
    assert (frames, audio) == (18_562, 36_323)
    assert all((np.bincount(batch.target) == 10).all() for batch in dataset.splits.values())
