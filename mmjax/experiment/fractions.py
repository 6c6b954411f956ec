"""``--fractions``: the same rows trained on nested subsets of train, an ordinary table for each."""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.measures import efficiency
from mmjax.experiment.analyses import Measure
from mmjax.experiment.console import Lines
from mmjax.experiment.data import load_raw
from mmjax.experiment.folds import is_pooled
from mmjax.experiment.fractions_report import SWEEP, folder, skips, write_fractions
from mmjax.experiment.table import Row, Table
from mmjax.experiment.workdir import claim
from mmjax.files import write_json

__all__ = ["default_rows", "run_fractions", "write_fractions"]

FUSED = ("concatenation", "joint transformer", "mean of logits")


def default_rows(table: Table, dataset: Dataset) -> list[str]:
    """Concatenation, joint transformer, mean of logits, and the single modalities of their sections."""
    usual = [row for row in table.rows if row.name not in table.extra]
    sections = {row.section for row in usual if row.role in FUSED}

    def single(row: Row) -> bool:
        return row.baseline and len(row.streams or dataset.streams) == 1

    return [row.name for row in usual if row.role in FUSED or (row.section in sections and single(row))]


def run_fractions(
    run: Callable[..., str],
    table: Table,
    name: str,
    workdir: str | pathlib.Path,
    fractions: Sequence[float] | None = None,
    rows: Sequence[str] | None = None,
    *,
    data_dir: str | pathlib.Path | None = None,
    cache_dir: str | pathlib.Path | None = None,
    say: Callable[[str], None] | None = None,
    **arguments: Any,
) -> str:
    """Runs the rows in ``workdir/fraction-F`` for each fraction and reports on all; the same call resumes a killed run.

    Hyper-parameters are those of the table's file at every size; nothing is searched. Validation and test stay whole.
    There is no refit with validation, which would outweigh a small train split.

    Args:
      run: ``run_table``.
      table: what to run.
      name: of the table.
      workdir: of the sweep.
      fractions: shares of train, 100 % always among them; None = 1, 3, 10, 30 and 100 %. One that leaves a class fewer
        than 2 items, or adds none to the one before, is skipped and named.
      rows: names of rows, with their members; None = ``default_rows``.
      data_dir, cache_dir, say, arguments: of ``run_table``.

    Returns:
      The report, also in ``efficiency.md``; ``efficiency.json`` and ``plots/`` stand beside it.

    Raises:
      UsageError: a fraction out of range, fewer than two usable ones, rows unknown or none, all folds at once.
    """
    if is_pooled(table):
        raise UsageError(f"fractions are measured on one fold; the folds are: {', '.join(map(str, table.folds))}")
    if table.fraction is not None:
        raise UsageError(f"the table is on {100 * table.fraction:g} % of train already: leave its fraction None")
    folders: dict[str, Any] = {"data_dir": data_dir, "cache_dir": cache_dir}
    workdir, say = pathlib.Path(workdir), Lines() if say is None else say
    raw = load_raw(table, **folders)
    wanted = sorted({float(one) for one in fractions or efficiency.FRACTIONS} | {1.0})
    usable = efficiency.feasible(raw, wanted)
    skipped = [{"fraction": one, "reason": _why(raw, one)} for one in wanted if one not in usable]
    if len(usable) < 2:
        raise UsageError(f"no part of train can be measured: {skips(skipped) or 'only 100 % was asked for'}")
    names = default_rows(table, raw) if rows is None else list(rows)
    if not names:
        raise UsageError(f"{table.title!r} has no row with one of the roles {', '.join(FUSED)}: name the rows")
    names = [row.name for row in table.chosen(names)]
    rows_alone = [dataclasses.replace(_on_train_alone(row, table), trials=None) for row in table.rows]
    whole = dataclasses.replace(table, rows=rows_alone, trials=1)
    parts = [efficiency.subset(raw, one) for one in usable]
    config: dict[str, Any] = {
        "table": name, "title": table.title, "note": table.note, "measured": SWEEP, "rows": names,
        "fractions": list(usable), "skipped": skipped,
        "items": [efficiency.labelled_items(part) for part in parts],
        "small_batches": [one for f, part in zip(usable, parts) for one in _small_batches(whole, names, f, part)],
    }  # fmt: skip
    with claim(workdir, {"table": name, "measured": SWEEP}):
        write_json(workdir / "config.json", config)
        for fraction, items in reversed(
            list(zip(usable, config["items"]))
        ):  # 100 % first: the others are compared with it
            say(f"{name}, {100 * fraction:g} % of train: {items} items")
            note = " ".join(filter(None, (table.note, f"Trained on {items} items, {100 * fraction:g} % of train.")))
            part = dataclasses.replace(whole, note=note, fraction=None if fraction == 1 else fraction)
            only = Measure(noise="none", interactions="none")
            place = folder(workdir, fraction)
            run(part, name=name, workdir=place, rows=names, measure=only, say=say, **folders, **arguments)
        return write_fractions(workdir)


def _on_train_alone(row: Row, table: Table) -> Row:
    """The row without a refit on train and validation."""
    if row.model is not None:
        return dataclasses.replace(row, train=dataclasses.replace(row.train or table.train, refit=False))
    if "refit" in inspect.signature(row.combination).parameters:
        return dataclasses.replace(row, fit=functools.partial(row.combination, refit=False))
    return row


def _small_batches(table: Table, names: Sequence[str], fraction: float, part: Dataset) -> list[dict[str, Any]]:
    """Fractions whose last batch of an epoch is tiny and one of few: its noisy gradient counts as much, scores drop.

    Rows whose view changes what an example is are left out.
    """
    trained = [row.train or table.train for row in table.pick(names) if row.model is not None and row.view is None]
    size, tiny = part.splits["train"].size, []
    for batch in sorted({train.batch_size for train in trained}):
        steps, last = -(-size // batch), size % batch
        if 0 < last < batch / 8 and 1 < steps <= 8:
            tiny.append({"fraction": fraction, "steps": steps, "last": last, "batch": batch})
    return tiny


def _why(raw: Dataset, fraction: float) -> str:
    try:
        efficiency.subset(raw, fraction)
    except UsageError:
        return "a class would have fewer than 2 items"
    return "it holds no more items than a smaller one"
