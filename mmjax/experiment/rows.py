"""One row over its seeds: compiles and trains a network, or fits another method, and makes the records of it."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.checkpoint import Checkpoints, export_params
from mmjax.datasets.base import Dataset
from mmjax.environment import environment
from mmjax.errors import UsageError
from mmjax.evaluation.measures.calibration import before_and_after
from mmjax.evaluation.measures.cost import count_params, count_program, fusion_params, shapes_of
from mmjax.evaluation.measures.mixing import Probe, equal_parts
from mmjax.evaluation.measures.robustness import presence
from mmjax.evaluation.scores import score
from mmjax.evaluation.store.records import RecordStore
from mmjax.evaluation.store.schema import HELD_OUT, Record, make_record
from mmjax.experiment.checks import check_model
from mmjax.experiment.data import Viewed, row_data
from mmjax.experiment.streaming_rows import check_streamable, fit_seeds
from mmjax.experiment.table import Member, Row, Table
from mmjax.experiment.trials import SEEDS, Search, describe_trials, fit_chosen, penalties, search_fit
from mmjax.metrics import compute
from mmjax.objective import is_error
from mmjax.placement import DeviceArrays
from mmjax.resident import Fit, Prepared, prepare
from mmjax.source_code import Definitions, code_digest
from mmjax.stream import Batch, by_index, by_row, select, target_items
from mmjax.tasks import Task, generates, kept_logits
from mmjax.training import Train, TrainState, init_state, make_optimizer, make_train_step, predict
from mmjax.typing import Mapping, PyTree

__all__ = ["Compiled", "Result", "Run", "Say", "compile_row", "make_records", "run_row"]

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """State of one call of ``run_table``, shared by its rows.

    Attributes:
      hashes: configuration of each row.
      part: whether the table is not run whole.
      lender: the whole of which this is a part, or a part of this, whose rows may be adopted.
      codes: what trains each row.
      measures: compiled metrics by task.
      viewed: data of rows, see ``row_data``.
      arrays: those data on the device.
      writing: seconds by row.
    """

    table: Table
    dataset: Dataset
    store: RecordStore
    hashes: Mapping[str, str]
    snapshot_seconds: float
    say: Say
    on_change: str = "ask"
    part: bool = False
    lender: RecordStore | None = None
    codes: Mapping[str, Definitions] = dataclasses.field(default_factory=dict)
    measures: dict[int, Callable] = dataclasses.field(default_factory=dict)
    viewed: Viewed = dataclasses.field(default_factory=dict)
    arrays: DeviceArrays = dataclasses.field(default_factory=DeviceArrays)
    writing: dict[str, float] = dataclasses.field(default_factory=dict)

    def measure(
        self, task: Task, logits: np.ndarray, batch: Batch, metrics: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """The task's metrics, its scores and the primary metric; compiled once a task, since eager operations take
        seconds.

        Args:
          logits: ``[items, ...]`` in the order of their index.
          metrics: of the task, from whole outputs; None = from the logits, unless the task keeps a part of its outputs,
            of which there are scores alone.
        """
        values, target = dict(metrics or {}), target_items(batch)
        if metrics is None and not _keeps_part(task):
            if id(task) not in self.measures:
                self.measures[id(task)] = jax.jit(lambda o, b: compute(task.metrics(o, b)))
            outputs = by_row(logits, batch.index)
            values = {k: float(v) for k, v in self.measures[id(task)](outputs, batch.replace(streams={})).items()}
        for name in {*getattr(task, "scores", ()), self.dataset.card.primary_metric} - set(values):
            values[name] = float(score(name).of(logits[None], target)[0])
        return values

    def seeds(self, row: Row) -> range:
        return range(row.seeds or self.table.seeds)

    def trials(self, row: Row) -> int:
        """Number of hyper-parameter settings that are tried."""
        return self.table.trials if row.trials is None else row.trials

    def snapshots(self, row: Row) -> pathlib.Path:
        """Folder of the snapshots of a row in progress, by configuration, code and number of seeds."""
        folder = self.store.workdir.absolute() / "checkpoints"
        return folder / f"running-{self.hashes[row.name]}-{self.code(row)}-{len(self.seeds(row))}"

    def code(self, row: Row) -> str:
        """Digest of the code that trains the row."""
        return code_digest(self.codes[row.name])


@dataclasses.dataclass
class Result:
    """Outcome of a row: logits by split ``[seeds, items, classes]`` and what belongs to them."""

    logits: dict[str, np.ndarray]
    timing: dict[str, Any]
    history: dict[str, np.ndarray] | None = None
    metrics: list[dict[str, dict[str, float]]] | None = None  # by seed and split, of whole outputs
    epoch: np.ndarray | None = None
    test_selected: np.ndarray | None = None
    cost: dict[str, Any] = dataclasses.field(default_factory=lambda: {"params": 0, "flops": None})
    selection_rule: str = "none: fixed hyper-parameters"
    search: Search | None = None
    files: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled network: the programs of its fit (None = on the streaming feed, which compiles seed by seed) and refit
    (None = no refit), its cost, and the settings to try.
    """

    first: Prepared | None
    refit: Prepared | None
    cost: dict[str, Any]
    trials: list[dict[str, float | None]]


