"""Format of a record: the fields, the line of JSON that holds them, and the digests by which changes are noticed."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, cast

from mmjax.errors import UsageError
from mmjax.files import as_json
from mmjax.typing import Mapping

__all__ = ["HELD_OUT", "STANDARD", "Record", "format_line", "json_sha256", "make_record", "parse_line"]

STANDARD = "mmeval-1"
HELD_OUT = ("validation", "test")


class Record(TypedDict):
    """The result of one seed of one row.

    Attributes:
      standard: name and version of this schema.
      row: name of the row, unique in its table.
      streams: the modalities it sees.
      dataset: ``name``, ``version``, ``sha256``, ``split_id``, ``n`` (test items), ``group`` (what a group is).
      method: ``name``, ``config_hash``, ``params`` (number of parameters), ``trials`` (of hyper-parameter search),
        ``code`` (digest of the definitions that trained it, which are in ``code/``).
      seed: of initialisation, data order and dropout.
      selection_rule: how the epoch was chosen.
      epoch: the chosen epoch, counted from 1; None where there are none.
      test_selected: the primary metric with the epoch chosen on test: no result, but a comparison to published numbers.
      primary: name of the primary metric.
      metrics: on test, by name; shares lie in [0, 1].
      validation_metrics: the same on validation.
      logits_path: the file of the logits in the work directory, and the name of the array in it, by split.
      logits_sha256: of that file.
      targets_sha256: of the targets that its metrics were computed with.
      files: digests of its further files by path: history and parameters.
      sha256: of the record itself, without this field. Older records lack these three.
      cost: ``params``, ``flops`` (of one example's forward pass; None = not counted).
      env: versions, ``device``, ``dtype``, ``commit``.
      conforming: whether the row follows the protocol.
      notes: for the reader.
      data_fraction: share of the training examples.
      calibration: of the test logits, raw and scaled by ``temperature``; only for classes.
      per_mask: primary score with only some modalities present, by pattern (``audio+text``, ``none``); higher is
        better, as in the following fields. These are added by analyses.
      emap: ``score``, ``gap``, ``n`` (items of a background).
      shapley: value by modality.
      perceptual: value by modality.
      robustness: score by level of noise, 0 first, by the noisy modality or ``all``.
    """

    standard: str
    row: str
    streams: list[str]
    dataset: dict[str, Any]
    method: dict[str, Any]
    seed: int
    selection_rule: str
    epoch: int | None
    test_selected: float | None
    primary: str
    metrics: dict[str, float]
    validation_metrics: dict[str, float]
    logits_path: dict[str, str]
    logits_sha256: str
    cost: dict[str, Any]
    env: dict[str, Any]
    conforming: bool
    notes: str
    targets_sha256: NotRequired[str]
    files: NotRequired[dict[str, str]]
    sha256: NotRequired[str]
    data_fraction: NotRequired[float]
    calibration: NotRequired[dict[str, float]]
    per_mask: NotRequired[dict[str, float]]
    emap: NotRequired[dict[str, float]]
    shapley: NotRequired[dict[str, float]]
    perceptual: NotRequired[dict[str, float]]
    robustness: NotRequired[dict[str, list[float]]]


def make_record(
    *,
    row: str,
    streams: Sequence[str],
    dataset: Mapping[str, Any],
    method: Mapping[str, Any],
    seed: int,
    selection_rule: str,
    epoch: int | None,
    test_selected: float | None,
    primary: str,
    metrics: Mapping[str, float],
    validation_metrics: Mapping[str, float],
    cost: Mapping[str, Any],
    env: Mapping[str, Any],
    conforming: bool = True,
    notes: str = "",
    data_fraction: float = 1.0,
    calibration: Mapping[str, float] | None = None,
) -> Record:
    """A record; see ``Record`` for the fields. ``RecordStore.write_row`` adds paths and digests.

    Raises:
      UsageError: the method has no ``config_hash``, or the primary metric is not among the metrics.
    """
    if "config_hash" not in method:
        raise UsageError(f"the method of row {row!r} needs a config_hash, it has {sorted(method)}")
    if primary not in metrics:
        raise UsageError(f"the primary metric {primary!r} of row {row!r} is not among its metrics {sorted(metrics)}")
    record = Record(
        standard=STANDARD,
        row=row,
        streams=list(streams),
        dataset=dict(dataset),
        method=dict(method),
        seed=int(seed),
        selection_rule=selection_rule,
        epoch=None if epoch is None else int(epoch),
        test_selected=None if test_selected is None else float(test_selected),
        primary=primary,
        metrics={name: float(value) for name, value in metrics.items()},
        validation_metrics={name: float(value) for name, value in validation_metrics.items()},
        logits_path={},
        logits_sha256="",
        cost=dict(cost),
        env=dict(env),
        conforming=conforming,
        notes=notes,
        data_fraction=float(data_fraction),
    )
    if calibration is not None:
        record["calibration"] = {name: float(value) for name, value in calibration.items()}
    return record


def format_line(record: Mapping[str, Any]) -> str:
    """The line of a record, with its digest."""
    return json.dumps({**record, "sha256": _sha256(record)}, sort_keys=True, default=as_json) + "\n"


def parse_line(line: bytes) -> Record | str:
    """The record of a line of ``records.jsonl``, or what is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "it is no JSON"
    if not isinstance(record, dict) or (missing := Record.__required_keys__ - set(record)):
        return f"it lacks {', '.join(sorted(missing))}" if isinstance(record, dict) else "it is no record"
    changed = record.get("sha256") not in (None, _sha256(record))
    return f"row {record['row']!r}, seed {record['seed']}: it was changed" if changed else cast(Record, record)


def _sha256(record: Mapping[str, Any]) -> str:
    return json_sha256({key: value for key, value in record.items() if key != "sha256"})


def json_sha256(value: Any) -> str:
    """The digest of JSON data, the same before they are written and after they are read."""
    plain = json.loads(json.dumps(value, default=as_json))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
