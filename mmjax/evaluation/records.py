"""Records on disk: one line per (row, seed), its logits beside it; killed at any moment, no row is ever half there.

A work directory holds ``config.json``, ``targets.npz``, ``records.jsonl``, ``logits/``, ``history/`` and, alone in
knowing of clocks, ``timing.json``. The line is written last, so it commits the row.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any, NotRequired, TypedDict, cast

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Mapping

__all__ = ["HELD_OUT", "STANDARD", "Record", "RecordStore", "make_record", "replace_file"]

STANDARD = "mmeval-1"
HELD_OUT = ("validation", "test")


class Record(TypedDict):
    """What one seed of one row gave.

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
      test_selected: the primary metric with the epoch chosen on test; never a result, it explains published numbers.
      primary: name of the primary metric.
      metrics: on test, by name; shares lie in [0, 1].
      validation_metrics: the same on validation.
      logits_path: the file of the logits in the work directory, and the name of the array in it, by split.
      logits_sha256: of that file.
      cost: ``params``, ``flops`` (of one example's forward pass; None = not counted).
      env: versions, ``device``, ``dtype``, ``commit``.
      conforming: whether the protocol was kept.
      notes: what a reader must know.
      data_fraction: share of the training examples that it saw.
      calibration: of the test logits, as they are and scaled by ``temperature``; not there for scores.
      per_mask: primary score with only some modalities present, by pattern (``audio+text``, ``none``); higher is
        better, as in the fields that follow. These are there once they have been measured.
      emap: ``score``, ``gap``, ``n`` (items of a background).
      shapley: value by modality.
      perceptual: value by modality.
      robustness: score by level of noise, from none, by the modality touched or ``all``.
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
    """A record; see ``Record`` for the fields. ``RecordStore.write_row`` fills in where the logits are.

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


class RecordStore:
    """The records of a work directory. One process writes it at a time; reading is always safe."""

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)
        self._known: tuple[bytes, list[Record]] | None = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes ``config.json``; see ``mmjax.evaluation.summary`` for what the report reads of it."""
        replace_file(self.workdir / "config.json", _json(config).encode())

    def config(self) -> dict[str, Any]:
        """What ``write_config`` wrote.

        Raises:
          UsageError: there is none, or it is damaged.
        """
        path = self.workdir / "config.json"
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            raise UsageError(f"{str(self.workdir)!r} is no work directory of a table: it has no config.json") from None
        except ValueError as error:
            raise UsageError(f"{str(path)!r} is damaged ({error}); run the table's command again") from None

    def write_targets(self, targets: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes ``targets.npz``: ``{"validation": {"target": [items], "group": [items]}, "test": ...}``.

        Several labels an item are a target ``[items, labels]``.

        Raises:
          UsageError: a group that is not ``[items]``, a target that is neither.
        """
        arrays = {}
        for split in HELD_OUT:
            for name in ("target", "group"):
                values = np.asarray(targets[split][name])
                axes = (1, 2) if name == "target" else (1,)
                if values.ndim not in axes or len(values) != len(targets[split]["target"]):
                    raise UsageError(f"{name} of {split} must be [items], one value an item; got {values.shape}")
                arrays[f"{split}/{name}"] = values.astype(str) if values.dtype == object else values
        replace_file(self.workdir / "targets.npz", _npz(arrays))

    def targets(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Target and group of each item of a split, ``[items]`` each; several labels are ``[items, labels]``."""
        with np.load(self._existing("targets.npz")) as arrays:
            return arrays[f"{split}/target"], arrays[f"{split}/group"]

    def write_row(
        self,
        name: str,
        records: Sequence[Mapping[str, Any]],
        logits: Mapping[str, Any],
        timing: Mapping[str, Any],
        history: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one row, instead of what was there of it.

        Args:
          records: one per seed, in the order of the first axis of the arrays.
          logits: ``validation`` and ``test``, ``[seeds, items, classes]`` (scores: ``[seeds, items]``; labels: in
            place of classes).
          timing: what the clock said.
          history: metrics by name, ``[epochs, seeds]``.

        Raises:
          UsageError: no records, records of another row, or not as many as there are seeds in the logits.
        """
        arrays = {split: np.asarray(logits[split], np.float32) for split in HELD_OUT}
        if not records or any(record["row"] != name for record in records):
            raise UsageError(f"row {name!r} needs a record per seed, all its own; got {[r['row'] for r in records]}")
        if wrong := {k: v.shape for k, v in arrays.items() if v.ndim not in (2, 3) or len(v) != len(records)}:
            raise UsageError(f"row {name!r} has {len(records)} records; its logits need as many seeds, got {wrong}")
        arrays["seeds"] = np.asarray([record["seed"] for record in records], np.int64)
        data, path = _npz(arrays), f"logits/{_slug(name)}.npz"
        replace_file(self.workdir / path, data)
        if history is not None:
            curves = {key: np.asarray(values, np.float32) for key, values in sorted(history.items())}
            replace_file(self.workdir / "history" / f"{_slug(name)}.npz", _npz(curves))
        self._write_timing(name, timing)
        where = {
            "logits_path": {split: f"{path}:{split}" for split in HELD_OUT},
            "logits_sha256": hashlib.sha256(data).hexdigest(),
        }
        kept = [record for record in self._all() if record["row"] != name]
        self._write_records([*kept, *({**record, **where} for record in records)])

    def done(self, name: str, config_hash: str, seeds: Iterable[int]) -> bool:
        """Whether all these seeds of the row are there, with this configuration and undamaged logits."""
        records = self.records(name)
        have = {record["seed"] for record in records if record["method"]["config_hash"] == config_hash}
        return have >= set(seeds) and self.verify(name)

    def verify(self, name: str) -> bool:
        """Whether the row's file of logits is the one that its records speak of."""
        path = self.workdir / "logits" / f"{_slug(name)}.npz"
        expected = {record["logits_sha256"] for record in self.records(name)}
        return path.is_file() and expected == {hashlib.sha256(path.read_bytes()).hexdigest()}

    def records(self, name: str) -> list[Record]:
        """The records of a row, in the order of its logits; empty where it has not run."""
        return [record for record in self._all() if record["row"] == name]

    def logits(self, name: str, split: str) -> np.ndarray:
        """``[seeds, items, classes]`` of ``validation`` or ``test``, float32.

        Raises:
          UsageError: the row has none.
        """
        return self._logits_file(name)[split]

    def seeds(self, name: str) -> list[int]:
        """The seeds along the first axis of the row's logits."""
        return self._logits_file(name)["seeds"].tolist()

    def history(self, name: str) -> dict[str, np.ndarray] | None:
        """Metrics over the epochs, ``[epochs, seeds]`` by name; None for a row without epochs."""
        path = self.workdir / "history" / f"{_slug(name)}.npz"
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def write_code(self, digest: str, definitions: Mapping[str, str]) -> None:
        """Keeps the code of rows, so that what differs from it later can be named."""
        path = self._code_file(digest)
        if not path.is_file():
            replace_file(path, _json(definitions).encode())

    def code(self, digest: str) -> dict[str, str] | None:
        """Digests by the name of the definition, as ``write_code`` was given them; None where there are none."""
        try:
            return json.loads(self._code_file(digest).read_bytes())
        except (OSError, ValueError):
            return None

    def _code_file(self, digest: str) -> pathlib.Path:
        return self.workdir / "code" / f"{digest}.json"

    def annotate(self, measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Adds what was measured of rows to their records.

        Args:
          measured: by row the further fields of each of its records, in their order.
        """
        old, places = self._all(), dict.fromkeys(measured, 0)
        new = []
        for record in old:
            name = record["row"]
            if name in measured:
                record = cast(Record, {**record, **measured[name][places[name]]})
                places[name] += 1
            new.append(record)
        if new != old:
            self._write_records(new)

    def write_analysis(self, name: str, digest: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Keeps what was measured of a row beyond its scores.

        Args:
          digest: JSON data by which it is known again: the row's ``config_hash``, its ``seeds``, the digest of its
            ``logits``, and how each of its ``parts`` was measured.
          arrays: what was measured, by name.
        """
        known = {"digest": np.asarray(json.dumps(digest, sort_keys=True))}
        replace_file(self._analysis_file(name), _npz({**known, **{k: np.asarray(v) for k, v in arrays.items()}}))

    def analysis(self, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Digest and arrays of ``write_analysis``; None where there are none, or they are damaged."""
        try:
            with np.load(self._analysis_file(name)) as arrays:
                found = {key: arrays[key] for key in arrays.files}
            return json.loads(str(found.pop("digest"))), found
        except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):  # what damage can give
            return None

    def _analysis_file(self, name: str) -> pathlib.Path:
        return self.workdir / "analysis" / f"{_slug(name)}.npz"

    def _logits_file(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self._existing(f"logits/{_slug(name)}.npz", f" of row {name!r}")) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _existing(self, path: str, of: str = "") -> pathlib.Path:
        if not (self.workdir / path).is_file():
            raise UsageError(f"no {path}{of} in {str(self.workdir)!r}: run the table's command first")
        return self.workdir / path

    def timing(self) -> dict[str, Any]:
        """What a clock measured, by row."""
        try:
            return json.loads((self.workdir / "timing.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}

    def _write_timing(self, name: str, timing: Mapping[str, Any]) -> None:
        replace_file(self.workdir / "timing.json", _json({**self.timing(), name: timing}).encode())

    def _write_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Rows in the order of the table, whatever the order they ran in; rows it no longer has stand last."""
        order = {row["name"]: place for place, row in enumerate(self.config()["rows"])}
        ordered = sorted(records, key=lambda record: order.get(record["row"], len(order)))
        lines = [json.dumps(record, sort_keys=True, default=_plain) + "\n" for record in ordered]
        replace_file(self.workdir / "records.jsonl", "".join(lines).encode())

    def _all(self) -> list[Record]:
        """Every line that can be read; a truncated one is dropped, so its row is not done and runs again."""
        path = self.workdir / "records.jsonl"
        data = path.read_bytes() if path.is_file() else b""
        if self._known is None or self._known[0] != data:
            self._known = (data, [record for line in data.splitlines() if (record := _parse(line))])
        return self._known[1]


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and Record.__required_keys__ <= set(record)
    return cast(Record, record) if whole else None


def _slug(name: str) -> str:
    """A file name, unique also where case does not count."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The same bytes for the same arrays: NumPy dates every member of the archive 1980."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=1, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays as JSON."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def replace_file(path: pathlib.Path, data: bytes) -> None:
    """Writes a file whole or not at all, beside other processes and threads that write the same one.

    The name of the partial file is a new one each time, so that nothing that lies there, a link among others, is
    written to.

    Raises:
      UsageError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None
        raise


@functools.cache
def _umask() -> int:
    """Of the process; mkstemp's files are for the owner alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
