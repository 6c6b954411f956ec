"""The simulation behind ``benchmarks/verdicts.md``, in small: its bounds hold, and it can fail."""

import numpy as np
import pytest

from benchmarks.verdicts import (
    EQUAL,
    FUSED,
    LUCK,
    MANY,
    ONE_AHEAD,
    SINGLES,
    SMALL,
    UNITS,
    USUAL,
    coverage,
    draw_scores,
    equivalent_at_margin,
    sum_groups,
    table_verdicts,
)
from mmjax.evaluation.statistics.significance import paired_gain, seed_interval


@pytest.mark.parametrize("luck", ["seeds", "test items", "groups"])
@pytest.mark.parametrize("units", UNITS, ids=str)
def test_an_interval_holds_the_truth(luck, units):
    """At five seeds, of 1,500 runs: a true 95 % lies within 93.3 and 96.7 in all but one of a thousand."""
    row, gain = coverage(LUCK[luck], 5, units, 1500)
    assert 0.925 < row < 0.98 and 0.93 < gain < 0.98


def test_shortcuts_break_it():
    """Seeds alone, where items have luck, or items alone, where seeds do: half of the truth is lost."""
    random = np.random.default_rng(0)
    sizes = UNITS[0].draw(random)
    of_seeds = [
        seed_interval(one[0].mean(1)) for one in draw_scores((0.75,), LUCK["test items"], 5, sizes, 300, random)
    ]
    assert np.mean([low <= 0.75 <= high for low, high in of_seeds]) < 0.85
    sums = sum_groups(draw_scores((0.75, 0.75), LUCK["seeds"], 5, sizes, 300, random), sizes)
    gains = (sums[:, 0] - sums[:, 1]).mean(1) / 1
    errors = gains.std(1, ddof=1) / np.sqrt(len(sizes))
    assert (np.abs(gains.mean(1)) < 1.96 * errors).mean() < 0.6


@pytest.mark.parametrize("luck", SMALL)
def test_a_gain_at_the_margin_is_seldom_equivalent(luck):
    """5 % is the level; of 600 runs a true 5 % exceeds 8 in one of a thousand."""
    assert 0.01 < equivalent_at_margin(SMALL[luck], 5, MANY[1], 600) < 0.08


@pytest.mark.parametrize("singles", [EQUAL, ONE_AHEAD], ids=["equal", "one ahead"])
def test_a_table_without_a_difference_has_no_verdict(singles):
    """Holm's promise: not a row in twenty but a table in twenty."""
    for luck in ("seeds", "both alike"):
        said, _ = table_verdicts((*singles, *EQUAL[:1] * FUSED), SINGLES, LUCK[luck], 5, UNITS[1], 100)
        for name in ("better", "worse"):
            assert (said == name).any(1).mean() <= 0.05
        assert set(np.unique(said)) <= {"better", "worse", "equivalent", "inconclusive"}


def test_without_the_other_rows_and_the_luck_of_seeds_it_is_broken():
    """One test a row, on items alone, over one of the single modalities."""
    random = np.random.default_rng(1)
    sizes = UNITS[1].draw(random)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    wrong = 0
    for scores in draw_scores((*EQUAL[:1], *EQUAL[:1] * FUSED), LUCK["seeds"], 5, sizes, 40, random):
        gains = [paired_gain(row, scores[0], groups, flips=399) for row in scores[1:]]
        wrong += any(gain.mean > 0 and gain.p_permutation < 0.05 for gain in gains)
    assert wrong / 40 > 0.25


def test_a_difference_is_seen_and_the_detectable_gain_is_about_right():
    luck, units = USUAL["test items"]
    said, least = table_verdicts((*EQUAL, *(EQUAL[0] + 0.08,) * FUSED), SINGLES, luck, 10, units, 20)
    assert (said == "better").mean() > 0.95 and 0.02 < least < 0.06
    assert (
        table_verdicts((*EQUAL, *(EQUAL[0] + 0.08,) * FUSED), SINGLES, luck, 3, units, 2)[0] == "too few seeds"
    ).all()
