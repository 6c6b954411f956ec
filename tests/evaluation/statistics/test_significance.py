import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats

from mmjax.errors import UsageError
from mmjax.evaluation.statistics.crossed import crossed_estimate
from mmjax.evaluation.statistics.significance import (
    Gain,
    Verdict,
    _paired_t,
    crossed_interval,
    detectable_gain,
    holm,
    mcnemar,
    paired_gain,
    seed_interval,
    smallest_gain,
    smallest_p,
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


def test_one_seed_has_the_error_over_groups_of_one_size():
    """Forty groups of five: mean plus and minus t(39) s / sqrt(40) of the groups' means."""
    draw = np.random.default_rng(0)
    groups = np.arange(200) // 5
    scores = draw.normal(size=200) + draw.normal(size=40)[groups]
    means = scores.reshape(40, 5).mean(1)
    half = scipy.stats.t.ppf(0.975, 39) * means.std(ddof=1) / np.sqrt(40)
    interval = crossed_interval(scores[None], groups)
    np.testing.assert_allclose(interval[:2], [means.mean() - half, means.mean() + half])
    assert interval.unit == "group"
    naive = 1.96 * scores.std() / np.sqrt(200)
    assert half > 1.5 * naive  # groups are fewer than items: a naive interval is too narrow


def test_few_groups_fall_back_to_items():
    draw = np.random.default_rng(1)
    scores = (draw.random((1, 400)) < 0.7).astype(float)
    groups = np.arange(400) % 9
    interval = crossed_interval(scores, groups)
    assert interval.unit == "item"
    half = scipy.stats.t.ppf(0.975, 399) * scores.std(ddof=1) / 20
    np.testing.assert_allclose(interval[:2], [scores.mean() - half, scores.mean() + half])
    assert paired_gain(scores, scores, groups).unit == "item"
    assert crossed_interval(scores, np.arange(400) % 10).unit == "group"


def test_equal_seeds_are_one_seed_and_no_variance_is_no_width():
    draw = np.random.default_rng(2)
    scores = (draw.random((1, 120)) < 0.7).astype(float)
    groups = np.arange(120) % 30
    one, five = crossed_interval(scores, groups), crossed_interval(np.repeat(scores, 5, 0), groups)
    np.testing.assert_allclose(one[:2], five[:2], atol=1e-12)  # all seeds see the same items: no averaging
    assert crossed_interval(np.full((5, 120), 0.5), groups)[:2] == (0.5, 0.5)


def test_variance_between_seeds_alone_is_students_interval():
    offsets = np.array([0.60, 0.70, 0.75, 0.80, 0.95])
    interval = crossed_interval(np.repeat(offsets[:, None], 50, 1), np.arange(50))
    np.testing.assert_allclose(interval[:2], seed_interval(offsets))


def test_the_crossed_error_is_that_of_the_analysis_of_variance():
    """Mean squares by hand: the residual, which rows and columns both hold, counts once."""
    draw = np.random.default_rng(8)
    scores = draw.normal(size=(5, 1)) + draw.normal(size=(1, 40)) + draw.normal(size=(5, 40))
    mean, of_seed, of_unit = scores.mean(), scores.mean(1, keepdims=True), scores.mean(0, keepdims=True)
    seeds = ((of_seed - mean) ** 2).sum() / 4 / 5
    units = ((of_unit - mean) ** 2).sum() / 39 / 40
    both = ((scores - of_seed - of_unit + mean) ** 2).sum() / (4 * 39) / 200
    estimate = crossed_estimate(scores, np.ones(40))
    assert estimate.standard_error == pytest.approx(np.sqrt(seeds + units - both))
    freedom = (seeds + units - both) ** 2 / (seeds**2 / 4 + units**2 / 39 + both**2 / (4 * 39))
    assert estimate.freedom == pytest.approx(freedom)
    many = crossed_estimate(np.stack([scores, 2 * scores]), np.ones(40))
    np.testing.assert_allclose(many.standard_error, estimate.standard_error * np.array([1, 2]))


def test_groups_of_unequal_size_have_the_freedom_of_a_quadratic_form():
    """Against matrices: residuals (I - w 1')x of independent sums whose variances are the assumed ones."""
    sizes = np.array([1, 2, 3, 5, 8, 13, 1, 2, 30, 4, 4, 7], float)
    share = sizes / sizes.sum()
    assumed = np.diag((2 * share + share**2 / (share**2).sum()) / 3)
    maker = np.eye(12) - share[:, None]
    form = maker @ assumed @ maker.T
    correction, freedom = np.trace(assumed) / np.trace(form), np.trace(form) ** 2 / np.trace(form @ form)
    sums = np.random.default_rng(9).normal(size=(1, 12)) * np.sqrt(sizes)
    residual = sums[0] / sizes.sum() - sums.sum() / sizes.sum() * share
    estimate = crossed_estimate(sums, sizes)
    assert estimate.freedom == pytest.approx(freedom)
    assert estimate.standard_error == pytest.approx(np.sqrt(correction * (residual**2).sum()))


def test_the_interval_of_a_share_stays_a_share():
    scores = np.zeros((5, 40))
    scores[:, :39], scores[0, 39] = 1, 1
    lower, upper, _ = crossed_interval(scores, np.arange(40), share=True)
    plain = crossed_interval(scores, np.arange(40))
    assert plain.upper > 1 > upper > scores.mean() > lower
    error = crossed_estimate(scores, np.ones(40))
    half = scipy.stats.t.ppf(0.975, error.freedom) * error.standard_error / (error.mean * (1 - error.mean))
    expected = scipy.special.expit(scipy.special.logit(error.mean) + np.array([-half, half]))
    np.testing.assert_allclose([lower, upper], expected)
    # all right: Clopper and Pearson's bound for forty units
    np.testing.assert_allclose(
        crossed_interval(np.ones((5, 40)), np.arange(40), share=True)[:2], [0.025 ** (1 / 40), 1]
    )
    none = crossed_interval(np.zeros((5, 40)), np.arange(40), share=True)
    np.testing.assert_allclose(none[:2], [0, 1 - 0.025 ** (1 / 40)])


def test_same_numbers_every_time():
    draw = np.random.default_rng(3)
    scores, groups = (draw.random((3, 200)) < 0.7).astype(float), draw.integers(0, 50, 200)
    reference = (draw.random((3, 200)) < 0.65).astype(float)
    assert paired_gain(scores, reference, groups) == paired_gain(scores, reference, groups)
    assert paired_gain(scores, reference, groups) != paired_gain(scores, reference, groups, seed=1)
    assert crossed_interval(scores, groups) == crossed_interval(scores, [f"video {g:02d}" for g in groups])


def test_permutation_against_all_sign_flips():
    draw = np.random.default_rng(4)
    groups = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])
    scores, reference = draw.random((2, 4, len(groups))) < [[[0.7]], [[0.55]]]
    gain = paired_gain(scores, reference, groups)
    difference = (scores.astype(float) - reference).mean(0)
    sums = np.array([difference[groups == g].sum() for g in range(12)])
    flipped = np.abs(np.array(list(itertools.product([-1, 1], repeat=12))) @ sums)
    exact = (flipped >= abs(sums.sum()) - 1e-9).mean()
    assert gain.p_permutation == exact  # 2,048 patterns and their opposites are fewer than 10,000 draws
    drawn = paired_gain(scores, reference, groups, flips=2000)
    assert drawn.p_permutation != exact and abs(drawn.p_permutation - exact) < 0.03
    assert gain.mean == pytest.approx(difference.mean())
    assert gain.lower < gain.lower90 < gain.mean < gain.upper90 < gain.upper


