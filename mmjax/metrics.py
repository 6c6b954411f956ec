"""Metrics as states that merge over batches, devices and hosts, in any order, and are of constant size.

A state of sums merges by addition; one of another kind has a method ``merge`` of its own. One that grows with what it
has seen, because its metric is of all items together, has ``join(*others)`` besides.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmjax.typing import Array, Float, Int, Shaped

__all__ = ["Confusion", "LabelCounts", "Mean", "Moments", "SeveralMoments", "compute", "merge", "merge_stacked"]


def _check_shape(name: str, values: Any, weight: Any) -> None:
    """Raises where broadcasting would put weights on the wrong axis."""
    if jnp.shape(values) != jnp.shape(weight):
        raise ValueError(
            f"{name} must be one per labelled item, {jnp.shape(weight)} as their weights, got {jnp.shape(values)}"
        )


class Mean(flax.struct.PyTreeNode):
    """A weighted mean; NaN over nothing."""

    total: Any
    weight: Any

    @classmethod
    def of(cls, values: Shaped[Array, "*items"], weight: Shaped[Array, "*items"]) -> "Mean":
        """The state of some items; those of weight 0 do not count, whatever stands in them. A scalar holds for each."""
        if jnp.ndim(values):
            _check_shape("values", values, weight)
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
        _check_shape("classes", target, weight)
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


class LabelCounts(flax.struct.PyTreeNode):
    """Counts of each of several labels, from which F1 follows, and of items with every label right.

    Attributes:
      hits: ``[labels]``, how often a label was rightly given.
      actual: ``[labels]``, how often it was right.
      predicted: ``[labels]``, how often it was given.
      exact: items with every label right.
      weight: all items.
    """

    hits: Any
    actual: Any
    predicted: Any
    exact: Any
    weight: Any

    @classmethod
    def of(
        cls,
        logits: Float[Array, "*items labels"],
        target: Shaped[Array, "*items labels"],
        weight: Float[Array, "*items"],
    ) -> "LabelCounts":
        """The state of some items; a label is given above 0. NaN or infinity in an item that counts makes every number
        NaN.
        """
        _check_shape("vectors of logits", logits[..., 0], weight)
        if target.shape != logits.shape:
            raise ValueError(f"labels must be shaped as their logits, {logits.shape}, got {target.shape}")
        w = jnp.where(weight > 0, weight, 0)
        broken = (weight > 0) & ~jnp.isfinite(logits).all(-1)
        predicted = jnp.where(broken[..., None], jnp.nan, (logits > 0).astype(jnp.float32))
        right = (target > 0.5).astype(jnp.float32)

        def count(x: Any) -> Any:
            return jnp.einsum("...,...l->l", w, jnp.where(weight[..., None] > 0, x, 0))

        exact = jnp.where(broken, jnp.nan, ((logits > 0) == (target > 0.5)).all(-1))
        return cls(
            count(predicted * right),
            count(right),
            count(predicted),
            (jnp.where(weight > 0, exact, 0) * w).sum(),
            w.sum(),
        )

    def compute(self) -> dict[str, Any]:
        """F1 of all labels together (micro), its mean over labels (macro; 0 where a label neither occurs nor is given),
        and the share of items with every label right.
        """
        hits, either = self.hits, self.actual + self.predicted
        return {
            "labels_f1_micro": 2 * hits.sum(-1) / jnp.maximum(either.sum(-1), 1e-9),
            "labels_f1_macro": (2 * hits / jnp.maximum(either, 1e-9)).mean(-1),
            "labels_exact": self.exact / self.weight,
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
    def of(
        cls, prediction: Float[Array, "*scores"], target: Shaped[Array, "*scores"], weight: Float[Array, "*items"]
    ) -> "Moments":
        """The state of some items; of several scores each ``[*items, scores]`` it has a last axis of them."""
        if jnp.shape(prediction) != jnp.shape(target):
            raise ValueError(f"predictions {jnp.shape(prediction)} and targets {jnp.shape(target)} must agree")
        if prediction.ndim == weight.ndim + 1:
            return jax.vmap(cls.of, in_axes=(-1, -1, None), out_axes=-1)(prediction, target, weight)
        _check_shape("scores", prediction, weight)
        w = jnp.where(weight > 0, weight, 0).ravel()
        pair = jnp.stack([prediction.astype(jnp.float32).ravel(), target.astype(jnp.float32).ravel()])
        error = (jnp.where(w > 0, jnp.abs(pair[0] - pair[1]), 0) * w).sum()
        means, (p, t) = _centred(pair, w)
        return cls(w.sum(), means, jnp.stack([(w * x).sum() for x in (p * p, t * t, p * t)]), error)

    def merge(self) -> "Moments":
        """The state of all parts, of states stacked along a leading axis (Chan, Golub & LeVeque 1983)."""
        if self.weight.ndim > 1:  # several scores
            return jax.vmap(Moments.merge, in_axes=-1, out_axes=-1)(self)
        means, (p, t) = _centred(self.means.T, self.weight)
        between = jnp.stack([(self.weight * x).sum() for x in (p * p, t * t, p * t)])
        return Moments(self.weight.sum(), means, self.products.sum(0) + between, self.error.sum())

    def compute(self) -> dict[str, Any]:
        """Mean absolute error, and Pearson's correlation: NaN where predictions or targets do not vary. The means of
        those of several scores.
        """
        if self.weight.ndim > 0:
            return jax.tree.map(jnp.mean, jax.vmap(Moments.compute, in_axes=-1)(self))
        p, t, pt = self.products
        # Less than this is the rounding of the mean, not a variation.
        least = 2 * jnp.finfo(jnp.float32).eps * jnp.abs(self.means)
        varies = jnp.sqrt(self.products[:2] / self.weight) > least
        r = pt / (jnp.sqrt(p) * jnp.sqrt(t))
        return {"mae": self.error / self.weight, "pearson": jnp.where(varies.all(), r, jnp.nan)}


class SeveralMoments(flax.struct.PyTreeNode):
    """``Moments`` of several scores per item: plain means over them of what each gives.

    Attributes:
      moments: with a last axis of scores.
    """

    moments: Moments

    @classmethod
    def of(cls, prediction: Any, target: Any, weight: Any) -> "SeveralMoments":
        """The state of some items: predictions and targets ``[*items, scores]``, the weight of the items."""
        return cls(Moments.of(prediction, target, weight))

    def merge(self) -> "SeveralMoments":
        """The state of all parts, of states stacked along a leading axis."""
        return SeveralMoments(self.moments.merge())

    def compute(self) -> dict[str, Any]:
        """Mean absolute error, Pearson's correlation and R² (1 - squared error / variance of these items); of the last
        two the mean over the scores for which they are defined.
        """
        by_score = jax.vmap(Moments.compute, in_axes=-1)(self.moments)
        (p, t, pt), (prediction, target) = self.moments.products, self.moments.means
        error = p - 2 * pt + t + self.moments.weight * (prediction - target) ** 2
        least = 2 * jnp.finfo(jnp.float32).eps * jnp.abs(target)
        r2 = jnp.where(jnp.sqrt(t / self.moments.weight) > least, 1 - error / t, jnp.nan)
        return {
            "scores_mae": by_score["mae"].mean(),
            "scores_pearson": jnp.nanmean(by_score["pearson"]),
            "scores_r2": jnp.nanmean(r2),
        }


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
    grows = lambda state: hasattr(state, "join")  # noqa: E731

    def join(state: Any, *others: Any) -> Any:
        return state.join(*others) if grows(state) else merge_stacked(_stack(state, *others))

    def is_state(state: Any) -> bool:
        return grows(state) or hasattr(state, "merge")

    return jax.tree.map(join, *states, is_leaf=is_state)


def _stack(*states: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def merge_stacked(states: Any) -> Any:
    """As ``merge``, of states stacked along a leading axis: by their own ``merge``, or the sum where they have none."""
    mergeable = lambda state: hasattr(state, "merge")  # noqa: E731
    return jax.tree.map(lambda s: s.merge() if mergeable(s) else s.sum(0), states, is_leaf=mergeable)


def compute(states: dict[str, Any]) -> dict[str, Any]:
    """Numbers by name from named states; a state that computes several gives each its own name."""
    return {name or key: value for key, state in states.items() for name, value in state.compute().items()}
