"""A user's own arrays: what is padded, stored, split and refused."""

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.arrays import pad
from mmjax.datasets.base import Card
from mmjax.datasets.splits import split_groups
from mmjax.errors import UsageError
from mmjax.stream import Stream

RANDOM = np.random.RandomState(0)
N = 30
TARGET = np.arange(N) % 3


def features(*shape):
    return RANDOM.standard_normal((N, *shape)).astype(np.float64)


def test_every_form_of_stream_becomes_values_and_mask():
    lists = [np.full((1 + i % 4, 2), i) for i in range(N)]
    wave = [np.full(2 + i % 3, 16384, np.int16) for i in range(N)]
    mask = np.ones((N, 5), bool)
    mask[::2, 3:] = False
    given = {
        "vector": features(4),
        "sequence": features(6, 4),
        "pair": (features(5, 2), mask),
        "list": lists,
        "wave": wave,
        "picture": np.full((N, 4, 5, 3), 200, np.uint8),
        "words": np.ones((N, 7), np.int64),
        "film": np.zeros((N, 3, 4, 5), np.uint8),
    }
    kinds = {"wave": "audio", "picture": "image", "words": "text", "film": "video"}
    dataset = datasets.from_arrays(given, TARGET, kinds=kinds, split=np.arange(N) % 3)
    train = dataset.splits["train"]
    shapes = {name: s.values.shape[1:] for name, s in train.streams.items()}
    assert shapes == {
        "vector": (1, 4),
        "sequence": (6, 4),
        "pair": (5, 2),
        "list": (4, 2),
        "wave": (4,),
        "picture": (1, 4, 5, 3),
        "words": (7,),
        "film": (3, 4, 5),
    }
    types = {name: str(s.values.dtype) for name, s in train.streams.items()}
    assert types["vector"] == types["list"] == types["wave"] == "float32"
    assert (types["picture"], types["film"], types["words"]) == ("uint8", "uint8", "int32")
    assert train.streams["wave"].values.max() == 0.5  # int16 becomes [-1, 1)
    rows = np.arange(0, N, 3)
    np.testing.assert_array_equal(train.streams["list"].mask.sum(1), 1 + rows % 4)
    np.testing.assert_array_equal(train.streams["list"].values[2, :3, 0], 6)
    np.testing.assert_array_equal(train.target, TARGET[rows])
    assert (train.target.dtype, train.index.dtype, train.group.dtype, train.weight.dtype) == (
        np.int32,
        np.int32,
        np.int32,
        np.float32,
    )
    np.testing.assert_array_equal(train.index, np.arange(10))
    assert dataset.card.num_classes == 3 and dataset.streams == tuple(sorted(given))


def test_missing_examples_may_hold_nan_and_become_zero():
    values, mask = features(4, 2), np.ones((N, 4), bool)
    values[3], mask[3] = np.nan, False
    values[4, 2:], mask[4, 2:] = np.inf, False
    dataset = datasets.from_arrays({"a": (values, mask), "b": features(3)}, TARGET, split=(0.5, 0.25, 0.25))
    for batch in dataset.splits.values():
        assert np.isfinite(batch.streams["a"].values).all()
        assert not batch.streams["a"].values[~batch.streams["a"].mask].any()
    assert sum((~b.streams["a"].mask.any(1)).sum() for b in dataset.splits.values()) == 1


def test_groups_stay_together_and_classes_are_stratified():
    group = np.repeat([f"video {i}" for i in range(20)], 5)
    target = np.repeat(np.arange(20) % 2, 5)
    dataset = datasets.from_arrays({"a": RANDOM.rand(100, 2)}, target, group=group, seed=3)
    sets = [set(batch.group.tolist()) for batch in dataset.splits.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2]) and len(set.union(*sets)) == 20
    assert [batch.size for batch in dataset.splits.values()] == [60, 20, 20]
    assert all(batch.target.mean() == 0.5 for batch in dataset.splits.values())
    again = datasets.from_arrays({"a": RANDOM.rand(100, 2)}, target, group=group, seed=3)
    other = datasets.from_arrays({"a": RANDOM.rand(100, 2)}, target, group=group, seed=4)
    np.testing.assert_array_equal(dataset.splits["test"].group, again.splits["test"].group)
    assert set(other.splits["test"].group.tolist()) != sets[2]


def test_split_groups_follows_the_sizes_of_groups():
    group = np.repeat([0, 1, 2], [10, 5, 5])
    codes = split_groups(group, (0.5, 0.25, 0.25), seed=0)
    assert all(len(set(codes[group == g])) == 1 for g in range(3)) and set(codes) <= {0, 1, 2}
    assert (split_groups(np.arange(7), (1.0, 0.0, 0.0)) == 0).all()
    with pytest.raises(UsageError, match="sum to 1"):
        split_groups(group, (0.5, 0.2, 0.2))


def test_splits_by_name_by_number_and_by_mapping_agree():
    names = np.asarray(["train", "validation", "test"])[np.arange(N) % 3]
    x = features(2)
    by_name = datasets.from_arrays({"a": x}, TARGET, split=names)
    by_number = datasets.from_arrays({"a": x}, TARGET, split=np.arange(N) % 3)
    assert by_name.sha256 == by_number.sha256
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2}
    assert (
        datasets.from_arrays({"a": x}, TARGET, split=fractions).sha256 == datasets.from_arrays({"a": x}, TARGET).sha256
    )
    x[4, 1] += 1e-3
    assert datasets.from_arrays({"a": x}, TARGET, split=names).sha256 != by_name.sha256