def compile_row(run: Run, row: Row, data: Dataset) -> Compiled | None:
    """Checks and compiles a network; None for other methods. Trains nothing, so it is safe in a thread of its own."""
    if row.fit is not None:
        return None
    model, task, train = row.network, row.task or run.table.task, row.train or run.table.train
    check_model(model, task, train, data)
    count = run.trials(row)
    if run.table.streams_batches(row):
        check_streamable(train, count)
        return Compiled(None, None, _cost(model, task, train, data), [])
    make = functools.partial(prepare, model, task, train, search=count > 1, name=data.card.name, arrays=run.arrays)
    first = make(data.splits, run.seeds(row))
    refit = make(row_data(run.dataset, row, run.viewed, refit=True).splits, run.seeds(row)) if train.refit else None
    trials = describe_trials(count, model, train, data.splits["train"]) if count > 1 else []
    return Compiled(first, refit, _cost(model, task, train, data, first.state), trials)


def run_row(run: Run, row: Row, data: Dataset, network: Compiled | None, label: str) -> Result:
    """Trains the compiled network of a row, or fits its other method.

    Args:
      label: in front of each line of progress.

    Raises:
      UsageError: no finite validation score, or outputs of a fit that are not finite scores of all items.
    """
    if network is None:
        return _fit(run, row, data)
    if network.first is None:
        return _train_streaming(run, row, data, network, label)
    return _train(run, row, data, network, network.first, label)


def _train(run: Run, row: Row, data: Dataset, network: Compiled, prepared: Prepared, label: str) -> Result:
    task, train = row.task or run.table.task, row.train or run.table.train

    def once(prepared: Prepared, what: str, **arguments: Any) -> Fit:
        def on_epoch(number: int, metrics: dict[str, np.ndarray]) -> None:
            value = metrics[f"validation/{train.select}"].mean()
            progress = f"epoch {number + 1}/{train.epochs}, validation {train.select} {value:.4f}"
            run.say(f"{label}: {progress if what == 'fit' else f'{what}, {progress}'}\r")

        with Checkpoints(run.snapshots(row) / what.replace(" ", "-")) as snapshots:
            every = run.snapshot_seconds
            return prepared.run(on_epoch=on_epoch, snapshots=snapshots, snapshot_seconds=every, **arguments)

    search, of_trial = None, {}
    if network.trials:
        lower = is_error(train.select, task.lower_is_better)
        some = functools.partial(once, prepared)
        first, search, of_trial["trials"] = fit_chosen(prepared, network.trials, lower, some)
    else:
        first = once(prepared, "fit")
    fitted = first
    if (first.epoch < 0).any():
        raise UsageError(f"validation {train.select} was no number in any epoch of seed {int(np.argmin(first.epoch))}")
    if network.refit is not None:
        fitted = once(network.refit, "refit", stop_at=first.epoch, task_states=first.task_states, **of_trial)
    logits = {split: _held_out(row, task, data, split, fit) for split, fit in zip(HELD_OUT, (first, fitted))}
    params = _write_params(run, row, fitted.variables)
    runs = [first, fitted] if train.refit else [first]
    seconds = {f"{key}_seconds": sum(one.seconds[key] for one in runs) for key in ("compile", "train")}
    seconds |= {"search_seconds": search.seconds} if search else {}
    return Result(
        logits=logits,
        timing=seconds | {"step_ms": first.step_ms, "peak_mb": first.peak_mb, "mapped": fitted.mapped},
        history=first.history,
        metrics=_chosen_metrics(first.epoch, first.history, fitted.history) if _keeps_part(task) else None,
        epoch=first.epoch,
        test_selected=_test_selected(fitted.history, data),
        cost=network.cost,
        selection_rule=f"epoch of best validation {train.select}"
        + (", refit on train + validation" * train.refit)
        + (f"; {search.rule}" if search else ""),
        search=search,
        files=(params,),
    )


