"""Whole tables without any true difference: how often the protocol calls a row better or worse all the same.

A table has three single modalities, the best of them by validation, and five fused rows whose gains over it are tested,
corrected by Holm, and judged, as the report does. Rows differ only by luck: of each row with each group of items, of
each seed, and of each item. Items have a difficulty that all rows share.
"""

import numpy as np
import pytest

from mmjax.evaluation.significance import holm, paired_gain, verdict

SINGLES, FUSED, ITEMS = 3, 5, 160
LEVEL = 0.05


def draw_groups(count, draw):
    """Groups of unequal size, as videos of utterances."""
    cuts = np.sort(draw.choice(np.arange(1, ITEMS), count - 1, replace=False))
    return np.searchsorted(cuts, np.arange(ITEMS), side="right")


def draw_table(seeds, groups, of_seeds, of_groups, gain, draw):
    """Scores on validation and test ``[rows, seeds, items]``; fused rows have a true gain in the margin."""
    rows = SINGLES + FUSED
    luck = of_seeds * draw.normal(size=(rows, seeds, 1))  # the same on validation and test, as weights are
    true = np.where(np.arange(rows) < SINGLES, 0.0, gain)[:, None, None]
    splits = []
    for _ in range(2):
        by_group = of_groups * draw.normal(size=(rows, 1, groups.max() + 1))[..., groups]
        margin = 0.5 + true + 0.8 * draw.normal(size=ITEMS) + luck + by_group
        splits.append((margin + 0.5 * draw.normal(size=(rows, seeds, ITEMS)) > 0).astype(float))
    return splits


def judge(scores, single, groups, seeds):
    gains = [paired_gain(row, single, groups, draws=400, flips=400) for row in scores]
    return [verdict(gain, p, seeds).name for gain, p in zip(gains, holm([gain.p for gain in gains]))]


def judge_by_items(scores, single, groups):
    """What the permutation test alone would say, row by row: it sees neither the luck of seeds nor the other rows."""
    gains = [paired_gain(row, single, groups, draws=2, flips=400) for row in scores]
    return ["better" if gain.mean > 0 and gain.p_permutation < LEVEL else "inconclusive" for gain in gains]


def simulate(tables, *, seeds, groups=40, of_seeds=0.0, of_groups=0.0, gain=0.0, naive=False, ungrouped=False):
    """Verdicts ``[tables][rows]``; ungrouped: items count as independent though their groups have luck."""
    draw = np.random.default_rng(0)
    said = []
    for _ in range(tables):
        of_item = draw_groups(groups, draw)
        validation, test = draw_table(seeds, of_item, of_seeds, of_groups, gain, draw)
        best = test[validation[:SINGLES].mean((1, 2)).argmax()]
        unit = np.arange(ITEMS) if ungrouped else of_item
        fused = test[SINGLES:]
        said.append(judge_by_items(fused, best, unit) if naive else judge(fused, best, unit, seeds))
    return said


def share_of_tables(said, name="better"):
    return np.mean([name in verdicts for verdicts in said])


def share_of_verdicts(said, name="better"):
    return np.mean(np.array(said) == name)


@pytest.mark.parametrize(
    ("seeds", "groups", "of_seeds", "of_groups"),
    [
        (5, 40, 0.0, 0.4),
        (5, 40, 0.3, 0.0),
        (5, 40, 0.15, 0.3),
        (10, 40, 0.0, 0.4),
        (10, 40, 0.3, 0.0),
        (10, 40, 0.15, 0.3),
        (5, 12, 0.0, 0.4),
    ],
)
def test_without_a_difference_tables_with_a_better_row_stay_below_the_level(seeds, groups, of_seeds, of_groups):
    """Holm's promise: not a verdict in twenty but a table in twenty. In 1,000 tables each 0.1 to 2.4 % had one.

    ``worse`` is not held to it (1.5 to 5.6 %): the best single modality was chosen for its luck with these very seeds.
    Against one that was not chosen, 1.1 to 2.9 % of the tables had a ``better``, 1.2 to 2.1 % a ``worse``.
    """
    said = simulate(200, seeds=seeds, groups=groups, of_seeds=of_seeds, of_groups=of_groups)
    assert share_of_tables(said) <= LEVEL
    assert share_of_verdicts(said) <= LEVEL / 2
    assert share_of_tables(said, "too few seeds") == 0


def test_shortcuts_break_the_level():
    """The simulation can fail: one test a row on items alone, or items in groups taken for independent."""
    assert share_of_tables(simulate(100, seeds=5, of_seeds=0.3, naive=True)) > 3 * LEVEL
    assert share_of_tables(simulate(100, seeds=5, of_groups=0.4, ungrouped=True)) > 2 * LEVEL


def test_a_difference_is_found():
    said = simulate(40, seeds=5, of_seeds=0.05, of_groups=0.1, gain=0.6)
    assert share_of_verdicts(said) > 0.95
