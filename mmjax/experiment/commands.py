"""What the commands do, for the command line and for a notebook alike."""

import contextlib
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.report.write import write_report
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment.analyses import Measure
from mmjax.experiment.checks import check_model, naming
from mmjax.experiment.console import Lines
from mmjax.experiment.data import load_dataset, row_data
from mmjax.experiment.equal_parameters import resolve
from mmjax.experiment.folds import is_pooled, write_pooled_report
from mmjax.experiment.fractions import run_fractions
from mmjax.experiment.fractions_report import write_fractions
from mmjax.experiment.identity import config_hash
from mmjax.experiment.loss_weights import with_own_weights
from mmjax.experiment.runner import run_table
from mmjax.experiment.table import Row, Table
from mmjax.experiment.workdir import claim
from mmjax.files import read_json, write_json
from mmjax.sharding import make_mesh
from mmjax.streaming import evaluate_streaming, fit_streaming
from mmjax.typing import Mapping

__all__ = ["Measure", "advise", "compare", "evaluate", "fractions", "read_run", "report", "table", "train"]


def table(table: Table, **arguments: Any) -> str:
    """Runs a table with progress on the standard error stream and returns its report; arguments as ``run_table``."""
    with contextlib.closing(Lines()) as say:
        return run_table(table, say=say, **arguments)


def fractions(
    table: Table,
    *,
    name: str = "table",
    workdir: str | pathlib.Path | None = None,
    fractions: Sequence[float] | None = None,
    rows: Sequence[str] | None = None,
    **arguments: Any,
) -> str:
    """Data efficiency: the main rows on nested subsets of train; arguments as ``run_fractions``."""
    workdir = workdir or pathlib.Path("runs") / f"{name}-fractions"
    with contextlib.closing(Lines()) as say:
        return run_fractions(run_table, table, name, workdir, fractions, rows, say=say, **arguments)


def report(workdir: str | pathlib.Path) -> str:
    """Writes the report of a finished or half-finished table again from its files, and returns it.

    Args:
      workdir: of the table; where there is none of that name, ``runs/NAME`` is meant.

    Raises:
      UsageError: no work directory of a table; a damaged file, by name.
    """
    workdir = _of_run(workdir)
    config = RecordStore(workdir).config()
    if "folds" in config:
        return write_pooled_report(workdir, again=True)
    if config.get("measured") == "fractions":
        return write_fractions(workdir)
    if "rows" not in config:
        raise UsageError(f"{str(workdir)!r} is no work directory of a table; one of a trained row is for evaluate")
    return write_report(workdir)


def _of_run(workdir: str | pathlib.Path) -> pathlib.Path:
    """A work directory, or that of a table by its name."""
    folder = pathlib.Path(workdir)
    usual = pathlib.Path("runs") / folder
    return usual if not folder.is_dir() and usual.is_dir() else folder


def advise(workdir: str | pathlib.Path) -> str:
    """Which fusion to use, what it gains, costs and where it breaks, from a finished table's ``table.json``.

    Args:
      workdir: of the table; where there is none of that name, ``runs/NAME`` is meant.

    Raises:
      UsageError: no finished table there.
    """
    from mmjax.evaluation.report.advice import advise as say

    folder = _of_run(workdir)
    try:
        summary = read_json(folder / "table.json")
    except FileNotFoundError:
        raise UsageError(f"no finished table in {str(workdir)!r}: run python -m experiments table NAME first") from None
    if "standard" not in summary:
        raise UsageError(f"{str(folder)!r} pools folds: advice is given on one fold's table, in its folder fold-K")
    return say(summary, RecordStore(folder).timing())


def compare(workdirs: Sequence[str | pathlib.Path], out: str | pathlib.Path) -> str:
    """Ranks of the methods that several tables have in common, with the critical difference; also in ``out``.

    Raises:
      UsageError: a folder without a finished table, or nothing in common.
    """
    from mmjax.evaluation.report.comparison import compare_tables

    return compare_tables([pathlib.Path(one) for one in workdirs], pathlib.Path(out))


