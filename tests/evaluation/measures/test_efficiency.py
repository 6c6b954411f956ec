import numpy as np
import pytest

from mmjax.datasets import from_arrays
from mmjax.datasets.views import by_group
from mmjax.errors import UsageError
from mmjax.evaluation.measures.efficiency import (
    FRACTIONS,
    area_under_curve,
    data_saved,
    feasible,
    fit_power_law,
    labelled_items,
    subset,
)


def make(target, group=None, **options):
    """All items in train but one group each for validation and test; the feature is the number of the example."""
    target = np.asarray(target)
    group = np.arange(len(target)) if group is None else np.asarray(group)
    extra = group.max() + 1 + np.arange(2)
    target, group = np.append(target, [target[0]] * 2), np.append(group, extra)
    split = np.append(np.zeros(len(target) - 2, int), [1, 2])
    return from_arrays({"x": np.arange(len(target), dtype=float)[:, None]}, target, split=split, group=group, **options)


def taken(dataset):
    return dataset.splits["train"].streams["x"].values[:, 0, 0].astype(int)


def test_subsets_are_nested_and_stratified():
    target = np.repeat([0, 1, 2], [600, 300, 100])
    dataset = make(target)
    assert feasible(dataset) == (0.03, 0.1, 0.3, 1.0)  # 1 % would leave class 2 one item
    rows = {fraction: taken(subset(dataset, fraction)) for fraction in feasible(dataset)}
    for small, large in zip(list(rows)[:-1], list(rows)[1:]):
        assert set(rows[small]) < set(rows[large])
        np.testing.assert_array_equal(np.bincount(target[rows[small]]), small * np.array([600, 300, 100]))
        assert (np.diff(rows[small]) > 0).all()
    assert subset(dataset, 1.0) is dataset
    assert subset(dataset, 0.1).splits["test"] is dataset.splits["test"]
    assert "100 of 1000 rows of train" in subset(dataset, 0.1).split_id
    np.testing.assert_array_equal(taken(subset(dataset, 0.1)), rows[0.1])
    other = set(taken(subset(dataset, 0.1, seed=1)))
    assert other != set(rows[0.1])
    assert other < set(taken(subset(dataset, 0.3, seed=1)))
    with pytest.raises(UsageError, match=r"1 % of train leaves a class 1 items.*'3 %'"):
        subset(dataset, 0.01)
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        subset(dataset, 10)


def test_groups_stay_whole():
    draw = np.random.default_rng(0)
    group = np.repeat(np.arange(60), draw.integers(2, 30, 60))
    target = (draw.random(len(group)) < 0.2 + 0.6 * (group % 2)).astype(int)  # groups hold both classes, unevenly
    dataset = make(target, group)
    before: set = set()
    shares = []
    for fraction in (0.1, 0.3, 0.6):
        rows = taken(subset(dataset, fraction))
        assert set(group[rows]).isdisjoint(set(group) - set(group[rows]))
        assert not set(group[rows]) & set(group[np.setdiff1d(np.arange(len(group)), rows)])
        assert before < set(rows)
        assert len(rows) == pytest.approx(fraction * len(group), abs=15)  # half a group off at most
        shares.append(abs(target[rows].mean() - target.mean()))
        before = set(rows)
    assert max(shares) < 0.06
    # nearer to train's shares than whole groups drawn at random, at 10 %
    drawn = []
    for _ in range(200):
        chosen = draw.permutation(60)[:6]
        drawn.append(abs(target[np.isin(group, chosen)].mean() - target.mean()))
    assert shares[0] < np.median(drawn)


def test_groups_of_one_class_are_stratified_by_class():
    group = np.repeat(np.arange(100), 3)
    target = (group >= 80).astype(int)
    rows = taken(subset(make(target, group), 0.1))
    np.testing.assert_array_equal(np.bincount(target[rows]), [24, 6])
    assert len(set(group[rows])) == 10


def test_few_groups_give_fewer_sizes():
    group = np.repeat(np.arange(4), 10)
    dataset = make(np.tile([0, 1], 20), group)
    assert feasible(dataset) == (0.3, 1.0)  # 1, 3 and 10 % are less than half a group
    assert labelled_items(subset(dataset, 0.3)) == 10
    assert feasible(dataset, (0.3, 0.35, 1.0)) == (0.3, 1.0)  # the same group


def test_scores_and_steps():
    scores = make(np.linspace(0, 1, 200))
    assert labelled_items(subset(scores, 0.1)) == 20
    assert feasible(scores) == FRACTIONS
    group = np.repeat(np.arange(20), 5)
    videos = by_group(make(np.tile([0, 1], 50), group))
    small = subset(videos, 0.3)
    assert small.splits["train"].size == 6
    assert labelled_items(small) == 30
    np.testing.assert_array_equal(small.splits["train"].index[:, :5].ravel(), np.arange(30))


