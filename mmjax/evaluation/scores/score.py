"""Interface of a primary metric: its name and unit, a number per item, and its value on resampled items.

Intervals, paired tests and verdicts need three things: the value of a metric, the contribution of each item, and the
value on resampled items. A mean over items (accuracy, absolute error) has them directly. A metric of the whole set (F1,
a correlation, AUROC) has jackknife pseudo-values as contributions, and is recomputed on resampled items. A new metric
is one ``Score``; nothing else in the package refers to it by name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from mmjax.errors import UsageError
from mmjax.stream import Stream
from mmjax.typing import Float, Shaped

__all__ = ["OUTPUTS", "Outputs", "Score"]

Outputs = Literal["classes", "values", "vectors", "labels", "ranks", "tokens", "sentences", "other"]
OUTPUTS: dict[str, tuple[int, int]] = {
    "classes": (3, 1),
    "values": (2, 1),
    "vectors": (3, 2),
    "labels": (3, 2),
    "ranks": (2, 1),
    "tokens": (4, 2),
    "sentences": (4, 3),
    "other": (0, 0),
}
"""Kinds of outputs: number of axes of the outputs of all seeds and of the target.

``classes``: logits ``[seeds, items, classes]`` of one class an item, target ``[items]``. ``values``: predictions
``[seeds, items]`` of a number. ``vectors``: predictions ``[seeds, items, scores]`` of several numbers an item, target
``[items, scores]``. ``labels``: logits ``[seeds, items, labels]`` of any number of labels an item, target
``[items, labels]`` of 0 and 1. ``ranks``: ``[seeds, items]``, the place of the right answer among the candidates,
counted from 0; the target is not read. ``tokens``: logits ``[seeds, items, steps, classes]`` of a class per step,
target a ``Stream`` ``[items, steps]``. ``sentences``: hypotheses ``[seeds, items, n, 1 + bytes]``, target a ``Stream``
of bytes ``[items, references, bytes]`` (see ``mmjax.hypotheses``), or a dict with that as its entry ``text``.
``other``: whatever a task keeps, ``[seeds, items, ...]``, with a target of any tree of arrays, which the score knows.
"""
_NUMBERS = 4_000_000  # of a block in memory: 32 MB


@dataclasses.dataclass(frozen=True)
class Score:
    """A metric, given in one of three ways: ``items``, ``states`` with ``value``, or ``statistic``.

    Attributes:
      name: with its convention, e.g. ``acc2_has0``; numbers of different names are never compared.
      convention: what is computed, in words.
      label: what headings and axes say.
      outputs: what it is computed from, see ``OUTPUTS``.
      unit: printed after a number, e.g. ``%``; empty = none.
      factor: from the value to the printed number.
      digits: of the printed number.
      higher_is_better: else an error.
      margin: a negligible difference, in units of the value; None = none is known.
      chance: value of constant outputs, where that does not depend on the data.
      alone: whether a row of one modality can have it; not, where items of one are sought among those of another.
      items: ``(outputs [seeds, items, ...], target [items, ...]) -> [seeds, items]``: a mean over items.
      states: ``(outputs [items, ...] of one seed, target) -> [items, k]``, dense or sparse, additive over items ...
      value: ... and ``[..., k] -> [...]``, the metric of their sum.
      statistic: ``(outputs [items, ...] of one seed, target, weight [draws, items]) -> [draws]``, without additive
        states; the weight of an item is its count in the draw.
    """

    name: str
    convention: str
    label: str
    outputs: Outputs
    unit: str = ""
    factor: float = 1.0
    digits: int = 3
    higher_is_better: bool = True
    margin: float | None = None
    chance: float = 0.0
    alone: bool = True
    items: Callable[[Any, Any], Any] | None = None
    states: Callable[[Any, Any], Any] | None = None
    value: Callable[[Any], Any] | None = None
    statistic: Callable[[Any, Any, Any], Any] | None = None

    def __post_init__(self):
        ways = (self.items is not None) + (self.states is not None) + (self.statistic is not None)
        if ways != 1 or (self.states is None) != (self.value is None):
            raise UsageError(
                f"score {self.name!r} needs items=, or states= with value=, or statistic=, and one of them"
            )
        if self.outputs not in OUTPUTS:
            raise UsageError(f"score {self.name!r} is of outputs {self.outputs!r}; there are {', '.join(OUTPUTS)}")

    @classmethod
    def share(cls, name: str, convention: str, label: str, *, outputs: Outputs, **ways: Any) -> "Score":
        """A share, printed in percent, with a margin of one point."""
        shown: dict[str, Any] = {"unit": "%", "factor": 100.0, "digits": 1, "margin": 0.01}
        return cls(name, convention, label, outputs, **shown, **ways)

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over items."""
        return self.items is not None

    @property
    def is_share(self) -> bool:
        """Whether it is a share of items, whose interval is computed on the logit."""
        return self.is_mean and self.unit == "%"

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.higher_is_better else -1

    def describe(self) -> dict[str, Any]:
        """JSON data for printing it."""
        names = ("name", "convention", "label", "outputs", "unit", "factor", "digits", "higher_is_better", "margin")
        return {name: getattr(self, name) for name in names} | {"is_mean": self.is_mean}

    def check(self, outputs: Any, target: Any, row: str) -> None:
        """Passes if the shapes fit this metric.

        Raises:
          UsageError: names the row, its shapes and the right ones.
        """
        if self.outputs == "other":
            return
        axes, of_target = OUTPUTS[self.outputs]
        if self.outputs == "sentences" and isinstance(target, Mapping):
            target = target.get("text")
        steps = isinstance(target, Stream)
        shape, right = np.shape(outputs), np.shape(target.mask if steps else target)
        same = shape[1 : 1 + of_target] == right or self.outputs == "ranks"
        same = shape[1:2] == right[:1] if self.outputs == "sentences" else same
        of_steps = self.outputs in ("tokens", "sentences")
        fits = self.outputs == "ranks" or (len(right) == of_target and steps == of_steps)
        if len(shape) != axes or not fits or not same:
            last = {"labels": ["labels"], "vectors": ["scores"], "classes": ["classes"], "tokens": ["steps", "classes"]}
            last["sentences"] = ["hypotheses", "1 + bytes"]
            names = ["seeds", "items", *last.get(self.outputs, [])]
            what = "target, a Stream," if of_steps else "target"
            raise UsageError(
                f"row {row!r}: {self.name} needs outputs [{', '.join(names)}] with a {what} of the same items, got "
                f"outputs {shape} and {'a Stream' if steps else 'target'} {right}"
            )

    def of(
        self, outputs: Shaped[np.ndarray, "seeds items ..."], target: Shaped[np.ndarray, "items ..."]
    ) -> Float[np.ndarray, " seeds"]:
        """The metric of each seed; NaN where undefined (a correlation with a constant)."""
        if self.items is not None:
            return np.asarray(self.items(outputs, target), np.float64).mean(1)
        return self.resampled(outputs, target, np.ones((1, np.shape(outputs)[1])))[:, 0]

    def worth(
        self, outputs: Shaped[np.ndarray, "seeds items ..."], target: Shaped[np.ndarray, "items ..."]
    ) -> Float[np.ndarray, " seeds"]:
        """The metric of each seed, higher is better; ``chance`` where undefined."""
        return self.worth_of(self.of(outputs, target))

    def worth_of(self, values: Any) -> np.ndarray:
        """Values of the metric made finite and higher-is-better."""
        return self.sign * np.where(np.isfinite(values), values, self.chance)

    def per_item(
        self, outputs: Shaped[np.ndarray, "seeds items ..."], target: Shaped[np.ndarray, "items ..."]
    ) -> Float[np.ndarray, "seeds items"]:
        """Contribution of each item, higher is better: its score or, for a metric of the whole set, its pseudo-value.

        Pseudo-values are those of the jackknife (Tukey 1958), ``n V - (n - 1) V without the item``, shifted such that
        their mean is the metric; an item without which the metric is undefined contributes the metric.
        """
        if self.items is not None:
            return self.sign * np.asarray(self.items(outputs, target), np.float64)
        whole = self.of(outputs, target)
        without = np.stack([self._without(one, target) for one in np.asarray(outputs)])
        n = without.shape[1]
        change = np.where(np.isfinite(without), (n - 1) * (whole[:, None] - without), 0.0)
        return self.sign * (whole[:, None] + change - change.mean(1, keepdims=True))

    def resampled(
        self,
        outputs: Shaped[np.ndarray, "seeds items ..."],
        target: Shaped[np.ndarray, "items ..."],
        weight: Float[np.ndarray, "draws items"],
    ) -> Float[np.ndarray, "seeds draws"]:
        """The metric on resampled items, each ``weight`` times."""
        weight = np.asarray(weight, np.float64)
        if self.items is not None:
            return np.asarray(self.items(outputs, target), np.float64) @ weight.T / weight.sum(1)
        if self.statistic is not None:
            return np.stack([np.asarray(self.statistic(one, target, weight)) for one in np.asarray(outputs)])
        values = []
        for one in np.asarray(outputs):
            states = self.states(one, target)  # type: ignore[misc]
            values.append(self._in_blocks(lambda rows, s=states: weight[rows] @ s, len(weight), states.shape[1]))
        return np.stack(values)

    def pooled(
        self, versions: Sequence[np.ndarray], target: Any, weights: Sequence[Float[np.ndarray, "draws items"]]
    ) -> Float[np.ndarray, "seeds draws"]:
        """The metric over several versions of the same items at once, each item of a version ``weight`` times.

        States of an item are those within its version: a query's candidates are not those of the other versions.

        Args:
          versions: outputs ``[seeds, items, ...]`` each.
        """
        if self.states is None:
            repeated = jax.tree.map(lambda values: np.concatenate([values] * len(versions)), target)
            return self.resampled(np.concatenate(versions, axis=1), repeated, np.concatenate(weights, axis=1))
        values = []
        for of_seed in zip(*versions):
            parts = [weight @ self.states(one, target) for one, weight in zip(of_seed, weights)]
            values.append(np.asarray(self.value(sum(map(_dense, parts)))))  # type: ignore[misc]
        return np.stack(values)

    def _without(self, outputs: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The metric of one seed without each item in turn, ``[items]``."""
        n = len(outputs)
        if self.statistic is not None:
            step = max(1, _NUMBERS // n)
            parts = [1.0 - np.eye(n)[start : start + step] for start in range(0, n, step)]
            return np.concatenate([np.asarray(self.statistic(outputs, target, part)) for part in parts])
        states = self.states(outputs, target)  # type: ignore[misc]
        total = np.asarray(states.sum(0), np.float64).reshape(1, -1)
        return self._in_blocks(lambda rows: total - _dense(states[rows]), n, states.shape[1])

    def _in_blocks(self, sums: Callable[[slice], Any], rows: int, width: int) -> np.ndarray:
        step = max(1, _NUMBERS // max(width, 1))
        parts = [np.asarray(self.value(sums(slice(i, i + step)))) for i in range(0, rows, step)]  # type: ignore[misc]
        return np.concatenate(parts)


def _dense(states: Any) -> np.ndarray:
    return states.toarray() if hasattr(states, "toarray") else np.asarray(states)
