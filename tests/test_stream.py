"""The masked sequence: reductions against NumPy row by row, whatever stands in the padding."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.stream import (
    Batch,
    Stream,
    assign_roles,
    check_streams,
    drop_rows,
    join,
    masked_last,
    masked_max,
    masked_mean,
    masked_softmax,
    masked_sum,
    pooled,
    select,
)
from tests.draw import draw_streams, quick_jit

VALUES = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
MASK = np.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)  # full, tail, holes, none
REDUCTIONS = {
    "sum": (masked_sum, lambda items: items.sum(0)),
    "mean": (masked_mean, lambda items: items.mean(0)),
    "max": (masked_max, lambda items: items.max(0)),
    "last": (masked_last, lambda items: items[-1]),
}
every_reduction = pytest.mark.parametrize("reduce, oracle", REDUCTIONS.values(), ids=REDUCTIONS)


def poison(values, mask, with_=np.nan):
    return jnp.where(mask[..., None], values, jnp.float32(with_))


@every_reduction
def test_reductions_see_the_real_items_alone(reduce, oracle):
    expected = np.stack([oracle(row[there]) if there.any() else np.zeros(3) for row, there in zip(VALUES, MASK)])
    for with_ in (np.nan, 1e3, np.inf):
        result = reduce(poison(VALUES, MASK, with_), jnp.asarray(MASK))
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@every_reduction
def test_gradients_of_reductions_are_finite_and_stop_at_the_mask(reduce, oracle):
    gradient = quick_jit(jax.grad(lambda x: (reduce(x, jnp.asarray(MASK)) * VALUES[:, 0]).sum()))(poison(VALUES, MASK))
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~MASK].any()
    assert np.asarray(gradient)[:3].any((1, 2)).all()


@every_reduction
def test_reductions_keep_bfloat16_and_items_of_any_shape(reduce, oracle):
    maps = jnp.asarray(VALUES, jnp.bfloat16).reshape(4, 5, 3, 1)
    result = reduce(maps, jnp.asarray(MASK))
    assert result.shape == (4, 3, 1) and result.dtype == jnp.bfloat16


def test_a_long_mean_of_bfloat16_is_accumulated_in_float32():
    ones = jnp.ones((1, 5000, 1), jnp.bfloat16)  # a sum in bfloat16 would stop growing at 256
    assert masked_mean(ones, jnp.ones((1, 5000), bool)).item() == 1


def test_softmax_is_exactly_zero_where_masked_and_where_there_is_nothing():
    scores = poison(VALUES, MASK)[..., 0]
    weights = masked_softmax(scores, jnp.asarray(MASK))
    for row, there, weight in zip(VALUES[..., 0], MASK, np.asarray(weights)):
        exponentials = np.exp(row[there])
        np.testing.assert_allclose(weight[there], exponentials / exponentials.sum(), rtol=1e-5)
        assert not weight[~there].any()
    gradient = quick_jit(jax.grad(lambda x: (masked_softmax(x, jnp.asarray(MASK)) ** 2).sum()))(scores)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~MASK].any()
    assert masked_softmax(scores.astype(jnp.bfloat16), jnp.asarray(MASK)).dtype == jnp.float32


class TestStream:
    def test_every_item_is_real_unless_said(self):
        assert Stream.of(jnp.asarray(VALUES)).mask.all()
        with pytest.raises(ValueError, match=r"a mask is boolean, got mask.dtype=float32"):
            Stream.of(VALUES, MASK.astype(np.float32))
        with pytest.raises(ValueError, match=r"mask.shape=\(4, 4\) is not the beginning of values.shape=\(4, 5, 3\)"):
            Stream.of(VALUES, MASK[:, :4])

    @pytest.mark.parametrize("mask", [MASK.astype(np.int32), MASK.astype(np.float32), MASK.astype(np.uint8)])
    @pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
    def test_a_mask_that_is_not_boolean_is_refused(self, mask, array):
        with pytest.raises(ValueError, match=f"a mask is boolean, got mask.dtype={mask.dtype}"):
            Stream(array(VALUES), array(mask))

    @pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 4), (4, 1), (4, 5, 1), (4, 5, 3, 1)])
    def test_a_mask_of_another_leading_shape_is_refused(self, shape):
        for make in (lambda mask: Stream(VALUES, mask), Stream(VALUES, MASK).replace):
            with pytest.raises(ValueError, match=re.escape(f"mask.shape={shape} is not the beginning of")):
                make(mask=np.ones(shape, bool))

    def test_presence_is_derived_also_from_nested_masks(self):
        np.testing.assert_array_equal(Stream(VALUES, MASK).present, [True, True, True, False])
        nested = np.zeros((2, 3, 4), bool)
        nested[1, 2, 3] = True
        np.testing.assert_array_equal(Stream.of(np.zeros((2, 3, 4)), nested).present, [False, True])

    def test_absent_is_a_mask_and_nothing_else(self):
        stream = Stream(jnp.asarray(VALUES), jnp.asarray(MASK))
        assert not stream.absent().mask.any()
        some = stream.absent(jnp.asarray([True, False, False, False]))
        np.testing.assert_array_equal(some.mask, MASK & [[False], [True], [True], [True]])
        assert some.values is stream.values
        nested = Stream.of(jnp.zeros((2, 3, 4)), jnp.ones((2, 3, 4), bool)).absent(jnp.asarray([True, False]))
        np.testing.assert_array_equal(nested.present, [False, True])

    def test_zeroed_selects_so_that_nan_goes(self):
        zeroed = Stream(poison(VALUES, MASK), jnp.asarray(MASK)).zeroed
        np.testing.assert_array_equal(zeroed.values, np.where(MASK[..., None], VALUES, 0))


def test_join_keeps_sorted_order_and_masks():
    streams = {"b": Stream(jnp.asarray(VALUES), jnp.asarray(MASK)), **draw_streams({"a": 3}, length=2)}
    joined = join(streams)
    np.testing.assert_array_equal(joined.values[:, :2], streams["a"].values)
    np.testing.assert_array_equal(joined.values[:, 2:], streams["b"].zeroed.values)
    np.testing.assert_array_equal(joined.mask, np.concatenate([np.ones((4, 2), bool), MASK], 1))


def test_a_pooled_result_is_zero_where_nothing_was():
    stream = pooled(poison(VALUES, MASK)[:, 0], jnp.asarray([True, True, False, False]))
    assert stream.values.shape == (4, 1, 3) and stream.mask.shape == (4, 1)
    np.testing.assert_array_equal(stream.values[:2, 0], VALUES[:2, 0])
    assert not stream.values[2:].any() and not stream.mask[2:].any()


def test_a_row_of_weight_zero_is_wholly_absent():
    streams = drop_rows(draw_streams({"a": 2, "b": 3}), jnp.asarray([1.0, 0.0, 0.5, 0.0]))
    for stream in streams.values():
        np.testing.assert_array_equal(stream.present, [True, False, True, False])


def test_a_batch_counts_its_rows():
    weight = np.asarray([1.0, 0.0, 1.0], np.float32)
    assert Batch({}, np.zeros(3), weight, np.arange(3), np.arange(3)).size == 3


def test_names_are_checked():
    streams = draw_streams({"a": 2, "b": 3})
    assert list(select(streams, ["b"])) == ["b"]
    with pytest.raises(ValueError, match=r"no stream 'c'; there are \['a', 'b'\]"):
        select(streams, ["b", "c"])
    assert assign_roles(streams) == ("a", ("b",))
    assert assign_roles(streams, target="b") == ("b", ("a",))
    assert assign_roles(streams, target="b", context=()) == ("b", ())


def test_what_a_fusion_refuses_it_names():
    good = draw_streams({"a": 2})
    with pytest.raises(ValueError, match="at least one stream, got none"):
        check_streams({})
    with pytest.raises(ValueError, match=r"'words' holds int32: give it an encoder"):
        check_streams({**good, "words": Stream.of(jnp.zeros((4, 2, 3), jnp.int32))})
    with pytest.raises(ValueError, match=r"'image' must be \[batch, length, dim\].*\(4, 1, 2, 2, 3\)"):
        check_streams({**good, "image": Stream.of(jnp.zeros((4, 1, 2, 2, 3)))})
    with pytest.raises(ValueError, match=r"differ in batch size: {'a': 4, 'b': 3}"):
        check_streams({**good, **draw_streams({"b": 2}, batch=3)})
