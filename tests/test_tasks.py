"""Losses of tasks against hand-written formulas; what stands in padding counts for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.metrics import compute
from mmjax.tasks import Classification, Regression, fit_task, item_weight, target_moments
from tests.toy import CLASSES, make_batch

BATCH = jax.tree.map(jnp.asarray, make_batch(4))
LOGITS = jax.random.normal(jax.random.key(0), (4, CLASSES))


def nll(logits, target):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.asarray(target)[..., None], -1)[..., 0]


def per_step(batch):
    """A label per step, the second of every row padding."""
    target = jnp.stack([batch.target, jnp.full(4, 99)], 1)
    index = jnp.stack([batch.index, jnp.full(4, -1)], 1)
    return batch.replace(target=target, index=index, group=index)


def test_weight_of_items():
    batch = BATCH.replace(weight=jnp.array([1.0, 0.0, 2.0, 1.0]))
    np.testing.assert_array_equal(item_weight(batch), [1, 0, 2, 1])
    np.testing.assert_array_equal(item_weight(per_step(batch)), [[1, 0], [0, 0], [2, 0], [1, 0]])


class TestClassification:
    def test_loss_is_the_negative_log_likelihood(self):
        np.testing.assert_allclose(Classification(CLASSES).loss(LOGITS, BATCH), nll(LOGITS, BATCH.target), rtol=1e-5)

    def test_smoothing_gives_the_uniform_its_share(self):
        smooth = Classification(CLASSES, label_smoothing=0.1).loss(LOGITS, BATCH)
        uniform = np.mean([nll(LOGITS, np.full(4, c)) for c in range(CLASSES)], 0)
        np.testing.assert_allclose(smooth, 0.9 * nll(LOGITS, BATCH.target) + 0.1 * uniform, rtol=1e-5)

    def test_class_weights_multiply_the_loss_alone(self):
        weights = tuple(float(w) for w in range(1, CLASSES + 1))
        task = Classification(CLASSES, class_weights=weights)
        expected = nll(LOGITS, BATCH.target) * np.asarray(weights)[np.asarray(BATCH.target)]
        np.testing.assert_allclose(task.loss(LOGITS, BATCH), expected, rtol=1e-5)
        plain, found = (compute(one.metrics(LOGITS, BATCH)) for one in (Classification(CLASSES), task))
        assert all(float(plain[name]) == float(found[name]) for name in plain)
        steps = jnp.stack([LOGITS, jnp.full_like(LOGITS, jnp.nan)], 1)
        np.testing.assert_allclose(task.loss(steps, per_step(BATCH))[:, 0], expected, rtol=1e-5)
        with pytest.raises(UsageError, match="numbers from 0 up"):
            Classification(CLASSES, class_weights=weights[1:])

    def test_unimodal_losses_average_over_the_modalities_present(self):
        task = Classification(CLASSES, unimodal_weight=0.5)
        alone = {"a": LOGITS + 1, "b": LOGITS[::-1]}
        streams = {**BATCH.streams, "a": BATCH.streams["a"].absent(jnp.array([False, True, False, True]))}
        streams["b"] = streams["b"].absent(jnp.array([False, False, True, True]))
        found = task.loss({"fused": LOGITS, "unimodal": alone}, BATCH.replace(streams=streams))
        a, b = (nll(alone[name], BATCH.target) for name in "ab")
        expected = nll(LOGITS, BATCH.target) + 0.5 * np.array([(a[0] + b[0]) / 2, b[1], a[2], 0])
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        with pytest.raises(ValueError, match="unimodal_weight needs a model with unimodal_head"):
            task.loss(LOGITS, BATCH)

    def test_a_label_per_step_ignores_padding(self):
        logits = jnp.stack([LOGITS, jnp.full_like(LOGITS, jnp.nan)], 1)
        found = compute(Classification(CLASSES).metrics(logits, per_step(BATCH)))
        expected = compute(Classification(CLASSES).metrics(LOGITS, BATCH))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


class TestRegression:
    def test_loss_and_metrics(self):
        target = jnp.array([0.0, 1.0, -2.0, 0.5])
        batch, outputs = BATCH.replace(target=target), jnp.array([1.0, 1.0, 1.0, 0.0])
        np.testing.assert_allclose(Regression().loss(outputs, batch), [1, 0, 9, 0.25])
        np.testing.assert_allclose(Regression(absolute=True).loss(outputs, batch), [1, 0, 3, 0.5])
        found = compute(Regression().metrics(outputs, batch))
        assert float(found["mae"]) == pytest.approx(4.5 / 4) and float(found["loss"]) == pytest.approx(10.25 / 4)

    def test_the_loss_that_is_trained_is_in_units_of_the_deviation_of_train(self):
        target, outputs = jnp.array([100.0, 104.0, 96.0, 100.0]), jnp.array([100.0, 100.0, 100.0, 102.0])
        batch = BATCH.replace(target=target)
        moments = target_moments(batch)
        weight = np.asarray(item_weight(batch))
        counted = np.asarray(target)[weight > 0]
        assert moments == pytest.approx((counted.mean(), counted.std()))
        for task, power in ((Regression(), 2), (Regression(absolute=True), 1)):
            fitted = fit_task(task, moments)
            expected = np.abs(np.asarray(outputs - target)) ** power / counted.std() ** power
            np.testing.assert_allclose(fitted.loss(outputs, batch), expected, rtol=1e-5)
            ours, own = compute(fitted.metrics(outputs, batch)), compute(task.metrics(outputs, batch))
            for name in own:  # what is reported is in the units of the target
                np.testing.assert_array_equal(ours[name], own[name])
        assert fit_task(Regression(scale=3.0), moments).scale == 3.0
        assert fit_task(Classification(CLASSES), moments) == Classification(CLASSES)

    def test_moments_leave_out_what_does_not_count(self):
        target = jnp.array([1.0, 5.0, np.nan, np.nan])
        weight, index = jnp.array([1.0, 1.0, 0.0, 1.0]), jnp.array([0, 1, 2, -1])
        batch = BATCH.replace(target=target, weight=weight, index=index)
        assert target_moments(batch) == (3.0, 2.0)
        assert target_moments(batch, batch.replace(target=target + 4)) == (5.0, np.sqrt(8.0))
        assert target_moments(batch.replace(target=jnp.full(4, 7.0))) == (7.0, 1.0)  # no spread
        assert target_moments(batch.replace(target=jnp.ones((4, 3), int))) == (0.0, 1.0)  # labels, no scores
        mean, deviation = target_moments(batch.replace(target=jnp.stack([target, -3 * target, target * 0 + 7], 1)))
        np.testing.assert_array_equal([mean, deviation], [[3, -9, 7], [2, 6, 1]])
