"""A user's own arrays: what is padded, stored, split and refused."""

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.arrays import pad
from mmjax.datasets.base import Card
from mmjax.datasets.splits import split_groups, stratify_groups
from mmjax.errors import UsageError
from mmjax.stream import Stream

RANDOM = np.random.RandomState(0)
N = 30
TARGET = np.arange(N) // 3 % 3


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
        "film": (3, 4, 5, 1),
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
        (dict(streams=GOOD, target=np.asarray(["x"] * N)), ["target", "'x'", "every example"]),
        (dict(streams=GOOD, split=np.full(N, "hold-out")), ["'hold-out'", "validation"]),
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
    assert datasets.from_arrays({"a": stream}, TARGET).splits["train"].streams["a"].values.shape == (17, 2, 3)


def one(given, kind="feature", target=TARGET, **options):
    """The stream of all examples, in their order."""
    n = len(target)
    split = np.minimum(np.arange(n), 2) if n < 6 else np.repeat([0, 1, 2], [n - 4, 2, 2])
    data = datasets.from_arrays({"a": given}, target, kinds={"a": kind}, split=split, **options)
    streams = [batch.streams["a"] for batch in data.splits.values()]
    return [np.concatenate([getattr(s, field) for s in streams]) for field in ("values", "mask")]


def lacking(items, *rows):
    return [None if i in rows else item for i, item in enumerate(items)]


def test_a_list_of_vectors_or_pictures_is_the_same_as_their_array():
    x, grey, colour = features(4), features(8, 9), np.full((N, 8, 9, 3), 7, np.uint8)
    for array, kind, shape in ((x, "feature", (4,)), (grey, "image", (8, 9, 1)), (colour, "image", (8, 9, 3))):
        for given in (array, list(array)):
            values, mask = one(given, kind)
            assert values.shape == (N, 1, *shape) and mask.all()
            np.testing.assert_array_equal(values.reshape(array.shape), array.astype(values.dtype))
    assert one(features())[0].shape == one(list(features()))[0].shape == (N, 1, 1)  # one number an example
    videos = np.zeros((N, 3, 4, 5), np.uint8)
    assert one(videos, "video")[0].shape == one(list(videos), "video")[0].shape == (N, 3, 4, 5, 1)


@pytest.mark.parametrize("nothing", [None, float("nan"), [], np.zeros((0, 4))])
def test_none_or_nothing_in_a_list_is_a_missing_modality(nothing):
    x = features(2, 4)
    values, mask = one([nothing if i == 3 else item for i, item in enumerate(x)])
    assert not mask[3].any() and not values[3].any() and mask.sum() == 2 * (N - 1)
    ids = [nothing if i == 3 else np.full(1 + i % 3, 5) for i in range(N)]
    values, mask = one(ids, "text")
    assert values.dtype == np.int32 and not mask[3].any() and mask[4, :2].all()  # ids stay ids


def test_a_mask_of_examples_is_enough():
    there = np.arange(N) % 4 > 0
    x = features(4)
    x[~there] = np.nan
    values, mask = one((x, there))
    np.testing.assert_array_equal(mask[:, 0], there)
    assert values.shape == (N, 1, 4) and np.isfinite(values).all()
    assert one((features(5, 2), there))[1].sum() == 5 * there.sum()


def test_sixteen_bits_have_the_scale_of_eight():
    for kind, shape in (("image", (8, 8, 3)), ("video", (2, 8, 8, 3))):
        bits = RANDOM.randint(0, 256, (N, *shape)).astype(np.uint8)
        fine, _ = one(bits.astype(np.uint16) * 257, kind)
        np.testing.assert_allclose(fine.reshape(bits.shape), bits / 255, atol=1e-6)
        np.testing.assert_array_equal(one(bits.astype(np.int64), kind)[0], one(bits, kind)[0])
        mixed = [item / 255 if i % 2 else item for i, item in enumerate(bits)]
        np.testing.assert_allclose(one(mixed, kind)[0].reshape(bits.shape), bits / 255, atol=1e-6)


def test_every_form_of_pcm_has_one_scale():
    wave = np.round(RANDOM.uniform(-1, 1, (N, 9)) * 127) / 128
    forms = [
        (wave * 2**15).astype(np.int16),
        (wave * 2**31).astype(np.int32),
        (wave * 128 + 128).astype(np.uint8),
        wave,
    ]
    for form in forms:
        np.testing.assert_allclose(one(form, "audio")[0], wave, atol=1e-6)
    mixed = [forms[i % 4][i] for i in range(N)]
    np.testing.assert_allclose(one(mixed, "audio")[0], wave, atol=1e-6)


