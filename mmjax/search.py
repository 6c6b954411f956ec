"""Hyper-parameters as traced values, so that the trials of a search share one compiled program.

A trial changes the learning rate, the weight decay and the rate of all dropout of a model whose code knows nothing of
it. Trials are points of a Halton sequence (Halton 1960), whose first one is the setting as it was given.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UsageError

__all__ = ["Trial", "draw_trials", "dropout_rate", "own_weight_decay", "uses_dropout"]

FACTOR = 10.0  # learning rates lie between the given one over this and the given one times this
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
DROPOUT_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


class Trial(flax.struct.PyTreeNode):
    """A setting, or with leading axes several.

    Attributes:
      learning_rate: factor of the given learning rate or schedule.
      weight_decay: of an optimiser that has one; NaN = the given one.
      dropout_rate: of every ``nn.Dropout`` in training; NaN = each one's own.
    """

    learning_rate: Any
    weight_decay: Any
    dropout_rate: Any

    def rate(self, base: Any) -> Any:
        """The learning rate, or its schedule, of this trial."""
        if callable(base):
            return lambda count: self.learning_rate * base(count)
        return self.learning_rate * base

    def optimizer(self, base: Callable[..., Any]) -> Callable[..., Any]:
        """The optimiser with the weight decay of this trial; one that has none stays as it is."""
        own = own_weight_decay(base)
        if own is None:
            return base
        return functools.partial(base, weight_decay=jnp.where(jnp.isnan(self.weight_decay), own, self.weight_decay))


def draw_trials(count: int) -> Trial:
    """The first ``count`` trials ``[count]``: the given setting, then learning rates from a tenth of it to ten times it
    (log-uniform), weight decays of 0 and 0.0001 to 0.1, and dropout of 0 to 0.5 in tenths.

    Raises:
      UsageError: no trial.
    """
    from scipy.stats import qmc

    if count < 1:
        raise UsageError(f"a search needs at least 1 trial, got {count}")
    points = qmc.Halton(3, scramble=False).random(count)[1:]  # the first is the origin

    def pick(values: tuple[float, ...], place: np.ndarray) -> np.ndarray:
        return np.asarray(values)[(place * len(values)).astype(int)]

    factors = FACTOR ** (2 * points[:, 0] - 1)
    own = np.full(1, np.nan)
    columns = ([1.0], factors), (own, pick(WEIGHT_DECAYS, points[:, 1])), (own, pick(DROPOUT_RATES, points[:, 2]))
    return Trial(*(np.concatenate(column).astype(np.float32) for column in columns))


def own_weight_decay(optimizer: Callable[..., Any]) -> float | None:
    """The weight decay that an optimiser is given or has by default; None where it has none, or one that varies."""
    parameter = inspect.signature(optimizer).parameters.get("weight_decay")
    own = None if parameter is None else parameter.default
    return float(own) if isinstance(own, (int, float)) else None


@contextlib.contextmanager
def dropout_rate(rate: Any) -> Iterator[None]:
    """Within it every ``nn.Dropout`` that is not deterministic drops at this rate, a traced scalar; NaN = at its own.

    The draws are those of ``nn.Dropout``, so that at its own rate it gives the same.
    """

    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if not isinstance(context.module, nn.Dropout) or context.method_name != "__call__":
            return call(*args, **kwargs)
        return _drop(context.module, jnp.where(jnp.isnan(rate), context.module.rate, rate), *args, **kwargs)

    with nn.intercept_methods(intercept):
        yield


def _drop(module: nn.Dropout, rate: Any, inputs: Any, deterministic: bool | None = None, rng: Any = None) -> Any:
    if nn.merge_param("deterministic", module.deterministic, deterministic):
        return inputs
    keep = 1.0 - rate
    shape = [1 if axis in module.broadcast_dims else size for axis, size in enumerate(inputs.shape)]
    rng = module.make_rng(module.rng_collection) if rng is None else rng
    kept = jnp.broadcast_to(jax.random.bernoulli(rng, keep, shape), inputs.shape)
    # A rate of 1 leaves nothing: the quotient must be finite, or its gradient is NaN.
    return jnp.where(kept, inputs / jnp.maximum(keep, 1e-6).astype(inputs.dtype), jnp.zeros_like(inputs))


def uses_dropout(apply: Callable[..., Any], *args: Any) -> bool:
    """Whether a call of a model in training, traced from shapes alone, meets an ``nn.Dropout``."""
    met: list[str] = []

    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.Dropout):
            met.append(context.method_name)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        jax.eval_shape(apply, *args)
    return bool(met)
