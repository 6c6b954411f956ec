"""Metrics as states that merge by addition: over batches, devices and hosts, in any order, of constant size."""

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
    """Counts ``[class, predicted class]``, from which accuracy and F1 follow."""

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
        # A product of indicators: a scatter takes a second longer to compile.
        return cls(jnp.einsum("...i,...j->ij", actual, predicted))

    def compute(self) -> dict[str, Any]:
        """Accuracy, and F1 averaged over classes plainly (macro) and by their frequency (weighted)."""
        hits, actual, predicted = jnp.diagonal(self.counts), self.counts.sum(1), self.counts.sum(0)
        f1 = 2 * hits / jnp.maximum(actual + predicted, 1e-9)
        total = actual.sum()
        return {
            "accuracy": hits.sum() / total,
            "f1_macro": jnp.where(actual + predicted > 0, f1, 0).sum() / jnp.maximum((actual + predicted > 0).sum(), 1),
            "f1_weighted": (f1 * actual).sum() / total,
        }


class Moments(flax.struct.PyTreeNode):
    """First and second moments of predictions and targets, from which mean absolute error and Pearson's r follow."""

    sums: Any

    @classmethod
    @checked
    def of(
        cls, prediction: Float[Array, "*items"], target: Shaped[Array, "*items"], weight: Float[Array, "*items"]
    ) -> "Moments":
        """The state of some items."""
        p = jnp.where(weight > 0, prediction, 0)
        t = jnp.where(weight > 0, target.astype(jnp.float32), 0)
        return cls(
            jnp.stack([(weight * x).sum() for x in (jnp.ones_like(p), p, t, p * p, t * t, p * t, jnp.abs(p - t))])
        )

    def compute(self) -> dict[str, Any]:
        """Mean absolute error and Pearson's correlation."""
        n, p, t, pp, tt, pt, error = jnp.moveaxis(self.sums, -1, 0)
        covariance = n * pt - p * t
        return {"mae": error / n, "pearson": covariance / jnp.sqrt((n * pp - p * p) * (n * tt - t * t))}


def merge(*states: Any) -> Any:
    """The state of all items of several states (or pytrees of them)."""
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *states)


def merge_stacked(states: Any) -> Any:
    """As ``merge``, of states stacked along a leading axis."""
    return jax.tree.map(lambda leaf: leaf.sum(0), states)


def compute(states: dict[str, Any]) -> dict[str, Any]:
    """Numbers by name from named states; a state that computes several gives each its own name."""
    return {name or key: value for key, state in states.items() for name, value in state.compute().items()}
