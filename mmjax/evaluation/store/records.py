"""Records on disk: one line per (row, seed), with its logits in a file. Writing a row is atomic, even if killed.

A work directory holds ``config.json``, ``targets.npz``, ``records.jsonl``, ``logits/``, ``history/``, ``analysis/``,
``code/`` and ``timing.json``, the only file that depends on clocks. The line is written last and commits the row.
"""

import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.store.schema import HELD_OUT, Record, format_line, json_sha256, parse_line
from mmjax.evaluation.store.targets import flatten_target, rebuild_target
from mmjax.files import DamagedFile, arrays_sha256, file_sha256, read_json, read_npz, replace_file, write_json
from mmjax.typing import Mapping

__all__ = ["WHOLE_TABLE", "RecordStore"]

AGAIN = "run the table's command again"
WHOLE_TABLE = "(whole table)"
"""Key of ``timing.json`` for the seconds of the table: compiling (in threads of its own, beside training), training and
searching summed over rows; analysing and writing as elapsed."""


class RecordStore:
    """The records of a work directory. One process writes at a time; reading is always safe."""

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)
        self._cache: tuple[bytes, list[Record], bool] | None = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes ``config.json``; see ``mmjax.evaluation.report.summary`` for what the report reads of it."""
        config = {key: value for key, value in config.items() if key != "sha256"}
        write_json(self.workdir / "config.json", {**config, "sha256": json_sha256(config)})

    def config(self) -> dict[str, Any]:
        """What ``write_config`` wrote.

        Raises:
          UsageError: there is none, or it is damaged.
        """
        path = self.workdir / "config.json"
        try:
            config = read_json(path)
        except FileNotFoundError:
            raise UsageError(f"{str(self.workdir)!r} is no work directory of a table: it has no config.json") from None
        if not isinstance(config, dict):
            raise DamagedFile(path, "no configuration")
        if config.pop("sha256", None) not in (None, json_sha256(config)):
            raise DamagedFile(path, f"it was changed; {AGAIN}")
        return config

    def write_targets(self, targets: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes ``targets.npz``: ``{"validation": {"target": [items], "group": [items]}, "test": ...}``.

        Several labels an item are a target ``[items, labels]``; a target may also be a ``Stream`` or another tree of
        such, see ``mmjax.evaluation.store.targets``.

        Raises:
          UsageError: a group that is not ``[items]``, a target part of which has not as many items.
        """
        arrays = {}
        for split in HELD_OUT:
            parts = flatten_target("target", targets[split]["target"])
            items = len(first) if (first := next(iter(parts.values()))).ndim else 0
            for name, values in {**parts, "group": np.asarray(targets[split]["group"])}.items():
                axes = 1 if name == "group" else max(values.ndim, 1)
                if values.ndim != axes or len(values) != items:
                    raise UsageError(f"{name} of {split} must be [items], one value an item; got {values.shape}")
                arrays[f"{split}/{name}"] = values.astype(str) if values.dtype == object else values
        replace_file(self.workdir / "targets.npz", _npz(arrays))

    def targets(self, split: str) -> tuple[Any, np.ndarray]:
        """Target and group of each item of a split, ``[items]`` each; several labels are ``[items, labels]``, and a
        target that was a tree is one again.

        Raises:
          UsageError: there are none, or the file is damaged.
        """
        arrays = read_npz(self._existing("targets.npz"))
        try:
            return rebuild_target(f"{split}/target", arrays), arrays[f"{split}/group"]
        except (KeyError, ValueError) as error:
            raise DamagedFile(self.workdir / "targets.npz", f"it lacks {error}") from None

    def targets_sha256(self) -> str:
        """The digest of the targets and groups of both splits."""
        return arrays_sha256(read_npz(self._existing("targets.npz")))

    def write_row(
        self,
        name: str,
        records: Sequence[Mapping[str, Any]],
        logits: Mapping[str, Any],
        timing: Mapping[str, Any],
        history: Mapping[str, Any] | None = None,
        files: Sequence[str] = (),
    ) -> None:
        """Writes one row, replacing an older one.

        Args:
          records: one per seed, in the order of the first axis of the arrays.
          logits: ``validation`` and ``test``, ``[seeds, items, classes]`` (scores: ``[seeds, items]``; labels: in
            place of classes; of a label per step ``[seeds, items, steps, classes]``; whatever a task keeps).
          timing: clock times.
          history: metrics by name, ``[epochs, seeds]``.
          files: paths in the work directory of further files of the row, whose digests are stored.

        Raises:
          UsageError: no records, records of another row, or not as many as there are seeds in the logits.
        """
        arrays = {split: np.asarray(logits[split], np.float32) for split in HELD_OUT}
        if not records or any(record["row"] != name for record in records):
            raise UsageError(f"row {name!r} needs a record per seed, all its own; got {[r['row'] for r in records]}")
        if wrong := {k: v.shape for k, v in arrays.items() if v.ndim < 2 or len(v) != len(records)}:
            raise UsageError(f"row {name!r} has {len(records)} records; its logits need as many seeds, got {wrong}")
        arrays["seeds"] = np.asarray([record["seed"] for record in records], np.int64)
        data, path = _npz(arrays), f"logits/{_slug(name)}.npz"
        self.remove_records(name, {record["method"]["config_hash"] for record in records})
        replace_file(self.workdir / path, data)
        files = list(files)
        if history is not None:
            curves = {key: np.asarray(values, np.float32) for key, values in sorted(history.items())}
            files.append(f"history/{_slug(name)}.npz")
            replace_file(self.workdir / files[-1], _npz(curves))
        self._write_timing(name, timing)
        where = {
            "logits_path": {split: f"{path}:{split}" for split in HELD_OUT},
            "logits_sha256": hashlib.sha256(data).hexdigest(),
            "targets_sha256": self.targets_sha256(),
            "files": {one: file_sha256(self.workdir / one) for one in files},
        }
        self._write_records([*self._others(name), *({**record, **where} for record in records)])

    def remove_records(self, name: str, config_hashes: Collection[str]) -> None:
        """Removes a row's records of these configurations before its files are replaced: a row killed in between
        counts as not run.
        """
        if any(record["method"]["config_hash"] in config_hashes for record in self.records(name)):
            self._write_records(self._others(name))

    def done(self, name: str, config_hash: str, seeds: Iterable[int]) -> bool:
        """Whether the row has all these seeds, with this configuration and undamaged."""
        records = self.records(name)
        have = {record["seed"] for record in records if record["method"]["config_hash"] == config_hash}
        return have >= set(seeds) and self.row_damage(name) is None

    def row_damage(self, name: str) -> DamagedFile | None:
        """The first file of a row that differs from its records. Missing history or parameters are no damage: they may
        be deleted.
        """
        records, path = self.records(name), self.workdir / "logits" / f"{_slug(name)}.npz"
        if not records:
            return None
        if not path.is_file():
            return DamagedFile(path, "it is gone")
        if not self.verify(name):
            return DamagedFile(path, "it was changed")
        seeds, in_logits = [record["seed"] for record in records], self.seeds(name)
        if seeds != in_logits:
            why = f"row {name!r} has records of the seeds {seeds} and logits of {in_logits}"
            return DamagedFile(self.workdir / "records.jsonl", why)
        for record in records:
            for one, sha256 in record.get("files", {}).items():
                if (self.workdir / one).is_file() and file_sha256(self.workdir / one) != sha256:
                    return DamagedFile(self.workdir / one, "it was changed")
        return None

    def verify(self, name: str) -> bool:
        """Whether the row's file of logits has the digest in its records."""
        path = self.workdir / "logits" / f"{_slug(name)}.npz"
        expected = {record["logits_sha256"] for record in self.records(name)}
        return path.is_file() and expected == {hashlib.sha256(path.read_bytes()).hexdigest()}

    def records(self, name: str) -> list[Record]:
        """The records of a row, in the order of its logits; empty where it has not run."""
        return [record for record in self._all() if record["row"] == name]

    def _others(self, name: str) -> list[Record]:
        return [record for record in self._all() if record["row"] != name]

    def names(self) -> set[str]:
        """Names of the rows that have records."""
        return {record["row"] for record in self._all()}

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
        """Metrics over the epochs, ``[epochs, seeds]`` by name; None for a row without epochs.

        Raises:
          DamagedFile: it cannot be read.
        """
        path = self.workdir / "history" / f"{_slug(name)}.npz"
        return read_npz(path) if path.is_file() else None

    def write_code(self, digest: str, definitions: Mapping[str, str]) -> None:
        """Stores the definitions behind a digest of code, so that later changes can be named."""
        path = self._code_file(digest)
        if not path.is_file():
            write_json(path, definitions)

    def code(self, digest: str) -> dict[str, str] | None:
        """What ``write_code`` stored: digests by the name of the definition; None where there is nothing."""
        try:
            return read_json(self._code_file(digest))
        except (OSError, DamagedFile):
            return None

    def _code_file(self, digest: str) -> pathlib.Path:
        return self.workdir / "code" / f"{digest}.json"

    def adopt(self, other: "RecordStore", name: str) -> None:
        """Copies a finished row from another work directory, with all its files and analyses."""
        records, slug = other.records(name), _slug(name)
        paths = [f"logits/{slug}.npz", f"history/{slug}.npz", f"analysis/{slug}.npz"]
        paths += [path for record in records[:1] for path in record.get("files", {})]
        paths += [f"code/{path.name}" for path in sorted((other.workdir / "code").glob("*.json"))]
        self.remove_records(name, {record["method"]["config_hash"] for record in records})
        for path in dict.fromkeys(paths):
            if (other.workdir / path).is_file():
                replace_file(self.workdir / path, (other.workdir / path).read_bytes())
        self._write_timing(name, other.timing().get(name, {}))
        self._write_records([*self._others(name), *records])

    def annotate(self, fields: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Adds fields to records.

        Args:
          fields: by row, for each of its records in their order.
        """
        old, further = self._all(), {name: iter(values) for name, values in fields.items()}
        new = [{**record, **next(further.get(record["row"], iter(())), {})} for record in old]
        if new != old:
            self._write_records(new)

    def write_analysis(self, name: str, digest: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Stores analyses of a row.

        Args:
          digest: JSON data that says what they belong to: the row's ``config_hash``, its ``seeds``, the digest of its
            ``logits``, and how each of the ``parts`` was computed.
          arrays: by name.
        """
        plain = {key: np.asarray(values) for key, values in arrays.items()}
        whole = {**digest, "sha256": _analysis_sha256(digest, plain)}
        replace_file(
            self._analysis_file(name), _npz({"digest": np.asarray(json.dumps(whole, sort_keys=True)), **plain})
        )

    def analysis(self, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Digest and arrays of ``write_analysis``; None where there are none, or they are damaged."""
        try:
            return self._read_analysis(name)
        except DamagedFile:
            return None

    def analysis_damage(self, name: str) -> DamagedFile | None:
        """Damage of the file of ``write_analysis``, if any."""
        try:
            self._read_analysis(name)
        except DamagedFile as damage:
            return damage
        return None

    def _read_analysis(self, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        path = self._analysis_file(name)
        if not path.is_file():
            return None
        arrays = read_npz(path)
        try:
            digest = json.loads(str(arrays.pop("digest")))
            sha256 = digest.pop("sha256", None)
        except (KeyError, ValueError, AttributeError, RecursionError):
            raise DamagedFile(path, "it has no digest") from None
        if sha256 not in (None, _analysis_sha256(digest, arrays)):
            raise DamagedFile(path, "it was changed")
        return digest, arrays

    def _analysis_file(self, name: str) -> pathlib.Path:
        return self.workdir / "analysis" / f"{_slug(name)}.npz"

    def _logits_file(self, name: str) -> dict[str, np.ndarray]:
        path = self._existing(f"logits/{_slug(name)}.npz", f" of row {name!r}")
        arrays = read_npz(path)
        if missing := {*HELD_OUT, "seeds"} - set(arrays):
            raise DamagedFile(path, f"it lacks {', '.join(sorted(missing))}")
        return arrays

    def _existing(self, path: str, of: str = "") -> pathlib.Path:
        if not (self.workdir / path).is_file():
            raise UsageError(f"no {path}{of} in {str(self.workdir)!r}: run the table's command first")
        return self.workdir / path

    def timing(self) -> dict[str, Any]:
        """Clock times by row."""
        try:
            timing = read_json(self.workdir / "timing.json")
        except (FileNotFoundError, DamagedFile):
            return {}
        return timing if isinstance(timing, dict) else {}

    def add_timing(self, seconds: Mapping[str, Mapping[str, float]]) -> None:
        """Adds to the seconds of existing rows and updates the sums of the table.

        Args:
          seconds: by row and purpose; under ``WHOLE_TABLE`` those of no particular row.
        """
        timing = self.timing()
        for name in [name for name in seconds if name in timing or name == WHOLE_TABLE]:
            entry = timing.setdefault(name, {})
            for what, value in seconds[name].items():
                entry[what] = entry.get(what, 0.0) + value
        rows = [entry for name, entry in timing.items() if name != WHOLE_TABLE]
        for what in ("compile_seconds", "train_seconds", "search_seconds"):
            timing.setdefault(WHOLE_TABLE, {})[what] = sum(entry.get(what, 0.0) for entry in rows)
        write_json(self.workdir / "timing.json", timing)

    def _write_timing(self, name: str, timing: Mapping[str, Any]) -> None:
        write_json(self.workdir / "timing.json", {**self.timing(), name: timing})

    def _write_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        """In the order of the table's rows, whatever order they ran in; rows it no longer has come last."""
        rows = self.config()["rows"] if (self.workdir / "config.json").is_file() else []
        order = {row["name"]: place for place, row in enumerate(rows)}
        ordered = sorted(records, key=lambda record: order.get(record["row"], len(order)))
        replace_file(self.workdir / "records.jsonl", "".join(map(format_line, ordered)).encode())

    def _all(self) -> list[Record]:
        """All undamaged lines; a damaged one is dropped, so its row is not done and runs again."""
        data = self._record_lines()
        if self._cache is None or self._cache[0] != data:
            records = [record for line in data.splitlines() if isinstance(record := parse_line(line), dict)]
            signed = all([record.pop("sha256", None) for record in records])
            self._cache = (data, records, signed)
        return self._cache[1]

    def is_signed(self) -> bool:
        """Whether every record has a digest; older versions wrote none."""
        self._all()
        return self._cache is not None and self._cache[2]

    def _record_lines(self) -> bytes:
        path = self.workdir / "records.jsonl"
        return path.read_bytes() if path.is_file() else b""

    def record_damage(self) -> DamagedFile | None:
        """The first damaged line of the records."""
        for number, line in enumerate(self._record_lines().splitlines(), 1):
            if isinstance(why := parse_line(line), str):
                return DamagedFile(self.workdir / "records.jsonl", f"line {number}: {why}")
        return None


def _analysis_sha256(digest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    return json_sha256([digest, arrays_sha256(arrays)])


def _slug(name: str) -> str:
    """A file name, unique also on file systems that ignore case."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An archive with the same bytes for the same arrays: NumPy dates every member 1980."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
