"""The device-resident feed: an epoch is one ``lax.scan``, and all seeds of a row train in one compiled program."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from mmjax.checks import check_splits, describe_largest
from mmjax.epoch import Best, Carry, make_epoch, split_outputs, update_rows
from mmjax.errors import UsageError
from mmjax.placement import DeviceArrays
from mmjax.search import Trial, draw_trials
from mmjax.sharding import shard_seeds
from mmjax.stream import Batch, known_target
from mmjax.tasks import Task, fit_task, kept_outputs, target_moments
from mmjax.training import (
    Train,
    TrainState,
    compile_effort,
    compile_in_haste,
    has_rows,
    init_state,
    make_optimizer,
    predict,
    predict_and_sow,
    set_target_moments,
)
from mmjax.typing import Key, Mapping, PyTree
from mmjax.watchdog import watchdog

__all__ = ["Fit", "Prepared", "Snapshots", "fit", "is_loopy", "map_seeds", "prepare"]

# The length of one epoch of all seeds is bounded by this; beyond it the machine hangs (see mmjax.watchdog).
WATCHDOG_SECONDS = 1800.0


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained row; arrays have a leading axis of seeds.

    Attributes:
      variables: those of the chosen epoch.
      outputs: ``{"validation": ..., "test": ...}`` of the chosen epoch: what the task keeps of them; of one that
        generates nothing, see ``mmjax.evaluation.measures.mixing.Probe.outputs``.
      epoch: the chosen epoch of each seed, counted from 0.
      history: ``{"train/loss": [epochs, seeds], "validation/accuracy": ..., "test/...": ...}``.
      diverged: ``[seeds]``, whether a loss, a gradient or an output for held-out data was not finite in any epoch.
      mapped: how seeds were mapped, ``vmap`` or ``map``.
      seconds: what the clock said: ``compile`` and ``train``.
      step_ms: time of one update of one seed: that of the median epoch, evaluation included, over its steps and seeds;
        None where no epoch was left to run.
      peak_mb: most memory that the program of an epoch holds at once, data and all seeds included, as XLA plans it;
        None where it does not say.
      task_states: those with which each epoch trained, ``[epochs, seeds, ...]``; None of a task without a state.
    """

    variables: PyTree
    outputs: dict[str, PyTree]
    epoch: np.ndarray
    history: dict[str, np.ndarray]
    diverged: np.ndarray
    mapped: str
    seconds: dict[str, float]
    step_ms: float | None
    peak_mb: float | None
    task_states: PyTree = None


class Snapshots(Protocol):
    """Where a run in progress is kept, so that a killed one continues (see ``mmjax.checkpoint``)."""

    def restore(self, like: PyTree) -> tuple[int, PyTree] | None:
        """The newest step and tree, or None."""

    def save(self, step: int, tree: PyTree) -> None:
        """Keeps the tree; called when enough time has passed."""


LOOPS = ("scan", "while", "conv_general_dilated")


def is_loopy(function: Callable, *args: Any) -> bool:
    """Whether a function scans, loops or convolves: on a CPU its seeds are mapped one after the other.

    That is faster there: a vmapped convolution takes 1.4 to 2.5 times as long, a vmapped recurrence somewhat longer.
    """
    return _uses(LOOPS, jax.make_jaxpr(function)(*args).jaxpr)