def test_a_score_has_no_classes():
    dataset = datasets.from_arrays({"a": features(2)}, np.linspace(-3, 3, N))
    assert dataset.card.num_classes is None and dataset.card.primary_metric == "mae"
    assert dataset.splits["train"].target.dtype == np.float32
    with pytest.raises(ValueError, match="no majority class"):
        dataset.majority()


def test_majority_is_the_share_of_the_largest_class():
    target = np.asarray([0, 0, 1, 1, 1, 0])
    dataset = datasets.from_arrays({"a": RANDOM.rand(6, 2)}, target, split=np.asarray([0, 1, 2, 2, 2, 2]))
    assert dataset.majority() == 0.75


def nan_at(row):
    values = features(4)
    values[row, 1] = np.nan
    return values


ABSENT = (np.zeros((N, 2, 3)), np.zeros((N, 2), bool))
GOOD = {"a": np.ones((N, 2))}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(streams={"voice": nan_at(7)}, name="mine"), ["mine", "'voice'", "example 7", "NaN"]),
        (dict(streams={"a": np.full((N, 2), np.inf)}), ["example 0", "infinity"]),
        (dict(streams={"a": ABSENT}), ["'a'", "empty", "no training example"]),
        (dict(streams={"a": np.zeros((N, 0))}), ["'a'", "empty"]),
        (dict(streams={"a": np.zeros((N, 0, 3))}), ["'a'", "empty"]),
        (dict(streams={}), ["no modality"]),
        (dict(streams={"a": np.ones((N - 1, 2))}), ["'a'", "29 examples", "30"]),
        (dict(streams={"a": [np.ones((1, 2))] * 3}), ["'a'", "3 examples"]),
        (dict(streams={"a": [np.ones((1, 2)), np.ones((1, 3))]}), ["share the shape"]),
        (dict(streams={"a": (np.ones((N, 2, 3)), np.ones((N, 3), bool))}), ["'a'", "mask"]),
        (dict(streams={"a": (np.ones((N, 2, 3)), np.ones((N, 2)))}), ["mask must be bool"]),
        (dict(streams={"a": np.full((N, 2), "x")}), ["'a'", "numbers"]),
        (dict(streams=GOOD, target=TARGET - 1), ["label -1", "0 to"]),
        (dict(streams=GOOD, num_classes=2), ["label 2", "2 classes"]),
        (dict(streams=GOOD, target=np.full(N, np.nan)), ["NaN score"]),
        (dict(streams=GOOD, target=np.asarray(["x"] * N)), ["target"]),
        (dict(streams=GOOD, split=np.full(N, "dev")), ["'dev'", "validation"]),
        (dict(streams=GOOD, split=np.zeros(N, int)), ["'validation' has no examples"]),
        (dict(streams=GOOD, split=np.full(N, 3)), ["0, 1, 2"]),
        (dict(streams=GOOD, split=(0.5, 0.5, 0.5)), ["sum to 1"]),
        (dict(streams=GOOD, split=np.arange(N) % 3, group=np.zeros(N), group_name="speaker"), ["speaker 0", "cross"]),
        (dict(streams=GOOD, group=np.zeros(3)), ["group has shape (3,)"]),
        (dict(streams=GOOD, kinds={"a": "smell"}), ["'smell'"]),
        (dict(streams=GOOD, kinds={"b": "text"}), ["'b'"]),
    ],
)
def test_bad_input_is_one_line_that_names_it(arguments, words):
    with pytest.raises(UsageError) as error:
        datasets.from_arrays(**({"target": TARGET} | arguments))
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_crossing_groups_are_allowed_on_request_and_said():
    dataset = datasets.from_arrays(GOOD, TARGET, split=np.arange(N) % 3, group=np.zeros(N), allow_crossing=True)
    assert dataset.card.groups_cross


def test_a_card_of_ones_own_is_kept():
    card = Card(name="own", description="", kinds={"a": "feature"}, num_classes=3, licence="mine")
    assert datasets.from_arrays(GOOD, TARGET, card=card).card is card


def test_pad_cuts_and_fills():
    values, mask = pad([np.arange(3), np.arange(6)], length=4)
    np.testing.assert_array_equal(values, [[0, 1, 2, 0], [0, 1, 2, 3]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_npz_round_trip_and_its_errors(tmp_path):
    mask = np.ones((N, 3), bool)
    mask[0] = False
    path = tmp_path / "mine.npz"
    np.savez(path, a=features(2), b=np.ones((N, 3, 2)), b_mask=mask, target=TARGET, split=np.arange(N) % 3)
    dataset = datasets.from_npz(path, kinds={"a": "feature", "b": "feature"})
    assert dataset.card.name == "mine" and dataset.streams == ("a", "b")
    assert not dataset.splits["train"].streams["b"].mask[0].any()
    with pytest.raises(UsageError, match="no file"):
        datasets.from_npz(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match="cannot be read"):
        datasets.from_npz(tmp_path / "cut.npz")
    np.savez(tmp_path / "bare.npz", a=features(2))
    with pytest.raises(UsageError, match="no array 'target'"):
        datasets.from_npz(tmp_path / "bare.npz")
    np.savez(tmp_path / "odd.npz", a=features(2), c_mask=mask, target=TARGET)
    with pytest.raises(UsageError, match="mask for 'c'"):
        datasets.from_npz(tmp_path / "odd.npz")


def test_a_stream_is_taken_as_it_is():
    stream = Stream(np.ones((N, 2, 3), np.float32), np.ones((N, 2), bool))
    assert datasets.from_arrays({"a": stream}, TARGET).splits["train"].streams["a"].values.shape == (18, 2, 3)
