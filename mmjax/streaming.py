"""The streaming feed: one model trained on batches through Grain, over a mesh, that stops early and continues."""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mmjax.buckets import Bucketed
from mmjax.checkpoint import Checkpoints, export_params
from mmjax.checks import check_batch, describe_largest, vocabularies
from mmjax.data import (
    Records,
    Source,
    Transform,
    ordered_batches,
    read_ahead,
    size,
    steps_per_epoch,
    stream_batches,
)
from mmjax.environment import environment
from mmjax.errors import UsageError
from mmjax.files import read_json, write_json
from mmjax.objective import is_error
from mmjax.progress import MetricsLog, Progress
from mmjax.sharding import (
    check_divides,
    describe_split,
    make_mesh,
    put_batch,
)
from mmjax.stopping import StopSignals, armed
from mmjax.stream import Batch
from mmjax.streaming_programs import Programs, this_host
from mmjax.tasks import Task
from mmjax.training import (
    Train,
    TrainState,
    configured_fields,
)
from mmjax.typing import Key, Mapping, PyTree

__all__ = ["StreamingFit", "evaluate_streaming", "fit_streaming"]

# Batches from which mean and deviation of the scores are taken.
SAMPLE = 32


@dataclasses.dataclass(frozen=True)
class StreamingFit:
    """A trained model.

    Attributes:
      variables: those of the chosen epoch.
      epoch: the chosen epoch, counted from 0.
      epochs: how many were run.
      metrics: of the chosen epoch: ``validation/...``, and ``test/...`` where there is a test split.
    """

    variables: dict[str, PyTree]
    epoch: int
    epochs: int
    metrics: dict[str, float]


@dataclasses.dataclass
class _Best:
    """What is known at a checkpoint besides the state; JSON."""

    score: float | None = None
    epoch: int = -1
    step: int = -1
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)


