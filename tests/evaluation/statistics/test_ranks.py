import itertools

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from mmjax.errors import UsageError
from mmjax.evaluation.statistics.ranks import average_ranks, cliques, compare, critical_difference, in_common

# Demsar 2006, table 6: areas under the curve of C4.5 and three variants on 14 data sets.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")


def test_the_example_of_the_paper():
    """Ranks 3.143, 2.000, 2.893, 1.964; chi-square 9.28, F 3.69; the critical difference at 5 % is 1.25 (with the
    rounded q = 2.569 of its table 5).
    """
    found = compare(DEMSAR, NAMES)
    np.testing.assert_allclose(found.ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    sums = 12 * 14 / (4 * 5) * ((np.array(found.ranks) ** 2).sum() - 4 * 5**2 / 4)
    assert sums == pytest.approx(9.28, abs=5e-3)  # the paper leaves the correction for ties out
    assert 13 * sums / (14 * 3 - sums) == pytest.approx(3.69, abs=5e-3)
    assert found.chi2 == pytest.approx(friedmanchisquare(*DEMSAR.T).statistic)
    assert found.p_chi2 == pytest.approx(friedmanchisquare(*DEMSAR.T).pvalue)
    assert found.chi2 > sums
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert found.cliques == ((3, 1, 2, 0),)  # 3.143 - 1.964 < 1.25: no pair differs, as the paper says
    assert found.p == pytest.approx(found.p_f, abs=0.01)
    assert found.note == ""
    ninety = compare(DEMSAR, NAMES, level=0.1)
    assert ninety.critical_difference == pytest.approx(1.12, abs=5e-3)
    assert ninety.cliques == ((3, 1, 2), (2, 0))  # at 10 % both variants with m are better than C4.5


def test_critical_values_are_those_of_the_table():
    """Demsar 2006, table 5(a)."""
    for methods, q in zip(range(2, 11), [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]):
        assert critical_difference(methods, 12) == pytest.approx(q * np.sqrt(methods * (methods + 1) / 72), rel=5e-4)


def test_ties_share_their_ranks():
    np.testing.assert_array_equal(average_ranks([[0.5, 0.7, 0.5, 0.1]]), [[2.5, 1, 2.5, 4]])
    np.testing.assert_array_equal(average_ranks([[1, 1, 1]]), [[2, 2, 2]])
    mixed = average_ranks([[0.5, 0.7], [0.5, 0.7]], higher_is_better=[True, False])
    np.testing.assert_array_equal(mixed, [[2, 1], [1, 2]])
    with pytest.raises(UsageError, match="every method on every data set"):
        average_ranks([[0.5, np.nan]])


def test_cliques_by_hand():
    assert cliques([1.0, 2.0, 3.0, 4.0], 1.5) == ((0, 1), (1, 2), (2, 3))
    assert cliques([4.0, 1.0, 2.5, 2.6], 1.7) == ((1, 2, 3), (2, 3, 0))
    assert cliques([1.0, 2.0, 4.0], 1.0) == ()  # exactly the difference is a difference
    assert cliques([1.0, 2.0, 4.0], 9.0) == ((0, 1, 2),)
    assert cliques([1.0, 1.1, 4.0, 1.2], 1.0) == ((0, 1, 3),)


def test_permutation_against_all_of_them():
    scores = np.array([[3, 2, 1], [3, 1, 2], [2, 3, 1], [3, 2, 1]], float)
    ranked = average_ranks(scores)
    found = ranked.sum(0).var()
    orders = [list(itertools.permutations(row)) for row in ranked]
    exact = np.mean([np.sum(pick, axis=0).var() >= found - 1e-9 for pick in itertools.product(*orders)])
    assert compare(scores, "abc").p == pytest.approx(exact, abs=0.012)
    assert compare(scores, "abc") == compare(scores, "abc")


def test_without_a_difference_the_level_holds():
    """Four data sets, where the chi-square distribution is far from right; of two methods as well."""
    draw = np.random.default_rng(0)
    p = [compare(draw.normal(size=(4, 5)), "abcde", permutations=400).p for _ in range(200)]
    assert (np.array(p) < 0.05).mean() < 0.09
    two = [compare(draw.normal(size=(12, 2)), "ab", permutations=400).p for _ in range(200)]
    assert (np.array(two) < 0.05).mean() < 0.09


def test_two_methods_are_a_sign_test():
    found = compare([[1, 0]] * 9 + [[0, 1]], "ab")
    assert found.chi2 == pytest.approx((9 - 1) ** 2 / 10)
    assert found.p == pytest.approx(2 * 11 / 1024, abs=0.005)
    assert found.ranks == (1.1, 1.9)


def test_the_same_order_everywhere_and_no_order_at_all():
    same = compare([[3, 2, 1]] * 12, "abc")
    assert (same.f, same.p_f) == (None, 0.0)
    assert same.p < 1e-3
    assert same.chi2 == pytest.approx(12 * 2)
    none = compare([[1, 1, 1]] * 12, "abc")
    assert (none.chi2, none.p_chi2, none.p) == (0, 1, 1)
    assert none.cliques == ((0, 1, 2),)


def test_too_few_data_sets_say_so():
    one = compare([[0.5, 0.7, 0.6]], "abc")
    assert one.ranks == (3, 1, 2)
    assert (one.p, one.critical_difference, one.cliques) == (None, None, ())
    assert "too few data sets: 1" in one.note
    two = compare([[0.5, 0.7, 0.6]] * 2, "abc")
    assert "no two methods can be told apart" in two.note
    assert two.critical_difference > 2
    assert "few data sets: 5" in compare([[0.5, 0.7, 0.6]] * 5, "abc").note
    with pytest.raises(UsageError, match="each with a name"):
        compare([[0.5, 0.7]], "abc")


def test_only_methods_that_all_tables_have():
    tables = {
        "x": {"concat": 0.5, "svm": 0.4, "text": 0.3, "mbt": 0.9},
        "y": {"text": 0.6, "concat": 0.7, "mbt": None},
    }
    methods, datasets, scores = in_common(tables)
    assert methods == ("concat", "text")
    assert datasets == ("x", "y")
    np.testing.assert_array_equal(scores, [[0.5, 0.3], [0.7, 0.6]])
    assert in_common({})[0] == ()
    assert in_common({"x": {"a": 1.0}, "y": {"b": 1.0}})[2].shape == (2, 0)
