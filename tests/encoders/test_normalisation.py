"""Group normalisation by sums per channel: flax's numbers, and its gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.normalisation import GroupNorm

X = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, (3, 4, 5, 6)), jnp.float32)
PARAMS = {"scale": jnp.linspace(-1.0, 2.0, 6), "bias": jnp.linspace(0.5, -0.5, 6)}


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_value_and_gradient_are_those_of_flax(groups):
    def total(module, params, x):
        y = module.apply({"params": params}, x)
        return (jnp.sin(y) * jnp.arange(y.size).reshape(y.shape)).sum(), y

    def run(module):
        return jax.jit(jax.value_and_grad(lambda p, x: total(module, p, x), (0, 1), has_aux=True))(PARAMS, X)

    (_, ours), gradients = run(GroupNorm(groups))
    (_, theirs), expected = run(nn.GroupNorm(groups))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_a_constant_map_has_no_gradient_that_is_not_finite():
    def total(x):
        return GroupNorm(2).apply({"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}, x).sum()

    slope = jax.jit(jax.grad(total))(jnp.full((2, 3, 3, 4), 0.3))
    assert np.isfinite(slope).all()


def test_bfloat16_in_gives_bfloat16_out_with_float32_statistics():
    y = GroupNorm(2).apply({"params": PARAMS}, (X + 100).astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    expected = nn.GroupNorm(2).apply({"params": PARAMS}, (X + 100).astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(y.astype(np.float32), expected, atol=0.05)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match=r"self.num_groups=4 must divide the 6 channels"):
        GroupNorm(4).init(jax.random.key(0), X)
