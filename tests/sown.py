"""A toy of losses: modules that sow them, a task that reads a state, and batches of numbers."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.metrics import Mean
from mmjax.stream import Batch, Stream


def values(*numbers: float) -> Batch:
    """One stream ``x`` of one number a row."""
    index = np.arange(len(numbers), dtype=np.int32)
    stream = Stream(np.asarray(numbers, np.float32)[:, None, None], np.ones((len(numbers), 1), bool))
    return Batch({"x": stream}, index.astype(np.float32), np.ones(len(numbers), np.float32), index, index)


@dataclasses.dataclass(frozen=True)
class PerRow:
    """The mean of what the model gives, or, with ``whole``, a loss over the batch: the square of its weighted sum."""

    whole: bool = False
    lower_is_better = frozenset({"loss"})
    scores = ()

    def loss(self, outputs, batch):
        loss = jnp.where(batch.weight > 0, outputs["loss"], 0)
        return (loss.sum() + outputs["matrix"][0, 0]) ** 2 if self.whole else outputs["loss"]

    def metrics(self, outputs, batch):
        return {"loss": Mean.of(outputs["loss"], batch.weight)}

    def check_target(self, target, real):
        return None


class Sows(nn.Module):
    """A loss ``row`` per row and one ``whole`` of the batch, that of the task is 0; a count of calls in training."""

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        row = self.param("row", nn.initializers.constant(3.0), ())
        whole = self.param("whole", nn.initializers.constant(5.0), ())
        count = self.variable("batch_stats", "count", lambda: jnp.zeros(()))
        if train and not self.is_initializing():
            count.value += 1
        present = streams["x"].present
        # An absent row may hold anything.
        self.sow("losses", "row", jnp.where(present, row**2 * streams["x"].zeroed.values[:, 0, 0], jnp.nan))
        self.sow("losses", "whole", whole**2)
        self.sow("intermediates", "seen", present)
        return {"loss": jnp.zeros(present.size)}


class Part(nn.Module):
    """A weight that begins at 1 and falls by its gradient: the loss of a row is ``rate`` times it times the value."""

    rate: float

    @nn.compact
    def __call__(self, values):
        w = self.param("w", nn.initializers.ones, ())
        self.sow("losses", "part", self.rate * w * values)
        return w


class Parts(nn.Module):
    """Two modules that sow the same name; the mean of the values is a statistic of the batch. Loss of the task: 0."""

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        values, present = streams["x"].zeroed.values[:, 0, 0], streams["x"].present
        both = [Part(rate, name=f"part_{rate:g}")(values) for rate in (1.0, 2.0)]
        scale = self.param("scale", nn.initializers.ones, ())
        self.sow("losses", "mean", scale * values.sum() / jnp.maximum(present.sum(), 1))
        return {"loss": jnp.zeros(present.size), "weights": jnp.stack([*both, scale])}


class Pair(nn.Module):
    """Two losses a row, of weights ``a`` and ``b`` that each fit the values."""

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        x = streams["x"].zeroed.values[:, 0, 0]
        a, b = (self.param(name, nn.initializers.constant(start), ()) for name, start in (("a", 0.0), ("b", 1.0)))
        return {"a": (a - x) ** 2, "b": (b - x) ** 2}


@dataclasses.dataclass(frozen=True)
class Blend:
    """Gradient-Blend in small (Wang et al. 2020): each loss weighs as its gain on validation less its overfitting.

    The state also counts the epochs, in whole numbers.
    """

    lower_is_better = frozenset({"loss", "a", "b"})
    scores = ()

    def init_state(self):
        return {"weights": jnp.array([0.5, 0.5]), "epochs": 0}

    def loss(self, outputs, batch, *, state):
        return state["weights"][0] * outputs["a"] + state["weights"][1] * outputs["b"]

    def metrics(self, outputs, batch):
        means = {name: Mean.of(outputs[name], batch.weight) for name in ("a", "b")}
        return {**means, "loss": Mean.of(outputs["a"] + outputs["b"], batch.weight)}

    def after_epoch(self, state, train_metrics, validation_metrics):
        left = jnp.stack([validation_metrics[name] + 0.5 * train_metrics[name] for name in ("a", "b")])
        return {"weights": left / left.sum(), "epochs": state["epochs"] + 1}

    def check_target(self, target, real):
        return None
