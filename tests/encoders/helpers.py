"""What the tests of encoders share."""

import jax
import jax.numpy as jnp
import numpy as np


def random_variables(encoder, *inputs, seed=0):
    """Variables of the right shapes from NumPy: compiling ``init`` costs more than the test itself.

    Biases are random too, so that an encoder which forgets to mask after them is caught.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), *inputs)

    def draw(path, leaf):
        scale = 0.1 if leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5
        ones = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(ones + scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
