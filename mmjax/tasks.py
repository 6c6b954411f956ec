"""What is learned: ``loss(outputs, batch)`` per labelled item, and ``metrics(outputs, batch)`` as mergeable states."""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.checks import Problem, labels_problem, multilabel_problem, numbers_problem
from mmjax.errors import UsageError
from mmjax.losses import absolute_error, binary_cross_entropy, cross_entropy, squared_error
from mmjax.metrics import Confusion, LabelCounts, Mean, Moments, SeveralMoments
from mmjax.stream import Batch, Stream, item_weight, known_target
from mmjax.typing import Mapping, PyTree

__all__ = [
    "Classification",
    "MultiLabel",
    "MultiRegression",
    "Regression",
    "TargetMoments",
    "Task",
    "fit_task",
    "generates",
    "init_task_state",
    "item_weight",
    "kept_logits",
    "kept_outputs",
    "known_target",
    "next_task_state",
    "target_moments",
    "task_loss",
]


class Task(Protocol):
    """The contract; outputs are whatever the model gives.

    ``loss`` returns one value per labelled item, shaped as ``batch.index`` (``[batch]``, or ``[batch, length]`` for a
    label per step), or a scalar for a loss over a batch. An item with several answers (a vector of labels, the words of
    a caption) has one loss, their sum or mean, which the task takes itself. Weights are applied once, outside.

    A task may have a state, which follows how training goes (the weights of Gradient-Blend, Wang et al. 2020):
    ``init_state() -> pytree`` of arrays, given to its loss as ``loss(outputs, batch, state=state)``, and
    ``after_epoch(state, train_metrics, validation_metrics) -> state`` of the same shapes, pure and compiled: metrics
    are traced scalars by name, ``loss/NAME`` of modules among them. Every seed has its own; checkpoints hold it; a
    refit takes, epoch by epoch, the states of the fit that it repeats, since its validation is part of its train.
    Without these methods there is no state, and without ``after_epoch`` it stays as it was. Metrics do not read it, so
    that they mean the same in every epoch.

    Two further methods are optional. ``keep(outputs)`` gives the part of the outputs for held-out data that is kept,
    one array ``[*index.shape, ...]`` whose entry of an item is its logits in the records; what is large and belongs to
    no score is left out of it. Without it outputs are kept whole and ``logits(outputs)``, if there is such a method,
    reads the logits off them.

    A task that says sentences keeps none of the teacher-forced outputs, by which its loss is measured in every epoch.
    It has ``generate(model, variables, batch) -> pytree`` instead, pure and compiled, leaves ``[*index.shape, ...]``:
    asked once, of the chosen parameters, for held-out data, and again wherever the model is given other input; it must
    not read the target. ``spell(outputs, tokenizers) -> [*lead, hypotheses, 1 + bytes]`` then makes text of what it
    gave (``mmjax.hypotheses.pack``), on the host, with the tokenizers of the data set by stream.
    """

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of its metrics in ``mmjax.evaluation.scores``, the primary one of a table first: records hold them."""

    @property
    def lower_is_better(self) -> frozenset[str]:
        """Names of the metrics that are errors."""

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """The loss to be minimised."""

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Mergeable states of ``mmjax.metrics``, ``loss`` among them."""

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """What is wrong with the first item of NumPy arrays that is wrong, asked before training.

        Args:
          real: which items count, shaped as ``batch.index``.

        Raises:
          UsageError: the target is of another form altogether.
        """


TargetMoments = tuple[float, float] | tuple[np.ndarray, np.ndarray]
"""Mean and standard deviation of scores, floats; of several scores per item arrays ``[scores]``."""


def target_moments(*batches: Batch) -> TargetMoments:
    """Mean and standard deviation of the scores of batches, those of weight 0 left out; 0 and 1 where a target is none.

    Scores without spread have deviation 1.
    """
    if all(_has_several_scores(batch) for batch in batches):
        rows = [np.asarray(batch.target, np.float64)[np.asarray(item_weight(batch)) > 0] for batch in batches]
        several = np.concatenate(rows)
        if not several.size:
            return np.zeros(several.shape[1:]), np.ones(several.shape[1:])
        spread = several.std(0)
        return several.mean(0), np.where(spread > 0, spread, 1.0)
    if any(isinstance(batch.target, Stream) or np.shape(batch.target) != np.shape(batch.index) for batch in batches):
        return 0.0, 1.0
    parts = [np.asarray(batch.target, np.float64)[np.asarray(item_weight(batch)) > 0] for batch in batches]
    scores = np.concatenate(parts)
    deviation = float(scores.std()) if scores.size else 0.0
    return (float(scores.mean()) if scores.size else 0.0), (deviation if deviation > 0 else 1.0)


