"""Convolution: derivatives that are XLA's, in whatever layout, and that stay in the fast one inside a loop on CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.convolution import Conv, convolve
from mmjax.resident import is_loopy

LAYOUT = ("NHWC", "HWIO", "NHWC")


def _stock(x, kernel, stride, padding="SAME"):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("reach", [(1, 1), (2, 3), (5, 3)])
@pytest.mark.parametrize("size", [(7, 6), (8, 5)])
def test_derivatives_are_those_of_xla(size, reach, stride):
    check_derivatives(size, reach, stride, "SAME")


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 2), (2, 1))], ids=["symmetric", "lopsided"])
@pytest.mark.parametrize("size", [(7, 6), (8, 5)])
def test_derivatives_with_a_padding_of_its_own(size, padding):
    check_derivatives(size, (3, 3), 2, padding)


def check_derivatives(size, reach, stride, padding):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (2, *size, 3)), jax.random.normal(keys[1], (*reach, 3, 4))
    expected, pull = jax.vjp(lambda x, k: _stock(x, k, stride, padding), x, kernel)
    got, pull_ours = jax.vjp(lambda x, k: convolve(x, k, stride, padding), x, kernel)
    np.testing.assert_array_equal(got, expected)
    dy = jax.random.normal(keys[2], got.shape)
    for theirs, ours in zip(pull(dy), pull_ours(dy)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="layouts of XLA:CPU")
def test_every_convolution_of_an_epoch_is_in_the_fast_layout():
    """XLA:CPU's fast path takes b01f_01io->b01f alone; a loop leaves it for the stock derivatives, hence ours."""

    def layouts(function):
        def epoch(kernel, images):
            return jax.lax.scan(
                lambda k, x: (k - jax.grad(lambda k: (function(function(x, k), k) ** 2).sum())(k), 0), kernel, images
            )

        arguments = jnp.zeros((3, 3, 4, 4)), jnp.zeros((3, 8, 14, 14, 4))
        text = jax.jit(epoch).lower(*arguments).compile().as_text()
        return {line.partition("dim_labels=")[2].split(",")[0] for line in text.splitlines() if " convolution(" in line}

    assert layouts(convolve) == {"b01f_01io->b01f"}
    assert len(layouts(lambda x, k: _stock(x, k, 1))) > 1, "XLA has changed: convolve may not be needed any more"


def test_mapping_over_seeds_knows_a_convolution():
    assert is_loopy(lambda x: convolve(x, jnp.ones((3, 3, 1, 1))), jnp.ones((1, 4, 4, 1)))


def test_module_is_that_of_flax():
    import flax.linen as nn

    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    ours, theirs = Conv(4, (3, 3), (2, 2)), nn.Conv(4, (3, 3), (2, 2))
    params = theirs.init(jax.random.key(1), x)
    np.testing.assert_array_equal(ours.apply(params, x), theirs.apply(params, x))
