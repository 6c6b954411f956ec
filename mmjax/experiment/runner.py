"""Runs a table: every row over its seeds, records on disk, the report at the end. Killed, the same call continues."""

import dataclasses
import importlib.metadata
import pathlib
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import mmjax
from mmjax import datasets
from mmjax.checkpoint import Checkpoints, export_params
from mmjax.datasets import views
from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.records import RecordStore, make_record
from mmjax.evaluation.report import write_report
from mmjax.experiment.settings import describe, digest
from mmjax.experiment.table import Member, Row, Table
from mmjax.metrics import compute
from mmjax.resident import Fit, fit
from mmjax.stream import Batch, select
from mmjax.tasks import Task
from mmjax.training import predict
from mmjax.typing import Mapping, PyTree

__all__ = ["load_dataset", "run_table", "smoke"]

HELD_OUT = ("validation", "test")
Say = Callable[[str], None]


def run_table(
    table: Table,
    *,
    name: str = "table",
    workdir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    cache_dir: str | pathlib.Path | None = None,
    rows: Sequence[str] | None = None,
    say: Say = print,
) -> str:
    """Trains and evaluates the rows that are not there yet, writes the report, and returns it as text.

    Args:
      table: what to run.
      name: of the table, in the records.
      workdir: where records, report, plots and checkpoints go; default ``runs/NAME``.
      data_dir: folder of the source files, only ever read.
      cache_dir: where what is prepared from them is kept.
      rows: names of the rows to run; None = all but the extra ones.
      say: takes a line of progress.

    Raises:
      UsageError: a wrong name, value, file or loss, in one line.
    """
    workdir = pathlib.Path(workdir or pathlib.Path("runs") / name)
    chosen = table.chosen(rows)
    dataset = load_dataset(table, data_dir=data_dir, cache_dir=cache_dir)
    say(f"{name}: {_sizes(dataset)}; {len(chosen)} rows, {table.seeds} seeds, on {_device()}")
    store = RecordStore(workdir)
    hashes = {row.name: _hash(table, row, dataset) for row in table.rows}
    store.write_config(_config(name, table, dataset, hashes))
    store.write_targets({split: _targets(dataset.splits[split]) for split in HELD_OUT})
    for number, row in enumerate(chosen, 1):
        seeds = range(row.seeds or table.seeds)
        label = f"[{number:2d}/{len(chosen)}] {row.name}"
        if store.done(row.name, hashes[row.name], list(seeds)):
            say(f"{label}: done before")
            continue
        clock = time.perf_counter()
        result = _run_row(table, row, dataset, seeds, store, workdir, hashes[row.name], label, say)
        result.timing["total_seconds"] = time.perf_counter() - clock
        records = _records(table, row, dataset, seeds, result, hashes[row.name])
        store.write_row(row.name, records, result.logits, result.timing, result.history)
        shutil.rmtree(_snapshot_dir(workdir, hashes[row.name]), ignore_errors=True)
        scores = [record["metrics"][dataset.card.primary_metric] for record in records]
        say(f"{label}: {dataset.card.primary_metric} {np.mean(scores):.4f} in {result.timing['total_seconds']:.1f} s")
    return write_report(workdir)


def load_dataset(table: Table, **folders: Any) -> Dataset:
    """The data of a table, after its view."""
    dataset = table.dataset
    if isinstance(dataset, str):
        dataset = datasets.load(dataset, **folders, **table.options)
    elif table.options:
        raise UsageError(f"options {sorted(table.options)} are for a data set given by name")
    return table.view(dataset) if table.view else dataset


def smoke(table: Table) -> Table:
    """The same table made tiny: two seeds, two epochs, few examples; it shows that everything runs, nothing else."""
    view = table.view

    def few(dataset: Dataset) -> Dataset:
        dataset = views.limit(dataset, 64)
        return view(dataset) if view else dataset

    short = {"epochs": 2, "batch_size": 16}
    rows = [
        dataclasses.replace(row, seeds=None, train=row.train and dataclasses.replace(row.train, **short))
        for row in table.rows
    ]
    train = dataclasses.replace(table.train, **short)
    return dataclasses.replace(table, rows=rows, seeds=2, view=few, train=train, note="Smoke run: no result.")


@dataclasses.dataclass
class _Result:
    """What running a row gives: logits by split ``[seeds, items, classes]`` and what goes with them."""

    logits: dict[str, np.ndarray]
    timing: dict[str, Any]
    history: dict[str, np.ndarray] | None = None
    epoch: np.ndarray | None = None
    test_selected: np.ndarray | None = None
    params: int = 0
    flops: float | None = None
    selection_rule: str = "none: fixed hyper-parameters"