def test_rows_that_do_not_count_are_left_out():
    dataset = make(np.tile([0, 1], 50))
    train = dataset.splits["train"]
    train.weight[:60] = 0
    assert labelled_items(dataset) == 40
    rows = taken(subset(dataset, 0.5))
    assert len(rows) == 20
    assert rows.min() >= 60


def test_a_row_of_several_groups_cannot_be_taken_with_one():
    videos = by_group(make(np.tile([0, 1], 50), np.repeat(np.arange(20), 5)))
    videos.splits["train"].group[3, 2] = 7
    with pytest.raises(UsageError, match="several groups"):
        subset(videos, 0.3)


def test_area_by_hand():
    assert area_under_curve([10, 100, 1000], [0.4, 0.6, 0.8]) == pytest.approx(0.6)
    assert area_under_curve([10, 100, 10_000], [0.4, 0.6, 0.8]) == pytest.approx((0.5 * 1 + 0.7 * 2) / 3)
    np.testing.assert_allclose(area_under_curve([3, 7], [[1, 1], [0, 1]]), [1, 0.5])
    for items in ([10], [100, 10]):
        with pytest.raises(UsageError, match="increasing"):
            area_under_curve(items, np.ones(len(items)))


def test_data_saved_by_hand():
    assert data_saved((0.1, 0.3, 1.0), [0.5, 0.7, 0.8], 0.7) == (0.3, 0.7)
    assert data_saved((0.1, 0.3, 1.0), [0.5, 0.6, 0.8], 0.7) == (1.0, 0.0)
    assert data_saved((0.1, 0.3, 1.0), [0.5, 0.6, 0.65], 0.7) == (None, None)


def test_an_exact_power_law_is_found():
    n = np.array([30, 100, 300, 1000, 3000])
    for a, b, c in ((2.0, 0.5, 0.1), (5.0, 1.0, 0.0), (0.8, 0.2, 0.05)):
        found = fit_power_law(n, a * n**-b + c)
        assert (found.a, found.b) == pytest.approx((a, b), rel=1e-3)
        assert found.c == pytest.approx(c, abs=1e-3)
        assert found.lower <= b <= found.upper
        assert found(500) == pytest.approx(a * 500**-b + c, rel=1e-4)
    few = fit_power_law(n[:4], 2 * n[:4] ** -0.5)
    assert few.b == pytest.approx(0.5, rel=1e-3)
    assert (few.lower, few.upper) == (None, None)


def test_interval_of_the_exponent_holds_the_truth():
    draw = np.random.default_rng(1)
    n = np.array([30, 90, 300, 900, 3000])
    held = 0
    for _ in range(60):
        found = fit_power_law(n, 2 * n**-0.5 + 0.1 + 0.01 * draw.normal(size=5))
        assert found.lower <= found.b <= found.upper
        held += found.lower <= 0.5 <= found.upper
    assert held >= 52  # 95 % of 60 are 57


def test_nothing_is_negative_and_a_flat_curve_bounds_nothing():
    n = np.array([10, 30, 100, 300, 1000])
    rising = fit_power_law(n, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert rising.a == 0
    assert rising.c == pytest.approx(0.3)
    flat = fit_power_law(n, np.full(5, 0.3))
    assert (flat.lower, flat.upper) == (0.0, np.inf)
    steep = fit_power_law(n, 0.5 - 0.2 * np.log10(n) / 3)  # falls more slowly than any power: no floor
    assert steep.c == pytest.approx(0, abs=1e-9)
    for items, errors in (([10, 100], [0.2, 0.1]), (n, [0.1, 0.2, np.nan, 0.1, 0.1]), (n, [-0.1, 0.2, 0.2, 0.1, 0.1])):
        with pytest.raises(UsageError):
            fit_power_law(items, errors)


def test_uncertain_errors_weigh_less():
    n = np.array([30, 100, 300, 1000, 3000])
    errors = 2 * n**-0.5 + 0.05
    errors[0] += 0.1
    plain = fit_power_law(n, errors)
    weighted = fit_power_law(n, errors, sd=[1.0, 0.01, 0.01, 0.01, 0.01])
    assert abs(weighted.b - 0.5) < 0.01 < abs(plain.b - 0.5)
    assert fit_power_law(n, errors, sd=[10.0, 0.1, 0.1, 0.1, 0.1]).b == pytest.approx(weighted.b, rel=1e-6)
