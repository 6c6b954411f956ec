"""Measures of two clouds: by hand, by brute force, and what must not change them."""

import itertools

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.measures.alignment import (
    alignment,
    linear_cka,
    mean_discrepancy,
    median_distance,
    modality_gap,
    permutation_test,
    uniformity,
)

RNG = np.random.default_rng(0)


def test_gap_alignment_and_uniformity_by_hand():
    left = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    right = np.array([[0.0, -1.0], [0.0, 1.0]], np.float32)
    assert modality_gap(left, right) == pytest.approx(np.hypot(0.5, 0.5))  # (.5, .5) and (0, 0)
    assert modality_gap(left, left[::-1]) == 0  # partners do not matter
    assert alignment(left, right) == pytest.approx(1.0)  # squared distances 2 and 0
    assert alignment(left, right, power=1) == pytest.approx(np.sqrt(2) / 2)
    corners = np.array([[1, 0], [0, 1], [-1, 0]])  # squared distances 2, 4, 2
    assert uniformity(corners) == pytest.approx(np.log((2 * np.exp(-4) + np.exp(-8)) / 3))
    assert uniformity(1e3 * corners) == pytest.approx(-2 * 2e6 + np.log(2 / 3))  # no underflow
    assert uniformity(np.ones((3, 2))) == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match="two rows or more, got 1"):
        uniformity(np.ones((1, 2)))


def test_cka_is_one_for_rotated_scaled_and_moved_and_not_for_any_map():
    x = RNG.normal(size=(30, 4))
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    for debiased in (False, True):
        assert linear_cka(x, 3 * x @ rotation + 7, debiased=debiased) == pytest.approx(1)
        assert linear_cka(x, x * [1, 1, 1, 20.0], debiased=debiased) < 0.8
        assert np.isnan(linear_cka(x, np.ones((30, 2)), debiased=debiased))
    y = RNG.normal(size=(30, 3))
    xc, yc = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    plain = norm(xc.T @ yc) ** 2 / (norm(xc.T @ xc) * norm(yc.T @ yc))  # Kornblith et al. 2019, eq. of features
    assert linear_cka(x, y, debiased=False) == pytest.approx(plain)
    with pytest.raises(UsageError, match="same 4 rows or more, got 3 and 3"):
        linear_cka(x[:3], y[:3])


def test_debiased_cka_by_all_quadruples():
    """The criterion is the mean over ordered quadruples of different rows (Song et al. 2012)."""
    x, y = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 2))

    def criterion(k, m):
        terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(len(k)), 4)]
        return np.mean(terms)

    k, m = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx(criterion(k, m) / np.sqrt(criterion(k, k) * criterion(m, m)))


def test_debiased_cka_of_independent_rows_is_about_nothing():
    pairs = [RNG.normal(size=(2, 20, 40)) for _ in range(50)]
    plain = np.mean([linear_cka(*pair, debiased=False) for pair in pairs])
    debiased = [linear_cka(*pair) for pair in pairs]
    assert plain > 0.6 and abs(np.mean(debiased)) < 0.05 and min(debiased) < 0 < max(debiased)


def test_discrepancy_by_hand_and_by_loops():
    x, y = RNG.normal(size=(5, 2)), RNG.normal(size=(4, 2)) + 1
    width = median_distance(np.concatenate([x, y]))
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(np.concatenate([x, y]), 2)]
    assert width == pytest.approx(np.median(distances))

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * width**2))

    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(v, 2)]) for v in (x, y)]
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert mean_discrepancy(x, y) == pytest.approx(sum(within) - 2 * between)
    assert mean_discrepancy(x, y) == pytest.approx(mean_discrepancy(y, x))
    with pytest.raises(UsageError, match="two rows or more, got 1 and 4"):
        mean_discrepancy(x[:1], y)
    with pytest.raises(UsageError, match=r"width must be above 0, got 0\.0"):
        mean_discrepancy(np.ones((3, 2)), np.ones((3, 2)))


def test_permutation_test_is_exact_and_has_power():
    values, p = permutation_test(RNG.normal(size=(30, 3)), RNG.normal(size=(40, 3)) + 1, draws=199)
    assert p == pytest.approx(1 / 200) and values > 0.05
    # Of one distribution: p-values are uniform, errors at 10 % are 10 %.
    found = [
        permutation_test(RNG.normal(size=(8, 2)), RNG.normal(size=(12, 2)), draws=99, seed=n)[1] for n in range(300)
    ]
    assert 0.05 < np.mean(np.array(found) <= 0.1) < 0.15 and 0.45 < np.mean(found) < 0.56
    # Every division of two and two, by hand: {0, 1 | 5, 6} and its mirror are the most extreme of six.
    _, p = permutation_test(np.array([[0.0], [1.0]]), np.array([[5.0], [6.0]]), draws=3000)
    assert p == pytest.approx(1 / 3, abs=0.03)