def _uses(primitives: Sequence[str], jaxpr: Any) -> bool:
    """Whether any of these stands anywhere in a jaxpr."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in primitives:
            return True
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns") and _uses(primitives, inner):
                return True
    return False


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A row whose programs are compiled; ``run`` trains it. Compiling may go on in another thread, training may not.

    Attributes:
      mapped: how seeds are mapped, ``vmap`` or ``map``.
      name: of the data set, to begin a message, or empty.
      by_row: which leaves of the kept outputs have an entry per row.
      searched: whether the programs take a trial of a search for each seed.
      state: shapes of what one seed begins with.
      compile_seconds: what the clock said of tracing and compiling.
      peak_mb: as in ``Fit``.
    """

    name: str
    train: Train
    seeds: tuple[int, ...]
    searched: bool
    sizes: Mapping[str, int]
    state: TrainState
    by_row: PyTree
    data: Batch
    held_out: Batch
    mapped: str
    begin: Any
    epoch: Any
    measured: tuple[str, ...]
    compile_seconds: float
    peak_mb: float | None

    def run(
        self,
        *,
        seeds: Sequence[int] | None = None,
        trials: Trial | None = None,
        strict: bool = True,
        stop_at: Sequence[int] | None = None,
        task_states: PyTree = None,
        snapshots: Snapshots | None = None,
        snapshot_seconds: float = 60.0,
        on_epoch: Callable[[int, dict[str, np.ndarray]], None] | None = None,
    ) -> Fit:
        """Trains all seeds; arguments and errors are those of ``fit``.

        Args:
          seeds: others, as many; None = those it was prepared for.
          trials: of programs that take them, ``[seeds]``; None = the given setting for every seed.
          strict: whether a loss, gradient or output that is not finite is an error; else ``Fit.diverged`` tells it.
          task_states: those of another run (``Fit.task_states``), with which each epoch trains instead of its own, as a
            refit needs.
        """
        named = self.seeds if seeds is None else tuple(seeds)
        keys = _keys(named)
        stops = jnp.asarray([-1] * len(named) if stop_at is None else stop_at, jnp.int32)
        if self.searched:
            given = draw_trials(1)
            trials = jax.tree.map(lambda x: np.repeat(x, len(named)), given) if trials is None else trials
        arguments = jax.tree.map(jnp.asarray, trials), self.data, self.held_out
        with watchdog(WATCHDOG_SECONDS):
            carry = shard_seeds(self.begin(keys), enabled=self.mapped == "vmap")
        history = {name: np.zeros((self.train.epochs, len(named)), np.float32) for name in self.measured}
        used = jax.tree.map(lambda x: np.zeros((self.train.epochs, *x.shape), x.dtype), carry.state.task)
        start = 0

        def tree() -> dict[str, PyTree]:
            has_state = {} if used is None else {"task_states": used}
            return {"carry": carry, "history": history, **has_state}

        if snapshots is not None and (kept := snapshots.restore(tree())) is not None:
            start, carry = kept[0], kept[1]["carry"]
            history = {name: np.array(value) for name, value in kept[1]["history"].items()}
            used = jax.tree.map(np.array, kept[1].get("task_states"))
        clocks = [saved := time.perf_counter()]
        for number in range(start, self.train.epochs):
            if jax.tree.leaves(task_states):
                given = jax.tree.map(lambda x: jnp.asarray(x[number]), task_states)  # noqa: B023 (used at once)
                given = shard_seeds(given, enabled=self.mapped == "vmap")
                carry = carry.replace(state=carry.state.replace(task=given))
            for kept_states, now in zip(jax.tree.leaves(used), jax.tree.leaves(carry.state.task)):
                kept_states[number] = now
            with watchdog(WATCHDOG_SECONDS):
                orders = draw_orders(keys, jnp.int32(number), self.data.size)
                carry, metrics = self.epoch(carry, keys, orders, jnp.int32(number), stops, *arguments)
                metrics, skipped, broken = jax.device_get((metrics, carry.state.skipped, carry.broken))
            if strict:
                self._check_finite(number, named, skipped, broken)
            for name, value in metrics.items():
                history[name][number] = value
            if on_epoch is not None:
                on_epoch(number, metrics)
            clocks.append(time.perf_counter())
            due = clocks[-1] - saved > snapshot_seconds and number + 1 < self.train.epochs
            if snapshots is not None and due:
                snapshots.save(number + 1, tree())
                saved = time.perf_counter()
        best, skipped, broken = jax.device_get((carry.best, carry.state.skipped, carry.broken))
        if strict and (best.epoch < 0).any():
            raise UsageError(
                f"{self.name}validation {self.train.select} was no number in any epoch of seed "
                f"{named[int(np.argmin(best.epoch))]}"
            )
        diverged = (skipped > 0) | np.any([rows >= 0 for rows in broken.values()], axis=0)
        seconds = {"compile": self.compile_seconds, "train": time.perf_counter() - clocks[0]}
        steps = len(named) * math.ceil(self.data.size / update_rows(self.train, self.data.size))
        step_ms = 1e3 * float(np.median(np.diff(clocks))) / steps if len(clocks) > 1 else None
        outputs, first = {}, 0
        for name, size in self.sizes.items():
            outputs[name] = split_outputs(best.outputs, self.by_row, first, size, lead=1)
            first += size
        clocked = self.mapped, seconds, step_ms, self.peak_mb
        return Fit(best.variables, outputs, best.epoch, history, diverged, *clocked, used)

    def _check_finite(
        self, number: int, seeds: Sequence[int], skipped: np.ndarray, broken: Mapping[str, np.ndarray]
    ) -> None:
        """Raises for the first seed whose steps or outputs are not finite."""
        if skipped.any():
            seed = seeds[int(np.argmax(skipped > 0))]
            raise UsageError(
                f"loss or gradient is not finite in epoch {number + 1} of seed {seed} ({int(skipped.max())} "
                f"steps): lower train.learning_rate={self.train.learning_rate} or set train.clip_norm"
                + describe_largest(self.data)
            )
        for split in self.sizes:
            if ((rows := broken[split]) >= 0).any():
                place = int(np.argmax(rows >= 0))
                raise UsageError(
                    f"{self.name}{split}: outputs for example {int(rows[place])} are not finite in epoch {number + 1} "
                    f"of seed {seeds[place]}: lower train.learning_rate={self.train.learning_rate}, or see what is "
                    "unusual about that example"
                )


