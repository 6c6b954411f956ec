import numpy as np
import pytest

from mmjax.evaluation.calibration import brier, calibration_error, fit_temperature, log_probabilities, measure, nll


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
    assert found["nll"] == nll(logits, target, 1.7)
    assert found["brier"] == brier(logits, target, 1.7)


def test_certainty_and_separable_logits_stay_finite():
    logits, target = np.array([[0.0, -np.inf], [-np.inf, 0.0], [0.0, -np.inf]]), np.array([0, 1, 1])
    assert np.isfinite(list(measure(logits, target).values())).all()
    assert fit_temperature(logits, target) == pytest.approx(100, rel=1e-3)
    assert 0.01 <= fit_temperature([[2.0, -2.0], [-1.0, 1.0]], [0, 1]) < 0.1  # the sharper the better
