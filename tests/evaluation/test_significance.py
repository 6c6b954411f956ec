import itertools

import numpy as np
import pytest
import scipy.stats

from mmjax.errors import UsageError
from mmjax.evaluation.significance import (
    Gain,
    Verdict,
    _crossed_t,
    _paired_t,
    hierarchical_interval,
    holm,
    mcnemar,
    paired_gain,
    seed_interval,
    verdict,
)


def test_seed_interval_by_hand():
    lower, upper = seed_interval([0.70, 0.72, 0.74, 0.76, 0.78])
    half = 2.7764451 * np.sqrt(0.001) / np.sqrt(5)  # t(.975, 4); s^2 = .004 / 4
    np.testing.assert_allclose([lower, upper], [0.74 - half, 0.74 + half], rtol=1e-7)
    half90 = 2.9199856 * np.sqrt(0.0004) / np.sqrt(3)  # t(.95, 2)
    np.testing.assert_allclose(seed_interval([0.70, 0.72, 0.74], level=0.9), [0.72 - half90, 0.72 + half90], rtol=1e-7)
    assert seed_interval([0.7, 0.8]) is None
    assert seed_interval([0.7]) is None
    assert seed_interval([0.5] * 4) == (0.5, 0.5)


def test_one_seed_is_a_bootstrap_over_groups():
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 40, 300)
    scores = (draw.random(300) < 0.5 + 0.4 * (groups % 2)).astype(float)
    found = hierarchical_interval(scores[None], groups, draws=20_000)
    assert found.unit == "group"
    by_group = [scores[groups == g] for g in np.unique(groups)]
    means = []
    for _ in range(4_000):
        drawn = draw.integers(0, len(by_group), len(by_group))
        means.append(np.concatenate([by_group[i] for i in drawn]).mean())
    np.testing.assert_allclose(found[:2], np.quantile(means, [0.025, 0.975]), atol=0.006)
    naive = 1.96 * scores.std() / np.sqrt(300)
    assert found.upper - found.lower > 2.2 * naive  # clusters are fewer than items: a naive interval is too narrow


def test_few_groups_fall_back_to_items():
    draw = np.random.default_rng(1)
    scores = (draw.random((1, 400)) < 0.7).astype(float)
    groups = np.arange(400) % 9
    found = hierarchical_interval(scores, groups, draws=20_000)
    assert found.unit == "item"
    half = 1.96 * scores.std() / 20
    np.testing.assert_allclose([found.lower, found.upper], [scores.mean() - half, scores.mean() + half], atol=0.002)
    assert paired_gain(scores, scores, groups).unit == "item"
    assert hierarchical_interval(scores, np.arange(400) % 10).unit == "group"


def test_equal_seeds_are_one_seed_and_no_variance_is_no_width():
    draw = np.random.default_rng(2)
    scores = (draw.random((1, 120)) < 0.7).astype(float)
    groups = np.arange(120) % 30
    one, five = hierarchical_interval(scores, groups), hierarchical_interval(np.repeat(scores, 5, 0), groups)
    np.testing.assert_allclose(one[:2], five[:2], atol=1e-12)  # items are drawn once for all seeds: no averaging
    assert hierarchical_interval(np.full((5, 120), 1.0), groups)[:2] == (1.0, 1.0)


def test_variance_between_seeds_alone():
    offsets = np.array([0.60, 0.70, 0.75, 0.80, 0.95])
    found = hierarchical_interval(np.repeat(offsets[:, None], 50, 1), np.arange(50), draws=20_000)
    means = np.array([np.mean(pick) for pick in itertools.product(offsets, repeat=5)])  # all 3,125 resamples
    np.testing.assert_allclose(found[:2], np.quantile(means, [0.025, 0.975]), atol=0.006)


def test_same_numbers_every_time():
    draw = np.random.default_rng(3)
    scores, groups = (draw.random((3, 200)) < 0.7).astype(float), draw.integers(0, 50, 200)
    assert hierarchical_interval(scores, groups) == hierarchical_interval(scores, groups)
    assert hierarchical_interval(scores, groups) != hierarchical_interval(scores, groups, seed=1)
    assert hierarchical_interval(scores, groups) == hierarchical_interval(scores, [f"video {g:02d}" for g in groups])