def test_names_of_classes_are_kept_and_scores_may_be_integers():
    names = np.asarray(["cat", "ant", "bee"])[TARGET]
    data = datasets.from_arrays({"a": features(2)}, names)
    assert data.card.class_names == ("ant", "bee", "cat") and data.card.num_classes == 3
    wanted = datasets.from_arrays({"a": features(2)}, names.tolist(), class_names=("cat", "ant", "bee", "dog"))
    assert wanted.card.num_classes == 4
    np.testing.assert_array_equal(np.bincount(wanted.splits["train"].target), [7, 5, 5])  # of 12, 9 and 9 examples
    stars = datasets.from_arrays({"a": features(2)}, 1 + TARGET, scores=True)
    assert stars.card.num_classes is None and stars.splits["train"].target.dtype == np.float32
    assert datasets.from_arrays({"a": features(2)}, 1 + TARGET, num_classes=4).card.num_classes == 4


def test_small_classes_stand_in_every_split_as_far_as_they_can():
    """31 classes with 60, 10, 3, 3, ... examples: classes of three give two to train and one to either other split."""
    target = np.repeat(np.arange(31), [60, 10, *[3] * 29])
    for seed in range(5):
        codes = stratify_groups(np.arange(len(target)), (0.6, 0.2, 0.2), seed=seed, strata=target)
        counts = np.stack([np.bincount(target[codes == code], minlength=31) for code in range(3)], 1)
        np.testing.assert_array_equal(counts[:2], [[36, 12, 12], [6, 2, 2]])
        assert (counts[2:, 0] == 2).all() and set(counts[2:, 1]) == {0, 1}
        assert abs(counts[:, 1].sum() - counts[:, 2].sum()) <= 1
    assert len({tuple(stratify_groups(np.arange(30), (0.6, 0.2, 0.2), seed=s)) for s in range(5)}) == 5


def test_groups_of_several_classes_share_them_and_no_split_is_empty():
    random = np.random.RandomState(0)
    group = np.repeat(np.arange(60), 5)
    target = random.randint(0, 3, 300)
    target[group < 12] = 3  # a rare class, in some groups alone
    codes = stratify_groups(group, (0.6, 0.2, 0.2), strata=target)
    assert all(len(set(codes[group == g])) == 1 for g in range(60))
    for value in range(4):
        shares = np.bincount(codes[target == value], minlength=3) / (target == value).sum()
        np.testing.assert_allclose(shares, (0.6, 0.2, 0.2), atol=0.07)
    uneven = np.repeat([0, 1, 2, 3], [50, 30, 5, 2])
    for seed in range(20):
        assert set(stratify_groups(uneven, (0.6, 0.2, 0.2), seed=seed)) == {0, 1, 2}
    with pytest.raises(UsageError, match="2 groups cannot be split in 3"):
        stratify_groups(uneven % 2, (0.6, 0.2, 0.2))


def test_what_a_split_lacks_is_said_on_the_face_of_the_table():
    target = np.repeat([0, 1, 2], [14, 14, 2])
    with pytest.warns(UserWarning, match=r"lacks 1 of 3 classes \(2\)"):
        data = datasets.from_arrays({"a": features(2)}, target)
    assert "lacks 1 of 3 classes (2)" in data.card.caution


def test_weights_are_those_of_training():
    weight = np.linspace(0.5, 2, N)
    split = np.repeat([0, 1, 2], [20, 5, 5])
    data = datasets.from_arrays({"a": features(2)}, TARGET, split=split, weight=weight)
    np.testing.assert_allclose(data.splits["train"].weight, weight[:20], rtol=1e-6)
    assert (data.splits["test"].weight == 1).all() and (data.splits["validation"].weight == 1).all()
    balanced = datasets.from_arrays({"a": features(2)}, TARGET, split=split, class_weight="balanced").splits["train"]
    sums = [balanced.weight[balanced.target == c].sum() for c in range(3)]
    np.testing.assert_allclose(sums, 20 / 3, rtol=1e-5)  # 9, 6 and 5 examples count alike
    given = datasets.from_arrays({"a": features(2)}, TARGET, split=split, class_weight=(1, 2, 0.5), weight=weight)
    np.testing.assert_allclose(
        given.splits["train"].weight, weight[:20] * np.asarray([1, 2, 0.5])[TARGET[:20]], rtol=1e-6
    )