def _has_several_scores(batch: Batch) -> bool:
    """Whether the target is ``[*items, scores]`` of numbers with a fraction."""
    target = batch.target
    if isinstance(target, Stream) or getattr(getattr(target, "dtype", None), "kind", "") != "f":
        return False
    return np.shape(target)[:-1] == np.shape(batch.index)


def fit_task(task: Task, moments: TargetMoments) -> Task:
    """The task for training scores of this mean and deviation: ``task.fitted(moments)``, where it has such a method."""
    fitted = getattr(task, "fitted", None)
    return fitted(moments) if fitted else task


def init_task_state(task: Task | None) -> PyTree:
    """The first state of a task, as arrays; None of one that has none."""
    begin = getattr(task, "init_state", None)
    return None if begin is None else jax.tree.map(_strong, begin())


def task_loss(task: Task, outputs: Any, batch: Batch, state: PyTree) -> Any:
    """``task.loss``, which reads the state where there is one."""
    loss: Any = task.loss
    return loss(outputs, batch) if state is None else loss(outputs, batch, state=state)


def next_task_state(
    task: Task, state: PyTree, train_metrics: Mapping[str, Any], validation_metrics: Mapping[str, Any]
) -> PyTree:
    """The state of a task after an epoch.

    Args:
      train_metrics: of the epoch, by name (``loss``, ``accuracy``, ``loss/kl``).
      validation_metrics: likewise.

    Raises:
      UsageError: it has another structure, shapes or dtypes than before.
    """
    after = getattr(task, "after_epoch", None)
    if state is None or after is None:
        return state
    new = jax.tree.map(_strong, after(state, dict(train_metrics), dict(validation_metrics)))
    shapes = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree) for tree in (state, new)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"{type(task).__name__}.after_epoch must keep the state's shapes {shapes[0]}, got {shapes[1]}")
    return new


def _strong(leaf: Any) -> Any:
    """An array whose dtype no later operation changes: a Python number has none of its own."""
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def generates(task: Task) -> bool:
    """Whether what is kept of held-out data is said by ``task.generate``, not read off the outputs."""
    return hasattr(task, "generate")


def kept_outputs(task: Task, outputs: Any) -> Any:
    """What is kept of the outputs for held-out data: ``task.keep(outputs)``, where it has such a method, or all; of a
    task that generates nothing.
    """
    if generates(task):
        return ()
    keep = getattr(task, "keep", None)
    return keep(outputs) if keep else outputs


def kept_logits(task: Task, kept: Any) -> Any:
    """The logits in the records of what ``kept_outputs`` gave."""
    read = None if hasattr(task, "keep") else getattr(task, "logits", None)
    return read(kept) if read else kept


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy of one class per item.

    With ``unimodal_weight`` the model must have a ``unimodal_head``; the mean loss of the modalities present is added
    with that weight (auxiliary losses). With ``class_weights``, a number for each class, the loss of an item is
    multiplied by that of its class (rare classes count more); the metrics are not.
    """

    scores: ClassVar[tuple[str, ...]] = ("accuracy", "f1_macro", "f1_weighted")
    num_classes: int
    label_smoothing: float = 0.0
    unimodal_weight: float = 0.0
    lower_is_better: frozenset[str] = frozenset({"loss"})
    class_weights: tuple[float, ...] | None = dataclasses.field(default=None, metadata={"added": True})

    def __post_init__(self):
        weights = self.class_weights
        if weights is not None and (len(weights) != self.num_classes or not all(0 <= w < np.inf for w in weights)):
            raise UsageError(f"class_weights are {self.num_classes} numbers from 0 up, got {weights}")

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Nats per labelled item, times the weight of its class."""
        loss, target = self._loss(outputs, batch), known_target(batch)
        return loss if self.class_weights is None else loss * jnp.asarray(self.class_weights, jnp.float32)[target]

    def _loss(self, outputs: Any, batch: Batch) -> Any:
        logits = self.logits(outputs)
        target = known_target(batch)
        loss = cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        if not self.unimodal_weight:
            return loss
        if not isinstance(outputs, dict):
            raise ValueError("unimodal_weight needs a model with unimodal_head=..., its outputs are one array")
        present = jnp.stack([batch.streams[name].present for name in sorted(outputs["unimodal"])])
        alone = jnp.stack([cross_entropy(v, target) for _, v in sorted(outputs["unimodal"].items())])
        present = present.reshape(*present.shape, *(1,) * (alone.ndim - present.ndim))
        mean = jnp.where(present, alone, 0).sum(0) / jnp.maximum(present.sum(0), 1)
        return loss + self.unimodal_weight * mean

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Loss (without smoothing), accuracy and F1."""
        weight, logits = item_weight(batch), self.logits(outputs)
        target = known_target(batch)
        return {
            "loss": Mean.of(cross_entropy(logits, target), weight),
            "confusion": Confusion.of(logits, target, weight),
        }

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Labels are integers from 0 to ``num_classes - 1``."""
        return labels_problem(target, real, self.num_classes)

    @staticmethod
    def logits(outputs: Any) -> Any:
        """The fused logits of a model with or without unimodal heads."""
        return outputs["fused"] if isinstance(outputs, dict) else outputs


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Any number of labels per item: outputs ``[*items, num_classes]`` hold a logit of each, targets 0 or 1.

    A label is given where its logit is above 0.
    """

    scores: ClassVar[tuple[str, ...]] = (
        "labels_f1_micro",
        "labels_f1_macro",
        "labels_exact",
        "labels_auroc",
        "labels_map",
    )
    num_classes: int
    lower_is_better: frozenset[str] = frozenset({"loss"})

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Binary cross-entropy in nats, the mean over the labels of an item."""
        return binary_cross_entropy(self.logits(outputs), known_target(batch)).mean(-1)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Loss, F1 over all labels (micro) and by label (macro), and the share of items with every label right."""
        weight = item_weight(batch)
        return {
            "loss": Mean.of(self.loss(outputs, batch), weight),
            "labels": LabelCounts.of(self.logits(outputs), known_target(batch), weight),
        }

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Labels are 0 or 1, in an array with a last axis of ``num_classes``."""
        return multilabel_problem(target, real, self.num_classes)

    logits = staticmethod(Classification.logits)