def test_permutation_against_all_sign_flips():
    draw = np.random.default_rng(4)
    groups = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])
    scores, reference = draw.random((2, 4, len(groups))) < [[[0.7]], [[0.55]]]
    gain = paired_gain(scores, reference, groups)
    difference = (scores.astype(float) - reference).mean(0)
    sums = np.array([difference[groups == g].sum() for g in range(12)])
    flipped = np.abs(np.array(list(itertools.product([-1, 1], repeat=12))) @ sums)
    exact = (flipped >= abs(sums.sum()) - 1e-9).mean()
    assert abs(gain.p_permutation - exact) < 0.015
    assert gain.mean == pytest.approx(difference.mean())
    assert gain.lower < gain.lower90 < gain.mean < gain.upper90 < gain.upper


def test_paired_t_by_hand():
    reference = np.zeros((3, 30))
    scores = np.zeros((3, 30))
    for seed, right in enumerate((3, 6, 9)):  # differences .1, .2, .3
        scores[seed, :right] = 1
    t = 0.2 / (0.1 / np.sqrt(3))
    assert paired_gain(scores, reference, np.arange(30)).p_t == pytest.approx(1 - t / np.sqrt(t * t + 2))  # 2 degrees
    same = paired_gain(scores[:1].repeat(3, 0), reference, np.arange(30))
    assert same.p_t is None
    assert same.p == same.p_permutation
    nothing = paired_gain(scores, scores, np.arange(30))
    assert (nothing.mean, nothing.lower, nothing.upper, nothing.p) == (0, 0, 0, 1)
    with pytest.raises(UsageError, match="the same seeds and items"):
        paired_gain(scores, scores[:2], np.arange(30))
    with pytest.raises(UsageError, match=r"groups \[items\]"):
        paired_gain(scores, scores, np.arange(29))


def test_both_sources_by_hand():
    """Two seeds and ten items: differences 1 and 0 on item 0 and item 1, and 1 on items 2 and 3 for both seeds."""
    scores = np.zeros((2, 10))
    scores[:, 2:4], scores[0, 0] = 1, 1
    found = paired_gain(scores, np.zeros((2, 10)), np.arange(10))
    by_seed, by_item = np.array([0.3, 0.2]), np.array([0.5, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    of_seeds, of_items = by_seed.var(ddof=1) / 2, by_item.var(ddof=1) / 10
    freedom = (of_seeds + of_items) ** 2 / (of_seeds**2 / 1 + of_items**2 / 9)
    expected = 2 * scipy.stats.t.sf(0.25 / np.sqrt(of_seeds + of_items), freedom)
    assert found.p_both == pytest.approx(expected)
    assert found.p == max(found.p_permutation, found.p_t, found.p_both)
    in_pairs = paired_gain(scores.repeat(2, 1), np.zeros((2, 20)), np.arange(10).repeat(2))
    assert in_pairs.p_both == pytest.approx(expected)  # an item twice, in one group, is no more evidence


def test_with_luck_of_both_kinds_the_level_holds_where_either_test_alone_breaks_it():
    """2,000 runs of ten seeds and forty groups whose luck weighs alike: 5 % of them, give or take 1.5, may err."""
    draw = np.random.default_rng(7)
    alone, both = [], []
    for _ in range(2000):
        luck = draw.normal(size=(10, 1)) / np.sqrt(40) * np.sqrt(10) + draw.normal(size=(1, 40))
        sums = luck + 0.1 * draw.normal(size=(10, 40))
        both.append(_crossed_t(sums, np.ones(40)))
        alone.append(_paired_t(sums.mean(1)))
    assert np.mean(np.array(both) < 0.05) < 0.065
    assert np.mean(np.array(alone) < 0.05) > 0.1


def test_mcnemar_by_hand():
    right = np.array([1] * 9 + [0] * 1 + [1] * 20 + [0] * 5, bool)
    reference = np.array([0] * 9 + [1] * 1 + [1] * 20 + [0] * 5, bool)
    assert mcnemar(right, reference) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(right, right) == 1
    assert mcnemar([True, False], [False, True]) == 1


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])
    assert holm([]).size == 0


