"""Runs a table: every row over its seeds, records on disk, the report at the end. Killed, the same call continues."""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np

from mmjax.checkpoint import Checkpoints, export_params
from mmjax.datasets.base import Dataset
from mmjax.environment import device, environment
from mmjax.errors import UsageError
from mmjax.evaluation.measures.calibration import before_and_after
from mmjax.evaluation.measures.cost import count_params, count_program, fusion_params, shapes_of
from mmjax.evaluation.measures.robustness import presence
from mmjax.evaluation.report.summary import summarise
from mmjax.evaluation.report.write import write_report
from mmjax.evaluation.scores import score
from mmjax.evaluation.store.records import WHOLE_TABLE, RecordStore
from mmjax.evaluation.store.schema import HELD_OUT, Record, make_record
from mmjax.experiment import folds
from mmjax.experiment.analyses import Measure, analyse, changed_measures
from mmjax.experiment.background import ahead
from mmjax.experiment.baselines import check_fits, with_baselines
from mmjax.experiment.changes import changed_rows, check_choice, refuse, training_code
from mmjax.experiment.checks import abstract_variables, check_model, naming, with_primary
from mmjax.experiment.console import Lines
from mmjax.experiment.controls import control_rows
from mmjax.experiment.data import load_raw, row_data, viewed
from mmjax.experiment.equal_parameters import resolve
from mmjax.experiment.identity import config_hash, table_config
from mmjax.experiment.parts import PART, is_part, lender_of
from mmjax.experiment.streaming_rows import check_streamable, fit_seeds
from mmjax.experiment.table import Member, Row, Table
from mmjax.experiment.trials import SEEDS, Search, describe_trials, fit_chosen, penalties, search_fit
from mmjax.experiment.workdir import claim
from mmjax.metrics import compute
from mmjax.objective import is_error
from mmjax.placement import DeviceArrays
from mmjax.resident import Fit, Prepared, prepare
from mmjax.sharding import seed_devices
from mmjax.source_code import Definitions, code_digest
from mmjax.stream import Batch, by_index, by_row, select, target_items
from mmjax.tasks import Task, kept_logits
from mmjax.training import Train, init_state, make_optimizer, make_train_step, predict
from mmjax.typing import Mapping, PyTree

