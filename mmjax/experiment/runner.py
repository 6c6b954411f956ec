"""Runs a table: every row over its seeds, records on disk, then the report. The same call resumes a killed run."""

import contextlib
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.allocator import return_freed_memory
from mmjax.datasets.base import Dataset
from mmjax.environment import device
from mmjax.evaluation.report.summary import summarise
from mmjax.evaluation.report.write import write_report
from mmjax.evaluation.store.records import WHOLE_TABLE, RecordStore
from mmjax.evaluation.store.schema import HELD_OUT
from mmjax.experiment import folds
from mmjax.experiment.analyses import Measure, analyse, changed_measures
from mmjax.experiment.background import map_ahead
from mmjax.experiment.baselines import check_fits, with_baselines
from mmjax.experiment.changes import changed_rows, check_choice, refuse, training_code
from mmjax.experiment.checks import naming, with_primary
from mmjax.experiment.console import Lines
from mmjax.experiment.controls import control_rows
from mmjax.experiment.data import apply_view, load_raw, row_data
from mmjax.experiment.equal_parameters import resolve
from mmjax.experiment.identity import config_hash, table_config
from mmjax.experiment.inputs import write_inputs
from mmjax.experiment.loss_weights import with_own_weights
from mmjax.experiment.parts import PART, is_part, lender_of
from mmjax.experiment.rows import Compiled, Run, Say, compile_row, make_records, run_row
from mmjax.experiment.table import Row, Table
from mmjax.experiment.workdir import claim
from mmjax.sharding import seed_devices
from mmjax.stream import Batch, by_index, target_items