def fit_streaming(
    model: nn.Module,
    task: Task,
    train: Train,
    splits: Mapping[str, Source],
    *,
    workdir: str | pathlib.Path,
    seed: int = 0,
    mesh: Mesh | None = None,
    patience: int | None = None,
    transforms: Sequence[Transform] = (),
    follow: Sequence[str] = (),
    checkpoint_every: int = 1000,
    log_every: int = 10,
    config: Mapping[str, Any] | None = None,
    terminal: Any = None,
) -> StreamingFit:
    """Trains one model on batches that stream through Grain and keeps the epoch that is best on validation.

    The same call continues a run that was killed, with the same batches; on the same devices its losses have the same
    bits. In ``workdir`` stand ``checkpoints/`` (the newest two and the best), ``metrics.jsonl``, ``tensorboard/``,
    ``config.json``, ``environment.json``, and at the end ``best.safetensors`` and ``result.json``.

    Args:
      model: ``(streams, *, targets, train) -> outputs``.
      task: its loss and metrics.
      train: optimiser, epochs, batch size, selection.
      splits: ``train``, ``validation`` and perhaps ``test`` (measured once, at the end). A ``Bucketed`` one has batches
        of the rows of its plan, whatever ``train.batch_size`` is, and compiles a step for each of its shapes.
      seed: of initialisation, order of the data and dropout.
      mesh: devices; None = all of them along ``data``.
      patience: epochs without a better validation score after which to stop; None = never.
      transforms: ``(batch, generator) -> batch``, on training batches in memory.
      follow: splits that are measured after every epoch, as validation is; they select nothing.
      checkpoint_every: steps between checkpoints; the end of an epoch always is one.
      log_every: steps between lines of training metrics.
      config: JSON data that identifies the run; a workdir of another run is refused.
      terminal: where progress goes; None = standard error.

    Raises:
      UsageError: data that ``mmjax.checks.check_batch`` refuses, naming split, stream and example; a batch that does
        not divide over the devices, a workdir of another run, a metric that the task does not have, an epoch in which a
        loss, a gradient or an output for held-out data was not finite.
      SystemExit: with 77 after SIGTERM or SIGUSR1, with 130 after Ctrl-C; the state is saved.
    """
    if missing := {"train", "validation", *follow} - set(splits):
        raise UsageError(
            f"fit_streaming needs the splits train and validation, and those it is to follow; there is no "
            f"{sorted(missing)[0]!r}"
        )
    for name, value in (("checkpoint_every", checkpoint_every), ("log_every", log_every)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    if patience is not None and patience < 1:
        raise UsageError(f"patience must be at least 1 epoch, or None, got {patience}")
    mesh = make_mesh() if mesh is None else mesh
    check_divides(train.batch_size, mesh)
    splits = {split: _checked(source, split, model, task) for split, source in splits.items()}
    workdir = pathlib.Path(workdir)
    _claim(workdir, _identity(train, splits, seed, patience, config))
    per_epoch = steps_per_epoch(splits["train"], train.update_size)
    total = train.epochs * per_epoch
    key = jax.random.key(seed)
    step_key = jax.random.fold_in(key, 2)
    sign = 1.0 if is_error(train.select, task.lower_is_better) else -1.0

    def batches(start: int) -> Iterator[Batch]:
        source = splits["train"]
        yield from stream_batches(
            source, train.update_size, seed=seed, start_step=start, steps=total, transforms=transforms, **this_host()
        )

    with Checkpoints(workdir / "checkpoints") as checkpoints, StopSignals() as signals, armed() as alive:
        sample = list(itertools.islice(batches(0), SAMPLE if hasattr(task, "fitted") else 1))
        programs = Programs(model, task, train, per_epoch, mesh, sample)
        state, start, best, finished = _resume(checkpoints, programs, key)
        first = jax.process_index() == 0
        terminal = terminal if first else io.StringIO()
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(MetricsLog(workdir, start, enabled=first))
            progress = stack.enter_context(Progress(total, start, stream=terminal))
            feed = read_ahead(iter(()) if finished else batches(start), lambda batch: put_batch(batch, mesh))
            stack.callback(feed.close)
            if line := describe_split(programs.like.params, mesh):
                progress.say(line)
            waiting: tuple[int, dict[str, Any]] | None = None

            def report() -> None:
                """Reads what the step before gave, while the next one runs."""
                nonlocal waiting
                if waiting is None:
                    return
                number, metrics = waiting[0], jax.device_get(waiting[1])
                waiting = None
                if number % log_every == 0 or number == 1:
                    log.write(number, {f"train/{name}": value for name, value in metrics.items()})
                progress.update(number, f"loss {float(metrics['loss']):.4f}")

            def save(step: int, *, finished: bool = False, score: float | None = None) -> None:
                report()  # what is logged never lags behind a checkpoint
                meta = {"best": dataclasses.asdict(best), "finished": finished, "per_epoch": per_epoch}
                checkpoints.save(step, state, meta, score=score)

            for step, batch in enumerate(feed, start + 1):
                alive()
                state, metrics = programs.step(state, batch, step_key)
                report()
                waiting = step, metrics
                stop = signals.poll(step)
                epoch, within = divmod(step, per_epoch)
                if within == 0:
                    report()
                    _check_finite(state, epoch, per_epoch, train, splits["train"])
                    scores = programs.evaluate(state.variables, "validation", splits["validation"], train.batch_size)
                    state = programs.after_epoch(state, scores)
                    scores = {f"validation/{name}": value for name, value in scores.items()}
                    followed = {
                        f"{split}/{name}": value
                        for split in follow
                        for name, value in programs.evaluate(
                            state.variables, split, splits[split], train.batch_size
                        ).items()
                    }
                    log.write(step, scores | followed)
                    score = sign * scores[f"validation/{train.select}"]
                    progress.say(f"epoch {epoch}/{train.epochs}, validation {train.select} {sign * score:.4f}")
                    if score < (np.inf if best.score is None else best.score):
                        best = _Best(score, epoch - 1, step, scores)
                    finished = step == total or (patience is not None and epoch - 1 - best.epoch >= patience)
                    save(step, finished=finished, score=score)
                    if finished:
                        break
                elif stop is not None or step % checkpoint_every == 0:
                    save(step)
                if stop is not None:
                    progress.say(f"stopped after step {step}; the same command continues")
                    raise SystemExit(stop)
            return _finish(checkpoints, programs, splits, train, best, workdir, per_epoch)


def _finish(
    checkpoints: Checkpoints,
    programs: Programs,
    splits: Mapping[str, Source],
    train: Train,
    best: _Best,
    workdir: pathlib.Path,
    per_epoch: int,
) -> StreamingFit:
    """Goes back to the chosen epoch, measures test once, and leaves parameters and result as files."""
    variables = _best_variables(checkpoints, programs, best.step)
    metrics = dict(best.metrics)
    if "test" in splits:
        scores = programs.evaluate(variables, "test", splits["test"], train.batch_size)
        metrics |= {f"test/{name}": value for name, value in scores.items()}
    epochs = checkpoints.steps[-1] // per_epoch
    whole = variables if jax.process_count() == 1 else multihost_utils.process_allgather(variables, tiled=True)
    if jax.process_index() == 0:
        export_params(workdir / "best.safetensors", whole)
    finite = {name: value if np.isfinite(value) else None for name, value in metrics.items()}
    _write(workdir / "result.json", {"epoch": best.epoch + 1, "epochs": epochs, "metrics": finite})
    return StreamingFit(variables, best.epoch, epochs, metrics)


def evaluate_streaming(
    model: nn.Module,
    task: Task,
    train: Train,
    source: Source,
    *,
    workdir: str | pathlib.Path,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """The metrics of a run's best checkpoint on a split.

    Raises:
      UsageError: no checkpoint in ``workdir``, or one of another model.
    """
    mesh = make_mesh() if mesh is None else mesh
    check_divides(train.batch_size, mesh)
    folder = pathlib.Path(workdir) / "checkpoints"
    if not folder.is_dir():
        raise UsageError(f"no run in {str(workdir)!r}: it has no folder checkpoints")
    source = _checked(source, "the split", model, task)
    with Checkpoints(folder, read_only=True) as checkpoints:
        sample = [next(ordered_batches(source, train.batch_size, **this_host()))]
        # The updates of an epoch tell which weights of losses are the last ones.
        per_epoch = (checkpoints.restore_meta(checkpoints.best_step) or {}).get("per_epoch", 1)
        programs = Programs(model, task, train, per_epoch, mesh, sample)
        return programs.evaluate(
            _best_variables(checkpoints, programs, checkpoints.best_step), "the split", source, train.batch_size
        )


def _best_variables(checkpoints: Checkpoints, programs: Programs, step: int | None) -> dict[str, PyTree]:
    restored = None if step is None or step < 0 else checkpoints.restore(programs.like, step)
    if restored is None:
        raise UsageError(
            f"no checkpoint in {checkpoints.directory} has a validation score that is a number: remove the folder and "
            "start again"
        )
    return restored[1].variables


def _resume(checkpoints: Checkpoints, programs: Programs, key: Key) -> tuple[TrainState, int, _Best, bool]:
    if (restored := checkpoints.restore(programs.like)) is None:
        return programs.init(jax.random.fold_in(key, 0)), 0, _Best(), False
    step, state = restored
    meta = checkpoints.restore_meta(step) or {}
    return state, step, _Best(**meta["best"]), meta["finished"]


def _check_finite(state: TrainState, epoch: int, per_epoch: int, train: Train, source: Source) -> None:
    if skipped := int(state.skipped):
        raise UsageError(
            f"loss or gradient is not finite in epoch {epoch} ({skipped} of {per_epoch} steps): lower "
            f"train.learning_rate={train.learning_rate} or set train.clip_norm"
            + (describe_largest(source) if isinstance(source, Batch) else "")
        )


def _checked(source: Source, split: str, model: nn.Module, task: Task) -> Source:
    """A batch in memory, checked; records that are checked when they are read."""
    arguments: dict[str, Any] = {"task": task, "vocabulary": vocabularies(model)}
    if isinstance(source, Bucketed):
        return dataclasses.replace(source, source=_checked(source.source, split, model, task))
    if isinstance(source, Records):
        return source.checked(functools.partial(check_batch, split, **arguments))
    return check_batch(split, source, **arguments)


def _identity(
    train: Train, splits: Mapping[str, Source], seed: int, patience: int | None, config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What makes a run this run, as far as it can be said in JSON; functions are the caller's to describe."""
    fields = {f"train.{name}": getattr(train, name) for name in configured_fields(train)}
    plain = {name: value for name, value in fields.items() if value is None or isinstance(value, (int, float, str))}
    weights = {f"train.loss_weights.{name}": weight for name, weight in train.loss_weights.items()}
    plain |= {name: float(weight) for name, weight in weights.items() if not callable(weight)}
    if train.augment is not None:
        plain["train.augment"] = getattr(train.augment, "__qualname__", type(train.augment).__name__)
    sizes: dict[str, Any] = {f"size of {name}": size(source) for name, source in splits.items()}
    plans = {name: source.plan for name, source in splits.items() if isinstance(source, Bucketed)}
    sizes |= {f"buckets of {name}": [list(plan.lengths), list(plan.rows)] for name, plan in plans.items()}
    return {**plain, **sizes, "seed": seed, "patience": patience, **(config or {})}


def _claim(workdir: pathlib.Path, identity: dict[str, Any]) -> None:
    """Writes what the run is, or checks that the run in ``workdir`` is the same.

    Raises:
      UsageError: it is another, naming what differs.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "config.json"
    if path.exists():
        there, here = read_json(path), json.loads(json.dumps(identity))
        there = there if isinstance(there, dict) else {}
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                raise UsageError(
                    f"{str(workdir)!r} holds a run with {name}={there.get(name)!r}, this one has {here.get(name)!r}: "
                    "choose another workdir or remove it"
                )
    _write(path, identity)
    _write(workdir / "environment.json", environment())


def _write(path: pathlib.Path, content: Any) -> None:
    if jax.process_index() == 0:
        write_json(path, content)
