"""Moving digits: the pictures are scikit-learn's, the answers are where they are said to be, words help as they say."""

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets import moving_digits
from mmjax.datasets.moving_digits import DIGIT, INFORMATIVE, VOCABULARY
from mmjax.errors import UsageError

LOADED = {}


def loaded(**options):
    key = tuple(sorted(options.items()))
    if key not in LOADED:
        LOADED[key] = datasets.load("moving_digits", **options), moving_digits.truth(**options)
    return LOADED[key]


def test_without_noise_every_frame_is_the_digit_where_the_truth_says_and_nothing_else():
    from sklearn.datasets import load_digits

    dataset, answers = loaded(noise=0.0)
    known = load_digits()
    numbers = np.concatenate([batch.group for batch in dataset.splits.values()])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(1797))
    for split, batch in dataset.splits.items():
        video, corner = batch.streams["video"], answers[split].corner
        assert video.values.dtype == np.uint8 and video.values.shape[1:] == (6, 16, 16, 1)
        np.testing.assert_array_equal(video.mask, (corner >= 0).all(-1))
        np.testing.assert_array_equal(batch.target, known.target[batch.group])
        pictures = np.round(known.images[batch.group] / 16 * 255)
        for row, frame in np.argwhere(video.mask):
            top, left = corner[row, frame]
            place = (slice(top, top + DIGIT), slice(left, left + DIGIT))
            seen = video.values[row, frame, ..., 0]
            np.testing.assert_array_equal(seen[place], pictures[row])
            assert seen.sum() == seen[place].sum()
        inside = answers[split].inside
        assert not video.values[~inside].any()
        np.testing.assert_array_equal(inside.sum((2, 3)), np.where(video.mask, DIGIT**2, 0))


def test_digits_move_in_straight_lines_that_bounce():
    _, answers = loaded(noise=0.0)
    corner = answers["train"].corner
    assert corner.max() == 8 and set((corner >= 0).all(-1).sum(1)) == {4, 5, 6}
    step = np.abs(np.diff(corner, axis=1))[(corner[:, 1:] >= 0).all(-1)]
    assert step.max() == 3 and (step.max(-1) > 0).mean() > 0.95  # a step at the edge may come back to where it was


def test_one_word_says_parity_or_size_and_the_others_nothing():
    dataset, answers = loaded(noise=0.0)
    for split, batch in dataset.splits.items():
        text, word = batch.streams["text"], answers[split].word
        assert set(text.mask.sum(1)) == {4, 5, 6, 7, 8} and not text.values[~text.mask].any()
        speaks = (text.values < len(INFORMATIVE)) & text.mask
        np.testing.assert_array_equal(np.argwhere(speaks), np.stack([np.arange(batch.size), word], 1))
        for label, said in zip(batch.target, text.values[speaks]):
            meaning = {"even": label % 2 == 0, "odd": label % 2 == 1, "small": label < 5, "large": label >= 5}
            assert meaning[VOCABULARY[said]]
    noise_words = text.values[text.mask & ~speaks]
    assert set(noise_words) == set(range(len(INFORMATIVE), len(VOCABULARY)))


def test_noise_leaves_everything_else_as_it_was_and_is_as_strong_as_said():
    (clean, _), (noisy, _) = loaded(noise=0.0), loaded(noise=0.1)
    for split, batch in noisy.splits.items():
        before = clean.splits[split]
        np.testing.assert_array_equal(batch.streams["text"].values, before.streams["text"].values)
        middle = (before.streams["video"].values > 100) & (before.streams["video"].values < 160)
        change = batch.streams["video"].values[middle] / 255 - before.streams["video"].values[middle] / 255
        assert change.std() == pytest.approx(0.1, rel=0.05) and abs(change.mean()) < 0.01


def test_copies_of_a_picture_stay_in_one_split_and_the_seed_decides():
    dataset, _ = loaded(copies=2, noise=0.0)
    groups = {split: set(batch.group.tolist()) for split, batch in dataset.splits.items()}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["validation"]
    assert sum(map(len, groups.values())) == 1797 and sum(b.size for b in dataset.splits.values()) == 2 * 1797
    assert dataset.card.name == "moving_digits (noise 0.0, copies 2)"
    assert loaded(noise=0.1)[0].sha256 == datasets.load("moving_digits", noise=0.1).sha256
    assert (
        len({loaded(**options)[0].sha256 for options in ({"noise": 0.0}, {"noise": 0.1}, {"noise": 0.1, "seed": 1})})
        == 3
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frames": 0}, "frames is an integer from 1 up, got 0"),
        ({"words": 2.5}, "words is an integer"),
        ({"noise": -0.1}, "standard deviation"),
        ({"copies": 0}, "copies is an integer from 1 up"),
        ({"colour": 1}, "moving_digits has no option 'colour'; it has frames, words"),
    ],
)
def test_wrong_options_are_one_line(options, words):
    with pytest.raises(UsageError, match=words):
        datasets.load("moving_digits", **options)
    with pytest.raises(UsageError, match=words):
        moving_digits.truth(**options)


def test_the_smallest_of_each():
    dataset, answers = loaded(frames=1, words=1, noise=0.0)
    test = dataset.splits["test"]
    assert test.streams["video"].values.shape[1] == 1 and test.streams["text"].mask.all()
    assert not answers["test"].word.any()


def test_the_tfds_builder_holds_what_load_gives(tmp_path):
    dataset, _ = loaded(noise=0.1)
    source = datasets.source("moving_digits", "test", cache_dir=tmp_path, noise=0.1)
    batch = dataset.splits["test"]
    assert len(source) == batch.size
    for row in (0, batch.size - 1):
        assert (source[row]["target"], source[row]["group"]) == (batch.target[row], batch.group[row])
        for key, stream in batch.streams.items():
            np.testing.assert_array_equal(source[row][key], stream.values[row][stream.mask[row]])