def fit(
    model: nn.Module,
    task: Task,
    train: Train,
    splits: Mapping[str, Batch],
    seeds: Sequence[int],
    *,
    stop_at: Sequence[int] | None = None,
    mapped: str | None = None,
    snapshots: Snapshots | None = None,
    snapshot_seconds: float = 60.0,
    on_epoch: Callable[[int, dict[str, np.ndarray]], None] | None = None,
) -> Fit:
    """Trains all seeds of a row at once and keeps, per seed, the epoch that is best on validation.

    Args:
      model: ``(streams, *, targets, train) -> outputs``.
      task: its loss and metrics.
      train: optimiser, epochs, batch size, selection; ``refit`` is the caller's business (see ``stop_at``).
      splits: ``train``, ``validation`` and ``test``, whole. Test is measured every epoch and selects nothing.
      seeds: one model each: they vary initialisation, order of the data and dropout.
      stop_at: per seed the epoch to keep, instead of selection; as a refit on more data needs.
      mapped: ``vmap`` or ``map``; None chooses by model and device.
      snapshots: keeps the run every ``snapshot_seconds``, so that a killed one continues with the same bits.
      on_epoch: called with the epoch's number and its metrics ``[seeds]``.

    Raises:
      UsageError: data that ``mmjax.checks.check_batch`` refuses, naming split, stream and example; a metric that the
        task does not have; a loss, a gradient or outputs for held-out data that are not finite, naming seed and epoch.
    """
    prepared = prepare(model, task, train, splits, seeds, mapped=mapped)
    return prepared.run(stop_at=stop_at, snapshots=snapshots, snapshot_seconds=snapshot_seconds, on_epoch=on_epoch)