__all__ = ["run_table", "smoke"]


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
      workdir: of records, report, plots and checkpoints; default ``runs/NAME``, for all folds ``runs/NAME-folds``.
      data_dir: folder of the source files, read only.
      cache_dir: folder of data prepared from them.
      rows: names of the rows to run; None = all but the extra ones, and the controls that follow from their scores.
      measure: analyses of trained rows; None = the default of ``Measure``.
      on_change: for stored results of other code: ``ask`` stops and names the changes, ``keep`` uses them, ``again``
        computes them anew.
      force: lets a run of some rows, or of fewer seeds, replace a finished table; else it is written into the folder
        ``part`` beside it.
      snapshot_seconds: interval of snapshots of a row in progress.
      say: called with each line of progress; None = the standard error stream.

    Raises:
      UsageError: a wrong name, value, file or loss, in one line; results of other code, with ``ask``.
    """
    check_choice(on_change)
    say = Lines() if say is None else say
    folders = {"data_dir": data_dir, "cache_dir": cache_dir}
    pooled = folds.is_pooled(table)
    workdir = pathlib.Path(workdir or pathlib.Path("runs") / (f"{name}-folds" if pooled else name))
    table.chosen(rows)  # raises for an unknown name before anything is read
    if pooled:
        options = {"rows": rows, "measure": measure, "snapshot_seconds": snapshot_seconds, "say": say, **folders}
        options |= {"on_change": on_change, "force": force}
        with claim(workdir, {"table": name, "row": None, "folds": list(table.folds), "measured": None}):
            return folds.run_folds(run_table, table, name, workdir, **options)
    raw = load_raw(table, **folders)
    dataset = with_primary(apply_view(table, raw), table.task)
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
        write_inputs(workdir, raw)
        part = rows is not None or workdir.name == PART
        run = Run(table, dataset, store, {}, snapshot_seconds, say, on_change, part, lender_of(workdir))
        run = _finish_rows(run, name, table, [row.name for row in chosen])
        if rows is None:  # which rows the controls are for follows from the scores of all others
            added = control_rows(run.table, summarise(workdir))
            whole = dataclasses.replace(run.table, rows=[*run.table.rows, *added])
            run = _finish_rows(run, name, whole, [row.name for row in added])
        clock, of = time.perf_counter(), measure or Measure()
        by_row = analyse(run.table, raw, dataset, store, run.hashes, measure=of, on_change=on_change, say=say)
        return_freed_memory()
        before_writing = time.perf_counter()
        text = write_report(workdir)
        written = time.perf_counter() - before_writing + sum(run.writing.values())
        seconds = {row: {"measure_seconds": by_row.get(row, 0.0)} for row in run.hashes}
        for row, value in run.writing.items():
            seconds[row]["write_seconds"] = value
        total = {"measure_seconds": before_writing - clock, "write_seconds": written}
        store.add_timing({**seconds, WHOLE_TABLE: total})
        say(f"written: {workdir / 'report.html'}, table.md, table.json, records.jsonl")
        return text


def _finish_rows(run: Run, name: str, table: Table, names: Sequence[str]) -> Run:
    """Runs the named rows of the table that are not finished."""
    table = with_own_weights(table, run.dataset, run.viewed)
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
    with contextlib.closing(map_ahead(lambda one: compile_row(run, *one[1:]), missing)) as coming:
        for (label, row, data), prepared in coming:
            _finish_row(run, row, data, prepared, label)
    return_freed_memory()  # half of what the process holds by now, and measuring takes other buffers
    return run


def _adopt(run: Run, names: Sequence[str]) -> None:
    """Takes finished rows from the whole table of which this is a part, or from a part of this whole."""
    if run.lender is None:
        return
    for row in run.table.pick(names):
        wanted = row.name, run.hashes[row.name], run.seeds(row)
        if not run.store.done(*wanted) and run.lender.done(*wanted):
            run.store.adopt(run.lender, row.name)


def _changed(run: Run, names: Sequence[str]) -> dict[str, list[str]]:
    """The finished ones of the named rows that other code has trained."""
    rows = [row for row in run.table.rows if row.name in set(names)]
    there = [row.name for row in rows if run.store.done(row.name, run.hashes[row.name], run.seeds(row))]
    changed = changed_rows(run.store, run.codes, there)
    if changed and run.on_change == "ask":
        refuse(changed, "trained")
    analysed = changed_measures(run.store, [name for name in there if name not in changed])
    if analysed and run.on_change == "ask":
        refuse(analysed, "measured")
    return changed


def _finish_row(run: Run, row: Row, data: Dataset, prepared: Callable[[], Compiled | None], label: str) -> None:
    """Runs a row and writes it."""
    clock = time.perf_counter()
    with naming(row.name):
        result = run_row(run, row, data, prepared(), label)
    result.timing["total_seconds"] = seconds = time.perf_counter() - clock
    clock = time.perf_counter()
    records = make_records(run, row, result)
    run.store.write_code(run.code(row), run.codes[row.name])
    run.store.write_row(row.name, records, result.logits, result.timing, result.history, result.files)
    shutil.rmtree(run.snapshots(row), ignore_errors=True)
    run.writing[row.name] = time.perf_counter() - clock
    primary = run.dataset.card.primary_metric
    mean = np.mean([record["metrics"][primary] for record in records])
    run.say(f"{label}: {primary} {mean:.4f} in {seconds:.1f} s")


def smoke(table: Table) -> Table:
    """The table with two seeds, two epochs and few examples: shows that everything runs, gives no results."""
    short: dict[str, Any] = {"epochs": 2, "batch_size": 16}
    rows = [
        dataclasses.replace(row, seeds=None, train=row.train and dataclasses.replace(row.train, **short))
        for row in table.rows
    ]
    train = dataclasses.replace(table.train, **short)
    small: dict[str, Any] = {"seeds": 2, "limit": 64, "trials": min(table.trials, 2)}
    return dataclasses.replace(table, rows=rows, train=train, note="Smoke run: no result.", **small)


def _targets(batch: Batch) -> dict[str, Any]:
    return {"target": target_items(batch), "group": by_index(batch.group, batch.index)}


def _spread(seeds: int) -> str:
    """Number of devices over which the seeds of a row are spread; empty for a single device."""
    used, there = len(seed_devices(seeds)), jax.local_device_count()
    return "" if there == 1 else f", {used} of {there} devices"


def _sizes(dataset: Dataset) -> str:
    return f"{dataset.card.name} " + " / ".join(str(batch.size) for batch in dataset.splits.values())