def _held_out(row: Row, task: Task, data: Dataset, split: str, fit: Fit) -> np.ndarray:
    """What the records keep of a split, ``[seeds, items, ...]``: the outputs of the chosen epoch, or what the chosen
    parameters say.
    """
    batch = data.splits[split]
    if not generates(task):
        kept = [np.asarray(kept_logits(task, one), np.float32) for one in _unstack(fit.outputs[split])]
        return np.stack([by_index(one, batch.index) for one in kept])
    chunk = equal_parts(batch.size)
    return Probe(row.network, task, fit.variables, chunk=chunk, tokenizers=data.tokenizers).outputs(batch)


def _train_streaming(run: Run, row: Row, data: Dataset, network: Compiled, label: str) -> Result:
    """Trains the seeds of a network one after the other; each resumes where it was killed."""
    task, train, folder = row.task or run.table.task, row.train or run.table.train, run.snapshots(row)
    say = lambda line: run.say(f"{label}: {line}\r")  # noqa: E731
    streamed = fit_seeds(row.network, task, train, data, run.seeds(row), folder=folder, say=say)
    history = streamed.history
    return Result(
        logits=streamed.logits,
        timing={"train_seconds": streamed.seconds, "mapped": "streaming"},
        history=history,
        metrics=_chosen_metrics(streamed.epoch, history, history) if _keeps_part(task) else None,
        epoch=streamed.epoch,
        test_selected=_test_selected(history, data),
        cost=network.cost,
        selection_rule=f"epoch of best validation {train.select}",
        files=(_write_params(run, row, streamed.variables),),
    )


def _write_params(run: Run, row: Row, variables: PyTree) -> str:
    """Writes the parameters of all seeds, without the records of earlier ones; the path in the work directory."""
    path = f"checkpoints/{run.hashes[row.name]}.safetensors"
    (run.store.workdir / path).parent.mkdir(parents=True, exist_ok=True)
    run.store.remove_records(row.name, [run.hashes[row.name]])
    export_params(run.store.workdir / path, variables)
    return path


def _test_selected(history: Mapping[str, np.ndarray], data: Dataset) -> np.ndarray | None:
    """The primary metric of each seed with the epoch chosen on test; None if it is not in the history."""
    primary = history.get(f"test/{data.card.primary_metric}")
    best = np.max if score(data.card.primary_metric).higher_is_better else np.min
    return None if primary is None else best(primary, axis=0)


def _chosen_metrics(
    epochs: np.ndarray, first: Mapping[str, np.ndarray], fitted: Mapping[str, np.ndarray]
) -> list[dict[str, dict[str, float]]]:
    """The task's metrics of the chosen epoch by seed and split: of validation from the fit, of test from its refit."""

    def of(split: str, history: Mapping[str, np.ndarray], epoch: int, seed: int) -> dict[str, float]:
        prefix = f"{split}/"
        return {k.removeprefix(prefix): float(v[epoch, seed]) for k, v in history.items() if k.startswith(prefix)}

    return [
        {"validation": of("validation", first, epoch, seed), "test": of("test", fitted, epoch, seed)}
        for seed, epoch in enumerate(epochs)
    ]


def _fit(run: Run, row: Row, data: Dataset) -> Result:
    members, seeds, store, task = run.table.pick(row.members), run.seeds(row), run.store, row.task or run.table.task

    def present(member: Row, batch: Batch) -> np.ndarray:
        return presence(batch.replace(streams=select(batch.streams, member.streams or data.streams)))

    there = {m.name: {k: present(m, data.splits[k]) for k in HELD_OUT} for m in members}
    stored = {m.name: {k: store.logits(m.name, k) for k in HELD_OUT} for m in members}

    def outputs_of(fit: Callable[..., Any], seed: int) -> Mapping[str, Any]:
        voters = {}
        for name, logits in stored.items():
            if seed not in (available := store.seeds(name)):
                raise UsageError(f"its member {name!r} has only the seeds {available}, not {seed}")
            voters[name] = Member.of_seed(logits, available, seed, there[name])
        return fit(data, seed, voters)

    fit, search, candidates = row.combination, None, penalties(row.combination, run.trials(row))
    if len(candidates) > 1:
        metric = run.dataset.card.primary_metric
        batch, few = data.splits["validation"], seeds[: SEEDS if row.varies else 1]

        def validation_score(scores: Any) -> float:
            return run.measure(task, np.asarray(scores, np.float32), batch)[metric]

        lower = not score(metric).higher_is_better
        search, fit = search_fit(candidates, outputs_of, validation_score, metric, lower, few)
    outputs: list[Mapping[str, Any]] = []
    for seed in seeds:
        outputs.append(outputs[0] if outputs and not row.varies else outputs_of(fit, seed))
    logits = {k: np.stack([np.asarray(one[k], np.float32) for one in outputs]) for k in HELD_OUT}
    for split, values in logits.items():
        items = int((np.asarray(data.splits[split].index) >= 0).sum())
        if values.shape[1] != items or not np.isfinite(values).all():
            raise UsageError(f"fit must give finite scores for {items} {split} items, got {values.shape[1:]}")
    rule = search.rule if search else Result.selection_rule
    return Result(logits=logits, timing={}, search=search, selection_rule=rule)


