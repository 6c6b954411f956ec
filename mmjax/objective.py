"""What training minimises: the loss of the task and the losses that modules sow, each with a name, weight and schedule.

``total = task loss + sum over names of weight(update) * loss``. A module sows by ``self.sow("losses", name, value)``, a
value per row ``[batch]``, per labelled item, or a scalar that is a statistic of the batch; several modules that sow one
name add up. Rows of weight 0 do not count, whatever stands in them.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmjax.errors import UsageError
from mmjax.metrics import compute
from mmjax.typing import Mapping, PyTree

__all__ = [
    "PREFIX",
    "SownLoss",
    "Weight",
    "check_names",
    "compute_losses",
    "final_weights",
    "is_error",
    "share",
    "sown_losses",
    "sown_states",
    "total_loss",
    "weight_at",
]

Weight = float | Callable[[Any], Any]
"""A number, or an optax schedule of the update (the first one is 0)."""

PREFIX = "loss/"
"""Of the metrics that are losses of modules."""


class SownLoss(flax.struct.PyTreeNode):
    """The weighted means of the values of one name, mergeable by addition; they add up.

    Attributes:
      totals: ``[values]``, weighted sum of each.
      weights: ``[values]``, sum of the weights of each.
    """

    totals: Any
    weights: Any

    @classmethod
    def of(cls, values: list[Any], weight: Any) -> "SownLoss":
        """The state of some rows.

        Args:
          values: each ``()``, ``[batch]``, or shaped as ``weight``.
          weight: of the labelled items.
        """
        pairs = [_weighted(value, weight) for value in values]
        return cls(jnp.stack([total for total, _ in pairs]), jnp.stack([weight for _, weight in pairs]))

    def compute(self) -> dict[str, Any]:
        """``{"": sum of the means}``; NaN over nothing."""
        return {"": (self.totals / self.weights).sum()}


def sown_losses(sown: PyTree) -> dict[str, list[Any]]:
    """The values that modules have sown, by the name under which they were; modules are told apart by nothing.

    Args:
      sown: the collection ``losses``: names of modules, the sown name, and there a tuple of values.

    Example:
      >>> sown_losses({"encoder": {"kl": (1.0,)}, "head": {"kl": (2.0,), "rank": (3.0,)}})
      {'kl': [1.0, 2.0], 'rank': [3.0]}
    """
    losses: dict[str, list[Any]] = {}
    for path, value in jax.tree_util.tree_leaves_with_path(sown):
        keys = []  # a value may be a tree itself: its name is that before the tuple
        for key in path:
            if not isinstance(key, jax.tree_util.DictKey):
                break
            keys.append(str(key.key))
        losses.setdefault(keys[-1], []).append(value)
    return losses


def check_names(weights: Mapping[str, Weight], names: Any, where: str = "the model") -> None:
    """Passes if every loss with a weight is sown.

    Args:
      weights: by the name of the loss.
      names: of those that are sown.
      where: what sows them, for the message.

    Raises:
      UsageError: one is not; the message lists those that are.
    """
    if unknown := sorted(set(weights) - set(names)):
        listed = f"there is: {', '.join(sorted(names))}" if names else "its modules sow none"
        raise UsageError(f"train.loss_weights names {unknown[0]!r}, no loss that {where} sows; {listed}")


def weight_at(weights: Mapping[str, Weight], name: str, update: Any) -> Any:
    """The weight of a loss at an update, counted from 0; 1 where none is given.

    Example:
      >>> weight_at({"kl": lambda update: update / 10}, "kl", 5), weight_at({}, "rank", 5)
      (0.5, 1.0)
    """
    weight = weights.get(name, 1.0)
    return weight(update) if callable(weight) else weight


def final_weights(weights: Mapping[str, Weight], updates: int) -> dict[str, float]:
    """The weights at the last of so many updates, by which losses of different epochs are compared.

    Example:
      >>> final_weights({"kl": lambda update: update / 10, "rank": 3.0}, 11)
      {'kl': 1.0, 'rank': 3.0}
    """
    return {name: float(weight_at(weights, name, max(updates - 1, 0))) for name in weights}


def total_loss(
    loss: Any, sown: Mapping[str, list[Any]], weights: Mapping[str, Weight], update: Any, weight: Any, whole: Any
) -> Any:
    """The scalar to be minimised over a batch, or what a part of it adds to that.

    Args:
      loss: of the task: per row, per labelled item, or a scalar.
      sown: as ``sown_losses`` gives them.
      weights: of the sown ones.
      update: number of the update, from 0.
      weight: of the items of the part.
      whole: of all items of the batch; the same array if the part is the batch.

    Raises:
      UsageError: a loss of another shape; a weight of a loss that is not sown.
    """
    check_names(weights, sown)
    total = share("the loss of the task", loss, weight, whole)
    for name, values in sown.items():
        factor = weight_at(weights, name, update) if name in weights else None
        for value in values:
            part = share(f"the loss {name!r} that a module sows", value, weight, whole)
            total = total + (part if factor is None else factor * part)
    return total


def compute_losses(states: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Any]:
    """Numbers by name from named states; ``loss`` holds every sown loss besides that of the task.

    Args:
      states: of the task's metrics, and of sown losses under ``loss/NAME``.
      weights: those of ``final_weights``: with one that varied no two epochs could be compared.
    """
    metrics = compute(dict(states))
    for key, state in states.items():
        if isinstance(state, SownLoss) and "loss" in metrics:
            metrics["loss"] = metrics["loss"] + weights.get(key.removeprefix(PREFIX), 1.0) * metrics[key]
    return metrics


def sown_states(sown: Mapping[str, list[Any]], weight: Any) -> dict[str, SownLoss]:
    """The mergeable states of sown losses, under the names of their metrics."""
    return {f"{PREFIX}{name}": SownLoss.of(values, weight) for name, values in sown.items()}


def is_error(name: str, errors: Any) -> bool:
    """Whether a lower value of a metric is better: one of the task's errors, or a loss of a module."""
    return name in errors or name.startswith(PREFIX)