def _run_row(
    table: Table,
    row: Row,
    dataset: Dataset,
    seeds: Sequence[int],
    store: RecordStore,
    workdir: pathlib.Path,
    config_hash: str,
    label: str,
    say: Say,
) -> _Result:
    data = _restrict(dataset, row.streams, row.name)
    if row.fit is not None:
        return _run_fit(row, table.pick(row.members), data, seeds, store)
    data = row.view(data) if row.view else data
    model, task, train = row.model, row.task or table.task, row.train or table.train

    def run(splits: Mapping[str, Batch], tag: str, **arguments: Any) -> Fit:
        def on_epoch(number: int, metrics: dict[str, np.ndarray]) -> None:
            value = metrics[f"validation/{train.select}"].mean()
            say(f"{label}: {tag}epoch {number + 1}/{train.epochs}, validation {train.select} {value:.4f}\r")

        with Checkpoints(_snapshot_dir(workdir, config_hash) / (tag.strip() or "fit")) as snapshots:
            return fit(model, task, train, splits, seeds, snapshots=snapshots, on_epoch=on_epoch, **arguments)

    fitted = first = run(data.splits, "")
    if train.refit:
        fitted = run(views.refit_splits(data).splits, "refit ", stop_at=first.epoch)
    outputs = {"validation": first.outputs["validation"], "test": fitted.outputs["test"]}
    logits = {k: np.stack([_by_item(_logits(task, o), data.splits[k]) for o in _unstack(outputs[k])]) for k in HELD_OUT}
    folder = workdir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    export_params(folder / f"{config_hash}.safetensors", fitted.variables)
    runs = [first, fitted] if train.refit else [first]
    seconds = {f"{key}_seconds": sum(run.seconds[key] for run in runs) for key in first.seconds}
    primary = fitted.history[f"test/{dataset.card.primary_metric}"]
    lower = dataset.card.primary_metric in task.lower_is_better
    return _Result(
        logits=logits,
        timing={**seconds, "mapped": fitted.mapped},
        history=first.history,
        epoch=first.epoch,
        test_selected=primary.min(0) if lower else primary.max(0),
        params=sum(leaf[0].size for leaf in jax.tree.leaves(fitted.variables)),
        flops=_flops(model, fitted.variables, data.splits["test"]),
        selection_rule=f"epoch of best validation {train.select}" + (", refit on train + validation" * train.refit),
    )


def _present(batch: Batch, streams: Sequence[str]) -> np.ndarray:
    masks = [np.asarray(batch.streams[name].mask).reshape(batch.size, -1).any(1) for name in streams]
    return np.any(masks, axis=0)


def _run_fit(row: Row, members: Sequence[Row], data: Dataset, seeds: Sequence[int], store: RecordStore) -> _Result:
    stored = {
        member.name: (
            {split: store.logits(member.name, split) for split in HELD_OUT},
            {split: _present(data.splits[split], member.streams or data.streams) for split in HELD_OUT},
        )
        for member in members
    }
    outputs: list[Mapping[str, Any]] = []
    for position, seed in enumerate(seeds):
        if outputs and not row.varies:
            outputs.append(outputs[0])
            continue
        voters = {
            name: Member({split: logits[split][position] for split in HELD_OUT}, present)
            for name, (logits, present) in stored.items()
        }
        outputs.append(row.fit(data, seed, voters))
    logits = {split: np.stack([np.asarray(o[split], np.float32) for o in outputs]) for split in HELD_OUT}
    return _Result(logits=logits, timing={})


def _restrict(dataset: Dataset, streams: Sequence[str] | None, row: str) -> Dataset:
    if streams is None:
        return dataset
    try:
        splits = {k: b.replace(streams=select(b.streams, streams)) for k, b in dataset.splits.items()}
    except ValueError as error:
        raise UsageError(f"row {row!r}: {error}") from None
    return dataclasses.replace(dataset, splits=splits)


def _logits(task: Task, outputs: PyTree) -> np.ndarray:
    read = getattr(task, "logits", None)
    return np.asarray(read(outputs) if read else outputs)


def _unstack(outputs: PyTree) -> list[PyTree]:
    count = jax.tree.leaves(outputs)[0].shape[0]
    return [jax.tree.map(lambda x, i=i: x[i], outputs) for i in range(count)]


def _by_item(values: np.ndarray, batch: Batch) -> np.ndarray:
    """Values of labelled items in the order of their index, whatever the rows of the batch were."""
    index = np.asarray(batch.index)
    real = index >= 0
    ordered = np.empty((real.sum(), *values.shape[index.ndim :]), np.float32)
    ordered[index[real]] = values[real]
    return ordered


def _targets(batch: Batch) -> dict[str, np.ndarray]:
    return {"target": np.asarray(batch.target), "group": np.asarray(batch.group)}


