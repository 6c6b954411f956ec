"""``fold=all``: the same table on every fold, and a report that pools them and shows the spread between folds."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.report.cells import Unit, value
from mmjax.evaluation.report.write import write_report
from mmjax.experiment.markdown import markdown_table
from mmjax.experiment.parts import PART, is_part
from mmjax.experiment.table import Table
from mmjax.files import read_json, replace_file, rounded, write_json
from mmjax.typing import Mapping

__all__ = ["is_pooled", "run_folds", "write_pooled_report"]


def is_pooled(table: Table) -> bool:
    """Whether the table asks for all its folds.

    Raises:
      UsageError: it does and has none.
    """
    if table.options.get("fold") != "all":
        return False
    if not table.folds:
        raise UsageError(f"{table.title!r} has no folds: options.fold=all needs them")
    return True


def run_folds(run: Callable[..., str], table: Table, name: str, workdir: pathlib.Path, **arguments: Any) -> str:
    """Runs the table in ``workdir/fold-K`` for each fold and writes the pooled report into ``workdir``."""
    config: dict[str, Any] = {"table": name, "title": table.title, "note": table.note, "folds": list(table.folds)}
    rows, place = arguments.get("rows"), workdir
    if not arguments.get("force") and is_part(workdir, rows, table.seeds):
        place = workdir / PART
    if rows is not None or place != workdir:
        config["part"] = True
    write_json(place / "config.json", config)
    for fold in table.folds:
        one = dataclasses.replace(table, options={**table.options, "fold": fold})
        run(one, name=name, workdir=workdir / f"fold-{fold}", **arguments)
    return write_pooled_report(place)


def write_pooled_report(workdir: pathlib.Path, *, again: bool = False) -> str:
    """Writes ``table.json`` and ``table.md`` from the folds' own reports and returns the markdown.

    Args:
      workdir: of a run with ``fold=all``.
      again: also writes the folds' reports again from their records.

    Raises:
      UsageError: no fold has been run.
    """
    config = read_json(workdir / "config.json")
    tables = {}
    for fold in config["folds"]:
        folder = workdir / f"fold-{fold}"
        if workdir.name == PART and config.get("part"):
            whole = workdir.parent / f"fold-{fold}"
            folder = whole / PART if (whole / PART).is_dir() else whole
        if again and (folder / "config.json").is_file():
            write_report(folder)
        if (path := folder / "table.json").is_file():
            tables[fold] = read_json(path)
    if not tables:
        raise UsageError(f"{str(workdir)!r} holds no finished fold yet; run the table's command again")
    pooled = _pool(config, tables)
    text = _markdown(pooled)
    write_json(workdir / "table.json", pooled)
    replace_file(workdir / "table.md", text.encode())
    return text


def _pool(config: Mapping[str, Any], tables: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """Rows by section and name. Controls are named after the best rows of a fold, so folds may have different ones; a
    row that some folds lack has no mean.
    """
    first = next(iter(tables.values()))
    named = [{(row["section"], row["name"]): row for row in table["rows"]} for table in tables.values()]
    every = dict.fromkeys(key for rows in named for key in rows)  # in the order of the first, then of the others
    rows = []
    for key in every:
        row = next(rows_of[key] for rows_of in named if key in rows_of)
        means: list[Any] = [rows_of[key].get("mean") if key in rows_of else None for rows_of in named]
        cells = {name: row[name] for name in ("name", "section", "streams", "extra")} | {"folds": means}
        if None not in means:
            spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
            cells |= {"mean": float(np.mean(means)), "sd": spread, "min": min(means), "max": max(means)}
            cells = {name: rounded(value) for name, value in cells.items()}
        rows.append(cells)
    return {
        **{name: config[name] for name in ("table", "title", "note")},
        **{name: first[name] for name in ("primary", "score") if name in first},
        "wanted_folds": config["folds"],
        "folds": list(tables),
        "sizes": {str(fold): table["items"]["test"] for fold, table in tables.items()},
        "seeds": first["seeds"],
        "rows": rows,
    }


def _markdown(pooled: Mapping[str, Any]) -> str:
    def show(number: float | None) -> str:
        return value(pooled, number)

    done, wanted = len(pooled["folds"]), len(pooled["wanted_folds"])
    head = ["row", "mean of folds", "sd between folds", "lowest", "highest", *(f"fold {f}" for f in pooled["folds"])]
    body = [
        [row["name"], *(show(row.get(key)) for key in ("mean", "sd", "min", "max"))]
        + [show(mean) for mean in row["folds"]]
        for row in pooled["rows"]
        if any(mean is not None for mean in row["folds"])
    ]
    idle = [row["name"] for row in pooled["rows"] if not any(mean is not None for mean in row["folds"])]
    unit = Unit.of(pooled).heading
    legend = (
        f"{done} of {wanted} folds, whose test items are disjoint; {unit}, the mean over {len(pooled['seeds'])} seeds "
        "in each fold. The spread between folds is what another test group would change; each fold's own table, with "
        "its intervals and tests, stands in its folder fold-K."
    )
    parts = [f"# {pooled['title']}: folds pooled", *filter(None, [pooled["note"]]), legend, markdown_table(head, body)]
    if any(None in row["folds"] and any(mean is not None for mean in row["folds"]) for row in pooled["rows"]):
        parts.append("A row without a mean is missing in some folds: controls are those of each fold's own best rows.")
    parts += [f"Not run: {'; '.join(idle)}."] if idle else []
    return "\n\n".join(parts) + "\n"