@dataclasses.dataclass(frozen=True)
class Regression:
    """Squared error (or ``absolute=True``) of one score per item; outputs and metrics are in the units of the target.

    An item may have several scores, ``[*items, scores]``: loss, error and correlation are means over them.

    Attributes:
      absolute: whether the loss is the absolute error.
      scale: by which an error is divided in the loss that is trained, so that learning rates and clipping mean the same
        whatever the units are, one for each of several scores; None = the standard deviation of the scores of train (1
        without a training split).
    """

    scores: ClassVar[tuple[str, ...]] = ("mae", "pearson")
    absolute: bool = False
    scale: float | tuple[float, ...] | None = None
    lower_is_better: frozenset[str] = frozenset({"loss", "mae"})

    def fitted(self, moments: TargetMoments) -> "Regression":
        """The task with the deviation of the training scores as its scale."""
        deviation = moments[1]
        scale = tuple(deviation.tolist()) if isinstance(deviation, np.ndarray) else deviation
        return self if self.scale is not None else dataclasses.replace(self, scale=scale)

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Error per labelled item, in units of ``scale`` (squared: of its square); of several scores the mean."""
        power = 1 if self.absolute else 2
        if isinstance(self.scale, tuple):
            return self._error(outputs, batch, np.asarray(self.scale, np.float32) ** power)
        return self._error(outputs, batch) / (self.scale or 1.0) ** power

    def _error(self, outputs: Any, batch: Batch, unit: Any = None) -> Any:
        error = (absolute_error if self.absolute else squared_error)(outputs, batch.target)
        error = error if unit is None else error / unit
        return error.mean(-1) if error.ndim > batch.index.ndim else error

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Error (not divided by ``scale``), mean absolute error and Pearson's correlation."""
        weight = item_weight(batch)
        return {
            "loss": Mean.of(self._error(outputs, batch), weight),
            "moments": Moments.of(outputs, batch.target, weight),
        }

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Scores are finite."""
        return numbers_problem(target, real)


@dataclasses.dataclass(frozen=True)
class MultiRegression(Regression):
    """Several scores per item, ``[*items, scores]``, each with units of its own.

    The loss that is trained is the mean over the scores of the error in units of each one's deviation in train; that
    among the metrics is the mean of errors in the units of the target.
    """

    scores: ClassVar[tuple[str, ...]] = ("scores_r2", "scores_mae", "scores_pearson")
    lower_is_better: frozenset[str] = frozenset({"loss", "scores_mae"})

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Error (not divided by ``scale``), R², mean absolute error, Pearson's correlation: means over the scores."""
        weight = item_weight(batch)
        return {
            "loss": Mean.of(self._error(outputs, batch), weight),
            "moments": SeveralMoments.of(outputs, batch.target, weight),
        }

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Scores are finite, in an array with a last axis of them."""
        if np.ndim(target) != real.ndim + 1:
            raise UsageError(f"several scores must be [*{real.shape}, scores], got {np.shape(target)}")
        return numbers_problem(target, real)