def _flops(model: nn.Module, variables: PyTree, batch: Batch) -> float | None:
    """FLOPs of one example's forward pass by XLA's count; a scan's body counts once, so recurrent rows have none."""
    one = jax.tree.map(lambda x: jnp.asarray(x[:1]), batch)
    first = jax.tree.map(lambda x: x[0], variables)
    lowered = jax.jit(lambda v, b: predict(model, v, b)).lower(first, one)
    if "while" in (text := lowered.as_text()) or "stablehlo.while" in text:
        return None
    cost = lowered.cost_analysis()
    return float(cost["flops"]) if cost and "flops" in cost else None


def _records(
    table: Table, row: Row, dataset: Dataset, seeds: Sequence[int], result: _Result, config_hash: str
) -> list[dict[str, Any]]:
    test = dataset.splits["test"]
    task = row.task or table.task
    described = {
        "name": dataset.card.name,
        "version": dataset.version,
        "sha256": dataset.sha256,
        "split_id": dataset.split_id,
        "n": int(test.size),
        "group": dataset.card.group,
    }
    records = []
    for position, seed in enumerate(seeds):
        metrics = {split: _metrics(task, result.logits[split][position], dataset.splits[split]) for split in HELD_OUT}
        selected = None if result.test_selected is None else float(result.test_selected[position])
        records.append(
            make_record(
                row=row.name,
                streams=list(row.streams or dataset.streams),
                dataset=described,
                method={"name": row.name, "config_hash": config_hash, "params": result.params, "trials": 1},
                seed=int(seed),
                selection_rule=result.selection_rule,
                epoch=None if result.epoch is None else int(result.epoch[position]) + 1,
                test_selected=selected,
                primary=dataset.card.primary_metric,
                metrics=metrics["test"],
                validation_metrics=metrics["validation"],
                cost={"params": result.params, "flops": result.flops},
                env=environment(),
                notes=row.notes,
            )
        )
    return records


def _metrics(task: Task, logits: np.ndarray, batch: Batch) -> dict[str, float]:
    batch = batch.replace(streams={})
    states = task.metrics(jnp.asarray(logits), jax.tree.map(jnp.asarray, batch))
    return {name: float(value) for name, value in compute(states).items()}


def environment() -> dict[str, str]:
    """Versions, device and commit: what a number was measured with."""
    root = pathlib.Path(mmjax.__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "mmjax": mmjax.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in ("jax", "flax", "optax", "numpy")},
        "device": _device(),
        "dtype": "float32",
        "commit": git.stdout.strip() or "unknown",
    }


def _device() -> str:
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def _sizes(dataset: Dataset) -> str:
    return f"{dataset.card.name} " + " / ".join(str(batch.size) for batch in dataset.splits.values())


def _snapshot_dir(workdir: pathlib.Path, config_hash: str) -> pathlib.Path:
    return workdir.absolute() / "checkpoints" / f"running-{config_hash}"


def _hash(table: Table, row: Row, dataset: Dataset) -> str:
    """Changes with anything that could change the row's numbers, what is printed beside them excepted."""
    method = dataclasses.replace(row, paper=None, notes="", section="", train=row.train or table.train)
    members = [_hash(table, member, dataset) for member in table.pick(row.members)]
    versions = {package: importlib.metadata.version(package) for package in ("jax", "flax", "optax")}
    data = [dataset.card.name, dataset.version, dataset.sha256, dataset.split_id, describe(table.view)]
    return digest([method, row.task or table.task, data, members, mmjax.__version__, versions])


def _config(name: str, table: Table, dataset: Dataset, hashes: Mapping[str, str]) -> dict[str, Any]:
    train, test = np.asarray(dataset.splits["train"].target), np.asarray(dataset.splits["test"].target)
    classes = dataset.card.num_classes
    majority = float((test == np.bincount(train.reshape(-1)).argmax()).mean()) if classes else None
    return {
        "table": name,
        "title": table.title,
        "note": " ".join(filter(None, (table.note, dataset.card.caution))),
        "dataset": {
            "name": dataset.card.name,
            "version": dataset.version,
            "sha256": dataset.sha256,
            "split_id": dataset.split_id,
            "sizes": {split: int(batch.size) for split, batch in dataset.splits.items()},
            "card": dataclasses.asdict(dataset.card),
        },
        "primary": dataset.card.primary_metric,
        "majority": majority,
        "chance": 1 / classes if classes else None,
        "seeds": list(range(table.seeds)),
        "train": describe(table.train),
        "rows": [
            {
                "name": row.name,
                "section": row.section,
                "streams": list(row.streams or dataset.streams),
                "kind": "fit" if row.fit else "model",
                "single": row.baseline and len(row.streams or dataset.streams) == 1,
                "paper": None if row.paper is None else dataclasses.asdict(row.paper),
                "extra": row.name in table.extra,
                "notes": row.notes,
                "config_hash": hashes[row.name],
                "method": describe(row.model or row.fit),
            }
            for row in table.rows
        ],
        "references": [{"name": label, **dataclasses.asdict(paper)} for label, paper in table.references],
        "env": environment(),
    }
