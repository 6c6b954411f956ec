"""Check that a work directory is as it was written, so that no report is made of changed files."""

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.scores import score as find_score
from mmjax.evaluation.store.records import RecordStore
from mmjax.evaluation.store.schema import HELD_OUT
from mmjax.files import DamagedFile
from mmjax.typing import Mapping

__all__ = ["check_undamaged"]

TOLERANCE = 1e-4
"""Between a metric in a record, computed in float32, and the same metric of the stored logits."""


def check_undamaged(store: RecordStore) -> None:
    """Passes if records, targets, logits, history, parameters and analyses are as they were written.

    Of rows outside the table, or of another configuration, only the records are checked.

    Raises:
      UsageError: no work directory.
      DamagedFile: a file differs, and how.
    """
    config = store.config()
    if (damage := store.record_damage()) is not None:
        raise damage
    for row in config["rows"]:
        name = row["name"]
        records = [r for r in store.records(name) if r["method"]["config_hash"] == row["config_hash"]]
        if not records:
            continue
        for damage in (store.row_damage(name), store.analysis_damage(name)):
            if damage is not None:
                raise damage
        if any(record.get("targets_sha256") not in (None, store.targets_sha256()) for record in records):
            raise DamagedFile(store.workdir / "targets.npz", f"row {name!r} was evaluated with other targets")
        _check_scores(store, name, config["primary"])


def _check_scores(store: RecordStore, name: str, primary: str) -> None:
    """Compares the primary metric of each record with that of its logits.

    Raises:
      DamagedFile: they differ.
    """
    for split in HELD_OUT:
        values = _values(store.logits(name, split), store.targets(split)[0], primary)
        for record, value in zip(store.records(name), values if values is not None else ()):
            stored = _metrics(record, split).get(primary)
            if stored is not None and not np.isclose(stored, value, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                raise DamagedFile(
                    store.workdir / "records.jsonl",
                    f"or targets.npz: row {name!r}, seed {record['seed']}: {split} {primary} is {stored:.6g}, by its "
                    f"logits {value:.6g}",
                )


def _metrics(record: Mapping, split: str) -> Mapping[str, float]:
    return record["metrics" if split == "test" else "validation_metrics"]


def _values(logits: np.ndarray, target: np.ndarray, primary: str) -> np.ndarray | None:
    """The metric of each seed; None where logits and targets do not fit it, which the summary reports."""
    score = find_score(primary)
    try:
        score.check(logits, target, "")
    except UsageError:
        return None
    return score.of(logits.astype(np.float64), target)
