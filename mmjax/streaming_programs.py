"""The compiled programs of the streaming feed, over a mesh."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mmjax.buckets import Bucketed
from mmjax.checks import first_nonfinite
from mmjax.data import Source, ordered_batches
from mmjax.errors import UsageError
from mmjax.metrics import merge
from mmjax.objective import compute_losses, final_weights
from mmjax.sharding import gather, jit_step, put_batch, replicated, state_sharding
from mmjax.stream import Batch, known_target
from mmjax.tasks import Task, fit_task, next_task_state, target_moments
from mmjax.training import (
    Train,
    TrainState,
    compile_in_haste,
    init_state,
    make_optimizer,
    make_train_step,
    predict_and_sow,
    set_target_moments,
)
from mmjax.typing import Key, Mapping, PyTree

__all__ = ["Programs", "this_host"]


class Programs:
    """What is compiled for a model on a mesh: its first state, the train step, a step of evaluation.

    Mean and deviation of scores are those of the sample, as good as those of train.

    Args:
      per_epoch: updates of an epoch.
    """

    def __init__(self, model: nn.Module, task: Task, train: Train, per_epoch: int, mesh: Mesh, sample: Sequence[Batch]):
        self.mesh = mesh
        total_steps = train.epochs * per_epoch
        final = final_weights(train.loss_weights, total_steps)
        tx = make_optimizer(train, total_steps)
        self._sample = put_batch(sample[0], mesh)
        moments = target_moments(*sample)
        if jax.process_count() > 1:  # each holds other examples, and all must compile the same program
            mean, deviation = multihost_utils.broadcast_one_to_all(np.asarray(moments))
            moments = (mean, deviation) if np.ndim(mean) else (float(mean), float(deviation))
        task = fit_task(task, moments)

        make_step = functools.partial(
            make_train_step, model, task, tx, loss_weights=train.loss_weights, augment=train.augment
        )

        def init(key: Key, batch: Batch) -> TrainState:
            state = init_state(model, tx, batch.streams, key, targets=known_target(batch), task=task)
            state = set_target_moments(state, moments)
            if state.task is None:
                return state
            seen = jax.eval_shape(make_step(), state, batch, key)[1]
            return state.replace(seen=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), seen))

        shapes = jax.eval_shape(init, jax.random.key(0), self._sample)
        where = state_sharding(shapes, mesh)
        self.like = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, where)
        self._init = jax.jit(init, out_shardings=where, compiler_options=compile_in_haste())

        step = make_step(accumulate=train.accumulate)

        def step_and_compute(state: TrainState, batch: Batch, key: Key) -> tuple[TrainState, dict[str, Any]]:
            new, states = step(state, batch, key)
            if state.task is not None:
                begins = state.step % per_epoch == 0
                seen = jax.tree.map(lambda a, b: jnp.where(begins, a, b), states, merge(state.seen, states))
                new = new.replace(seen=seen)
            return new, compute_losses(states, final)

        self.step = jit_step(step_and_compute, mesh, shapes)

        def after_epoch(state: TrainState, validation: dict[str, Any]) -> PyTree:
            return next_task_state(task, state.task, compute_losses(state.seen, final), validation)

        self._after_epoch = jax.jit(after_epoch, out_shardings=where.task)

        def states_of(variables: PyTree, batch: Batch) -> tuple[dict[str, Any], Any]:
            outputs, sown = predict_and_sow(model, gather(variables, mesh), batch)
            return {**task.metrics(outputs, batch), **sown}, first_nonfinite(outputs, batch)

        self._states = jax.jit(states_of, out_shardings=replicated(mesh))
        self._merge = jax.jit(merge, out_shardings=replicated(mesh))
        self._compute = jax.jit(lambda states: compute_losses(states, final), out_shardings=replicated(mesh))
        metrics = jax.eval_shape(lambda v, b: compute_losses(states_of(v, b)[0], final), shapes.variables, self._sample)
        if train.select not in metrics:
            raise UsageError(f"train.select={train.select!r} is no metric of the task; it has: {', '.join(metrics)}")

    def init(self, key: Key) -> TrainState:
        """A fresh state, made where it lies."""
        return self._init(key, self._sample)

    def after_epoch(self, state: TrainState, validation: Mapping[str, float]) -> TrainState:
        """The state after an epoch that ended with these metrics: the task's own follows them."""
        if state.task is None:
            return state
        metrics = {name: np.float32(value) for name, value in validation.items()}
        return state.replace(task=self._after_epoch(state, metrics))

    def evaluate(self, variables: PyTree, split: str, source: Source, batch_size: int) -> dict[str, float]:
        """The metrics over a whole split.

        Raises:
          UsageError: it is empty; outputs that are not finite, naming the example.
        """
        total, broken, numbers = None, [], []
        for batch in ordered_batches(source, batch_size, **this_host()):
            states, first = self._states(variables, put_batch(batch, self.mesh))
            total = states if total is None else self._merge(total, states)
            broken.append(first)
            numbers.append(np.asarray(batch.index) if isinstance(source, Bucketed) else None)
        if total is None:
            raise UsageError(f"{split}: a split to evaluate on is empty")
        for number, (row, index) in enumerate(zip(jax.device_get(broken), numbers)):
            if row >= 0:
                example = number * batch_size + int(row) if index is None else index.reshape(len(index), -1)[row, 0]
                raise UsageError(
                    f"{split}: outputs for example {example} are not finite: lower "
                    "train.learning_rate, or see what is unusual about that example"
                )
        return {name: float(value) for name, value in jax.device_get(self._compute(total)).items()}


def this_host() -> dict[str, int]:
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}
