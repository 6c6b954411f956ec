"""Contrastive losses of two modalities: hand-computed values, identities, and rows that are not there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.losses import (
    chunked_info_nce,
    chunked_sigmoid_contrastive,
    gram,
    info_nce,
    normalise,
    pairwise,
    sigmoid_contrastive,
    supervised_contrastive,
    symile,
    total_correlation,
    triplet,
)

RNG = np.random.default_rng(0)
X, Y, Z = (np.asarray(RNG.normal(size=(6, 4)), np.float32) for _ in range(3))
THERE = np.array([1, 1, 0, 1, 0, 1], bool)
KEEP = np.flatnonzero(THERE)
GROUP = np.array([0, 1, 0, 2, 1, 2])
DENSE = {"info_nce": info_nce, "sigmoid": sigmoid_contrastive, "triplet": triplet}


def softmax_losses(logits, positives):
    """Row by row, as the formula reads."""
    out = []
    for row, chosen in zip(np.asarray(logits, np.float64), positives):
        log_chance = row - np.log(np.exp(row).sum())
        out.append(-log_chance[chosen].mean() if chosen.any() else 0.0)
    return np.array(out)


def test_info_nce_by_its_formula():
    logits = 3.0 * X @ Y.T
    own = np.eye(6, dtype=bool)
    expected = (softmax_losses(logits, own) + softmax_losses(logits.T, own)) / 2
    np.testing.assert_allclose(info_nce(X, Y, scale=3.0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(info_nce(X, Y, scale=3.0), info_nce(Y, X, scale=3.0), rtol=1e-6)  # both ways


def test_several_positives_by_mask_and_by_group():
    logits, pairs = X @ Y.T, GROUP[:, None] == GROUP[None]
    expected = (softmax_losses(logits, pairs) + softmax_losses(logits.T, pairs)) / 2
    np.testing.assert_allclose(info_nce(X, Y, positives=GROUP), expected, rtol=1e-5)
    lopsided = pairs.copy()
    lopsided[0] = False  # row 0 has no right partner, right column 0 still has row 2
    expected = (softmax_losses(logits, lopsided) + softmax_losses(logits.T, lopsided.T)) / 2
    np.testing.assert_allclose(info_nce(X, Y, positives=lopsided), expected, rtol=1e-5)
    # The bound: rows that share the target among two cannot go below log 2.
    points = normalise(jnp.asarray(np.eye(3, dtype=np.float32)[GROUP]))
    np.testing.assert_allclose(info_nce(points, points, scale=100.0, positives=GROUP), np.log(2), rtol=1e-5)
    with pytest.raises(UsageError, match=r"\[6, 6\] mask, got \(6, 2\)"):
        info_nce(X, Y, positives=np.ones((6, 2), bool))


def test_sigmoid_by_its_formula():
    logits = 2.0 * (X @ Y.T).astype(np.float64) - 1.0
    sign = np.where(GROUP[:, None] == GROUP[None], 1, -1)
    expected = np.log1p(np.exp(-sign * logits)).sum(1)
    np.testing.assert_allclose(sigmoid_contrastive(X, Y, scale=2.0, bias=-1.0, positives=GROUP), expected, rtol=1e-5)
    start = sigmoid_contrastive(np.zeros_like(X), np.zeros_like(X))  # the paper's start: 10 for the positive
    np.testing.assert_allclose(start, 10 + 6 * np.log1p(np.exp(-10.0)), rtol=1e-6)


def test_triplet_by_loops():
    s = X @ Y.T
    hinge = lambda margin, own, other: max(0.0, margin + other - own)  # noqa: E731
    total, most = np.zeros(6), np.zeros(6)
    for i in range(6):
        for scores in (s[i], s[:, i]):
            costs = [hinge(0.2, s[i, i], scores[j]) for j in range(6) if GROUP[j] != GROUP[i]]
            total[i] += sum(costs)
            most[i] += max(costs)
    np.testing.assert_allclose(triplet(X, Y, positives=GROUP), most, rtol=1e-5)
    np.testing.assert_allclose(triplet(X, Y, positives=GROUP, hardest=0.0), total, rtol=1e-5)
    mixed = jax.jit(lambda share: triplet(X, Y, positives=GROUP, hardest=share))(0.25)
    np.testing.assert_allclose(mixed, 0.75 * total + 0.25 * most, rtol=1e-5)
    assert (most <= total + 1e-6).all() and (most < total).any()
    apart = 10 * np.eye(6, dtype=np.float32)
    assert not triplet(apart, apart, margin=0.2).any()  # every margin holds
    assert triplet(apart, apart, margin=101.0).all()


def test_supervised_contrastive_by_its_formula():
    logits = 0.5 * (X @ X.T).astype(np.float64)
    expected = np.zeros(6)
    label = np.array([0, 1, 0, 2, 1, 0])
    for i in range(6):
        others = [j for j in range(6) if j != i]
        total = np.log(np.exp(logits[i, others]).sum())
        same = [j for j in others if label[j] == label[i]]
        expected[i] = np.mean([total - logits[i, j] for j in same]) if same else 0.0
    found = supervised_contrastive(X, label, scale=0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[3] == 0 and (found[np.array([0, 1, 2, 4, 5])] > 0).all()
    assert np.isfinite(supervised_contrastive(100 * X, label, scale=100.0)).all()


def test_uniform_products_give_the_logarithm_of_the_batch():
    zeros = np.zeros((16, 3), np.float32)
    np.testing.assert_allclose(info_nce(zeros, zeros), np.log(16), rtol=1e-6)
    np.testing.assert_allclose(sigmoid_contrastive(zeros, zeros, bias=0.0), 16 * np.log(2), rtol=1e-6)


def multi(values):
    return {"x": values, "y": values * 0.5 + Y[: len(values)], "z": Z[: len(values)] + 0.1 * values}


LOSSES = {
    "info_nce": lambda x, y, t, g: info_nce(x, y, scale=2.0, positives=g, present=t),
    "sigmoid": lambda x, y, t, g: sigmoid_contrastive(x, y, positives=g, present=t),
    "triplet": lambda x, y, t, g: triplet(x, y, hardest=0.5, positives=g, present=t),
    "supervised": lambda x, y, t, g: supervised_contrastive(x + y, g, present=t),
    "chunked info_nce": lambda x, y, t, g: chunked_info_nce(x, y, scale=2.0, group=g, present=t, block=4),
    "chunked sigmoid": lambda x, y, t, g: chunked_sigmoid_contrastive(x, y, group=g, present=t, block=4),
    "symile": lambda x, y, t, g: symile({"x": x, "y": y, "z": x + y}, present=t),
    "gram": lambda x, y, t, g: gram(
        {"x": x, "y": y, "z": x + jnp.roll(y, 1, 1)}, "x", scale=5.0, present={"y": t, "x": t}
    ),
    "pairwise": lambda x, y, t, g: pairwise(info_nce, {"x": x, "y": y, "z": x + y}, present={n: t for n in "xyz"}),
    "correlation": lambda x, y, t, g: total_correlation(x, y, components=2, present=t),
}


@pytest.mark.parametrize("name", LOSSES)
def test_rows_that_are_not_there_are_left_out_exactly(name):
    loss = jax.jit(LOSSES[name])
    value, grads = jax.jit(jax.value_and_grad(lambda x, y: LOSSES[name](x, y, THERE, GROUP).sum(), (0, 1)))(X, Y)
    left_out = np.asarray(loss(X, Y, THERE, GROUP))
    rest = np.asarray(loss(X[KEEP], Y[KEEP], np.ones(4, bool), GROUP[KEEP]))
    if rest.ndim:
        np.testing.assert_allclose(left_out[KEEP], rest, rtol=1e-5, atol=1e-6)
        assert not left_out[~THERE].any()
    else:
        np.testing.assert_allclose(left_out, rest, rtol=1e-5)
    for poison in (np.nan, 1e30):
        bad_x, bad_y = (np.where(THERE[:, None], v, np.float32(poison)) for v in (X, Y))
        assert np.array_equal(loss(bad_x, bad_y, THERE, GROUP), left_out)
        again, bad_grads = jax.jit(jax.value_and_grad(lambda x, y: LOSSES[name](x, y, THERE, GROUP).sum(), (0, 1)))(
            bad_x, bad_y
        )
        assert again == value
        for grad, bad in zip(grads, bad_grads):
            assert np.array_equal(grad, bad) and not np.asarray(bad)[~THERE].any() and np.asarray(bad)[THERE].any()


@pytest.mark.parametrize("name", LOSSES)
def test_nobody_there_is_nothing(name):
    def loss(x, y):
        return LOSSES[name](x, y, np.zeros(6, bool), GROUP).sum()

    value, grads = jax.value_and_grad(loss, (0, 1))(X, Y)
    assert value == 0 and all(not np.asarray(g).any() for g in grads)


def test_pairs_of_any_number_of_modalities_any_of_them_absent():
    there = {"x": THERE, "z": np.array([1, 1, 1, 1, 1, 0], bool)}
    loss = functools.partial(info_nce, scale=2.0)
    found = pairwise(loss, {"x": X, "y": Y, "z": Z}, present=there)
    parts = np.zeros(6)
    count = np.zeros(6)
    for (left, a), (right, b) in ((("x", X), ("y", Y)), (("x", X), ("z", Z)), (("y", Y), ("z", Z))):
        rows = np.flatnonzero(there.get(left, np.ones(6, bool)) & there.get(right, np.ones(6, bool)))
        parts[rows] += loss(a[rows], b[rows])
        count[rows] += 1
    np.testing.assert_allclose(found, parts / count, rtol=1e-5)
    only = pairwise(loss, {"x": X, "y": Y, "z": Z}, pairs=[("x", "z")])
    np.testing.assert_allclose(only, loss(X, Z), rtol=1e-6)
    with pytest.raises(UsageError, match="no embeddings of w; there are x, y"):
        pairwise(loss, {"x": X, "y": Y}, pairs=[("x", "w")])
    with pytest.raises(UsageError, match="two modalities or more, got x"):
        pairwise(loss, {"x": X})


def test_unit_vectors_have_finite_gradients_at_zero_and_do_not_overflow():
    values = np.array([[0, 0], [3e30, 4e30], [3e-30, 4e-30], [3, 4]], np.float32)
    unit, pull = jax.vjp(normalise, values)
    np.testing.assert_allclose(unit, [[0, 0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    (grad,) = pull(np.ones((4, 2), np.float32))
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(grad[3], [0.2 * 0.16, -0.2 * 0.12], rtol=1e-4)  # (I - u u') 1 / 5
    assert normalise(values.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["info_nce", "sigmoid", "triplet"])
def test_bfloat16_embeddings_are_compared_in_float32(name):
    x, y = X.astype(jnp.bfloat16), Y.astype(jnp.bfloat16)
    found = DENSE[name](x, y)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, DENSE[name](x.astype(jnp.float32), y.astype(jnp.float32)), rtol=1e-6)
