"""Whether a row's model, task and data fit each other, found out from shapes before anything is compiled."""

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
from mmjax.tasks import Classification, Regression, Task, kept_logits, kept_outputs
from mmjax.training import Train, init_state, make_optimizer, make_train_step, predict_and_sow
from mmjax.typing import Key, PyTree

__all__ = ["abstract_variables", "check_model", "check_primary", "naming", "with_primary"]


@contextlib.contextmanager
def naming(row: str) -> Iterator[None]:
    """What a module, a library or the user's data have to say, in one line that names the row.

    Raises:
      UsageError: instead of a ``ValueError``, which names the value and what would be right.
    """
    try:
        yield
    except ValueError as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"row {row!r}: {said}") from error


def check_model(model: nn.Module, task: Task, train: Train, data: Dataset) -> None:
    """Passes if the model runs on the data and the task can measure what it gives.

    Raises:
      UsageError: a number of classes that is not the data's; a metric that the task does not have, or a weight of a
        loss that no module sows, listing those that there are; what jax says of the model's sizes.
      ValueError: what a module says of its fields or its streams.
    """
    _check_labels(task, data)
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a[:2].shape, jnp.result_type(a)), data.splits["train"])
    try:
        outputs, sown = jax.eval_shape(functools.partial(_forward, model, train), jax.random.key(0), batch)
    except TypeError as error:  # what jax says of a negative width; a mistake in a module's code may look the same
        said = str(error).partition("\n")[0]
        raise UsageError(f"{said} (MMJAX_TRACEBACK=1 shows where)") from error
    if (classes := data.card.num_classes) is not None:
        logits = jax.eval_shape(lambda x: kept_logits(task, kept_outputs(task, x)), outputs)
        given = {"task.num_classes": getattr(task, "num_classes", classes), "the head's logits": logits.shape[-1]}
        for name, number in given.items():
            if number != classes:
                raise UsageError(f"{data.card.name} has {classes} classes; {name}: {number}")
    known = [*jax.eval_shape(lambda o, b, s: compute({**task.metrics(o, b), **s}), outputs, batch, sown)]
    if train.select not in known:
        raise UsageError(f"train.select is {train.select!r}, no metric of the task; it has: {', '.join(known)}")
    if train.loss_weights:
        jax.eval_shape(functools.partial(_train, model, task, train), jax.random.key(0), batch)
    check_primary(task, data)


def with_primary(data: Dataset, task: Task) -> Dataset:
    """The data with a primary metric: where their card names none, the first of the task's scores.

    Raises:
      UsageError: neither names one.
    """
    if data.card.primary_metric:
        return data
    if not (named := getattr(task, "scores", ())):
        raise UsageError(f"{data.card.name} has no primary_metric, and {type(task).__name__} names no scores")
    return dataclasses.replace(data, card=dataclasses.replace(data.card, primary_metric=named[0]))


def check_primary(task: Task, data: Dataset) -> None:
    """Passes if the primary metric of the data is of outputs such as the task's.

    Raises:
      UsageError: it is not, or there is none of that name; the message lists those there are.
    """
    name = with_primary(data, task).card.primary_metric
    own = [score(one) for one in getattr(task, "scores", ())]
    if own and (name not in scores() or score(name).outputs != own[0].outputs):
        fitting = ", ".join(scores(own[0].outputs))
        raise UsageError(f"primary_metric of the data is {name!r}; of a {type(task).__name__} it is one of: {fitting}")
    score(name)


def _check_labels(task: Task, data: Dataset) -> None:
    """A task of classes has classes to learn, a regression scores; a report can show the metric of the data."""
    name, card = type(task).__name__, data.card
    kind = np.dtype(getattr(data.splits["train"].target, "dtype", object)).kind  # a caption has none
    if isinstance(task, Classification) and card.num_classes is None:
        raise UsageError(f"{card.name} has scores (numbers with a fraction), {name} learns classes: integers or names")
    if isinstance(task, Regression) and card.num_classes is not None and kind in "iu":
        raise UsageError(
            f"{card.name} has {card.num_classes} classes (integers), {name} learns scores: say scores=True to "
            "from_arrays, or task='scores' to from_table"
        )


def abstract_variables(model: nn.Module, data: Dataset) -> PyTree:
    """Shapes of a model's variables on these data; nothing is computed."""
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a[:2].shape, jnp.result_type(a)), data.splits["train"])
    tx = make_optimizer(Train(), 1)
    return jax.eval_shape(
        lambda k, b: init_state(model, tx, b.streams, k, targets=b.target).variables, jax.random.key(0), batch
    )


def _forward(model: nn.Module, train: Train, key: Key, batch: PyTree) -> PyTree:
    state = init_state(model, make_optimizer(train, 1), batch.streams, key, targets=batch.target)
    return predict_and_sow(model, state.variables, batch)


def _train(model: nn.Module, task: Task, train: Train, key: Key, batch: PyTree) -> PyTree:
    tx = make_optimizer(train, 1)
    state = init_state(model, tx, batch.streams, key, targets=batch.target, task=task)
    return make_train_step(model, task, tx, loss_weights=train.loss_weights)(state, batch, key)
