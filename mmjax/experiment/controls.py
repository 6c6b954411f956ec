"""Controls: the gain that is left with uninformative other modalities, and the gain of more models of one modality.

The rows that they belong to are chosen by validation scores, so they run after all others.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from mmjax.datasets import views
from mmjax.datasets.base import Dataset
from mmjax.evaluation.protocol import best_fusion, best_network
from mmjax.evaluation.scores import score
from mmjax.evaluation.store.schema import HELD_OUT
from mmjax.experiment.baselines import of_steps
from mmjax.experiment.table import Member, Row, Table, View
from mmjax.fusion.decision import mean_of_logits, mean_of_probabilities, mean_of_scores
from mmjax.tasks import generates
from mmjax.typing import Mapping

__all__ = ["control_rows", "ensemble"]


def control_rows(table: Table, summary: Mapping[str, Any]) -> list[Row]:
    """The controls for the concatenation and the fused network with the best validation score of its section.

    The shuffled control (Wu et al. 2021) trains the same network with all modalities but the best single one shuffled
    among the examples of train and validation: a gain that it keeps is regularisation, not information. The ensemble
    control is as many models of the best single modality as there are modalities: of the best row of one modality whose
    seeds differ, since more of a fit that gives the same every time are no ensemble. Of sentences there is no mean, and
    no such control.

    Args:
      table: with its networks resolved, and without controls.
      summary: of the finished rows.
    """
    done = {row["name"]: row for row in summary["rows"] if row["status"] == "done"}
    if not score(summary["primary"]).alone:
        return _strangers(table, summary)
    plain = [row for row in table.rows if row.role == "concatenation" and row.name in done and row.model is not None]
    if not plain:
        return []
    section = done[plain[0].name]["section"]
    best = [row for row in done.values() if row["best_single"] and row["section"] == section]
    streams = done[plain[0].name]["streams"]
    if not best or best[0]["streams"][0] not in streams:
        return []
    fusion = best_fusion(summary["rows"], higher_is_better=summary["higher_is_better"])
    chosen = plain + [row for row in table.rows if fusion is not None and row.name == fusion["name"]]
    informative = best[0]["streams"][0]
    others = tuple(name for name in streams if name != informative)
    shuffled = " and ".join(others) if len(others) < 3 else f"all but {informative}"
    rows = [_shuffled(row, others, shuffled) for row in chosen]
    if any(generates(row.task or table.task) for row in plain):
        return rows
    count, single = len(streams), _best_varying(table, best[0], done.values(), summary["higher_is_better"])
    return [
        *rows,
        Row(
            f"{count} models of {single['name']}",
            fit=functools.partial(ensemble, count=count),
            streams=tuple(single["streams"]),
            members=(single["name"],),
            section=section,
            seeds=table.pick([single["name"]])[0].seeds,
            baseline=False,
            role="ensemble control",
        ),
    ]


def _strangers(table: Table, summary: Mapping[str, Any]) -> list[Row]:
    """The best network on validation, trained on pairs of strangers: what it still finds, it does not owe to them."""
    best = best_network(summary["rows"], higher_is_better=summary["higher_is_better"])
    if best is None or len(best["streams"]) < 2:
        return []
    (row,) = table.pick([best["name"]])
    first = getattr(row.task or table.task, "first", best["streams"][0])
    others = tuple(name for name in best["streams"] if name != first)
    return [_shuffled(row, others, " and ".join(others) if len(others) < 3 else f"all but {first}")]


def _shuffled(row: Row, others: tuple[str, ...], what: str) -> Row:
    return dataclasses.replace(
        row,
        name=f"{row.name}: {what} shuffled",
        view=functools.partial(_shuffled_view, names=others, then=row.view),
        role="shuffled control",
        paper=None,
        notes="",
    )


def _best_varying(
    table: Table, best: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], higher_is_better: bool
) -> Mapping[str, Any]:
    """The best single modality of this section by validation whose seeds differ; ``best`` itself where none do."""
    varying = {row.name for row in table.rows if row.varies}
    if best["name"] in varying:
        return best
    alone = [row for row in rows if row["section"] == best["section"] and row.get("single") and row["name"] in varying]
    sign = 1 if higher_is_better else -1
    return max(alone, key=lambda row: sign * row["validation"], default=best)


def ensemble(data: Dataset, seed: int, members: Mapping[str, Member], *, count: int) -> dict[str, Any]:
    """Mean of the outputs of ``count`` seeds of one row, this and the following ones, cyclic: of the probabilities of
    classes, else (numbers, labels, other outputs) a plain mean.

    There are at most as many models as seeds. Neighbouring seeds share models, so the spread over seeds is somewhat too
    small.
    """
    (member,) = members.values()
    runs = member.runs[:count]
    scores = {}
    for split in HELD_OUT:
        logits = {str(number): run[split] for number, run in enumerate(runs)}
        kind = score(data.card.primary_metric).outputs
        of_classes = kind in ("classes", "tokens")
        plain = mean_of_scores if kind == "vectors" or np.ndim(runs[0][split]) == 1 else mean_of_logits
        mean = mean_of_probabilities if of_classes else plain
        scores[split] = of_steps(mean, logits, {name: member.present[split] for name in logits})
    return scores


def _shuffled_view(dataset: Dataset, *, names: tuple[str, ...], then: View | None) -> Dataset:
    dataset = views.shuffle_streams(dataset, names)
    return then(dataset) if then else dataset
