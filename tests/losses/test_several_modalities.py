"""Symile, GRAM and the correlation objective: their identities, and what each can and cannot see."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.errors import UsageError
from mmjax.losses import gram, info_nce, normalise, pairwise, symile, total_correlation, volume

RNG = np.random.default_rng(0)
X, Y, Z = (np.asarray(normalise(RNG.normal(size=(5, 4)).astype(np.float32))) for _ in range(3))


def test_symile_of_two_is_info_nce():
    np.testing.assert_allclose(symile({"x": X, "y": Y}, scale=3.0), info_nce(X, Y, scale=3.0), rtol=1e-5)


def test_symile_of_three_by_loops():
    expected = np.zeros(5)
    for a, b, c in ((X, Y, Z), (Y, X, Z), (Z, X, Y)):
        for i in range(5):
            every = [[2.0 * (a[i] * b[j] * c[k]).sum() for k in range(5)] for j in range(5)]
            expected[i] += np.log(np.exp(every).sum()) - every[i][i]
    np.testing.assert_allclose(symile({"x": X, "y": Y, "z": Z}, scale=2.0), expected / 3, rtol=1e-5)


def test_symile_of_shuffled_tuples():
    values = {"x": X, "y": Y, "z": Z}
    zero = symile({name: 0 * v for name, v in values.items()}, key=jax.random.key(0))
    np.testing.assert_allclose(zero, np.log(5), rtol=1e-6)  # as many candidates as rows
    there = np.array([1, 0, 1, 1, 1], bool)
    losses = [np.asarray(symile(values, key=jax.random.key(n), present=there)) for n in range(3)]
    assert not losses[0][1] and (losses[0] != losses[1]).any()
    bad = {name: np.where(there[:, None], v, np.nan) for name, v in values.items()}
    assert np.array_equal(symile(bad, key=jax.random.key(0), present=there), losses[0])
    zero = symile({name: 0 * v for name, v in values.items()}, key=jax.random.key(0), present=there)
    np.testing.assert_allclose(zero[there], np.log(4), rtol=1e-6)
    with pytest.raises(UsageError, match="two modalities or more, got x"):
        symile({"x": X})


def bits(rng, rows):
    """One-hot rows of a, b and c = a XOR b."""
    a, b = rng.integers(0, 2, (2, rows))
    return {name: np.eye(2, dtype=np.float32)[bit] for name, bit in {"a": a, "b": b, "c": a ^ b}.items()}


def encode(params, values):
    return {name: normalise(values[name] @ params[name]) for name in values}


def learn_xor(loss, rows=64, steps=150):
    """Linear encoders of three bits, trained on fresh batches."""
    keys = jax.random.split(jax.random.key(3), 3)
    params = {name: jax.random.normal(key, (2, 4)) for name, key in zip("abc", keys)}
    tx, rng = optax.adam(0.1), np.random.default_rng(0)

    @jax.jit
    def step(params, state, values):
        grads = jax.grad(lambda p: loss(encode(p, values)).mean())(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state, bits(rng, rows))
    return params, bits(np.random.default_rng(1), rows)


def chance_of_right(scores, right):
    """Mean probability of the right bit among both."""
    return float(np.take_along_axis(np.asarray(jax.nn.softmax(scores, -1)), right[:, None], 1).mean())


def test_symile_sees_what_no_pair_shows():
    """Of two bits and their XOR every pair is independent (Saporta et al. 2024): one bit in all three."""
    rows, scale = 64, 10.0
    every = {name: np.eye(2, dtype=np.float32) for name in "abc"}

    def pairs(z):
        return pairwise(lambda x, y, *, present: info_nce(x, y, scale=scale, present=present), z)

    params, fresh = learn_xor(lambda z: symile(z, scale=scale, key=jax.random.key(0)))
    z, both, right = encode(params, fresh), encode(params, every), fresh["c"].argmax(1)
    seen = np.log(rows**2) - float(symile(z, scale=scale).mean())
    found = chance_of_right(scale * (z["a"] * z["b"]) @ both["c"].T, right)
    assert found > 0.98 and abs(seen - np.log(2)) < 0.05  # the bound on the total correlation, one bit, is reached

    params, fresh = learn_xor(pairs)
    z, both = encode(params, fresh), encode(params, every)
    seen = np.log(rows) - float(pairs(z).mean())
    found = chance_of_right(scale * (z["a"] + z["b"]) @ both["c"].T, right)
    assert abs(found - 0.5) < 0.1 and seen < 0.02  # chance


def test_volume_of_two_and_three():
    cosine = (X * Y).sum(-1)
    np.testing.assert_allclose(volume(np.stack([X, 3 * Y], 1)), np.sqrt(1 - cosine**2), rtol=1e-5)
    vectors = np.stack([X, Y, Z], 1)
    by_determinant = np.sqrt(np.linalg.det(np.einsum("bmd,bnd->bmn", vectors, vectors).astype(np.float64)))
    np.testing.assert_allclose(volume(vectors), by_determinant, rtol=1e-4)
    np.testing.assert_allclose(volume(vectors[:, ::-1]), by_determinant, rtol=1e-4)
    np.testing.assert_allclose(volume(np.eye(3, dtype=np.float32)[None]), 1, rtol=1e-6)


def test_volume_is_blind_to_sign():
    assert np.array_equal(volume(np.stack([X, Y, Z], 1)), volume(np.stack([X, -Y, Z], 1)))
    np.testing.assert_allclose(volume(np.stack([X, -X], 1)), 0, atol=1e-3)  # opposite counts as equal
    # So signs of bits say nothing: all eight patterns of three have one volume, whatever linear encoders.
    patterns = np.array([[p & 1, p >> 1 & 1, p >> 2] for p in range(8)]) * 2 - 1
    found = volume((patterns[..., None] * np.stack([X[0], Y[0], Z[0]])).astype(np.float32))
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    assert found[0] > 0.01


def test_volume_of_flat_boxes_has_a_finite_gradient():
    for vectors in (np.stack([X, X], 1), np.stack([X, 0 * X, Y], 1), np.stack([X, Y, X + Y], 1)):
        value, grad = jax.value_and_grad(lambda v: volume(v).sum())(vectors)
        assert np.isfinite(grad).all() and abs(value) < 0.01


def test_absent_vectors_take_no_part_in_a_volume():
    vectors = np.stack([X, np.full_like(X, np.nan), Y], 1)
    mask = np.tile([True, False, True], (5, 1))
    assert np.array_equal(volume(vectors, mask), volume(np.stack([X, Y], 1)))
    grad = jax.grad(lambda v: volume(v, mask).sum())(vectors)
    assert not grad[:, 1].any() and np.isfinite(grad).all()


def test_gram_by_loops():
    there = {"z": np.array([1, 0, 1, 1, 0], bool)}
    volumes = np.zeros((5, 5))
    for i in range(5):
        for j in range(5):
            vectors = [X[i], Y[j], Z[j]] if there["z"][j] else [X[i], Y[j]]
            volumes[i, j] = volume(np.stack(vectors)[None])[0]
    chance = [np.exp(-4 * v) / np.exp(-4 * v).sum(1, keepdims=True) for v in (volumes, volumes.T)]
    expected = -(np.log(np.diagonal(chance[0])) + np.log(np.diagonal(chance[1]))) / 2
    found = gram({"x": X, "y": Y, "z": Z}, "x", scale=4.0, present=there)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    with pytest.raises(UsageError, match="gram needs 'w' and one modality more, got x, y"):
        gram({"x": X, "y": Y}, "w")


def numpy_correlations(x, y, ridge=0.0):
    x, y = (np.asarray(v, np.float64) - v.mean(0) for v in (x, y))
    a, b = (v.T @ v / (len(v) - 1) + ridge * np.eye(v.shape[1]) for v in (x, y))
    whiten = [np.linalg.inv(np.linalg.cholesky(c)) for c in (a, b)]
    return np.linalg.svd(whiten[0] @ (x.T @ y / (len(x) - 1)) @ whiten[1].T, compute_uv=False)


LEFT = RNG.normal(size=(60, 4)).astype(np.float32)
RIGHT = (LEFT @ RNG.normal(size=(4, 3)) + RNG.normal(size=(60, 3))).astype(np.float32)


def test_total_correlation_is_that_of_the_closed_form():
    for ridge in (1e-4, 0.3):
        expected = numpy_correlations(LEFT, RIGHT, ridge)
        assert 0.2 < expected[-1] < expected[0] < 0.99
        np.testing.assert_allclose(total_correlation(LEFT, RIGHT, ridge=ridge), expected.sum(), rtol=1e-5)
        found = total_correlation(LEFT, RIGHT, components=2, ridge=ridge)
        np.testing.assert_allclose(found, expected[:2].sum(), rtol=1e-5)


def test_total_correlation_does_not_change_with_invertible_maps():
    square, tall = RNG.normal(size=(4, 4)).astype(np.float32), RNG.normal(size=(3, 3)).astype(np.float32)
    whole = total_correlation(LEFT, RIGHT, ridge=1e-7)
    moved = total_correlation(LEFT @ square + 5, RIGHT @ tall - 2, ridge=1e-7)
    np.testing.assert_allclose(moved, whole, rtol=1e-4)
    itself = total_correlation(LEFT, LEFT @ square, ridge=1e-7)
    assert 3.999 < itself < 4.0001  # every correlation is 1, and they are equal: the gradient is finite all the same
    grad = jax.grad(lambda x: total_correlation(x, LEFT @ square, ridge=1e-4))(LEFT)
    assert np.isfinite(grad).all()
    stretched = LEFT * np.float32([1e3, 1, 1, 1e-2])  # covariances with a condition of 1e10
    np.testing.assert_allclose(total_correlation(stretched, RIGHT, ridge=1e-9), whole, rtol=1e-3)


def test_the_gradient_of_the_correlation_is_its_slope():
    step = RNG.normal(size=LEFT.shape)

    def along(t):
        return numpy_correlations(LEFT + t * step, RIGHT, 1e-2)[:2].sum()

    grad = jax.grad(lambda x: total_correlation(x, RIGHT, components=2, ridge=1e-2))(LEFT)
    np.testing.assert_allclose((grad * step).sum(), (along(1e-4) - along(-1e-4)) / 2e-4, rtol=1e-3)


def test_mapped_seeds_are_factorised_one_by_one():
    """A batch of LAPACK calls may wait for ever for XLA:CPU's threads."""
    stacked = np.stack([LEFT, LEFT[::-1], 2 * LEFT + 1])

    def both(x):
        return jax.value_and_grad(lambda x: total_correlation(x, RIGHT))(x)

    found = jax.jit(jax.vmap(both))(stacked)
    for seed in range(3):
        value, grad = both(stacked[seed])
        np.testing.assert_allclose(found[0][seed], value, rtol=1e-5)
        np.testing.assert_allclose(found[1][seed], grad, rtol=1e-4, atol=1e-6)
    calls = re.findall(r"(\S+):f32\[([\d,]+)\] .* = (?:qr|svd|geqrf)\[", str(jax.make_jaxpr(jax.vmap(both))(stacked)))
    assert calls and all(shape.count(",") <= 1 for _, shape in calls)


def test_correlations_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="components are 1 to 3, the smaller width, got 4"):
        total_correlation(LEFT, RIGHT, components=4)
    with pytest.raises(UsageError, match="ridge must be above 0, got 0"):
        total_correlation(LEFT, RIGHT, ridge=0.0)
    assert total_correlation(jnp.ones((8, 2)), jnp.ones((8, 2))) == 0