def _check_shape(name: str, values: Any, weight: Any) -> None:
    if jnp.shape(values) not in ((), weight.shape, weight.shape[:1]):
        raise UsageError(
            f"{name} has the shape {jnp.shape(values)}: it must be one value per labelled item, {weight.shape}, or a "
            "scalar for the batch; several answers of an item (labels, words) are summed or averaged within it"
        )


def _by_row(weight: Any) -> Any:
    """The weight of rows ``[batch]`` from that of their items."""
    return weight.reshape(weight.shape[0], -1).max(1)


def _weighted(value: Any, weight: Any) -> tuple[Any, Any]:
    """Weighted sum and weight of a loss; a scalar counts by what the batch holds."""
    _check_shape("a loss that a module sows", value, weight)
    value = jnp.asarray(value, jnp.float32)
    if value.ndim not in (0, weight.ndim):
        weight = _by_row(weight)
    return (jnp.where(weight > 0, value, 0) * weight).sum(), weight.sum()


def share(name: str, values: Any, weight: Any, whole: Any) -> Any:
    """What a part of a batch adds to the weighted mean over the whole; rows of weight 0 may hold NaN.

    Args:
      name: of the loss, for the error.
      values: one per item or one per row of the part; a scalar is a loss over the part and counts by what that holds.
      weight: of the items of the part.
      whole: of all items of the batch; the same array if the part is the batch.

    Raises:
      UsageError: values of another shape, which would be broadcast against the wrong axis.
    """
    _check_shape(name, values, weight)
    if jnp.ndim(values) == 0:
        return values if weight is whole else values * (weight.sum() / jnp.maximum(whole.sum(), 1e-9))
    if values.ndim != weight.ndim:
        weight, whole = _by_row(weight), _by_row(whole)
    return (jnp.where(weight > 0, values, 0) * weight).sum() / jnp.maximum(whole.sum(), 1e-9)