def gain_of(lower, upper, lower90, upper90):
    return Gain((lower + upper) / 2, lower, upper, lower90, upper90, 0.01, 0.01, 0.01, "group")


@pytest.mark.parametrize(
    ("bounds", "p", "seeds", "expected"),
    [
        ((0.01, 0.05, 0.014, 0.046), 0.01, 5, Verdict("better")),
        ((0.001, 0.009, 0.002, 0.008), 0.01, 5, Verdict("better", trivial=True)),
        ((0.01, 0.05, 0.014, 0.046), 0.06, 5, Verdict("inconclusive")),
        ((-0.001, 0.05, 0.003, 0.046), 0.01, 5, Verdict("inconclusive")),
        ((-0.05, -0.01, -0.046, -0.014), 0.01, 10, Verdict("worse")),
        ((-0.009, -0.001, -0.008, -0.002), 0.01, 10, Verdict("worse", trivial=True)),
        ((-0.011, 0.011, -0.009, 0.009), 0.9, 5, Verdict("equivalent")),
        ((0.001, 0.009, 0.002, 0.008), 0.2, 5, Verdict("equivalent")),
        ((-0.012, 0.012, -0.0101, 0.009), 0.9, 5, Verdict("inconclusive")),
        ((0.01, 0.05, 0.014, 0.046), 0.01, 4, Verdict("too few seeds")),
        ((0.01, 0.05, 0.014, 0.046), 0.01, 3, Verdict("too few seeds")),
        ((0.01, 0.05, 0.014, 0.046), 0.01, 2, Verdict(None)),
        ((0.01, 0.05, 0.014, 0.046), 0.01, 1, Verdict(None)),
    ],
)
def test_verdict(bounds, p, seeds, expected):
    assert verdict(gain_of(*bounds), p, seeds) == expected


def test_without_a_margin_nothing_is_equivalent():
    assert verdict(gain_of(-0.001, 0.001, -0.0009, 0.0009), 0.9, 5, delta=None) == Verdict("inconclusive")


def simulate(runs, *, gain, seeds, spread_of_seeds, spread_of_groups, draw):
    """Verdicts on paired runs whose true gain is known: items correlate between methods, groups and seeds have luck."""
    groups = np.repeat(np.arange(40), 5)
    said, p_permutation = [], []
    for _ in range(runs):
        luck = 0.8 * draw.normal(size=200)
        scores = []
        for method in (gain, 0.0):
            group_luck = spread_of_groups * draw.normal(size=40)[groups]
            margin = 0.5 + method + luck + group_luck + spread_of_seeds * draw.normal(size=(seeds, 1))
            scores.append((margin + 0.5 * draw.normal(size=(seeds, 200)) > 0).astype(float))
        found = paired_gain(*scores, groups, draws=500, flips=1000)
        said.append(verdict(found, found.p, seeds).name)
        p_permutation.append(found.p_permutation)
    return said, np.array(p_permutation)


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_groups"), [(5, 0.0, 0.3), (5, 0.3, 0.0), (5, 0.15, 0.2), (10, 0.1, 0.2)]
)
def test_without_a_difference_better_is_rare(seeds, of_seeds, of_groups):
    """At most 2.5 % each way is what a 95 % interval promises; 400 runs of a true 2.5 % exceed 19 once in 400."""
    draw = np.random.default_rng(5)
    said, p = simulate(400, gain=0.0, seeds=seeds, spread_of_seeds=of_seeds, spread_of_groups=of_groups, draw=draw)
    assert said.count("better") <= 19
    assert said.count("worse") <= 19
    if of_seeds == 0:
        assert 0.02 < (p < 0.05).mean() < 0.085  # the permutation test alone keeps its level when seeds have no luck


def test_a_difference_is_found():
    draw = np.random.default_rng(6)
    said, _ = simulate(60, gain=0.6, seeds=5, spread_of_seeds=0.05, spread_of_groups=0.1, draw=draw)
    assert said.count("better") >= 55
