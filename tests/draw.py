"""Random inputs and parameters for tests, drawn by NumPy: nothing is compiled, and nothing starts at a neutral zero."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.stream import Stream


def draw_streams(widths: Mapping[str, int], *, length: int = 1, batch: int = 4, seed: int = 0) -> dict[str, Stream]:
    """Streams of vectors in which everything is real."""
    rng = np.random.default_rng(seed)
    return {n: Stream.of(jnp.asarray(rng.normal(size=(batch, length, d)), jnp.float32)) for n, d in widths.items()}


def draw_params(module: nn.Module, *args: Any, seed: int = 0, scale: float = 0.5, **kwargs: Any) -> Any:
    """Normal parameters of the shapes that ``module.init`` gives."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs)).get("params", {})
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape), leaf.dtype), shapes)


def run(module: nn.Module, params: Any, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """The result and what was sown in ``intermediates``."""
    result, state = module.apply({"params": params}, *args, mutable=["intermediates"], **kwargs)
    return result, state.get("intermediates", {})


quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""``jax.jit`` in half the time: for a gradient or a transformer cheaper than one operation at a time."""


def run_compiled(module: nn.Module, params: Any, *args: Any) -> tuple[Any, dict[str, Any]]:
    """As ``run``, compiled in haste."""
    return quick_jit(functools.partial(run, module))(params, *args)
