"""An epoch of the device-resident feed, for one seed: pure, traced once, mapped over seeds by ``mmjax.resident``."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.checks import first_nonfinite
from mmjax.metrics import merge_stacked
from mmjax.objective import compute_losses, final_weights, is_error
from mmjax.search import Trial
from mmjax.stream import Batch
from mmjax.tasks import Task, generates, kept_outputs, next_task_state
from mmjax.training import Train, TrainState, make_optimizer, make_train_step, predict_and_sow
from mmjax.typing import Key, Mapping, PyTree

__all__ = ["Best", "Carry", "make_epoch", "split_outputs", "update_rows"]

EVALUATION_BATCH = 512


class Best(flax.struct.PyTreeNode):
    """The epoch that selection has chosen so far, and what the model said then."""

    score: Any
    epoch: Any
    variables: PyTree
    outputs: PyTree


class Carry(flax.struct.PyTreeNode):
    """What one seed carries from epoch to epoch; ``broken``: by split the first example whose outputs were not finite,
    in the first epoch that had such, else -1.
    """

    state: TrainState
    best: Best
    broken: dict[str, Any]


def _rows(data: Batch, rows: Any, counts: Any) -> Batch:
    """The named rows; those that do not count get weight 0."""
    batch = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
    return batch.replace(weight=batch.weight * counts)


def split_outputs(outputs: PyTree, by_row: PyTree, start: int, size: int, lead: int = 0) -> PyTree:
    """The outputs of some rows; what has no rows (a learned scale) is whole."""
    place = (slice(None),) * lead + (slice(start, start + size),)
    return jax.tree.map(lambda x, row: x[place] if row else x, outputs, by_row)


def _in_batches(rows: Any, size: int) -> tuple[Any, Any]:
    """Row numbers ``[steps, size]`` and which of them count; the last batch is filled up with the first rows."""
    steps = math.ceil(rows.shape[0] / size)
    filled = rows[jnp.arange(steps * size) % rows.shape[0]]
    counts = (jnp.arange(steps * size) < rows.shape[0]).astype(jnp.float32)
    return filled.reshape(steps, size), counts.reshape(steps, size)


def _spans(groups: Sequence[int], size: int) -> tuple[Any, Any, list[slice]]:
    """Batches of rows that follow each other in groups, none of two: as ``_in_batches``, and those of each group."""
    starts = [0, *np.cumsum(groups).tolist()]
    parts = [_in_batches(jnp.arange(start, start + rows), size) for start, rows in zip(starts, groups)]
    rows, counts = (jnp.concatenate(some) for some in zip(*parts))
    ends = [0, *np.cumsum([len(part) for part, _ in parts]).tolist()]
    return rows, counts, [slice(*pair) for pair in itertools.pairwise(ends)]


def update_rows(train: Train, examples: int) -> int:
    """Rows of one update: all parts of it together, no more than there are examples, rounded up to whole parts."""
    return min(train.batch_size, math.ceil(examples / train.accumulate)) * train.accumulate


def make_epoch(
    model: nn.Module, task: Task, train: Train, total_steps: int, sizes: Mapping[str, int], by_row: PyTree, sows: bool
) -> Callable[..., tuple[Carry, dict[str, Any]]]:
    """One epoch of one seed: a scan over shuffled batches, then validation and test by one compiled forward pass.

    Args:
      by_row: which leaves of the outputs have an entry per row.
      sows: whether modules sow losses without training: then no batch holds rows of two splits, for a loss may be a
        statistic of the batch.
    """
    sign = 1.0 if is_error(train.select, task.lower_is_better) else -1.0
    final = final_weights(train.loss_weights, total_steps)

    def evaluate(variables: PyTree, held_out: Batch) -> tuple[PyTree, dict[str, dict[str, Any]], dict[str, Any]]:
        groups = list(sizes.values()) if sows else [held_out.size]
        rows, counts, spans = _spans(groups, min(EVALUATION_BATCH, max(groups)))
        outputs, sown = jax.lax.map(lambda x: predict_and_sow(model, variables, _rows(held_out, *x)), (rows, counts))

        def joined(x: Any) -> Any:
            return jnp.concatenate([x[span].reshape(-1, *x.shape[2:])[:size] for span, size in zip(spans, groups)])

        outputs = jax.tree.map(lambda x, row: joined(x) if row else x[0], outputs, by_row)
        metrics, broken, start = {}, {}, 0
        for place, (name, size) in enumerate(sizes.items()):
            items = jax.tree.map(lambda x: x[start : start + size], held_out)  # noqa: B023 (used at once)
            some = split_outputs(outputs, by_row, start, size), items
            losses = merge_stacked(jax.tree.map(lambda x: x[spans[place]], sown)) if sows else {}  # noqa: B023
            metrics[name] = compute_losses({**task.metrics(*some), **losses}, final)
            broken[name] = first_nonfinite(*some)
            start += size
        return outputs, metrics, broken

    def evaluate_in_batches(variables: PyTree, held_out: Batch) -> tuple[PyTree, dict[str, Any], dict[str, Any]]:
        """The same where outputs are too many to be kept (a logit of each word of each caption): metrics of batches."""
        rows, counts, spans = _spans(list(sizes.values()), min(train.batch_size, max(sizes.values())))

        def measured(x: Any) -> Any:
            batch = _rows(held_out, *x)
            outputs, sown = predict_and_sow(model, variables, batch)
            return {**task.metrics(outputs, batch), **sown}, first_nonfinite(outputs, batch)

        states, bad = jax.lax.map(measured, (rows, counts))
        metrics, broken = {}, {}
        for name, span in zip(sizes, spans):
            metrics[name] = compute_losses(merge_stacked(jax.tree.map(lambda x: x[span], states)), final)  # noqa: B023
            some = bad[span]
            number = jnp.argmax(some >= 0)
            broken[name] = jnp.where((some >= 0).any(), number * rows.shape[1] + some[number], -1).astype(jnp.int32)
        return (), metrics, broken

    measure = evaluate_in_batches if generates(task) else evaluate

    def epoch(
        carry: Carry, key: Key, order: Any, number: Any, stop_at: Any, trial: Trial | None, data: Batch, held_out: Batch
    ) -> tuple[Carry, dict[str, Any]]:
        tx = make_optimizer(train, total_steps, trial)
        step = make_train_step(
            model, task, tx, trial, accumulate=train.accumulate, loss_weights=train.loss_weights, augment=train.augment,
            skip=False,
        )  # fmt: skip
        batches = _in_batches(order, update_rows(train, data.size))
        step_key = jax.random.fold_in(key, 2)
        state, states = jax.lax.scan(lambda s, x: step(s, _rows(data, *x), step_key), carry.state, batches)
        seen = compute_losses(merge_stacked(states), final)
        outputs, held, broken = measure(state.variables, held_out)
        state = state.replace(task=next_task_state(task, state.task, seen, held["validation"]))
        splits = {**held, "train": seen}
        metrics = {f"{split}/{name}": value for split, some in splits.items() for name, value in some.items()}
        score = sign * metrics[f"validation/{train.select}"]
        score = jnp.where(jnp.isnan(score), jnp.inf, score)
        better = jnp.where(stop_at >= 0, number == stop_at, score < carry.best.score)
        candidate = Best(score, number, state.variables, kept_outputs(task, outputs))
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, carry.best)
        broken = jax.tree.map(lambda new, old: jnp.where(old >= 0, old, new), broken, carry.broken)
        return Carry(state, best, broken), metrics

    return epoch
