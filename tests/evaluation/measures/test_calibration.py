import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.measures.calibration import (
    before_and_after,
    brier,
    calibration_error,
    calibration_interval,
    classwise_error,
    conformal_half_width,
    fit_temperature,
    interval_coverage,
    log_probabilities,
    measure,
    nll,
    reliability,
)


def sample(temperature=1.0, items=4000, classes=4):
    """Logits whose softmax is exactly the distribution their targets are drawn from, times a temperature."""
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(items, classes)) * 1.5
    target = (logits + draw.gumbel(size=logits.shape)).argmax(1)
    return logits * temperature, target


def test_a_constant_prediction_errs_by_its_excess_confidence():
    target = np.array([0] * 60 + [1] * 40)
    logits = np.tile(np.log([0.9, 0.1]), (100, 1))
    for equal_mass in (True, False):
        assert calibration_error(logits, target, equal_mass=equal_mass) == pytest.approx(abs(0.6 - 0.9))
    assert nll(logits, target) == pytest.approx(-0.6 * np.log(0.9) - 0.4 * np.log(0.1))
    assert brier(logits, target) == pytest.approx(0.6 * 2 * 0.1**2 + 0.4 * 2 * 0.9**2)


def test_two_groups_of_confidence_by_hand():
    logits = np.log(np.repeat([[0.8, 0.2], [0.4, 0.6]], 50, axis=0))
    target = np.array([0] * 30 + [1] * 20 + [1] * 45 + [0] * 5)
    expected = 0.5 * abs(0.6 - 0.8) + 0.5 * abs(0.9 - 0.6)
    assert calibration_error(logits, target) == pytest.approx(expected)
    assert calibration_error(logits, target, equal_mass=False) == pytest.approx(expected)
    assert calibration_error(logits, target, bins=1) == pytest.approx(abs(0.75 - 0.7))  # one bin: errors cancel


def test_exact_probabilities_have_a_small_error():
    logits, target = sample()
    for equal_mass in (True, False):
        assert calibration_error(logits, target, equal_mass=equal_mass) < 2 * np.sqrt(15 / len(target))
        assert calibration_error(3 * logits, target, equal_mass=equal_mass) > 0.15


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_is_recovered_and_minimises(temperature):
    logits, target = sample(temperature)
    found = fit_temperature(logits, target)
    assert found == pytest.approx(temperature, rel=0.05)
    assert all(nll(logits, target, found) < nll(logits, target, found * factor) for factor in (0.98, 1.02))
    assert calibration_error(logits, target, found) < 2 * np.sqrt(15 / len(target))


def test_temperature_changes_no_decision():
    logits, target = sample(3.0, items=500)
    before = log_probabilities(logits).argmax(1)
    for temperature in (0.01, fit_temperature(logits, target), 100):
        np.testing.assert_array_equal(log_probabilities(logits, temperature).argmax(1), before)


def test_measure_holds_the_same_numbers():
    logits, target = sample(2.0, items=300)
    found = measure(logits, target, 1.7)
    assert found["ece"] == calibration_error(logits, target, 1.7)
    assert found["ece_equal_width"] == calibration_error(logits, target, 1.7, equal_mass=False)
    assert found["classwise_ece"] == classwise_error(logits, target, 1.7)
    assert found["nll"] == nll(logits, target, 1.7)
    assert found["brier"] == brier(logits, target, 1.7)


def test_certainty_and_separable_logits_stay_finite():
    logits, target = np.array([[0.0, -np.inf], [-np.inf, 0.0], [0.0, -np.inf]]), np.array([0, 1, 1])
    assert np.isfinite(list(measure(logits, target).values())).all()
    assert fit_temperature(logits, target) == pytest.approx(100, rel=1e-3)
    assert 0.01 <= fit_temperature([[2.0, -2.0], [-1.0, 1.0]], [0, 1]) < 0.1  # the sharper the better


def test_temperature_changes_no_accuracy_and_may_mend_every_error():
    logits, target = sample(3.0)
    found = fit_temperature(logits, target)
    before, after = (measure(logits, target, t) for t in (1.0, found))
    assert all(after[name] < before[name] for name in before)
    right = [(log_probabilities(logits, t).argmax(1) == target).mean() for t in (1.0, found)]
    assert right[0] == right[1]


def test_reliability_is_the_diagram_of_the_error():
    logits, target = sample(2.0, items=301)
    for equal_mass in (True, False):
        found = reliability(logits, target, 1.3, equal_mass=equal_mass)
        assert found.share.sum() == pytest.approx(1)
        error = (found.share * np.abs(found.accuracy - found.confidence)).sum()
        assert error == pytest.approx(calibration_error(logits, target, 1.3, equal_mass=equal_mass))
        right = log_probabilities(logits).argmax(1) == target
        assert (found.share * found.accuracy).sum() == pytest.approx(right.mean())
        assert (np.diff(found.confidence) > 0).all()
    np.testing.assert_allclose(reliability(logits, target).share, 1 / 15, atol=1 / 301)
    assert len(reliability(logits, target, equal_mass=False).share) < 15  # no confidence below a quarter: no such bins


def test_reliability_pools_seeds():
    logits, target = sample(items=300)
    twice = reliability(np.stack([logits, logits]), target, [1.0, 1.0])
    np.testing.assert_allclose(np.stack(twice), np.stack(reliability(logits, target)))
    other = reliability(np.stack([logits, logits]), target, [1.0, 50.0])
    assert other.confidence[0] < 0.3 < 0.8 < other.confidence[-1]
    with pytest.raises(UsageError, match="target"):
        reliability(logits, target[:-1])


