"""Targets that are trees of arrays, as arrays by name."""

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.evaluation.store.targets import flatten_target, rebuild_target
from mmjax.stream import Stream

WORDS = Stream(np.arange(6).reshape(2, 3), np.asarray([[True, True, False], [True, False, False]]))


def same(found, expected):
    if isinstance(expected, Stream):
        same((found.values, found.mask), (expected.values, expected.mask))
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, tuple):
        assert isinstance(found, tuple) and len(found) == len(expected)
        for one, other in zip(found, expected):
            same(one, other)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "target",
    [
        np.arange(2),
        np.ones((2, 4)),
        WORDS,
        {"caption": WORDS, "number": np.arange(2)},
        (WORDS, {"a": {"b": np.arange(2)}}, (np.arange(2), np.ones(2))),
        tuple(np.full(2, place) for place in range(12)),
    ],
)
def test_a_target_comes_back_as_it_was(target, tmp_path):
    same(rebuild_target("test/target", flatten_target("test/target", target)), target)
    store = RecordStore(tmp_path)
    store.write_targets({split: {"target": target, "group": np.arange(2)} for split in ("validation", "test")})
    found, group = store.targets("test")
    same(found, target)
    np.testing.assert_array_equal(group, [0, 1])


def test_an_array_has_the_name_that_it_always_had():
    assert set(flatten_target("test/target", [0, 1])) == {"test/target"}
    assert flatten_target("test/target", [[0, 1], [1, 0]])["test/target"].shape == (2, 2)
    assert set(flatten_target("t", WORDS)) == {"t.values", "t.mask"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"a/b": np.arange(2)}, "the key 'a/b': it must be a word"),
        ({}, "is an empty dict"),
        (None, "must be an array, a Stream, or a dict or tuple of such; got NoneType"),
        ({"a": object()}, "target/a must be an array, .* got object"),
    ],
)
def test_what_has_no_name_is_refused(target, message):
    with pytest.raises(UsageError, match=message):
        flatten_target("test/target", target)


def test_every_part_has_a_value_an_item(tmp_path):
    wrong = {"target": {"caption": WORDS, "number": np.arange(3)}, "group": np.arange(2)}
    with pytest.raises(UsageError, match=r"^target/number of validation must be \[items\], one .*; got \(3,\)"):
        RecordStore(tmp_path).write_targets(dict.fromkeys(("validation", "test"), wrong))
