"""A table and its rows as JSON: the configuration on disk, and the digest that identifies a row."""

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
from mmjax.experiment.baselines import chance_of_sides, constants
from mmjax.experiment.settings import describe, digest
from mmjax.experiment.table import Row, Table
from mmjax.experiment.trials import has_settings
from mmjax.models import ModalityDropout
from mmjax.typing import Mapping

__all__ = ["config_hash", "modality_dropout", "table_config"]


def config_hash(table: Table, row: Row, dataset: Dataset) -> str:
    """Digest of all configuration that can change the numbers of a row; texts are left out."""
    method = describe(dataclasses.replace(row, paper=None, notes="", section="", train=row.train or table.train))
    del method["role"], method["versus"]
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
    """The rate of modality dropout of the row's network; 0 = none."""
    return max((part.rate for part in _modules(row.model) if isinstance(part, ModalityDropout)), default=0.0)


def _modules(value: Any) -> Iterator[nn.Module]:
    """The module and all modules in its fields."""
    if isinstance(value, nn.Module):
        yield value
        value = [getattr(value, field.name) for field in dataclasses.fields(value) if field.name != "parent"]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _modules(part)


def _reference_values(dataset: Dataset) -> list[dict[str, Any]]:
    """Metrics of constant predictions, and Bayes accuracies of synthetic data."""
    answers = [("Bayes accuracy, all modalities", dataset.facts.get("bayes_accuracy"))]
    alone = dataset.facts.get("bayes_accuracy_alone", {})
    answers += [(f"Bayes accuracy, {name} alone", value) for name, value in alone.items()]
    answers += constants(dataset).items()
    return [{"name": name, "value": value} for name, value in answers if value is not None]


def table_config(name: str, table: Table, dataset: Dataset, hashes: Mapping[str, str]) -> dict[str, Any]:
    """The content of ``config.json``; ``mmjax.evaluation.report.summary`` lists what the report reads."""
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
        **({"also": list(table.also)} if table.also else {}),
        **({"judged": list(table.judged)} if table.judged else {}),
        "streams": list(dataset.streams),
        "sequences": has_sequences(dataset),
        "noise": {name: noise.scale for name, noise in default_noises(dataset.card.kinds).items()},
        "majority": dataset.majority() if classes else None,
        "chance": 1 / classes if classes else chance_of_sides(dataset),
        "known": _reference_values(dataset),
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
                **({"versus": row.versus} if row.versus else {}),
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
