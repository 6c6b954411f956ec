"""Checks that the model, task and data of a row fit each other, from shapes alone, before anything is compiled."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.scores import score, scores
from mmjax.metrics import compute
from mmjax.stream import Batch
from mmjax.tasks import Classification, Regression, Task, kept_logits, kept_outputs
from mmjax.training import Train, init_state, make_optimizer, make_train_step, predict_and_sow
from mmjax.typing import Key, PyTree

__all__ = ["abstract_variables", "check_model", "check_primary", "naming", "some_shapes", "with_primary"]


@contextlib.contextmanager
def naming(row: str) -> Iterator[None]:
    """Turns a ``ValueError`` inside into one line that names the row.

    Raises:
      UsageError: in its place.
    """
    try:
        yield
    except ValueError as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"row {row!r}: {line}") from error


def check_model(model: nn.Module, task: Task, train: Train, data: Dataset) -> None:
    """Passes if the model runs on the data and the task has metrics of its outputs.

    Raises:
      UsageError: another number of classes than the data; a metric that the task lacks, or a weight of a loss that no
        module sows, listing the right ones; errors of jax about sizes.
      ValueError: from a module, about its fields or streams.
    """
    _check_labels(task, data)
    batch = some_shapes(data.splits["train"])
    try:
        outputs, sown = jax.eval_shape(functools.partial(_forward, model, train), jax.random.key(0), batch)
    except TypeError as error:  # jax on a negative width; a mistake in a module's code may look the same
        line = str(error).partition("\n")[0]
        raise UsageError(f"{line} (MMJAX_TRACEBACK=1 shows where)") from error
    if (classes := data.card.num_classes) is not None:
        logits = jax.eval_shape(lambda x: kept_logits(task, kept_outputs(task, x)), outputs)
        numbers = {"task.num_classes": getattr(task, "num_classes", classes), "the head's logits": logits.shape[-1]}
        for name, number in numbers.items():
            if number != classes:
                raise UsageError(f"{data.card.name} has {classes} classes; {name}: {number}")
    metrics = [*jax.eval_shape(lambda o, b, s: compute({**task.metrics(o, b), **s}), outputs, batch, sown)]
    if train.select not in metrics:
        raise UsageError(f"train.select is {train.select!r}, no metric of the task; it has: {', '.join(metrics)}")
    if train.loss_weights or train.augment:
        jax.eval_shape(functools.partial(_train, model, task, train), jax.random.key(0), batch)
    check_primary(task, data)


def with_primary(data: Dataset, task: Task) -> Dataset:
    """The data with a primary metric; where their card names none, the first of the task's scores.

    Raises:
      UsageError: neither names one.
    """
    if data.card.primary_metric:
        return data
    if not (named := getattr(task, "scores", ())):
        raise UsageError(f"{data.card.name} has no primary_metric, and {type(task).__name__} names no scores")
    return dataclasses.replace(data, card=dataclasses.replace(data.card, primary_metric=named[0]))


def check_primary(task: Task, data: Dataset) -> None:
    """Passes if the primary metric of the data fits the outputs of the task.

    Raises:
      UsageError: it does not, or its name is unknown; the message lists the right ones.
    """
    name = with_primary(data, task).card.primary_metric
    own = [score(one) for one in getattr(task, "scores", ())]
    if own and (name not in scores() or score(name).outputs != own[0].outputs):
        fitting = ", ".join(scores(own[0].outputs))
        raise UsageError(f"primary_metric of the data is {name!r}; of a {type(task).__name__} it is one of: {fitting}")
    score(name)


def _check_labels(task: Task, data: Dataset) -> None:
    """Passes if a task of classes has classes, and a regression scores."""
    name, card = type(task).__name__, data.card
    kind = np.dtype(getattr(data.splits["train"].target, "dtype", object)).kind  # a caption has none
    if isinstance(task, Classification) and card.num_classes is None:
        raise UsageError(f"{card.name} has scores (numbers with a fraction), {name} learns classes: integers or names")
    if isinstance(task, Regression) and card.num_classes is not None and kind in "iu":
        raise UsageError(
            f"{card.name} has {card.num_classes} classes (integers), {name} learns scores: say scores=True to "
            "from_arrays, or task='scores' to from_table"
        )


def some_shapes(batch: Batch) -> PyTree:
    """Shapes of two examples, in jax's dtypes."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x[:2].shape, jnp.result_type(x)), batch)


def abstract_variables(model: nn.Module, data: Dataset) -> PyTree:
    """Shapes of a model's variables on these data; nothing is computed."""
    init = functools.partial(_init, model, Train())
    return jax.eval_shape(init, jax.random.key(0), some_shapes(data.splits["train"]))


def _forward(model: nn.Module, train: Train, key: Key, batch: PyTree) -> PyTree:
    return predict_and_sow(model, _init(model, train, key, batch), batch)


def _init(model: nn.Module, train: Train, key: Key, batch: PyTree) -> PyTree:
    return init_state(model, make_optimizer(train, 1), batch.streams, key, targets=batch.target).variables


def _train(model: nn.Module, task: Task, train: Train, key: Key, batch: PyTree) -> PyTree:
    tx = make_optimizer(train, 1)
    state = init_state(model, tx, batch.streams, key, targets=batch.target, task=task)
    return make_train_step(model, task, tx, loss_weights=train.loss_weights, augment=train.augment)(state, batch, key)
