"""Methods across finished tables: average ranks, Friedman's test, and a critical-difference plot (Demsar 2006)."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.report.cells import Unit, value
from mmjax.evaluation.statistics import ranks
from mmjax.files import replace_file
from mmjax.typing import Mapping

__all__ = ["BEST_SINGLE", "compare_tables"]

BEST_SINGLE = "best single modality"
SHARED_ROLES = ("concatenation", "joint transformer", "mean of logits", "prior-corrected product")
"""Roles that are the same method in every table, whatever the row is called there."""
SAME_METHODS = {"product": "mean of logits", "prior-corrected product": "mean of logits"}
"""Sums of the single modalities' log-probabilities that differ by a term of each modality, or by the prior alone: one
method, counted once."""
NO_METHODS = ("single", "matched", "shuffled control", "ensemble control")


def compare_tables(workdirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> str:
    """Ranks the methods that all tables have, by test score; writes ``ranks.md`` and ``ranks.png``, returns the text.

    A table gives one observation, its data set. A method is known by its role (concatenation, joint transformer, mean
    of logits, prior-corrected product) or else by its name; where a table has it twice, its first row counts. The
    single modality that is best on validation counts as a method too. The mean of logits and the products of
    probabilities, which nearly always decide alike, count as one.

    Args:
      workdirs: folders that hold a ``table.json``.
      out: folder for the two files.

    Raises:
      UsageError: a folder without a table, a data set that stands in two tables, fewer than two methods in common.
    """
    from mmjax.evaluation.report.plots import critical_difference_figure, png

    tables: dict[str, Mapping[str, Any]] = {}
    for workdir in workdirs:
        table = _read(workdir)
        name = table["dataset"]["name"]
        if name in tables:
            raise UsageError(f"data set {name!r} stands in two of the tables; for ranks each counts once")
        tables[name] = table
    if not tables:
        raise UsageError("no table to compare: name the work directories of two or more")
    every = {name: _methods(table) for name, table in tables.items()}
    scored = {
        name: {one: score for one, score in methods.items() if SAME_METHODS.get(one) not in methods}
        for name, methods in every.items()
    }
    once = [one for one in SAME_METHODS if any(one in every[name] and one not in scored[name] for name in every)]
    methods, _, scores = ranks.in_common(scored)
    if len(methods) < 2:
        raise UsageError(f"the tables {', '.join(tables)} have {len(methods)} methods in common; two are needed")
    higher = np.array([table["higher_is_better"] for table in tables.values()])
    result = ranks.compare(scores, methods, higher_is_better=higher)
    left_out = dict.fromkeys(name for one in scored.values() for name in one if name not in methods)
    out = pathlib.Path(out)
    by_name = dict(zip(methods, result.ranks))
    joined = [[methods[place] for place in clique] for clique in result.cliques]
    text = _markdown(tables, result, scores, higher, list(left_out), joined, once)
    replace_file(out / "ranks.md", text.encode())
    replace_file(out / "ranks.png", png(critical_difference_figure(by_name, result.critical_difference, joined)))
    return text


def _read(workdir: str | os.PathLike) -> dict[str, Any]:
    path = pathlib.Path(workdir) / "table.json"
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{str(workdir)!r} holds no table.json: run the table's command first") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error}); make the report again") from None
    if "dataset" not in table or "higher_is_better" not in table:
        raise UsageError(f"{str(path)!r} pools several folds; compare the folder of one fold")
    return table


def _methods(table: Mapping[str, Any]) -> dict[str, float | None]:
    """Test scores by method, of the finished rows."""
    scores: dict[str, float | None] = {}
    for row in table["rows"]:
        if row["status"] != "done":
            continue
        role = row.get("role") or ("single" if row["single"] else "")
        if row.get("best_single"):
            scores.setdefault(BEST_SINGLE, row["mean"])
        elif role not in NO_METHODS:
            scores.setdefault(role if role in SHARED_ROLES else row["name"], row["mean"])
    return scores


def _markdown(
    tables: Mapping[str, Mapping[str, Any]],
    result: ranks.Ranks,
    scores: np.ndarray,
    higher: np.ndarray,
    left_out: Sequence[str],
    joined: Sequence[Sequence[str]],
    once: Sequence[str],
) -> str:
    ranked = ranks.average_ranks(scores, higher_is_better=higher)
    head = ["method", "average rank", *(f"{name}, {_unit(table)}" for name, table in tables.items())]
    body = []
    for place in np.argsort(result.ranks, kind="stable"):
        cells = [
            f"{value(table, scores[number, place])} ({ranked[number, place]:g})"
            for number, table in enumerate(tables.values())
        ]
        body.append([_escape(result.methods[place]), f"{result.ranks[place]:.2f}", *cells])
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    count = len(tables)
    parts = [
        "# Methods across data sets",
        f"{count} data set{'s' * (count != 1)}, {len(result.methods)} methods that all of them have. Test scores, "
        "means over seeds; in brackets the rank within the data set, 1 = best. A data set counts once, however many "
        "items it has.",
        *([f"**{result.note[0].upper()}{result.note[1:]}.**"] if result.note else []),
        "\n".join(lines),
    ]
    if result.p is not None:
        verdict = "differ" if result.p < 0.05 else "are not shown to differ"
        parts.append(
            f"Friedman's test that all are alike: p = {result.p:.4f} by permutation (10,000); chi-square "
            f"{result.chi2:.2f}, p = {result.p_chi2:.4f}. The methods {verdict} at 5 %."
        )
        parts.append(_differences(result, joined))
    if once:
        parts.append(f"The same method as the mean of logits, and counted with it: {'; '.join(once)}.")
    if left_out:
        parts.append(f"Not in every table, so not ranked: {_escape('; '.join(left_out))}.")
    return "\n\n".join(parts) + "\n"


def _differences(result: ranks.Ranks, joined: Sequence[Sequence[str]]) -> str:
    first = (
        f"Two methods differ if their average ranks are {result.critical_difference:.2f} or more apart (Nemenyi, 5 %)."
    )
    if not joined:
        return f"{first} All do."
    return "\n".join([f"{first} Not told apart:\n", *(f"* {_escape('; '.join(names))}" for names in joined)])


def _unit(table: Mapping[str, Any]) -> str:
    return Unit.of(table).short


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
