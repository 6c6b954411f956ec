"""The only train step. Both feeds call it: ``mmjax.resident`` (data on the device) and ``mmjax.streaming`` (Grain)."""

import contextlib
import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import FrozenDict

from mmjax.errors import UsageError
from mmjax.metrics import merge_stacked
from mmjax.objective import Weight, sown_losses, sown_states, total_loss
from mmjax.search import Trial, dropout_rate
from mmjax.stream import Batch, Stream, drop_rows, item_weight, known_target
from mmjax.tasks import TargetMoments, Task, init_task_state, task_loss
from mmjax.typing import Key, Mapping, PyTree

__all__ = [
    "Train",
    "TrainState",
    "compile_effort",
    "compile_in_haste",
    "configured_fields",
    "init_state",
    "make_optimizer",
    "make_train_step",
    "predict",
    "predict_and_sow",
    "set_target_moments",
    "warmup_cosine",
]

Schedule = Callable[[float, int], Any]
"""``(learning_rate, total_steps) -> learning rate or optax schedule``; steps are updates."""

Augment = Callable[[Batch, Key], Batch]
"""``(training batch, key) -> batch`` of the same shapes and dtypes, pure JAX."""

ADDED = {"added": True}
"""Marks a field that configurations from before do not have: see ``configured_fields``."""

NO_WEIGHTS: Mapping[str, Weight] = FrozenDict()
AUGMENT_KEY = 2**31 - 1  # folded into the key of a step; parts of a batch have the numbers from 0

# Sown by modules for one pass only: never part of the state.
TRANSIENT = ("losses", "intermediates")