def test_classwise_error_by_hand():
    """Class 0 is said 0.8 and happens 0.6; 1 and 2 are said 0.1, happen 0.4 and 0: a confidence error of 0.2 alone."""
    logits, target = np.tile(np.log([0.8, 0.1, 0.1]), (50, 1)), np.array([0] * 30 + [1] * 20)
    assert classwise_error(logits, target) == pytest.approx((0.2 + 0.3 + 0.1) / 3)
    assert calibration_error(logits, target) == pytest.approx(0.2)
    exact, drawn = sample()
    assert classwise_error(exact, drawn) < 2 * np.sqrt(15 / len(drawn))
    assert classwise_error(3 * exact, drawn) > 2 * classwise_error(exact, drawn)


def draw_items(count, factor, draw):
    logits = 1.5 * draw.normal(size=(count, 2))
    return factor * logits, (logits + draw.gumbel(size=logits.shape)).argmax(1)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_interval_holds_the_true_error(factor):
    """The measured error of calibrated logits is 0.06 on 300 items, and a percentile interval never reaches 0."""
    draw = np.random.default_rng(1)
    logits, _ = draw_items(200_000, 1.0, draw)
    said, true = (np.exp(log_probabilities(f * logits)).max(1) for f in (factor, 1.0))
    order = np.argsort(said)
    truth = np.mean([abs((true - said)[part].mean()) for part in np.array_split(order, 15)])
    held, debiased, measured = [], [], []
    for _ in range(60):
        logits, target = draw_items(300, factor, draw)
        found = calibration_interval(logits, target, np.arange(300), draws=400)
        held.append(found.lower <= truth <= found.upper)
        debiased.append(found.debiased)
        measured.append(calibration_error(logits, target))
    assert np.mean(held) > 0.85
    assert abs(np.mean(debiased) - truth) < abs(np.mean(measured) - truth)
    if factor == 1.0:
        assert truth == pytest.approx(0, abs=1e-12)
        assert np.mean(measured) > 0.05


def test_interval_draws_groups_and_seeds():
    draw = np.random.default_rng(2)
    logits, target = draw_items(60, 3.0, draw)
    once = calibration_interval(logits, target, np.arange(60))
    tenfold = [np.repeat(x, 10, 0) for x in (logits, target, np.arange(60))]
    grouped = calibration_interval(*tenfold)
    naive = calibration_interval(*tenfold[:2], np.arange(600))
    assert grouped.upper - grouped.lower > 2 * (naive.upper - naive.lower)  # ten copies of an item are one item
    assert grouped[:3] == pytest.approx(once[:3], abs=0.02)
    assert grouped.unit == "group"
    assert calibration_interval(logits, target, np.arange(60) % 9).unit == "item"
    seeds = np.stack([logits, logits, 0.2 * logits])
    several = calibration_interval(seeds, target, np.arange(60), [1.0, 1.0, 0.2 / 3])
    assert several == calibration_interval(seeds, target, np.arange(60), [1.0, 1.0, 0.2 / 3])
    with pytest.raises(UsageError, match="60 items"):
        calibration_interval(logits, target, np.arange(59))
    assert calibration_interval(seeds[:2], target, np.arange(60)) == once  # equal seeds are one


def test_conformal_width_by_hand():
    outputs = np.zeros(19)
    errors = np.arange(1, 20) * np.tile([1, -1], 10)[:19]
    assert conformal_half_width(outputs, errors) == 18  # 0.9 x 20
    assert conformal_half_width(outputs, errors, level=0.5) == 10
    assert conformal_half_width(outputs[:9], errors[:9]) == 9  # 0.9 x 10
    assert conformal_half_width(outputs[:8], errors[:8]) == np.inf  # 9 of 8


def test_intervals_of_scores_cover_what_they_promise():
    draw = np.random.default_rng(3)
    target, truth = draw.normal(size=(2, 2000))
    seeds = np.stack([target, truth]) * 0 + np.zeros((2, 1))
    found = interval_coverage(seeds, target, seeds, truth)
    assert found.coverage == pytest.approx(0.9, abs=0.03)
    assert found.half_width == pytest.approx(1.645, abs=0.1)
    assert interval_coverage(seeds[0], target, seeds[0], truth) == pytest.approx(found)
    harder = interval_coverage(seeds, target, seeds, 2 * truth)
    assert harder.coverage == pytest.approx(0.59, abs=0.03)  # P(|z| < 1.645 / 2)


def test_before_and_after_scaling_are_the_measures_by_the_temperature_of_validation():
    logits, target = sample(3.0)
    halves = {"validation": slice(None, 2000), "test": slice(2000, None)}
    of, truth = ({split: values[part] for split, part in halves.items()} for values in (logits, target))
    found = before_and_after(of, truth)
    assert found["temperature"] == fit_temperature(of["validation"], truth["validation"])
    scaled = measure(of["test"], truth["test"], found["temperature"])
    assert found == {
        "temperature": found["temperature"],
        **measure(of["test"], truth["test"]),
        **{f"{name}_scaled": value for name, value in scaled.items()},
    }
    assert found["nll_scaled"] < found["nll"]
    assert before_and_after({"validation": target, "test": target}, truth) is None
