"""Heads: one linear map unless asked, pooling only if asked, always float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.heads import ClassificationHead, ClosedListHead, MultiRegressionHead, RegressionHead
from mmjax.stream import Stream, masked_max
from tests.draw import draw_params, draw_streams, quick_jit, run

STREAM = draw_streams({"fused": 4}, length=3, batch=2)["fused"]
HOLED = STREAM.replace(mask=jnp.asarray([[True, False, True], [False] * 3]))


def test_logits_are_a_linear_map_of_the_masked_mean():
    head = ClassificationHead(5)
    params = draw_params(head, HOLED)
    logits, _ = run(head, params, HOLED)
    dense = params["mlp"]["dense_0"]
    expected = np.stack([HOLED.values[0, ::2].mean(0), np.zeros(4)]) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_another_pool_may_be_asked_for():
    head = ClassificationHead(5, pool=masked_max)
    params = draw_params(head, STREAM)
    dense = params["mlp"]["dense_0"]
    expected = STREAM.values.max(1) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(run(head, params, STREAM)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "head", [ClassificationHead(5), RegressionHead(), MultiRegressionHead(3)], ids=lambda head: type(head).__name__
)
def test_without_a_pool_every_item_has_its_own_prediction(head):
    params = draw_params(head, STREAM)
    items, _ = run(head.clone(pool=None), params, STREAM)
    for step in range(3):
        alone = Stream(STREAM.values[:, step : step + 1], STREAM.mask[:, step : step + 1])
        np.testing.assert_allclose(items[:, step], run(head, params, alone)[0], rtol=1e-5, atol=1e-6)


def test_a_score_is_one_number_an_example():
    head = RegressionHead(hidden_dims=(6,))
    params = draw_params(head, STREAM)
    assert run(head, params, STREAM)[0].shape == (2,)
    assert [leaf["kernel"].shape for leaf in params["score"]["mlp"].values()] == [(4, 6), (6, 1)]


@pytest.mark.parametrize(
    "head", [ClassificationHead(5), RegressionHead(), MultiRegressionHead(3)], ids=lambda head: type(head).__name__
)
def test_padding_never_reaches_a_prediction(head):
    params = draw_params(head, HOLED)
    poisoned = HOLED.replace(values=jnp.where(HOLED.mask[..., None], HOLED.values, jnp.nan))
    for pool in (head.pool, None):
        asked = head.clone(pool=pool)

        def loss(params, stream, asked=asked):
            return (asked.apply({"params": params}, stream) ** 2).sum()

        value_and_gradient = quick_jit(jax.value_and_grad(loss))
        clean, dirty = (value_and_gradient(params, stream) for stream in (HOLED, poisoned))
        jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_predictions_are_float32_also_of_bfloat16():
    half = STREAM.replace(values=STREAM.values.astype(jnp.bfloat16))
    for head in (ClassificationHead(5), RegressionHead()):
        assert run(head, draw_params(head, half), half)[0].dtype == jnp.float32


def test_dropout_acts_in_training_alone():
    head = ClassificationHead(5, dropout_rate=0.5)
    variables = {"params": draw_params(head, STREAM)}
    still = head.apply(variables, STREAM)
    first, second = (head.apply(variables, STREAM, train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 1))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(still, run(ClassificationHead(5), variables["params"], STREAM)[0])


def test_what_is_not_on_a_closed_list_is_never_given_and_teaches_nothing():
    head = ClosedListHead(4)
    params = draw_params(head, STREAM)

    def loss(params, target):
        logits = head.apply({"params": params}, STREAM)
        return -jax.nn.log_softmax(logits)[jnp.arange(2), target].sum(), logits

    (value, logits), gradient = quick_jit(jax.value_and_grad(loss, has_aux=True))(params, jnp.asarray([3, 3]))
    np.testing.assert_allclose(value, 2 * 20, rtol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-6
    _, plain = quick_jit(jax.value_and_grad(loss, has_aux=True))(params, jnp.asarray([0, 1]))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain)) > 1e-2
    open_list, _ = run(ClassificationHead(3), {"mlp": params["listed"]["mlp"]}, STREAM)
    np.testing.assert_allclose(logits[:, :3], open_list, rtol=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(logits)[:, :3], jax.nn.softmax(open_list), rtol=1e-5)