@dataclasses.dataclass(frozen=True)
class Train:
    """How a model is trained; every field can be set from the command line.

    Schedule, clipping and selection default to the plainest, since none of them changed the accuracy on five small data
    sets by as much as the number of updates or label smoothing did (``benchmarks/recipes.md``): give small data epochs
    enough for 1,000 updates or more.

    Attributes:
      epochs: passes over the train split; every seed runs them all.
      batch_size: examples that pass through the model at once.
      learning_rate: peak learning rate.
      optimizer: ``learning_rate -> optax transformation``, e.g. ``functools.partial(optax.adamw, weight_decay=1e-2)``.
      schedule: ``(learning_rate, total_steps) -> optax schedule``; None = constant.
      clip_norm: largest global norm of the gradient; None = unbounded.
      accumulate: parts of ``batch_size`` examples that pass one after the other and make one update together; the
        update is that of one batch of their joined size (a loss over a batch sees one part, weighted by what it holds).
      loss_weights: of losses that modules sow, by the name they sow them under: a number, or an optax schedule of the
        update (the first one is 0); 1 where none is given (see ``mmjax.objective``). Those of a table are for its rows
        that sow the name.
      augment: ``(batch, key) -> batch`` of the same shapes and dtypes, pure JAX, on every training batch (all parts of
        an update together) and on nothing else; the key is that of seed and step. What a mask hides, and rows of weight
        0, may hold anything. Training metrics are those of the augmented batch. None = batches as they are.
      select: validation metric by which the epoch is chosen; ``loss`` holds the task's and every sown one at the weight
        of the last update.
      refit: train once more, on train and validation together, for the number of epochs found.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: Callable[..., optax.GradientTransformation] = functools.partial(optax.adamw, weight_decay=1e-2)
    schedule: Schedule | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    loss_weights: Mapping[str, Weight] = dataclasses.field(default=NO_WEIGHTS, metadata=ADDED)
    augment: Augment | None = dataclasses.field(default=None, metadata=ADDED)
    select: str = "loss"
    refit: bool = False

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UsageError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.learning_rate < math.inf:
            raise UsageError(f"train.learning_rate must be a number from 0 up, got {self.learning_rate}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError(f"train.clip_norm must be more than 0, or None, got {self.clip_norm}")
        for name, weight in self.loss_weights.items():
            if not callable(weight) and not (isinstance(weight, numbers.Real) and math.isfinite(weight)):
                raise UsageError(f"train.loss_weights[{name!r}] must be a number or a schedule, got {weight!r}")
        object.__setattr__(self, "loss_weights", FrozenDict(self.loss_weights))

    @property
    def update_size(self) -> int:
        """Examples per update."""
        return self.batch_size * self.accumulate


def warmup_cosine(learning_rate: float, total_steps: int, *, warmup: float = 0.1) -> optax.Schedule:
    """Linear warm-up over a share of the steps, then a cosine to 0."""
    rise = max(int(warmup * total_steps), 1)
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, rise, max(total_steps, rise + 1))


def make_optimizer(train: Train, total_steps: int, trial: Trial | None = None) -> optax.GradientTransformationExtraArgs:
    """The optax transformation that ``train`` describes; it may ask for ``outputs`` and ``batch``.

    Args:
      total_steps: number of updates.
      trial: of a search, traced values in place of those of ``train``; the state is of the same structure.
    """
    rate = train.schedule(train.learning_rate, total_steps) if train.schedule else train.learning_rate
    tx = train.optimizer(rate) if trial is None else trial.optimizer(train.optimizer)(trial.rate(rate))
    if train.clip_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(train.clip_norm), tx)
    return optax.with_extra_args_support(tx)


def compile_effort(level: int) -> dict[str, int]:
    """Compiler options: on a CPU, how much the code is optimised (0 compiles in a fifth of the time); else nothing."""
    return {"xla_backend_optimization_level": level} if jax.default_backend() == "cpu" else {}


def configured_fields(value: Any) -> list[str]:
    """Names of the fields of a dataclass that tell its configuration from another.

    A field that was added later (``metadata=ADDED``) is none of them while it has its default, so that a configuration
    which does not use it is the one of before.
    """
    return [
        field.name
        for field in dataclasses.fields(value)
        if not (field.metadata.get("added") and getattr(value, field.name) == field.default)
    ]


def compile_in_haste() -> dict[str, int | bool]:
    """Compiler options of a program that runs once, such as an initialisation: ``compile_effort(0)``, and fused
    operations by way of LLVM alone, not MLIR: 47 CPU seconds for 63 of 46 rows, and the same bits.
    """
    options: dict[str, int | bool] = {**compile_effort(0)}
    if options and _knows_emitters():
        options["xla_cpu_use_fusion_emitters"] = False
    return options


@functools.cache
def _knows_emitters() -> bool:
    """Whether this XLA still has the choice of emitters."""
    try:
        jax.jit(lambda: 0, compiler_options={"xla_cpu_use_fusion_emitters": False}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


class TrainState(flax.struct.PyTreeNode):
    """All that a step changes.

    Attributes:
      step: updates so far, int32.
      params: of the model.
      collections: its other state (batch statistics, hashes), by name of the collection.
      opt_state: of the optimiser.
      skipped: steps whose loss or gradient was not finite, int32; they are left out unless such a run is thrown away.
      task: state of the task, which its loss reads and ``after_epoch`` replaces; None of a task that has none.
      seen: metrics of the epoch so far, as mergeable states, where a feed must hold them for ``after_epoch``.
    """

    step: Any
    params: PyTree
    collections: dict[str, PyTree]
    opt_state: PyTree
    skipped: Any
    task: PyTree = None
    seen: PyTree = None

    @property
    def variables(self) -> dict[str, PyTree]:
        """What ``model.apply`` takes."""
        return {"params": self.params, **self.collections}


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    streams: Mapping[str, Stream],
    key: Key,
    *,
    targets: Any = None,
    task: Task | None = None,
) -> TrainState:
    """A fresh state; ``streams`` is a batch of the training data, made wholly present for the initialisation.

    Args:
      targets: of that batch, for a model that reads them in training (teacher forcing).
      task: whose own state stands in it too.
    """
    whole = {}
    for name, stream in streams.items():
        first = jnp.zeros_like(stream.mask).at[:, :1].set(True)
        absent = ~stream.present.reshape(-1, *(1,) * (stream.mask.ndim - 1))
        whole[name] = stream.zeroed.replace(mask=stream.mask | (first & absent))
    keys = dict(zip(("params", "dropout", "sample"), jax.random.split(key, 3)))
    variables = dict(model.init(keys, whole) if targets is None else model.init(keys, whole, targets=targets))
    params = variables.pop("params", {})
    collections = {name: value for name, value in variables.items() if name not in TRANSIENT}
    return TrainState(jnp.int32(0), params, collections, tx.init(params), jnp.int32(0), init_task_state(task))


def _split(batch: PyTree, parts: int) -> PyTree:
    """Parts ``[parts, rows, ...]`` of every ``parts``-th row: rows that count are shared out, and none moves to another
    device.
    """
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)


def _joined(x: Any) -> Any:
    """Undoes ``_split``."""
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])


def has_rows(function: Callable[..., PyTree], batch: Batch, *args: Any, shapes: PyTree = None) -> PyTree:
    """Which leaves of ``function(batch, *args)`` have one entry per row: a learned scale or matrix among them has none.

    A single leaf has; of several, those whose shape follows the number of rows.

    Args:
      shapes: of what it gives, where they are there already; None = they are traced.
    """

    def trace(rows: int) -> PyTree:
        some = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), batch)
        return jax.eval_shape(function, some, *args)

    some = trace(batch.size) if shapes is None else shapes
    if len(jax.tree.leaves(some)) == 1:
        return jax.tree.map(lambda _: True, some)
    return jax.tree.map(lambda a, b: a.shape != b.shape, some, trace(batch.size + 1))


def set_target_moments(state: TrainState, moments: TargetMoments) -> TrainState:
    """The state with mean and deviation of the training scores in the heads that give scores (``RegressionHead``).

    Raises:
      UsageError: a head of another number of scores than the target has.
    """
    values: dict[str, Any] = dict(zip(("mean", "deviation"), moments))

    def set_leaf(path: tuple[Any, ...], leaf: Any) -> Any:
        value = values[path[-1].key]
        if np.ndim(value) and np.shape(value) != leaf.shape:
            needed = f"the target has {len(value)} scores: MultiRegressionHead({len(value)}) gives as many"
            raise UsageError(f"a head gives scores of shape {leaf.shape}, {needed}")
        return jnp.full_like(leaf, value)

    if "target" not in state.collections:
        return state
    placed = jax.tree_util.tree_map_with_path(set_leaf, state.collections["target"])
    return state.replace(collections={**state.collections, "target": placed})


def _augmented(augment: Augment, batch: Batch, key: Key) -> Batch:
    """The augmented batch.

    Raises:
      UsageError: its form is not that of the batch, naming the first array that differs.
    """
    new = augment(batch, key)
    shapes = [
        {jax.tree_util.keystr(path): (jnp.shape(x), jnp.result_type(x)) for path, x in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (batch, new))
    ]
    if not isinstance(new, Batch) or shapes[0] != shapes[1]:
        names = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
        name = names[0] if names else "the batch"
        was, now = (f"{one[name][1]}{list(one[name][0])}" if name in one else "nothing" for one in shapes)
        raise UsageError(f"train.augment must keep shapes and dtypes: {name} is {was}, augmented {now}")
    return new


def make_train_step(
    model: nn.Module,
    task: Task,
    tx: optax.GradientTransformationExtraArgs,
    trial: Trial | None = None,
    *,
    accumulate: int = 1,
    loss_weights: Mapping[str, Weight] = NO_WEIGHTS,
    augment: Augment | None = None,
    skip: bool = True,
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, dict[str, Any]]]:
    """A pure step ``(state, batch, key) -> (state, metrics)``, one update; metrics are mergeable states.

    The step draws from ``fold_in(key, state.step)``. Rows of weight 0 are made wholly absent before the model sees
    them. A step whose loss or gradient is not finite changes nothing but the count ``state.skipped``. With a ``trial``
    dropout is at its rate; ``tx`` must be made for it.

    Args:
      skip: whether a step that is not finite changes nothing; else it is only counted, which is cheaper where the
        caller throws such a run away.
      accumulate: parts in which the batch passes through the model, one after the other; it must divide the rows. Sums
        of losses and of weights are taken over all of them and divided once.
      loss_weights: as in ``Train``.
      augment: as in ``Train``.

    Raises (when it is traced):
      UsageError: a loss of another shape than the items; a weight of a loss that no module sows; an augmented batch of
        another form.
    """

    def step(state: TrainState, batch: Batch, key: Key) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(key, state.step)
        if augment is not None:
            batch = _augmented(augment, batch, jax.random.fold_in(key, AUGMENT_KEY))
        whole = item_weight(batch)
        batch = batch.replace(target=known_target(batch))  # what stands in padding must reach no gradient

        def loss_of(params: PyTree, collections: PyTree, part: Batch, weight: Any, key: Key) -> Any:
            with contextlib.nullcontext() if trial is None else dropout_rate(trial.dropout_rate):
                outputs, changed = model.apply(
                    {"params": params, **collections},
                    drop_rows(part.streams, part.weight),
                    targets=part.target,
                    train=True,
                    rngs=dict(zip(("dropout", "sample"), jax.random.split(key))),
                    mutable=[*collections, "losses"],
                )
            updated = dict(changed)
            sown = sown_losses(updated.pop("losses", {}))
            loss = task_loss(task, outputs, part, state.task)
            loss = total_loss(loss, sown, loss_weights, state.step, weight, whole)
            return loss, (outputs, updated, {**task.metrics(outputs, part), **sown_states(sown, weight)})

        gradient = jax.value_and_grad(loss_of, has_aux=True)

        def add(carry: tuple, x: tuple) -> tuple:
            loss, grads, collections = carry
            part, number = x
            (more, (outputs, collections, states)), new = gradient(
                state.params, collections, part, item_weight(part), jax.random.fold_in(key, number)
            )
            return (loss + more, jax.tree.map(jnp.add, grads, new), collections), (outputs, states)

        if accumulate == 1:
            (loss, (outputs, collections, states)), grads = gradient(state.params, state.collections, batch, whole, key)
        else:
            start = jnp.float32(0), jax.tree.map(jnp.zeros_like, state.params), state.collections
            parts = _split(batch, accumulate), jnp.arange(accumulate)
            (loss, grads, collections), (outputs, states) = jax.lax.scan(add, start, parts)
            one = jax.tree.map(lambda x: x[0], parts[0])
            rows = has_rows(
                lambda part: loss_of(state.params, state.collections, part, item_weight(part), key)[1][0], one
            )
            outputs = jax.tree.map(lambda x, row: _joined(x) if row else x[-1], outputs, rows)
            states = merge_stacked(states)
        updates, opt_state = tx.update(grads, state.opt_state, state.params, outputs=outputs, batch=batch)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(params=params, collections=dict(collections), opt_state=opt_state)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state) if skip else new
        return kept.replace(step=state.step + 1, skipped=state.skipped + ~finite), states

    return step


def predict(model: nn.Module, variables: Mapping[str, PyTree], batch: Batch) -> Any:
    """The model's outputs for a batch, without dropout; rows of weight 0 are wholly absent.

    The model is given the targets, so that the loss of held-out captions is teacher-forced too; one that generates
    without them is called by itself.
    """
    streams = drop_rows(batch.streams, batch.weight)
    return model.apply(variables, streams, targets=known_target(batch), train=False)


def predict_and_sow(model: nn.Module, variables: Mapping[str, PyTree], batch: Batch) -> tuple[Any, dict[str, Any]]:
    """As ``predict``, and the losses that modules sow without training, as mergeable states under ``loss/NAME``."""
    streams = drop_rows(batch.streams, batch.weight)
    outputs, changed = model.apply(variables, streams, targets=known_target(batch), train=False, mutable=["losses"])
    return outputs, sown_states(sown_losses(changed.get("losses", {})), item_weight(batch))
