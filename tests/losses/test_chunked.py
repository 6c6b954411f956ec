"""In blocks and over devices: the values and gradients of the dense losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.losses import chunked_info_nce, chunked_sigmoid_contrastive, info_nce, normalise, sigmoid_contrastive
from mmjax.sharding import batch_sharding, make_mesh

ROWS = 48
RNG = np.random.default_rng(1)
X, Y = (np.asarray(normalise(RNG.normal(size=(ROWS, 8)).astype(np.float32))) for _ in range(2))
GROUP = RNG.integers(0, 20, ROWS)
THERE = RNG.random(ROWS) > 0.2
WEIGHT = RNG.random(ROWS).astype(np.float32)


def dense(name, x, y, scale, bias, group, there):
    if name == "info_nce":
        return info_nce(x, y, scale=scale, positives=group, present=there)
    return sigmoid_contrastive(x, y, scale=scale, bias=bias, positives=group, present=there)


def chunked(name, x, y, scale, bias, group, there, **how):
    if name == "info_nce":
        return chunked_info_nce(x, y, scale=scale, group=group, present=there, **how)
    return chunked_sigmoid_contrastive(x, y, scale=scale, bias=bias, group=group, present=there, **how)


def with_gradients(loss, group, there):
    def total(x, y, scale, bias):
        each = loss(x, y, scale, bias, group, there)
        return (WEIGHT * each).sum(), each

    return jax.jit(jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True))


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@functools.cache
def expected(name, several):
    loss = functools.partial(dense, name)
    args = (GROUP, THERE) if several else (None, None)
    return with_gradients(loss, *args)(X, Y, jnp.float32(12.0), jnp.float32(-3.0))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("block", [1, 7, 16, 1000])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_blocks_equal_the_whole(name, block, several):
    loss = functools.partial(chunked, name, block=block)
    args = (GROUP, THERE) if several else (None, None)
    found = with_gradients(loss, *args)(X, Y, jnp.float32(12.0), jnp.float32(-3.0))
    assert_same(found, expected(name, several))
    assert np.abs(expected(name, several)[1][2]) > 1e-3  # the temperature learns


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("fsdp, tensor", [(1, 1), (2, 2)])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_eight_devices_equal_one(name, fsdp, tensor, several):
    mesh = make_mesh(fsdp=fsdp, tensor=tensor)
    assert mesh.size == 8
    loss = functools.partial(chunked, name, block=4, mesh=mesh)
    args = (GROUP, THERE) if several else (None, None)
    x, y = (jax.device_put(values, batch_sharding(mesh)) for values in (X, Y))
    (total, each), grads = with_gradients(loss, *args)(x, y, jnp.float32(12.0), jnp.float32(-3.0))
    assert_same(((total, each), grads), expected(name, several))
    assert each.sharding.is_equivalent_to(batch_sharding(mesh), 1)


def test_devices_pass_their_rows_on_and_hold_no_product_of_all():
    mesh = make_mesh()
    rows = jax.ShapeDtypeStruct((512, 8), jnp.float32, sharding=batch_sharding(mesh))

    def total(x, y):
        return chunked_info_nce(x, y, block=16, mesh=mesh).sum()

    text = jax.jit(jax.grad(total, (0, 1))).lower(rows, rows).compile().as_text()
    assert "collective-permute" in text and "all-gather" not in text
    assert "[512,512]" not in text and "[64,16]" in text


def test_blocks_hold_no_product_of_all():
    rows = jax.ShapeDtypeStruct((2048, 8), jnp.float32)

    def memory(loss):
        grad = jax.jit(jax.grad(lambda x, y: loss(x, y).sum(), (0, 1)))
        return grad.lower(rows, rows).compile().memory_analysis().temp_size_in_bytes

    assert memory(functools.partial(chunked_info_nce, block=64)) < 2048 * 2048 * 4 < memory(info_nce)


def test_seeds_may_be_mapped():
    def total(x, y):
        return chunked_info_nce(x, y, scale=5.0, present=THERE, block=16).sum()

    xs, ys = np.stack([X, Y]), np.stack([Y, X[::-1]])
    found = jax.jit(jax.vmap(jax.value_and_grad(total, (0, 1))))(xs, ys)
    one = jax.jit(jax.value_and_grad(total, (0, 1)))
    assert_same(found, jax.tree.map(lambda *parts: np.stack(parts), *(one(x, y) for x, y in zip(xs, ys))))


def test_large_products_do_not_overflow():
    found = chunked_info_nce(100 * X, 100 * Y, scale=100.0, block=5)
    assert np.isfinite(found).all()
    # A loss is a difference of products of up to 1e6: what these are rounded by remains, however small the loss is.
    largest = 100.0 * np.abs(100 * X @ (100 * Y).T).max()
    rounding = 4 * np.spacing(np.float32(largest))
    assert rounding < 0.5
    np.testing.assert_allclose(found, info_nce(100 * X, 100 * Y, scale=100.0), rtol=1e-5, atol=rounding)


def test_what_does_not_fit_is_said():
    with pytest.raises(UsageError, match="block must be 1 or more, got 0"):
        chunked_info_nce(X, Y, block=0)
    with pytest.raises(UsageError, match="44 rows do not divide over the 8 devices of axes data, fsdp"):
        chunked_info_nce(X[:44], Y[:44], mesh=make_mesh())
