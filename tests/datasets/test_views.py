"""Views: fitted on train alone, masked, and undone where they can be."""

import dataclasses

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets import views
from mmjax.errors import UsageError
from mmjax.stream import Batch, Stream, target_items

SIZES = np.asarray([3, 1, 4, 2, 5, 2, 3, 4])  # utterances of eight videos
GROUP = np.repeat(np.arange(8), SIZES)
N = len(GROUP)
CODES = np.asarray([0, 0, 0, 0, 1, 1, 2, 2])[GROUP]


@pytest.fixture(scope="module")
def dataset():
    random = np.random.RandomState(1)
    sequence = random.standard_normal((N, 4, 3)) * [1, 10, 0] + [5, -3, 2]  # the last feature is constant
    mask = np.arange(4) < random.randint(1, 5, N)[:, None]
    mask[1] = False  # one example lacks it
    frames = random.randint(0, 255, (N, 6, 3, 4)).astype(np.uint8)
    streams = {
        "words": (sequence, mask),
        "face": random.standard_normal((N, 5)),
        "film": (frames, np.ones((N, 6), bool)),
    }
    return datasets.from_arrays(
        streams, random.randint(0, 2, N), split=CODES, group=GROUP, kinds={"film": "video"}, group_name="video"
    )


def test_standardise_uses_real_items_of_train_alone(dataset):
    result = views.standardise(dataset)
    raw, done = dataset.splits["train"].streams["words"], result.splits["train"].streams["words"]
    items = raw.values[raw.mask].astype(np.float64)
    real = done.values[done.mask]
    np.testing.assert_allclose(real[:, :2].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(real[:, :2].std(0), 1, atol=1e-5)
    np.testing.assert_allclose(real[:, 2], 0, atol=1e-6)  # constant: centred, not blown up
    assert not done.values[~done.mask].any()
    test = result.splits["test"].streams["words"]
    expected = (dataset.splits["test"].streams["words"].values - items.mean(0)) / [*items.std(0)[:2], 1]
    np.testing.assert_allclose(test.values[test.mask], expected[test.mask], rtol=1e-4, atol=1e-5)
    assert result.splits["train"].streams["film"] is dataset.splits["train"].streams["film"]  # not a feature
    assert dataset.splits["train"].streams["words"].values is raw.values


def test_standardise_does_not_see_the_other_splits(dataset):
    test = dataset.splits["test"]
    changed = test.replace(
        streams={**test.streams, "face": test.streams["face"].replace(values=test.streams["face"].values * 9)}
    )
    other = views.standardise(views.dataclasses.replace(dataset, splits={**dataset.splits, "test": changed}))
    same = views.standardise(dataset)
    np.testing.assert_array_equal(
        other.splits["train"].streams["face"].values, same.splits["train"].streams["face"].values
    )


def test_only(dataset):
    result = views.only(dataset, ["face"])
    assert result.streams == ("face",) and result.card.kinds == {"face": "feature"}
    with pytest.raises(UsageError, match="no modality 'smell'; it has face, film, words"):
        views.only(dataset, ["smell"])
    with pytest.raises(UsageError, match="at least one"):
        views.only(dataset, [])


def test_shuffled_streams_keep_their_items_and_lose_their_examples(dataset):
    result = views.shuffle_streams(dataset, ["film", "words"])
    orders = {}
    for split in ("train", "validation"):
        before, after = dataset.splits[split], result.splits[split]
        for name in ("film", "words"):
            raw = [(v.tobytes(), m.tobytes()) for v, m in zip(before.streams[name].values, before.streams[name].mask)]
            new = [(v.tobytes(), m.tobytes()) for v, m in zip(after.streams[name].values, after.streams[name].mask)]
            assert sorted(raw) == sorted(new) and raw != new  # whole items with their masks, in another order
            orders[split, name] = [raw.index(item) for item in new]
        assert after.streams["face"] is before.streams["face"]
        for field in ("target", "weight", "index", "group"):
            assert getattr(after, field) is getattr(before, field)
    assert orders["train", "film"] != orders["train", "words"]  # each by itself, or both would tell the same
    assert result.splits["test"] is dataset.splits["test"]
    datasets.check(result)


def test_a_shuffle_is_the_same_every_time_and_says_nothing_of_the_target():
    target = np.random.default_rng(0).integers(0, 2, 4000)
    told = datasets.from_arrays({"a": target[:, None] * 1.0, "b": target[:, None] * 1.0}, target,
                                split=np.repeat([0, 1, 2, 2], 1000))  # fmt: skip
    result = views.shuffle_streams(told, ["b"])
    for split, bound in (("train", 0.1), ("validation", 0.1)):
        batch = result.splits[split]
        assert abs(np.corrcoef(batch.streams["b"].values[:, 0, 0], batch.target)[0, 1]) < bound
        assert (batch.streams["a"].values[:, 0, 0] == batch.target).all()
    assert (result.splits["test"].streams["b"].values[:, 0, 0] == result.splits["test"].target).all()
    again = views.shuffle_streams(told, ["b"]).splits["train"].streams["b"].values
    np.testing.assert_array_equal(again, result.splits["train"].streams["b"].values)
    other = views.shuffle_streams(told, ["b"], seed=1).splits["train"].streams["b"].values
    assert (other != again).any()
    everywhere = views.shuffle_streams(told, ["b"], splits=("test",))
    assert everywhere.splits["train"] is told.splits["train"]
    assert (everywhere.splits["test"].streams["b"].values[:, 0, 0] != everywhere.splits["test"].target).any()
    with pytest.raises(UsageError, match="no modality 'c'; it has a, b"):
        views.shuffle_streams(told, ["c"])


def test_streams_in_targets_are_padded_to_one_length(dataset):
    assert views.pad_targets(dataset) is dataset

    def captioned(batch, length):
        words = Stream(np.ones((batch.size, length), np.int32), np.ones((batch.size, length), bool))
        return batch.replace(target={"words": words, "class": batch.target})

    lengths = {"train": 2, "validation": 3, "test": 1}
    splits = {split: captioned(batch, lengths[split]) for split, batch in dataset.splits.items()}
    for split, batch in views.pad_targets(dataclasses.replace(dataset, splits=splits)).splits.items():
        words = batch.target["words"]
        assert words.values.shape == words.mask.shape == (batch.size, 3)
        assert words.mask[:, : lengths[split]].all() and not words.mask[:, lengths[split] :].any()
        np.testing.assert_array_equal(batch.target["class"], dataset.splits[split].target)


def test_by_group_packs_every_part_of_a_target(dataset):
    def captioned(batch):
        words = np.stack([batch.index, batch.index], axis=1)
        return batch.replace(target={"words": Stream(words, words % 3 > 0), "class": batch.target})

    splits = {split: captioned(batch) for split, batch in dataset.splits.items()}
    plain, packed = views.by_group(dataset), views.by_group(dataclasses.replace(dataset, splits=splits))
    for split, batch in packed.splits.items():
        np.testing.assert_array_equal(batch.target["class"], plain.splits[split].target)
        words = target_items(batch)["words"]
        np.testing.assert_array_equal(words.values[:, 0], np.arange(len(words.mask)))
        np.testing.assert_array_equal(words.mask, words.values % 3 > 0)
        assert not batch.target["words"].mask[batch.index < 0].any()


def test_by_group_round_trip(dataset):
    packed = views.by_group(dataset)
    for split in ("train", "validation", "test"):
        flat, rows = dataset.splits[split], packed.splits[split]
        real = rows.index >= 0
        assert rows.index.shape == rows.target.shape == rows.group.shape and rows.index.shape[1] == 5
        np.testing.assert_array_equal(real.sum(1), SIZES[np.unique(flat.group)])
        np.testing.assert_array_equal(np.sort(rows.index[real]), flat.index)
        order = rows.index[real]
        np.testing.assert_array_equal(order, np.sort(order))  # groups are contiguous here: their order is kept
        np.testing.assert_array_equal(rows.target[real], flat.target[order])
        np.testing.assert_array_equal(rows.group[real], flat.group[order])
        assert (rows.group[~real] == -1).all() and (rows.group[real] >= 0).all()
        assert rows.weight.shape == (len(rows.index),)
        face, words = rows.streams["face"], rows.streams["words"]
        assert face.values.shape == (*real.shape, 5) and face.mask.shape == real.shape
        np.testing.assert_array_equal(face.mask, real)
        np.testing.assert_array_equal(face.values[real], flat.streams["face"].values[order, 0])
        assert words.values.shape == (*real.shape, 4, 3) and words.mask.shape == (*real.shape, 4)
        np.testing.assert_array_equal(words.values[real], flat.streams["words"].values[order])
        np.testing.assert_array_equal(words.mask[real], flat.streams["words"].mask[order])
        assert not words.mask[~real].any()
    datasets.check(packed)
    with pytest.raises(UsageError, match="label a step"):
        views.by_group(packed)


def test_by_group_keeps_the_order_of_scattered_examples():
    x = np.arange(12.0)[:, None]
    dataset = datasets.from_arrays(
        {"a": x}, np.zeros(12, int), split=np.tile([0, 0, 1, 2], 3), group=np.tile([4, 5, 6, 7], 3), num_classes=2
    )
    train = views.by_group(dataset).splits["train"]
    np.testing.assert_array_equal(train.streams["a"].values[..., 0], [[0, 4, 8], [1, 5, 9]])
    np.testing.assert_array_equal(train.index, [[0, 2, 4], [1, 3, 5]])


def test_pca_whiten_gives_uncorrelated_unit_components(dataset):
    result = views.pca_whiten(dataset, "film", 5)
    stream = result.splits["train"].streams["film"]
    assert stream.values.shape == (10, 6, 5) and result.card.kinds["film"] == "feature"
    items = stream.values.reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(items.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(items.T @ items / (len(items) - 1), np.eye(5), atol=1e-3)
    from sklearn.decomposition import PCA

    raw = dataset.splits["train"].streams["film"].values.reshape(60, 12).astype(np.float64)
    oracle = PCA(5, whiten=True).fit(raw)
    test = dataset.splits["test"].streams["film"].values.reshape(-1, 12).astype(np.float64)
    ours = result.splits["test"].streams["film"].values.reshape(-1, 5)
    np.testing.assert_allclose(np.abs(ours), np.abs(oracle.transform(test)), atol=1e-3)
    again = views.pca_whiten(dataset, "film", 5).splits["test"].streams["film"].values
    np.testing.assert_array_equal(ours.reshape(again.shape), again)


def test_pca_whiten_ignores_padding_and_refuses_too_many(dataset):
    two = views.pca_whiten(dataset, "words", 2).splits["train"].streams["words"]
    assert not two.values[~two.mask].any()
    np.testing.assert_allclose(two.values[two.mask].mean(0), 0, atol=1e-5)
    with pytest.raises(UsageError, match="1 to 2 components, not 3"):  # one feature is constant
        views.pca_whiten(dataset, "words", 3)


def test_resample_is_linear_and_keeps_ends_and_absence(dataset):
    result = views.resample(dataset, "words", 7)
    for split in ("train", "test"):
        raw, done = dataset.splits[split].streams["words"], result.splits[split].streams["words"]
        assert done.values.shape[1:] == (7, 3)
        for row, mask, new, there in zip(raw.values, raw.mask, done.values, done.mask):
            assert there.all() == mask.any() and there.any() == mask.any()
            if mask.any():
                n = mask.sum()
                for feature in range(3):
                    expected = np.interp(np.linspace(0, n - 1, 7), np.arange(n), row[mask][:, feature])
                    np.testing.assert_allclose(new[:, feature], expected, rtol=1e-5, atol=1e-5)
            else:
                assert not new.any()
    same = views.resample(dataset, "film", 6).splits["test"].streams["film"].values
    np.testing.assert_allclose(same * 255, dataset.splits["test"].streams["film"].values, rtol=1e-6)  # bytes to [0, 1]


def test_refit_splits_joins_train_and_validation(dataset):
    result = views.refit_splits(dataset)
    train, first, second = result.splits["train"], dataset.splits["train"], dataset.splits["validation"]
    assert train.size == first.size + second.size and train.streams["words"].values.shape[0] == train.size
    np.testing.assert_array_equal(train.index, np.arange(train.size))
    np.testing.assert_array_equal(train.target, np.concatenate([first.target, second.target]))
    assert result.splits["test"] is dataset.splits["test"] and "train + validation" in result.split_id
    rows = views.refit_splits(views.by_group(dataset)).splits["train"]
    np.testing.assert_array_equal(np.sort(rows.index[rows.index >= 0]), np.arange(first.size + second.size))
    np.testing.assert_array_equal(rows.target[rows.index >= 0], train.target)


def test_subset_and_limit(dataset):
    some = views.subset(dataset, "train", [4, 2])
    np.testing.assert_array_equal(some.splits["train"].target, dataset.splits["train"].target[[4, 2]])
    np.testing.assert_array_equal(some.splits["train"].index, [0, 1])
    few = views.limit(dataset, 4)
    assert [batch.size for batch in few.splits.values()] == [4, 4, 4]
    for split, batch in few.splits.items():
        if np.bincount(dataset.splits[split].target, minlength=2).min() >= 2:
            np.testing.assert_array_equal(np.bincount(batch.target), [2, 2])
        assert set(batch.group) <= set(dataset.splits[split].group)
    packed = views.limit(views.by_group(dataset), 1).splits["train"]
    np.testing.assert_array_equal(packed.index[packed.index >= 0], np.arange(SIZES[0]))
    datasets.check(views.limit(views.by_group(dataset), 1))
    with pytest.raises(UsageError, match="rows 0 to 9"):
        views.subset(dataset, "train", [10])
    with pytest.raises(UsageError, match="not one of"):
        views.subset(dataset, "dev", [0])
    with pytest.raises(UsageError, match="at least 1"):
        views.limit(dataset, 0)


def test_questions_about_one_picture_become_examples_of_their_own():
    mask = np.asarray([[True, True, False], [True, False, False]])
    index = np.where(mask, [[2, 0, -1], [1, -1, -1]], -1)
    words = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    batch = Batch(
        {
            "picture": Stream(np.asarray([[7.0], [9.0]])[..., None], np.ones((2, 1), bool)),
            "words": Stream(words, np.broadcast_to(mask[..., None], words.shape)),
        },
        np.asarray([[5, 6, 0], [8, 0, 0]]),
        np.ones(2, np.float32),
        index,
        np.where(mask, [[10], [11]], -1),
    )
    apart = views.take_apart(batch, ["words", "what this row does not see"])
    assert apart.index.tolist() == [[0], [1], [2]] and apart.group.tolist() == [[10], [11], [10]]
    assert apart.target.tolist() == [[6], [8], [5]]
    assert apart.streams["picture"].values.tolist() == [[[7.0]], [[9.0]], [[7.0]]]
    np.testing.assert_array_equal(apart.streams["words"].values, words[[0, 1, 0], [1, 0, 0]][:, None])
    assert apart.streams["words"].mask.all()
    with pytest.raises(UsageError, match="no stream 'word'"):
        views.take_apart(batch, "word")
    with pytest.raises(UsageError, match="it has other steps"):
        views.take_apart(batch, "picture")
    with pytest.raises(UsageError, match="nothing to take apart"):
        views.take_apart(apart.replace(index=np.arange(3)), "words")