def train(
    table: Table,
    *,
    name: str = "table",
    row: str | None = None,
    seed: int = 0,
    workdir: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    cache_dir: str | pathlib.Path | None = None,
    fsdp: int = 1,
    tensor: int = 1,
    patience: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> str:
    """Trains one row with the streaming feed over all devices; the same call resumes a killed run.

    Args:
      table: where the row stands.
      name: of the table.
      row: name of the row; None = the first that is a model.
      seed: of initialisation, order of the data and dropout.
      workdir: default ``runs/NAME-ROW-SEED``, of a smoke run ``runs/NAME-ROW-SEED-smoke``; see ``fit_streaming`` for
        what it holds.
      data_dir: folder of the source files, read only.
      cache_dir: folder of data prepared from them.
      fsdp: devices over which parameters are split.
      tensor: devices over which layers are split.
      patience: number of epochs without a better validation score before stopping; None = never.
      config: JSON data from which ``evaluate`` rebuilds the table, stored in ``config.json``.

    Returns:
      The metrics of the chosen epoch, a line a split.

    Raises:
      UsageError: a wrong name, value or file, a batch that does not divide over the devices, a row without a model.
      SystemExit: as ``fit_streaming``.
    """
    if is_pooled(table):
        raise UsageError(f"one row trains on one fold; the folds are: {', '.join(map(str, table.folds))}")
    chosen = _model_row(table, row)
    slug = re.sub(r"[^a-z0-9]+", "-", chosen.name.lower()).strip("-")
    tiny = "-smoke" * bool((config or {}).get("smoke"))  # never in the folder of the run itself
    workdir = pathlib.Path(workdir or pathlib.Path("runs") / f"{name}-{slug}-{seed}{tiny}")
    mesh = make_mesh(fsdp=fsdp, tensor=tensor)
    chosen, data, digest = _data(table, chosen, data_dir, cache_dir)
    task, how = chosen.task or table.task, chosen.train or table.train
    owner = {"table": name, "row": chosen.name}
    whole = {**owner, "fsdp": fsdp, "tensor": tensor, **(config or {}), "version": digest}
    with naming(chosen.name):
        check_model(chosen.network, task, how, data)
        with claim(workdir, owner) if jax.process_index() == 0 else contextlib.nullcontext():
            fitted = fit_streaming(
                chosen.network, task, how, data.splits, workdir=workdir, seed=seed, mesh=mesh, patience=patience,
                config=whole,
            )  # fmt: skip
    scores = _by_split(fitted.metrics)
    return f"{chosen.name}, seed {seed}, epoch {fitted.epoch + 1} of {fitted.epochs}\n{_lines(scores)}{workdir}\n"


def read_run(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The configuration of a run of ``train``.

    Raises:
      UsageError: no such run.
    """
    config = RecordStore(workdir).config()
    if "row" not in config:
        raise UsageError(f"{str(workdir)!r} holds no run of train; the work directory of a table is for report")
    return config


def evaluate(
    table: Table,
    workdir: str | pathlib.Path,
    *,
    data_dir: str | pathlib.Path | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> str:
    """The metrics of a run's best checkpoint on validation and test, a line each; also in ``evaluation.json``.

    Args:
      table: as it was given to ``train``.
      workdir: of that run.
      data_dir: folder of the source files, read only.
      cache_dir: folder of data prepared from them.

    Raises:
      UsageError: no such run, no checkpoint, or one of another model.
    """
    workdir, config = pathlib.Path(workdir), read_run(workdir)
    row = _model_row(table, config["row"])
    mesh = _mesh_for(config)
    row, data, _ = _data(table, row, data_dir, cache_dir)
    task, how = row.task or table.task, row.train or table.train
    with naming(row.name):
        scores = {
            split: evaluate_streaming(row.network, task, how, data.splits[split], workdir=workdir, mesh=mesh)
            for split in ("validation", "test")
        }
    write_json(workdir / "evaluation.json", scores)
    return _lines(scores)


def _model_row(table: Table, name: str | None) -> Row:
    rows = table.rows if name is None else table.pick([name])
    for row in rows:
        if row.model is not None:
            return row
    trained = "; ".join(row.name for row in table.rows if row.model is not None)
    raise UsageError(f"no network to train{f' in row {name!r}' if name else ''}; the networks are: {trained or 'none'}")


def _data(table: Table, row: Row, data_dir: Any, cache_dir: Any) -> tuple[Row, Dataset, str]:
    """The row with its network, its data, and the digest that identifies both."""
    whole = load_dataset(table, data_dir=data_dir, cache_dir=cache_dir)
    table = with_own_weights(table, whole)
    row = resolve(table.pick([row.name])[0], table, whole)
    with naming(row.name):
        return row, row_data(whole, row), config_hash(table, row, whole)


def _mesh_for(config: Mapping[str, Any]) -> Mesh:
    """The mesh of the run where the devices allow it, else one over the devices that are there."""
    try:
        return make_mesh(fsdp=config["fsdp"], tensor=config["tensor"])
    except UsageError:
        return make_mesh()


def _by_split(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        split, _, metric = name.partition("/")
        scores.setdefault(split, {})[metric] = value
    return scores


def _lines(scores: Mapping[str, Mapping[str, float]]) -> str:
    lines = []
    for split, metrics in scores.items():
        lines.append(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items())) + "\n")
    return "".join(lines)
