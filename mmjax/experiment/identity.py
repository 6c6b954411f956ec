"""What a table and its rows are, in JSON: the configuration on disk, and the digest by which a row is known again."""

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn

import mmjax
from mmjax.datasets.base import Dataset
from mmjax.datasets.statistics import has_sequences
from mmjax.environment import environment
from mmjax.evaluation.measures.noise import default_noises
from mmjax.evaluation.scores import score
from mmjax.experiment.baselines import constants
from mmjax.experiment.settings import describe, digest
from mmjax.experiment.table import Row, Table
from mmjax.experiment.trials import has_settings
from mmjax.models import ModalityDropout
from mmjax.typing import Mapping

__all__ = ["config_hash", "modality_dropout", "table_config"]


def config_hash(table: Table, row: Row, dataset: Dataset) -> str:
    """Changes with anything that could change the row's numbers, what is printed beside them excepted."""
    method = describe(dataclasses.replace(row, paper=None, notes="", section="", train=row.train or table.train))
    del method["role"]
    members = [config_hash(table, member, dataset) for member in table.pick(row.members)]
    versions = {package: importlib.metadata.version(package) for package in ("jax", "flax", "optax")}
    data = [dataset.card.name, dataset.version, dataset.sha256, dataset.split_id, describe(table.view)]
    data += [table.limit] if table.limit else []
    del method["trials"], method["feed"]
    data += [{"feed": "streaming"}] if table.streams_batches(row) else []
    trials = table.trials if row.trials is None else row.trials
    data += [{"trials": trials}] if trials > 1 and has_settings(row) else []
    data += [{"fraction": table.fraction}] if table.fraction is not None else []
    return digest([method, row.task or table.task, data, members, mmjax.__version__, versions])


def modality_dropout(row: Row) -> float:
    """The rate at which the row's network loses modalities in training; 0 = it is trained on all there are."""
    return max((part.rate for part in _modules(row.model) if isinstance(part, ModalityDropout)), default=0.0)


def _modules(value: Any) -> Iterator[nn.Module]:
    """The module and all that stand in its fields."""
    if isinstance(value, nn.Module):
        yield value
        value = [getattr(value, field.name) for field in dataclasses.fields(value) if field.name != "parent"]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _modules(part)


def _known_answers(dataset: Dataset) -> list[dict[str, Any]]:
    """What constants reach where there are scores; accuracies that no classifier can pass, where they are known."""
    answers = [("Bayes accuracy, all modalities", dataset.facts.get("bayes_accuracy"))]
    alone = dataset.facts.get("bayes_accuracy_alone", {})
    answers += [(f"Bayes accuracy, {name} alone", value) for name, value in alone.items()]
    answers += constants(dataset).items()
    return [{"name": name, "value": value} for name, value in answers if value is not None]


def table_config(name: str, table: Table, dataset: Dataset, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What ``config.json`` holds; see ``mmjax.evaluation.report.summary`` for what the report reads of it."""
    of_classes = score(dataset.card.primary_metric).outputs == "classes"
    classes = dataset.card.num_classes if of_classes else None
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
        "metric": dataset.card.metric or dataset.card.primary_metric,
        "streams": list(dataset.streams),
        "sequences": has_sequences(dataset),
        "noise": {name: noise.scale for name, noise in default_noises(dataset.card.kinds).items()},
        "majority": dataset.majority() if classes else None,
        "chance": 1 / classes if classes else None,
        "known": _known_answers(dataset),
        "seeds": list(range(table.seeds)),
        "train": describe(table.train),
        "rows": [
            {
                "name": row.name,
                "section": row.section,
                "streams": list(row.streams or dataset.streams),
                "kind": "fit" if row.fit else "model",
                "members": list(row.members),
                "role": row.role,
                "validation_scores": row.validation_scores,
                "single": row.baseline
                and row.validation_scores != "fitted"
                and len(row.streams or dataset.streams) == 1,
                "paper": None if row.paper is None else dataclasses.asdict(row.paper),
                "extra": row.name in table.extra,
                "seeds": list(range(row.seeds)) if row.seeds else None,
                "notes": row.notes,
                "modality_dropout": modality_dropout(row),
                "config_hash": hashes[row.name],
                "method": describe(row.model or row.fit),
            }
            for row in table.rows
        ],
        "references": [{"name": label, **dataclasses.asdict(paper)} for label, paper in table.references],
        "env": environment(),
    }