__all__ = ["run_table", "smoke"]

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the rows of one call share."""

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
    viewed: dict[tuple[int, bool], Dataset] = dataclasses.field(default_factory=dict)
    arrays: DeviceArrays = dataclasses.field(default_factory=DeviceArrays)
    writing: dict[str, float] = dataclasses.field(default_factory=dict)

    def measure(
        self, task: Task, logits: np.ndarray, batch: Batch, seen: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """The task's metrics, compiled once a task (one operation at a time takes seconds), its scores, and the primary
        metric.

        Args:
          logits: ``[items, ...]`` in the order of their index.
          seen: the task's metrics, measured of whole outputs; None = of the logits, which a task that keeps a part of
            its outputs need not be able to do: of it there are scores alone.
        """
        found, truth = dict(seen or {}), target_items(batch)
        if seen is None and not hasattr(task, "keep"):
            if id(task) not in self.measures:
                self.measures[id(task)] = jax.jit(lambda o, b: compute(task.metrics(o, b)))
            outputs = by_row(logits, batch.index)
            found = {k: float(v) for k, v in self.measures[id(task)](outputs, batch.replace(streams={})).items()}
        for name in {*getattr(task, "scores", ()), self.dataset.card.primary_metric} - set(found):
            found[name] = float(score(name).of(logits[None], truth)[0])
        return found

    def seeds(self, row: Row) -> range:
        return range(row.seeds or self.table.seeds)

    def trials(self, row: Row) -> int:
        """Settings among which that of the row is chosen."""
        return self.table.trials if row.trials is None else row.trials

    def snapshots(self, row: Row) -> pathlib.Path:
        """Where a row in progress is kept; another number of seeds, or other code, is another row."""
        folder = self.store.workdir.absolute() / "checkpoints"
        return folder / f"running-{self.hashes[row.name]}-{self.code(row)}-{len(self.seeds(row))}"

    def code(self, row: Row) -> str:
        """Digest of the code that trains the row."""
        return code_digest(self.codes[row.name])


def run_table(
    table: Table,
    *,
    name: str = "table",
    workdir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    cache_dir: str | pathlib.Path | None = None,
    rows: Sequence[str] | None = None,
    measure: Measure | None = None,
    on_change: str = "ask",
    force: bool = False,
    snapshot_seconds: float = 60.0,
    say: Say | None = None,
) -> str:
    """Trains and evaluates the rows that are not there yet, writes the report, and returns it as text.

    Args:
      table: what to run.
      name: of the table, in the records.
      workdir: where records, report, plots and checkpoints go; default ``runs/NAME``, of all folds ``runs/NAME-folds``.
      data_dir: folder of the source files, only ever read.
      cache_dir: where what is prepared from them is kept.
      rows: names of the rows to run; None = all but the extra ones, and the controls that follow from their scores.
      measure: what is measured of trained rows beyond their scores; None = the default of ``Measure``.
      on_change: what to do with stored results that other code has made: ``ask`` stops and says what differs, ``keep``
        uses them as they are, ``again`` makes them anew.
      force: whether a run of some rows, or of fewer seeds, may take the place of a finished table; else it is written
        beside it, in the folder ``part``.
      snapshot_seconds: how often a row in progress is kept.
      say: takes a line of progress; None = the standard error stream.

    Raises:
      UsageError: a wrong name, value, file or loss, in one line; results of other code, with ``ask``.
    """
    check_choice(on_change)
    say = Lines() if say is None else say
    folders = {"data_dir": data_dir, "cache_dir": cache_dir}
    pooled = folds.is_pooled(table)
    workdir = pathlib.Path(workdir or pathlib.Path("runs") / (f"{name}-folds" if pooled else name))
    table.chosen(rows)  # an unknown name is said before anything is read
    if pooled:
        options = {"rows": rows, "measure": measure, "snapshot_seconds": snapshot_seconds, "say": say, **folders}
        options |= {"on_change": on_change, "force": force}
        with claim(workdir, {"table": name, "row": None, "folds": list(table.folds), "measured": None}):
            return folds.run_folds(run_table, table, name, workdir, **options)
    raw = load_raw(table, **folders)
    dataset = with_primary(viewed(table, raw), table.task)
    table = with_baselines(table, dataset)
    chosen = table.chosen(rows)
    check_fits(chosen, dataset)
    owner = {"table": name, "row": None, "folds": None, "measured": None}
    with contextlib.ExitStack() as stack:
        stack.enter_context(claim(workdir, owner))
        say(f"{name}: {_sizes(dataset)}; {len(chosen)} rows, {table.seeds} seeds, on {device()}{_spread(table.seeds)}")
        if not force and is_part(workdir, rows, table.seeds):
            say(f"the finished table in {workdir} stays as it is; this part of it goes to {workdir / PART}")
            workdir = workdir / PART
            stack.enter_context(claim(workdir, owner))
        store = RecordStore(workdir)
        part = rows is not None or workdir.name == PART
        run = _Run(table, dataset, store, {}, snapshot_seconds, say, on_change, part, lender_of(workdir))
        run = _finish_rows(run, name, table, [row.name for row in chosen])
        if rows is None:  # which rows the controls are for follows from the scores of all others
            added = control_rows(run.table, summarise(workdir))
            whole = dataclasses.replace(run.table, rows=[*run.table.rows, *added])
            run = _finish_rows(run, name, whole, [row.name for row in added])
        clock, of = time.perf_counter(), measure or Measure()
        measured = analyse(run.table, raw, dataset, store, run.hashes, measure=of, on_change=on_change, say=say)
        before_writing = time.perf_counter()
        text = write_report(workdir)
        written = time.perf_counter() - before_writing + sum(run.writing.values())
        seconds = {row: {"measure_seconds": measured.get(row, 0.0)} for row in run.hashes}
        for row, value in run.writing.items():
            seconds[row]["write_seconds"] = value
        passed = {"measure_seconds": before_writing - clock, "write_seconds": written}
        store.add_timing({**seconds, WHOLE_TABLE: passed})
        say(f"written: {workdir / 'report.html'}, table.md, table.json, records.jsonl")
        return text


def _finish_rows(run: _Run, name: str, table: Table, names: Sequence[str]) -> _Run:
    """Runs the named rows of the table that are not there yet."""
    table = dataclasses.replace(table, rows=[resolve(row, table, run.dataset, run.viewed) for row in table.rows])
    hashes = {row.name: config_hash(table, row, run.dataset) for row in table.rows}
    codes = {row.name: training_code(table, row) for row in table.rows}
    run = dataclasses.replace(run, table=table, hashes=hashes, codes=codes)
    _adopt(run, names)
    changed = _changed(run, names)
    run.store.write_targets({split: _targets(run.dataset.splits[split]) for split in HELD_OUT})
    run.store.write_config(table_config(name, table, run.dataset, hashes) | ({"part": True} if run.part else {}))
    missing = []
    for number, row in enumerate((row for name in names for row in table.pick([name])), 1):
        label = f"[{number:2d}/{len(names)}] {row.name}"
        done = run.store.done(row.name, hashes[row.name], run.seeds(row))
        if done and (row.name not in changed or run.on_change == "keep"):
            run.say(f"{label}: done before{', by other code' if row.name in changed else ''}")
        else:
            if (damage := run.store.row_damage(row.name)) is not None:
                run.say(f"{label}: {damage}; made again")
            with naming(row.name):
                missing.append((label, row, row_data(run.dataset, row, run.viewed)))
    with contextlib.closing(ahead(lambda one: _prepare(run, *one[1:]), missing)) as coming:
        for (label, row, data), prepared in coming:
            _finish_row(run, row, data, prepared, label)
    return run


def _adopt(run: _Run, names: Sequence[str]) -> None:
    """Takes over rows that stand in the whole of which this is a part, or in a part of this whole."""
    if run.lender is None:
        return
    for row in run.table.pick(names):
        wanted = row.name, run.hashes[row.name], run.seeds(row)
        if not run.store.done(*wanted) and run.lender.done(*wanted):
            run.store.adopt(run.lender, row.name)


def _changed(run: _Run, names: Sequence[str]) -> dict[str, list[str]]:
    """The named rows that are there and that other code has trained."""
    rows = [row for row in run.table.rows if row.name in set(names)]
    there = [row.name for row in rows if run.store.done(row.name, run.hashes[row.name], run.seeds(row))]
    changed = changed_rows(run.store, run.codes, there)
    if changed and run.on_change == "ask":
        refuse(changed, "trained")
    measured = changed_measures(run.store, [name for name in there if name not in changed])
    if measured and run.on_change == "ask":
        refuse(measured, "measured")
    return changed


def _finish_row(run: _Run, row: Row, data: Dataset, prepared: Callable[[], "_Prepared | None"], label: str) -> None:
    clock = time.perf_counter()
    with naming(row.name):
        network = prepared()
        if network is None:
            result = _run_fit(run, row, data)
        elif network.first is None:
            result = _run_streaming(run, row, data, network, label)
        else:
            result = _run_network(run, row, data, network, label)
    result.timing["total_seconds"] = seconds = time.perf_counter() - clock
    clock = time.perf_counter()
    records = _records(run, row, result)
    run.store.write_code(run.code(row), run.codes[row.name])
    run.store.write_row(row.name, records, result.logits, result.timing, result.history, result.files)
    shutil.rmtree(run.snapshots(row), ignore_errors=True)
    run.writing[row.name] = time.perf_counter() - clock
    primary = run.dataset.card.primary_metric
    mean = np.mean([record["metrics"][primary] for record in records])
    run.say(f"{label}: {primary} {mean:.4f} in {seconds:.1f} s")


def smoke(table: Table) -> Table:
    """The same table made tiny: two seeds, two epochs, few examples; it shows that everything runs, nothing else."""
    short: dict[str, Any] = {"epochs": 2, "batch_size": 16}
    rows = [
        dataclasses.replace(row, seeds=None, train=row.train and dataclasses.replace(row.train, **short))
        for row in table.rows
    ]
    train = dataclasses.replace(table.train, **short)
    small: dict[str, Any] = {"seeds": 2, "limit": 64, "trials": min(table.trials, 2)}
    return dataclasses.replace(table, rows=rows, train=train, note="Smoke run: no result.", **small)


@dataclasses.dataclass
class _Result:
    """What running a row gives: logits by split ``[seeds, items, classes]`` and what goes with them."""

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
class _Prepared:
    """The compiled programs of a network: of its fit (None = on the streaming feed, which compiles seed by seed), of
    its refit if it has one; what it costs; the trials, if any.
    """

    first: Prepared | None
    refit: Prepared | None
    cost: dict[str, Any]
    trials: list[dict[str, float | None]]


def _prepare(run: _Run, row: Row, data: Dataset) -> _Prepared | None:
    """Checks and compiles a network; None for a method that is none. Runs nothing, so that it may run ahead."""
    if row.fit is not None:
        return None
    model, task, train = row.network, row.task or run.table.task, row.train or run.table.train
    check_model(model, task, train, data)
    count = run.trials(row)
    if run.table.streams_batches(row):
        check_streamable(train, count)
        return _Prepared(None, None, _cost(model, task, train, data), [])
    make = functools.partial(prepare, model, task, train, search=count > 1, name=data.card.name, arrays=run.arrays)
    first = make(data.splits, run.seeds(row))
    refit = make(row_data(run.dataset, row, run.viewed, refit=True).splits, run.seeds(row)) if train.refit else None
    trials = describe_trials(count, model, train, data.splits["train"]) if count > 1 else []
    return _Prepared(first, refit, _cost(model, task, train, data), trials)


def _run_network(run: _Run, row: Row, data: Dataset, network: _Prepared, label: str) -> _Result:
    task, train = row.task or run.table.task, row.train or run.table.train

    def once(prepared: Prepared, what: str, **arguments: Any) -> Fit:
        def on_epoch(number: int, metrics: dict[str, np.ndarray]) -> None:
            value = metrics[f"validation/{train.select}"].mean()
            said = f"epoch {number + 1}/{train.epochs}, validation {train.select} {value:.4f}"
            run.say(f"{label}: {said if what == 'fit' else f'{what}, {said}'}\r")

        with Checkpoints(run.snapshots(row) / what.replace(" ", "-")) as snapshots:
            kept: dict[str, Any] = {"snapshots": snapshots, "snapshot_seconds": run.snapshot_seconds}
            return prepared.run(on_epoch=on_epoch, **kept, **arguments)

    search, of_trial, prepared = None, {}, cast(Prepared, network.first)
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
    outputs = {"validation": first.outputs["validation"], "test": fitted.outputs["test"]}
    index = {k: data.splits[k].index for k in HELD_OUT}
    logits = {
        k: np.stack([by_index(np.asarray(kept_logits(task, o), np.float32), index[k]) for o in _unstack(outputs[k])])
        for k in HELD_OUT
    }
    params = _write_params(run, row, fitted.variables)
    runs = [first, fitted] if train.refit else [first]
    seconds = {f"{key}_seconds": sum(one.seconds[key] for one in runs) for key in ("compile", "train")}
    return _Result(
        logits=logits,
        timing={
            **seconds,
            **({"search_seconds": search.seconds} if search else {}),
            "step_ms": first.step_ms,
            "peak_mb": first.peak_mb,
            "mapped": fitted.mapped,
        },
        history=first.history,
        metrics=_seen(first.epoch, first.history, fitted.history) if hasattr(task, "keep") else None,
        epoch=first.epoch,
        test_selected=_test_selected(fitted.history, data),
        cost=network.cost,
        selection_rule=f"epoch of best validation {train.select}"
        + (", refit on train + validation" * train.refit)
        + (f"; {search.rule}" if search else ""),
        search=search,
        files=(params,),
    )


def _run_streaming(run: _Run, row: Row, data: Dataset, network: _Prepared, label: str) -> _Result:
    """The seeds of a network one after the other, each continued where it was killed."""
    task, train, folder = row.task or run.table.task, row.train or run.table.train, run.snapshots(row)
    say = lambda line: run.say(f"{label}: {line}\r")  # noqa: E731
    streamed = fit_seeds(row.network, task, train, data, run.seeds(row), folder=folder, say=say)
    return _Result(
        logits=streamed.logits,
        timing={"train_seconds": streamed.seconds, "mapped": "streaming"},
        history=streamed.history,
        metrics=_seen(streamed.epoch, streamed.history, streamed.history) if hasattr(task, "keep") else None,
        epoch=streamed.epoch,
        test_selected=_test_selected(streamed.history, data),
        cost=network.cost,
        selection_rule=f"epoch of best validation {train.select}",
        files=(_write_params(run, row, streamed.variables),),
    )


def _write_params(run: _Run, row: Row, variables: PyTree) -> str:
    """The path in the work directory of the parameters of all seeds; records of what stood there are taken back."""
    path = f"checkpoints/{run.hashes[row.name]}.safetensors"
    (run.store.workdir / path).parent.mkdir(parents=True, exist_ok=True)
    run.store.remove_records(row.name, [run.hashes[row.name]])
    export_params(run.store.workdir / path, variables)
    return path


def _test_selected(history: Mapping[str, np.ndarray], data: Dataset) -> np.ndarray | None:
    """The primary metric of each seed with the epoch chosen on test; None of a score that is no state."""
    primary = history.get(f"test/{data.card.primary_metric}")
    best = np.max if score(data.card.primary_metric).higher_is_better else np.min
    return None if primary is None else best(primary, axis=0)


def _run_fit(run: _Run, row: Row, data: Dataset) -> _Result:
    members, seeds, store, task = run.table.pick(row.members), run.seeds(row), run.store, row.task or run.table.task

    def present(member: Row, batch: Batch) -> np.ndarray:
        return presence(batch.replace(streams=select(batch.streams, member.streams or data.streams)))

    there = {m.name: {k: present(m, data.splits[k]) for k in HELD_OUT} for m in members}
    stored = {m.name: {k: store.logits(m.name, k) for k in HELD_OUT} for m in members}

    def outputs_of(fit: Callable[..., Any], seed: int) -> Mapping[str, Any]:
        voters = {}
        for name, logits in stored.items():
            if seed not in (known := store.seeds(name)):
                raise UsageError(f"its member {name!r} has only the seeds {known}, not {seed}")
            voters[name] = Member.of_seed(logits, known, seed, there[name])
        return fit(data, seed, voters)

    fit, search, candidates = row.combination, None, penalties(row.combination, run.trials(row))
    if len(candidates) > 1:
        metric = run.dataset.card.primary_metric
        batch, few = data.splits["validation"], seeds[: SEEDS if row.varies else 1]

        def measured(scores: Any) -> float:
            return run.measure(task, np.asarray(scores, np.float32), batch)[metric]

        lower = not score(metric).higher_is_better
        search, fit = search_fit(candidates, outputs_of, measured, metric, lower, few)
    outputs: list[Mapping[str, Any]] = []
    for seed in seeds:
        outputs.append(outputs[0] if outputs and not row.varies else outputs_of(fit, seed))
    logits = {k: np.stack([np.asarray(one[k], np.float32) for one in outputs]) for k in HELD_OUT}
    for split, values in logits.items():
        items = int((np.asarray(data.splits[split].index) >= 0).sum())
        if values.shape[1] != items or not np.isfinite(values).all():
            raise UsageError(f"fit must give finite scores for {items} {split} items, got {values.shape[1:]}")
    rule = search.rule if search else _Result.selection_rule
    return _Result(logits=logits, timing={}, search=search, selection_rule=rule)


def _seen(
    epochs: np.ndarray, first: Mapping[str, np.ndarray], fitted: Mapping[str, np.ndarray]
) -> list[dict[str, dict[str, float]]]:
    """The task's metrics of the chosen epoch by seed and split: of validation in the history of the fit, of test in
    that of its refit.
    """
    return [
        {
            split: {
                name.removeprefix(f"{split}/"): float(values[epoch, seed])
                for name, values in history.items()
                if name.startswith(f"{split}/")
            }
            for split, history in (("validation", first), ("test", fitted))
        }
        for seed, epoch in enumerate(epochs)
    ]


def _unstack(outputs: PyTree) -> list[PyTree]:
    count = jax.tree.leaves(outputs)[0].shape[0]
    return [jax.tree.map(lambda x, i=i: x[i], outputs) for i in range(count)]


def _targets(batch: Batch) -> dict[str, Any]:
    return {"target": target_items(batch), "group": by_index(batch.group, batch.index)}


def _cost(model: nn.Module, task: Task, train: Train, data: Dataset) -> dict[str, Any]:
    """Parameters, and FLOPs of one example: forward by formula and by XLA, its share of a training step by XLA."""
    variables, batch, tx = abstract_variables(model, data), data.splits["train"], make_optimizer(train, 1)
    params, size = variables.get("params", {}), min(train.batch_size, batch.size)
    some, one = shapes_of(batch, size), shapes_of(batch, 1)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda b, key: init_state(model, tx, b.streams, key, targets=b.target, task=task), some, key)
    forward = count_program(lambda variables, batch: predict(model, variables, batch), variables, one)
    step = count_program(make_train_step(model, task, tx, loss_weights=train.loss_weights), state, some, key)
    return {
        "params": count_params(params),
        "params_fusion": fusion_params(params),
        "flops": forward.formula,
        "flops_xla": forward.xla,
        "train_flops_xla": None if step.xla is None else step.xla / size,
    }


def _records(run: _Run, row: Row, result: _Result) -> list[Record]:
    dataset, task = run.dataset, row.task or run.table.task
    described = {
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
        seen = result.metrics[position] if result.metrics else dict.fromkeys(HELD_OUT)
        metrics = {
            split: run.measure(task, result.logits[split][position], dataset.splits[split], seen[split])
            for split in HELD_OUT
        }
        selected = None if result.test_selected is None else float(result.test_selected[position])
        records.append(
            make_record(
                row=row.name,
                streams=list(row.streams or dataset.streams),
                dataset=described,
                method=method,
                seed=int(seed),
                selection_rule=result.selection_rule,
                epoch=None if result.epoch is None else int(result.epoch[position]) + 1,
                test_selected=selected,
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


def _spread(seeds: int) -> str:
    """Of several devices, over how many the seeds of a row are spread."""
    used, there = len(seed_devices(seeds)), jax.local_device_count()
    return "" if there == 1 else f", {used} of {there} devices"


def _sizes(dataset: Dataset) -> str:
    return f"{dataset.card.name} " + " / ".join(str(batch.size) for batch in dataset.splits.values())