def test_the_smallest_p_of_few_groups_and_of_many():
    """Ten groups that all gain: 2 of 1,024 patterns are as extreme, and 20 comparisons leave a verdict possible."""
    scores = np.ones((5, 40))
    scores[0, 0] = scores[1, 1] = 0  # some luck, so that there is a t-test
    gain = paired_gain(scores, np.zeros((5, 40)), np.arange(40) // 4)
    assert gain.p_permutation == smallest_p(10) == 2 / 1024
    assert gain.p == gain.p_permutation and holm([gain.p] * 20).max() == pytest.approx(0.0390625)
    assert verdict(gain, 20 * gain.p, 5).name == "better"
    assert smallest_p(14) == 2 / 2**14  # 8,192 patterns up to their sign
    assert smallest_p(15) == smallest_p(5000) == 1 / 10_001
    # units that do not differ have no sign
    one = np.zeros((5, 40))
    one[:, :3] = 1
    assert paired_gain(one, np.zeros((5, 40)), np.arange(40)).p_permutation == 2 / 2**3


def test_paired_t_by_hand():
    reference = np.zeros((3, 30))
    scores = np.zeros((3, 30))
    for seed, right in enumerate((3, 6, 9)):  # differences .1, .2, .3
        scores[seed, :right] = 1
    t = 0.2 / (0.1 / np.sqrt(3))
    assert paired_gain(scores, reference, np.arange(30)).p_t == pytest.approx(1 - t / np.sqrt(t * t + 2))  # 2 degrees
    same = paired_gain(scores[:1].repeat(3, 0), reference, np.arange(30))
    assert same.p_t is None
    by_item = np.repeat([1.0, 0.0], [3, 27])
    error = by_item.std(ddof=1) / np.sqrt(30)
    assert same.p_both == pytest.approx(2 * scipy.stats.t.sf(0.1 / error, 29))
    assert same.p == max(same.p_permutation, same.p_both)
    nothing = paired_gain(scores, scores, np.arange(30))
    assert (nothing.mean, nothing.lower, nothing.upper, nothing.p) == (0, 0, 0, 1)
    with pytest.raises(UsageError, match="the same seeds and items"):
        paired_gain(scores, scores[:2], np.arange(30))
    with pytest.raises(UsageError, match=r"groups \[items\]"):
        paired_gain(scores, scores, np.arange(29))


def test_both_sources_by_hand():
    """Two seeds and ten items: differences 1 and 0 on item 0, and 1 on items 2 and 3 for both seeds."""
    scores = np.zeros((2, 10))
    scores[:, 2:4], scores[0, 0] = 1, 1
    gain = paired_gain(scores, np.zeros((2, 10)), np.arange(10))
    by_seed, by_item = np.array([0.3, 0.2]), np.array([0.5, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    of_seeds, of_items = by_seed.var(ddof=1) / 2, by_item.var(ddof=1) / 10
    rest = scores - by_seed[:, None] - by_item + 0.25
    of_both = (rest**2).sum() / 9 / 20
    error = np.sqrt(of_seeds + of_items - of_both)
    freedom = error**4 / (of_seeds**2 / 1 + of_items**2 / 9 + of_both**2 / 9)
    assert gain.p_both == pytest.approx(2 * scipy.stats.t.sf(0.25 / error, freedom))
    assert (gain.standard_error, gain.freedom) == (pytest.approx(error), pytest.approx(freedom))
    half = scipy.stats.t.ppf(0.975, freedom) * error
    np.testing.assert_allclose([gain.lower, gain.upper], [0.25 - half, 0.25 + half])
    np.testing.assert_allclose(gain.bounds(0.9), [gain.lower90, gain.upper90])
    assert gain.p == max(gain.p_permutation, gain.p_t, gain.p_both)
    in_pairs = paired_gain(scores.repeat(2, 1), np.zeros((2, 20)), np.arange(10).repeat(2))
    assert in_pairs.p_both == pytest.approx(gain.p_both)  # an item twice, in one group, is no more evidence


def made_gain(mean, error, freedom=30.0, p=0.01):
    half, half90 = (scipy.stats.t.ppf(q, freedom) * error for q in (0.975, 0.95))
    return Gain(mean, error, freedom, mean - half, mean + half, mean - half90, mean + half90, p, p, p, "group")


def test_the_smallest_gain_is_better_than_all_or_worse_than_one():
    """The fault it mends: +18.6 over audio, which validation chose, and +2.8, in doubt, over image."""
    audio, image = made_gain(0.186, 0.02, p=0.0001), made_gain(0.028, 0.02, p=0.17)
    both = smallest_gain([audio, image])
    assert (both.place, both.mean, both.p) == (1, 0.028, 0.17)  # the largest p counts, uncorrected
    assert both.lower == image.lower and verdict(both, both.p, 5).name == "inconclusive"
    # attention: no worse than audio, 17 points below image
    near, far = made_gain(-0.01, 0.03, p=0.7), made_gain(-0.17, 0.03, p=0.001)
    both = smallest_gain([near, far])
    assert both.p == 0.002 and both.upper == pytest.approx(far.bounds(0.975)[1])  # corrected for two
    assert verdict(both, both.p, 5).name == "worse"
    sure = smallest_gain([made_gain(0.05, 0.01, p=0.002), made_gain(0.09, 0.02, p=0.004)])
    assert sure.p == 0.004 and verdict(sure, sure.p, 5).name == "better"
    alone = smallest_gain([image])
    assert (alone.lower, alone.upper, alone.lower90, alone.upper90) == pytest.approx(
        (image.lower, image.upper, image.lower90, image.upper90)
    )
    assert smallest_gain([image, audio], [0.4, 0.6]).p == 0.6


def test_the_detectable_gain_has_the_power_it_names():
    """Eighty of a hundred, for a normal gain with ten comparisons."""
    gain = made_gain(0.0, 0.02, freedom=1e6)
    least = detectable_gain([gain, made_gain(0.0, 0.01)], 10)
    assert least == pytest.approx(0.02 * (scipy.stats.norm.isf(0.0025) + scipy.stats.norm.ppf(0.8)), rel=1e-4)
    drawn = least + 0.02 * np.random.default_rng(0).normal(size=20_000)
    assert (2 * scipy.stats.norm.sf(drawn / 0.02) < 0.005).mean() == pytest.approx(0.8, abs=0.01)


def test_a_reference_far_below_the_best_asks_for_nothing_more():
    best = made_gain(0.01, 0.005, freedom=1e6)
    alone = detectable_gain([best], 10)
    assert detectable_gain([best, made_gain(0.25, 0.02, freedom=1e6)], 10) == alone
    near = detectable_gain([best, made_gain(0.02, 0.02, freedom=1e6)], 10)
    assert near == pytest.approx(4 * alone - 0.01)


def test_with_luck_of_both_kinds_the_level_holds_where_either_test_alone_breaks_it():
    """2,000 runs of ten seeds and forty groups whose luck weighs alike: 5 % of them, give or take 1.5, may err."""
    draw = np.random.default_rng(7)
    alone, both = [], []
    for _ in range(2000):
        luck = draw.normal(size=(10, 1)) / np.sqrt(40) * np.sqrt(10) + draw.normal(size=(1, 40))
        sums = luck + 0.1 * draw.normal(size=(10, 40))
        estimate = crossed_estimate(sums, np.ones(40))
        both.append(2 * scipy.stats.t.sf(abs(estimate.mean) / estimate.standard_error, estimate.freedom))
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
    return Gain((lower + upper) / 2, 0.01, 9, lower, upper, lower90, upper90, 0.01, 0.01, 0.01, "group")


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
        found = paired_gain(*scores, groups, flips=1000)
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
