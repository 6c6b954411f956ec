"""Parts of a model that do not learn, or learn at a rate of their own, by the path of their parameters.

``Frozen(module)`` is for a part that never learns: its parameters are no parameters any more, so that no gradient of
them is computed and no optimiser sees them. ``by_path`` is for learning rates, 0 among them, of any parts.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from mmjax.encoders.stages import count_stages
from mmjax.errors import UsageError
from mmjax.paths import longest_match
from mmjax.search import own_weight_decay
from mmjax.typing import Mapping, PyTree

__all__ = ["FROZEN", "Frozen", "by_path"]

FROZEN = "frozen"
"""The collection that holds the parameters of frozen parts."""

Optimizer = Callable[..., optax.GradientTransformation]
DEFAULT: Optimizer = functools.partial(optax.adamw, weight_decay=1e-2)  # that of ``Train``


class Frozen(nn.Module):
    """A module that does not learn: what were its parameters are the collection ``frozen``.

    A train step takes gradients of ``params`` alone, so that there is no backward pass through a frozen encoder, no
    optimiser state and no weight decay of it. Gradients by its inputs are as ever. It runs as in evaluation, without
    dropout, also in training. ``put_weights`` puts published weights there under the module's usual path. It still runs
    at every step, for every seed: where its inputs are always the same, ``frozen_features`` runs it once.

    Example:
      >>> x = jnp.ones((2, 3))
      >>> y, variables = Frozen(nn.Dense(4)).init_with_output(jax.random.key(0), x)
      >>> y.shape, sorted(variables), sorted(variables["frozen"])
      ((2, 4), ['frozen'], ['bias', 'kernel'])
    """

    module: nn.Module

    @property
    def num_stages(self) -> int:
        """Those of the module."""
        return count_stages(self.module)

    def setup(self) -> None:
        nn.share_scope(self, self.module)

    def __call__(self, *args: Any, train: bool = False, **kwargs: Any) -> Any:
        return call_frozen(self.module, *args, **kwargs)


def call_frozen(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """A module's result, within another one, with its parameters in the collection ``frozen``."""

    def run(module: nn.Module, *args: Any) -> Any:
        return module(*args, **kwargs)

    def inward(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
        return {"params" if name == FROZEN else name: tree for name, tree in variables.items()}

    def outward(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
        return {FROZEN if name == "params" else name: tree for name, tree in variables.items()}

    lifted = nn.map_variables(run, ["params", FROZEN], inward, outward, init=module.is_initializing())
    return lifted(module, *args)


def by_path(factors: Mapping[str, float], optimizer: Optimizer = DEFAULT) -> Optimizer:
    """An optimiser in which parts of the model learn at a multiple of the learning rate; for ``Train.optimizer``.

    The update of a part, its weight decay included, is multiplied by its factor. At 0 it is left out: no bit of it
    changes, it has no optimiser state, and what the optimiser takes over all parameters does not see it. Its gradients
    are still computed and clipped with the others (``Train.clip_norm``): wrap what never learns in ``Frozen``.

    Args:
      factors: 0 or more by path (``{"encoders/image": 0.1, "head": 1.0}``, see ``mmjax.paths``); the longest path
        counts, ``""`` is all the rest, 1 where nothing is said.
      optimizer: ``learning_rate -> optax transformation``.

    Raises:
      UsageError: a factor below 0 or not finite; at ``init``, a path that leads to no parameters.

    Example:
      >>> tx = by_path({"a": 0.5, "b": 0.0}, optax.sgd)(0.1)
      >>> params = {"a": jnp.ones(()), "b": jnp.ones(()), "c": jnp.ones(())}
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> {name: round(float(update), 3) for name, update in updates.items()}
      {'a': -0.05, 'b': -0.0, 'c': -0.1}
    """
    for path, factor in factors.items():
        if not 0 <= factor < math.inf:
            raise UsageError(f"the learning rate of {path!r} is multiplied by a number from 0 up, got {factor}")
    own = own_weight_decay(optimizer)
    settings = {} if own is None else {"weight_decay": own}
    return functools.partial(_by_path, factors=FrozenDict(factors), optimizer=optimizer, **settings)


def _by_path(
    learning_rate: Any, *, factors: Mapping[str, float], optimizer: Optimizer, weight_decay: Any = None
) -> optax.GradientTransformationExtraArgs:
    """``weight_decay`` is the optimiser's, where a search finds it."""
    if weight_decay is not None:
        optimizer = functools.partial(optimizer, weight_decay=weight_decay)

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda factor: "learns" if factor else "rests", longest_match(params, factors, 1.0))

    learning = optax.with_extra_args_support(optimizer(learning_rate))
    inner = optax.partition({"learns": learning, "rests": optax.set_to_zero()}, labels)

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        updates, state = inner.update(updates, state, params, **extra)
        return jax.tree.map(_scaled, updates, longest_match(updates, factors, 1.0)), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _scaled(update: Any, factor: float) -> Any:
    # -0.0 is what can be added without a trace: 0.0 makes 0.0 of -0.0
    return update * factor if factor else jnp.full_like(update, -0.0)