def prepare(
    model: nn.Module,
    task: Task,
    train: Train,
    splits: Mapping[str, Batch],
    seeds: Sequence[int],
    *,
    mapped: str | None = None,
    search: bool = False,
    name: str = "",
    arrays: DeviceArrays | None = None,
) -> Prepared:
    """Compiles what ``fit`` runs, and runs none of it; arguments and errors are those of ``fit``.

    Args:
      search: whether the programs take a ``Trial`` for each seed, so that trials of a search share them.
      name: of the data set, for messages.
      arrays: shared by rows that are prepared with the same data, so that the device holds them once.
    """
    clock = time.perf_counter()
    label = f"{name}: " if name else ""
    splits = check_splits(splits, name=name, model=model, task=task)
    moments = target_moments(splits["train"])
    task = fit_task(task, moments)
    arrays = DeviceArrays() if arrays is None else arrays
    data = arrays.place(splits["train"])
    sizes = {name: splits[name].size for name in ("validation", "test")}
    held_out = arrays.place(*(splits[name] for name in sizes))
    steps = math.ceil(data.size / update_rows(train, data.size))
    total_steps = steps * train.epochs
    tx = make_optimizer(train, total_steps)
    sample = jax.tree.map(lambda a: a[: train.batch_size], splits["train"])

    def make_state(key: Key) -> TrainState:
        first, targets = jax.random.fold_in(key, 0), known_target(sample)
        state = init_state(model, tx, sample.streams, first, targets=targets, task=task)
        return set_target_moments(state, moments)

    # Tracing a model takes as long as running a small one for an epoch, so each of both is traced once, and what is
    # asked of them is read off the trace.
    made, state = jax.make_jaxpr(make_state, return_shape=True)(jax.random.key(0))
    pass_on = functools.partial(predict_and_sow, model)
    passed, (outputs, sown) = jax.make_jaxpr(pass_on, return_shape=True)(state.variables, held_out)
    kept = jax.eval_shape(functools.partial(kept_outputs, task), outputs)
    by_row = has_rows(lambda batch, v: predict(model, v, batch), held_out, state.variables, shapes=outputs)
    keep = lambda batch, v: kept_outputs(task, predict(model, v, batch))  # noqa: E731
    kept_by_row = has_rows(keep, held_out, state.variables, shapes=kept)
    on_cpu = jax.default_backend() == "cpu"

    def begin(key: Key) -> Carry:
        new = jax.tree.unflatten(jax.tree.structure(state), jax.extend.core.jaxpr_as_fun(made)(key))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), kept)
        best = Best(jnp.float32(jnp.inf), jnp.int32(-1), new.variables, zeros)
        return Carry(new, best, {name: jnp.int32(-1) for name in sizes})

    keys = jax.eval_shape(_keys, jnp.asarray(seeds, jnp.uint32))
    stops = jax.ShapeDtypeStruct((len(seeds),), jnp.int32)
    if mapped is None:
        mapped = "map" if on_cpu and _uses(LOOPS, passed.jaxpr) else "vmap"
    over_seeds = map_seeds(mapped)
    # The QR of several matrices at once (orthogonal kernels of all seeds) waits for threads of XLA:CPU's pool while it
    # holds one: two of them at the same time on two cores wait for ever. So such seeds begin one after the other.
    alone = on_cpu and _uses(("qr",), made.jaxpr)
    begin_seeds = map_seeds("map" if alone else mapped)
    # On a CPU the code is optimised less: of the initialisation, which runs once, not at all (a fifth of the time), of
    # the epoch at level 1 (three quarters of the time to compile, the same to run).
    first = jax.jit(begin_seeds(begin), compiler_options=compile_in_haste()).lower(keys)
    like = shard_seeds(jax.eval_shape(begin_seeds(begin), keys), enabled=mapped == "vmap")
    epoch = make_epoch(model, task, train, total_steps, sizes, by_row, bool(sown))
    number, scalar = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((len(seeds),), jnp.float32)
    orders = jax.eval_shape(lambda keys, number: draw_orders(keys, number, data.size), keys, number)
    trials = Trial(scalar, scalar, scalar) if search else None
    try:
        lowered = jax.jit(
            lambda carry, keys, orders, number, stop_at, trials, data, held_out: over_seeds(
                lambda c, k, o, s, t: epoch(c, k, o, number, s, t, data, held_out)
            )(carry, keys, orders, stop_at, trials),
            donate_argnums=0,
            compiler_options=compile_effort(1),
        ).lower(like, keys, orders, number, stops, trials, data, held_out)
    except KeyError as error:
        raise UsageError(f"train.select={train.select!r} is no metric of the task ({error} is missing)") from None
    programs = first.compile(), lowered.compile()
    seconds = time.perf_counter() - clock
    peak = getattr(programs[1].memory_analysis(), "peak_memory_in_bytes", 0) / 2**20 or None
    names = tuple(lowered.out_info[1])
    fields = label, train, tuple(seeds), search, sizes, state, kept_by_row, data, held_out, mapped
    return Prepared(*fields, *programs, names, seconds, peak)


@functools.partial(jax.jit, static_argnums=2)
def draw_orders(keys: Key, number: Any, size: int) -> Any:
    """The order of ``size`` examples in an epoch, for each seed ``[seeds, size]``.

    A program of its own that all rows of a table share, since sorting is slow to compile on a CPU.
    """

    def order(key: Key) -> Any:
        return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 1), number), size).astype(jnp.int32)

    return jax.vmap(order)(keys)


def _keys(seeds: Any) -> Key:
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def map_seeds(how: str) -> Callable[[Callable], Callable]:
    """Maps a function over the leading axis of its arguments: ``vmap`` = all seeds in one batched program; ``map`` =
    one seed after the other, inside one program.
    """
    return jax.vmap if how == "vmap" else _map


def _map(function: Callable) -> Callable:
    return lambda *args: jax.lax.map(lambda x: function(*x), args)