def _keeps_part(task: Task) -> bool:
    """Whether the task's metrics cannot be computed from what the records keep."""
    return hasattr(task, "keep") or generates(task)


def _unstack(outputs: PyTree) -> list[PyTree]:
    count = jax.tree.leaves(outputs)[0].shape[0]
    return [jax.tree.map(lambda x, i=i: x[i], outputs) for i in range(count)]


def _cost(model: nn.Module, task: Task, train: Train, data: Dataset, state: TrainState | None = None) -> dict[str, Any]:
    """Parameters, and FLOPs of one example: forward by formula and by XLA, its share of a training step by XLA.

    Args:
      state: shapes of what a seed begins with; None = they are traced.
    """
    batch, tx = data.splits["train"], make_optimizer(train, 1)
    size = min(train.batch_size, batch.size)
    some, one = shapes_of(batch, size), shapes_of(batch, 1)
    key = jax.eval_shape(jax.random.key, 0)
    if state is None:
        make = lambda b, key: init_state(model, tx, b.streams, key, targets=b.target, task=task)  # noqa: E731
        state = jax.eval_shape(make, some, key)
    forward = count_program(lambda variables, batch: predict(model, variables, batch), state.variables, one)
    step = count_program(
        make_train_step(model, task, tx, loss_weights=train.loss_weights, augment=train.augment), state, some, key
    )
    return {
        "params": count_params(state.params),
        "params_fusion": fusion_params(state.params),
        "flops": forward.formula,
        "flops_xla": forward.xla,
        "train_flops_xla": None if step.xla is None else step.xla / size,
    }


def make_records(run: Run, row: Row, result: Result) -> list[Record]:
    """A record per seed."""
    dataset, task = run.dataset, row.task or run.table.task
    source = {
        "name": dataset.card.name,
        "version": dataset.version,
        "sha256": dataset.sha256,
        "split_id": dataset.split_id,
        "n": int(dataset.splits["test"].size),
        "group": dataset.card.group,
    }
    method = {"name": row.name, "config_hash": run.hashes[row.name], "params": result.cost["params"], "trials": 1}
    method["code"] = run.code(row)
    method |= result.search.record() if result.search else {}
    env, truth = environment(), {split: run.store.targets(split)[0] for split in HELD_OUT}
    records = []
    for position, seed in enumerate(run.seeds(row)):
        of_task = result.metrics[position] if result.metrics else dict.fromkeys(HELD_OUT)
        metrics = {
            split: run.measure(task, result.logits[split][position], dataset.splits[split], of_task[split])
            for split in HELD_OUT
        }
        records.append(
            make_record(
                row=row.name,
                streams=row.streams or list(dataset.streams),
                dataset=source,
                method=method,
                seed=seed,
                selection_rule=result.selection_rule,
                epoch=None if result.epoch is None else result.epoch[position] + 1,
                test_selected=None if result.test_selected is None else result.test_selected[position],
                primary=dataset.card.primary_metric,
                metrics=metrics["test"],
                validation_metrics=metrics["validation"],
                cost=result.cost,
                env=env,
                notes=row.notes,
                data_fraction=run.table.fraction or 1.0,
                calibration=before_and_after(
                    {k: result.logits[k][position] for k in HELD_OUT}, truth, fitted=row.validation_scores == "fitted"
                )
                if score(dataset.card.primary_metric).outputs == "classes"
                else None,
            )
        )
    return records
