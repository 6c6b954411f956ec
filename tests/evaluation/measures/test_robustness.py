import jax
import numpy as np
import pytest

from mmjax.datasets.base import Card, Dataset
from mmjax.datasets.views import by_group
from mmjax.errors import UsageError
from mmjax.evaluation.measures import robustness
from mmjax.evaluation.measures.degradation import ALL, LEVELS, area
from mmjax.evaluation.measures.noise import NOISES
from mmjax.stream import Batch, Stream

NOISE = {"a": NOISES["feature/gaussian"], "b": NOISES["feature/step_drop"]}


def batch(rows=6):
    draw = np.random.default_rng(0)
    mask = np.ones((rows, 3), bool)
    mask[1, 2] = mask[4, 1:] = False
    return Batch(
        streams={
            "a": Stream(draw.normal(size=(rows, 1, 4)).astype(np.float32), np.ones((rows, 1), bool)),
            "b": Stream((draw.normal(size=(rows, 3, 2)) * mask[..., None]).astype(np.float32), mask),
        },
        target=draw.integers(0, 2, rows).astype(np.int32),
        weight=np.ones(rows, np.float32),
        index=np.arange(rows, dtype=np.int32)[::-1].copy(),
        group=(np.arange(rows) // 2 + 3).astype(np.int32),
    )


def test_patterns_are_all_subsets_and_rows_blank_what_is_absent():
    assert robustness.patterns(["v", "a", "t"]) == [
        ("a", "t", "v"), ("a", "t"), ("a", "v"), ("t", "v"), ("a",), ("t",), ("v",),
    ]  # fmt: skip
    rows = robustness.pattern_rows(("a",), ["a", "t"], 4)
    np.testing.assert_array_equal(rows["a"], [0, 1, 2, 3])
    np.testing.assert_array_equal(rows["t"], [-1] * 4)
    with pytest.raises(UsageError, match="'x'"):
        robustness.pattern_rows(("x",), ["a"], 4)


def every_pattern(names, draw, n=400):
    subsets = [*robustness.patterns(names), ()]
    return {subset: draw.uniform(size=(2, n)) for subset in subsets}


def test_expected_missing_is_what_masks_give_on_average():
    table = every_pattern("abc", np.random.default_rng(0))
    means = {pattern: scores.mean(1) for pattern, scores in table.items()}
    expected = robustness.expected_missing(means, ALL)
    for level, rate in enumerate(LEVELS):
        lost = np.random.default_rng(level).uniform(size=(3, 20_000)) < rate
        kept = [tuple(name for name, gone in zip("abc", item) if not gone) for item in lost.T]
        np.testing.assert_allclose(np.mean([means[pattern] for pattern in kept], axis=0), expected[level], atol=0.01)
    np.testing.assert_allclose(expected[[0, -1]], [means["a", "b", "c"], means[()]])
    single = robustness.expected_missing(means, "b")
    full, without = means["a", "b", "c"], means["a", "c"]
    np.testing.assert_allclose(single[3], 0.7 * full + 0.3 * without)
    np.testing.assert_allclose(area(single), (full + without) / 2)
    two = {("a", "b"): 0.9, ("a",): 0.7, ("b",): 0.6, (): 0.5}
    assert robustness.expected_missing(two, ALL)[5] == pytest.approx((0.9 + 0.7 + 0.6 + 0.5) / 4)
    assert robustness.expected_missing({("a",): 0.9, (): 0.5}, "a")[10] == 0.5
    with pytest.raises(UsageError, match="'z'"):
        robustness.expected_missing(two, "z")


def test_corrupted_copies_keep_apart_and_hold_one_draw_turned_up():
    given, key = batch(), jax.random.key(0)
    found = robustness.corrupted(given, NOISE, (0, 0.5, 1), key)
    assert found.size == 18
    for field in ("target", "weight"):
        np.testing.assert_array_equal(getattr(found, field), np.tile(getattr(given, field), 3))
    np.testing.assert_array_equal(found.index, np.concatenate([given.index + 6 * copy for copy in range(3)]))
    np.testing.assert_array_equal(found.group[:6], given.group)
    assert len(np.unique(found.group)) == 9
    for name, stream in given.streams.items():  # severity 0 is the batch itself, bit for bit
        assert np.asarray(found.streams[name].values[:6]).tobytes() == stream.values.tobytes()
        np.testing.assert_array_equal(found.streams[name].mask[:6], stream.mask)
    error = [np.asarray(found.streams["a"].values[6 * c : 6 * c + 6]) - given.streams["a"].values for c in (1, 2)]
    np.testing.assert_allclose(2 * error[0], error[1], atol=1e-5)
    assert not np.asarray(found.streams["b"].mask[12:]).any()
    again = robustness.corrupted(given, NOISE, (0, 0.5, 1), key)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    alone = robustness.corrupted(given, {"a": NOISE["a"]}, (0, 0.5, 1), key)  # with others or by itself: the same noise
    np.testing.assert_array_equal(alone.streams["a"].values, found.streams["a"].values)
    np.testing.assert_array_equal(alone.streams["b"].values, np.tile(given.streams["b"].values, (3, 1, 1)))


def test_padding_stays_minus_one_and_a_view_keeps_the_copies():
    given = batch()
    given = given.replace(index=np.arange(6, dtype=np.int32), group=np.array([7, 7, 7, 2, 2, 9], np.int32))

    def view(one):
        card = Card("toy", "", dict.fromkeys(one.streams, "feature"), 2)
        return by_group(Dataset(card, dict.fromkeys(("train", "validation", "test"), one), "1", "", "")).splits["test"]

    noises = {"a": NOISE["a"]}
    found = robustness.corrupted(given, noises, (0, 1), jax.random.key(0), view=view)
    clean = view(given)
    assert found.size == 2 * clean.size
    np.testing.assert_array_equal(found.index[:3], clean.index)
    np.testing.assert_array_equal(found.index[3:], np.where(clean.index >= 0, clean.index + 6, -1))
    np.testing.assert_array_equal(found.group < 0, np.tile(clean.index < 0, (2, 1)))
    np.testing.assert_array_equal(found.streams["a"].values[:3], clean.streams["a"].values)
    changed = np.asarray(found.streams["a"].values[3:] != clean.streams["a"].values).any(-1)
    np.testing.assert_array_equal(changed, clean.streams["a"].mask)  # padding untouched
    # a label per step, given as such: -1 stays in both copies
    steps = robustness.corrupted(clean, noises, (0, 1), jax.random.key(0))
    np.testing.assert_array_equal(steps.index, found.index)
    np.testing.assert_array_equal(steps.group, found.group)
    named = given.replace(group=np.array(list("xxyyzz")))
    assert len(np.unique(robustness.corrupted(named, noises, (0, 1), jax.random.key(0)).group)) == 6
    with pytest.raises(UsageError, match="keep them apart"):
        robustness.corrupted(given, noises, (0, 1), jax.random.key(0), view=lambda b: jax.tree.map(lambda x: x[:5], b))


def test_raw_noise_enters_before_the_view_and_feature_noise_after_it():
    given = batch()

    def view(one):  # standardises, say
        return one.replace(streams={k: Stream(s.values * 100, s.mask) for k, s in one.streams.items()})

    raw = {"a": NOISES["image/gaussian"], "b": NOISES["feature/gaussian"]}
    found = robustness.corrupted(given, raw, (0, 1), jax.random.key(0), view=view)
    before = robustness.corrupted(given, raw, (0, 1), jax.random.key(0))
    error = {k: np.asarray(found.streams[k].values[6:]) - 100 * given.streams[k].values for k in "ab"}
    unviewed = {k: np.asarray(before.streams[k].values[6:]) - given.streams[k].values for k in "ab"}
    np.testing.assert_allclose(error["a"], 100 * unviewed["a"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(error["b"], unviewed["b"], atol=1e-3)


def test_what_cannot_be_corrupted_is_refused():
    for noises, levels, match in [({"x": NOISE["a"]}, (0, 1), "'x'"), (NOISE, (0, 2), "from 0 to 1"), (NOISE, (), "0")]:
        with pytest.raises(UsageError, match=match):
            robustness.corrupted(batch(), noises, levels, jax.random.key(0))


def test_presence_after_noise():
    given = batch()
    only = given.replace(streams={"b": given.streams["b"]})
    noisy = robustness.corrupted(only, {"b": NOISE["b"]}, (0, 1), jax.random.key(0))
    np.testing.assert_array_equal(robustness.presence(noisy), [True] * 6 + [False] * 6)