VECTORS = [np.ones(3 + (i == 5)) for i in range(N)]
SPEAKERS = np.asarray(["anna", "bert", "carl", "dora"])[np.arange(N) % 4]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(streams={"a": np.full((N, 4), 2**32 + 5)}, kinds={"a": "text"}), ["example 0", "4294967301", "ids"]),
        (dict(streams={"a": lacking([[1, 2]] * N, 1)[:-1] + [[-4]]}, kinds={"a": "text"}), ["example 29", "-4"]),
        (dict(streams={"a": np.full((N, 4), 1.0)}, kinds={"a": "text"}), ["ids", "integers", "float64"]),
        (dict(streams={"a": np.full((N, 4), 2**32 + 5)}), ["4294967301", "exact"]),
        (dict(streams={"a": np.full((N, 4), 1e30)}), ["1e+30", "too large"]),
        (dict(streams={"a": np.full((N, 4), 1e300)}), ["1e+300", "too large"]),
        (dict(streams={"a": np.ones((N, 2), complex)}), ["needs numbers", "complex"]),
        (dict(streams={"a": ["a red cat"] * N}, kinds={"a": "text"}), ["example 0", "text", "from_table"]),
        (dict(streams={"a": [None] * N}), ["no example has it"]),
        (dict(streams={"a": VECTORS}), ["example 0 has (3,)", "example 5 (4,)", "[t, 1]"]),
        (dict(streams={"a": (np.ones((N, 3)), np.ones((N, 3), bool))}), ["'a'", "mask"]),
        (dict(streams={"a": np.zeros((N, 3, 8, 9), np.uint8)}, kinds={"a": "image"}), ["channels first", "moveaxis"]),
        (dict(streams={"a": np.zeros((N, 2, 3, 8, 9))}, kinds={"a": "video"}), ["channels first"]),
        (dict(streams={"a": np.full((N, 8, 8), 255.0)}, kinds={"a": "image"}), ["255.0", "uint8"]),
        (dict(streams={"a": np.full((N, 8, 8), 70_000)}, kinds={"a": "image"}), ["70000", "uint16"]),
        (dict(streams={"a": np.full((N, 50), 20_000.0)}, kinds={"a": "audio"}), ["20000.0", "[-1, 1]"]),
        (dict(streams={"a": np.full((N, 50), 20_000)}, kinds={"a": "audio"}), ["int64", "int16"]),
        (dict(streams={"a+b": np.ones((N, 2))}), ["'a+b'", "'+'"]),
        (dict(streams=GOOD, target=TARGET[:, None]), ["(30, 1)", "target[:, 0]"]),
        (dict(streams=GOOD, target=TARGET + 1), ["no example has class 0", "num_classes=4", "scores=True"]),
        (dict(streams=GOOD, target=TARGET + 2**40), ["no example has class 0"]),
        (dict(streams=GOOD, target=TARGET + 0.5, num_classes=4), ["integers", "float64"]),
        (dict(streams=GOOD, target=[None] + ["x", "y"] * 14 + ["x"]), ["example 0 has no label"]),
        (dict(streams=GOOD, target=["x"] * 29 + ["z"], class_names=("x", "y")), ["'z'", "example 29", "x, y"]),
        (dict(streams=GOOD, target=["x", "y"] * 15, scores=True), ["'x'", "not scores"]),
        (dict(streams=GOOD, target=np.where(np.arange(N) == 4, 1e39, 1.0)), ["example 4", "float32"]),
        (dict(streams=GOOD, split={"train": 0.8, "vali": 0.2}), ["'vali'", "validation"]),
        (dict(streams=GOOD, split={"train": 0.8, "val": 0.2}), ["test", "shares"]),
        (dict(streams=GOOD, split=np.arange(N) % 3, group=SPEAKERS), ["anna", "'train' (example 0)", "allow_crossing"]),
        (dict(streams=GOOD, group=np.where(np.arange(N) == 2, np.nan, 1.0)), ["example 2 has no group"]),
        (dict(streams=GOOD, group=np.arange(N) % 2), ["2 groups"]),
        (dict(streams=GOOD, weight=np.full(N, -1.0)), ["weight"]),
        (dict(streams=GOOD, class_weight="inverse"), ["'balanced'"]),
        (dict(streams=GOOD, class_weight=(1, 2)), ["3 numbers"]),
    ],
)
def test_what_would_be_taken_wrongly_is_refused(arguments, words):
    with pytest.raises(UsageError) as error:
        datasets.from_arrays(**({"target": TARGET} | arguments))
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_val_is_validation():
    by_share = datasets.from_arrays({"a": features(2)}, TARGET, split={"train": 0.4, "val": 0.4, "test": 0.2})
    assert [batch.size for batch in by_share.splits.values()] == [12, 12, 6]
    named = np.repeat(["train", "dev", "testing"], 10).astype(object)
    assert [b.size for b in datasets.from_arrays({"a": features(2)}, TARGET, split=named).splits.values()] == [10] * 3
