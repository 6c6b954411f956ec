"""Metrics as states that merge over batches, devices and hosts, in any order, and are of constant size.

A state of sums merges by addition; one of another kind has a method ``merge`` of its own.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmjax.typing import Array, Float, Int, Shaped, checked

__all__ = ["Confusion", "Mean", "Moments", "compute", "merge", "merge_stacked"]


class Mean(flax.struct.PyTreeNode):
    """A weighted mean; NaN over nothing."""

    total: Any
    weight: Any

    @classmethod
    def of(cls, values: Shaped[Array, "*items"], weight: Shaped[Array, "*items"]) -> "Mean":
        """The state of some items; those of weight 0 do not count, whatever stands in them."""
        values = jnp.where(weight > 0, values.astype(jnp.float32), 0)
        return cls((values * weight).sum(), weight.sum(dtype=jnp.float32))

    def compute(self) -> dict[str, Any]:
        """``{"": mean}``: the metric is named by its key alone."""
        return {"": self.total / self.weight}


class Confusion(flax.struct.PyTreeNode):
    """What of the matrix of classes and predicted classes accuracy and F1 follow from: its diagonal and its margins.

    The matrix itself would take the square of the classes, for each step of an epoch and each seed.

    Attributes:
      counts: ``[3, classes]``: items predicted right, items of the class, items predicted as it.
    """

    counts: Any

    @classmethod
    def of(
        cls, logits: Float[Array, "*items classes"], target: Int[Array, "*items"], weight: Float[Array, "*items"]
    ) -> "Confusion":
        """The state of some items. A tie goes to the first class; NaN or infinity among the logits of an item that
        counts makes every number NaN, for their largest one is no prediction.
        """
        actual = jax.nn.one_hot(target, logits.shape[-1]) * jnp.where(weight > 0, weight, 0)[..., None]
        predicted = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1])
        broken = (weight > 0) & ~jnp.isfinite(logits).all(-1)
        predicted = jnp.where(broken[..., None], jnp.nan, predicted)
        counted = predicted * jnp.where(weight > 0, weight, 0)[..., None]
        # Sums of indicators: a scatter takes a second longer to compile.
        indicators = jnp.stack([actual * predicted, actual, counted])
        return cls(indicators.reshape(3, -1, logits.shape[-1]).sum(1))

    def compute(self) -> dict[str, Any]:
        """Accuracy, and F1 averaged over classes plainly (macro) and by their frequency (weighted)."""
        hits, actual, predicted = self.counts
        f1 = 2 * hits / jnp.maximum(actual + predicted, 1e-9)
        total = actual.sum()
        return {
            "accuracy": hits.sum() / total,
            "f1_macro": jnp.where(actual + predicted > 0, f1, 0).sum() / jnp.maximum((actual + predicted > 0).sum(), 1),
            "f1_weighted": (f1 * actual).sum() / total,
        }


class Moments(flax.struct.PyTreeNode):
    """Means and centred second moments of predictions and targets, for Pearson's r, and the mean absolute error.

    Raw sums would lose the spread beside a large mean: in float32 numbers round 2000 with a deviation of 1 have nothing
    left to correlate.

    Attributes:
      weight: of all items.
      means: ``[2]``, of predictions and targets.
      products: ``[3]``, sums of squared deviations of both and of the product of their deviations.
      error: sum of absolute errors.
    """

    weight: Any
    means: Any
    products: Any
    error: Any

    @classmethod
    @checked
    def of(
        cls, prediction: Float[Array, "*items"], target: Shaped[Array, "*items"], weight: Float[Array, "*items"]
    ) -> "Moments":
        """The state of some items."""
        w = jnp.where(weight > 0, weight, 0).ravel()
        pair = jnp.stack([prediction.astype(jnp.float32).ravel(), target.astype(jnp.float32).ravel()])
        error = (jnp.where(w > 0, jnp.abs(pair[0] - pair[1]), 0) * w).sum()
        means, (p, t) = _centred(pair, w)
        return cls(w.sum(), means, jnp.stack([(w * x).sum() for x in (p * p, t * t, p * t)]), error)

    def merge(self) -> "Moments":
        """The state of all parts, of states stacked along a leading axis (Chan, Golub & LeVeque 1983)."""
        means, (p, t) = _centred(self.means.T, self.weight)
        between = jnp.stack([(self.weight * x).sum() for x in (p * p, t * t, p * t)])
        return Moments(self.weight.sum(), means, self.products.sum(0) + between, self.error.sum())

    def compute(self) -> dict[str, Any]:
        """Mean absolute error, and Pearson's correlation: NaN where predictions or targets do not vary."""
        p, t, pt = jnp.moveaxis(self.products, -1, 0)
        # Less than this is the rounding of the mean, not a variation.
        least = 2 * jnp.finfo(jnp.float32).eps * jnp.abs(jnp.moveaxis(self.means, -1, 0))
        deviations = jnp.sqrt(jnp.stack([p, t]) / self.weight)
        r = pt / (jnp.sqrt(p) * jnp.sqrt(t))
        return {"mae": self.error / self.weight, "pearson": jnp.where((deviations > least).all(0), r, jnp.nan)}


def _centred(values: Any, weight: Any) -> tuple[Any, Any]:
    """Weighted means ``[rows]`` and deviations from them ``[rows, items]``, 0 where the weight is 0.

    Values are taken relative to one that counts, so that equal ones deviate by exactly 0.
    """
    origin = values[:, jnp.argmax(weight > 0)]
    shifted = jnp.where(weight > 0, values - origin[:, None], 0)
    mean = (weight * shifted).sum(1) / jnp.maximum(weight.sum(), 1e-30)
    centred = jnp.where(weight > 0, shifted - mean[:, None], 0)
    return jnp.where(weight.sum() > 0, origin + mean, 0), centred


def merge(*states: Any) -> Any:
    """The state of all items of several states (or pytrees of them)."""
    return merge_stacked(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))


def merge_stacked(states: Any) -> Any:
    """As ``merge``, of states stacked along a leading axis: by their own ``merge``, or the sum where they have none."""
    mergeable = lambda state: hasattr(state, "merge")  # noqa: E731
    return jax.tree.map(lambda s: s.merge() if mergeable(s) else s.sum(0), states, is_leaf=mergeable)


def compute(states: dict[str, Any]) -> dict[str, Any]:
    """Numbers by name from named states; a state that computes several gives each its own name."""
    return {name or key: value for key, state in states.items() for name, value in state.compute().items()}
