"""Records on disk: one line per (row, seed), its logits beside it; killed at any moment, no row is ever half there.

A work directory holds ``config.json``, ``targets.npz``, ``records.jsonl``, ``logits/``, ``history/`` and, alone in
knowing of clocks, ``timing.json``. The line is written last, so it commits the row.
"""

import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.store.schema import HELD_OUT, Record, format_line, json_sha256, json_text, parse_line
from mmjax.evaluation.store.targets import flatten_target, rebuild_target
from mmjax.files import DamagedFile, arrays_sha256, file_sha256, read_json, read_npz, replace_file
from mmjax.typing import Mapping

__all__ = ["WHOLE_TABLE", "RecordStore"]

AGAIN = "run the table's command again"
WHOLE_TABLE = "(whole table)"
"""Under which name ``timing.json`` holds the seconds of a table: compiling (beside training, in threads of its own),
training and searching summed over its rows; measuring and writing as they passed."""


class RecordStore:
    """The records of a work directory. One process writes it at a time; reading is always safe."""

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)
        self._known: tuple[bytes, list[Record], bool] | None = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes ``config.json``; see ``mmjax.evaluation.report.summary`` for what the report reads of it."""
        config = {key: value for key, value in config.items() if key != "sha256"}
        replace_file(self.workdir / "config.json", json_text({**config, "sha256": json_sha256(config)}).encode())

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
        """Writes one row, instead of what was there of it.

        Args:
          records: one per seed, in the order of the first axis of the arrays.
          logits: ``validation`` and ``test``, ``[seeds, items, classes]`` (scores: ``[seeds, items]``; labels: in
            place of classes; of a label per step ``[seeds, items, steps, classes]``; whatever a task keeps).
          timing: what the clock said.
          history: metrics by name, ``[epochs, seeds]``.
          files: paths in the work directory of what else was kept of the row, so that damage to it is seen.

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
        kept = [record for record in self._all() if record["row"] != name]
        self._write_records([*kept, *({**record, **where} for record in records)])

    def remove_records(self, name: str, config_hashes: Collection[str]) -> None:
        """Takes back what is said of a row of these configurations, before its files are replaced: killed in between,
        it has not run.
        """
        if any(record["method"]["config_hash"] in config_hashes for record in self.records(name)):
            self._write_records([record for record in self._all() if record["row"] != name])

    def done(self, name: str, config_hash: str, seeds: Iterable[int]) -> bool:
        """Whether all these seeds of the row are there, with this configuration and undamaged."""
        records = self.records(name)
        have = {record["seed"] for record in records if record["method"]["config_hash"] == config_hash}
        return have >= set(seeds) and self.row_damage(name) is None

    def row_damage(self, name: str) -> DamagedFile | None:
        """The first file of a row that is not what its records say; one that was removed on purpose, its history or
        its parameters, is none.
        """
        records, path = self.records(name), self.workdir / "logits" / f"{_slug(name)}.npz"
        if not records:
            return None
        if not path.is_file():
            return DamagedFile(path, "it is gone")
        if not self.verify(name):
            return DamagedFile(path, "it was changed")
        said, there = [record["seed"] for record in records], self.seeds(name)
        if said != there:
            why = f"row {name!r} has records of the seeds {said} and logits of {there}"
            return DamagedFile(self.workdir / "records.jsonl", why)
        for record in records:
            for one, sha256 in record.get("files", {}).items():
                if (self.workdir / one).is_file() and file_sha256(self.workdir / one) != sha256:
                    return DamagedFile(self.workdir / one, "it was changed")
        return None

    def verify(self, name: str) -> bool:
        """Whether the row's file of logits is the one that its records speak of."""
        path = self.workdir / "logits" / f"{_slug(name)}.npz"
        expected = {record["logits_sha256"] for record in self.records(name)}
        return path.is_file() and expected == {hashlib.sha256(path.read_bytes()).hexdigest()}

    def records(self, name: str) -> list[Record]:
        """The records of a row, in the order of its logits; empty where it has not run."""
        return [record for record in self._all() if record["row"] == name]

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
        """Keeps the code of rows, so that what differs from it later can be named."""
        path = self._code_file(digest)
        if not path.is_file():
            replace_file(path, json_text(definitions).encode())

    def code(self, digest: str) -> dict[str, str] | None:
        """Digests by the name of the definition, as ``write_code`` was given them; None where there are none."""
        try:
            return read_json(self._code_file(digest))
        except (OSError, DamagedFile):
            return None

    def _code_file(self, digest: str) -> pathlib.Path:
        return self.workdir / "code" / f"{digest}.json"

    def adopt(self, other: "RecordStore", name: str) -> None:
        """Takes over a finished row of another work directory, with all that was kept and measured of it."""
        records, slug = other.records(name), _slug(name)
        paths = [f"logits/{slug}.npz", f"history/{slug}.npz", f"analysis/{slug}.npz"]
        paths += [path for record in records[:1] for path in record.get("files", {})]
        paths += [f"code/{path.name}" for path in sorted((other.workdir / "code").glob("*.json"))]
        self.remove_records(name, {record["method"]["config_hash"] for record in records})
        for path in dict.fromkeys(paths):
            if (other.workdir / path).is_file():
                replace_file(self.workdir / path, (other.workdir / path).read_bytes())
        self._write_timing(name, other.timing().get(name, {}))
        self._write_records([*(record for record in self._all() if record["row"] != name), *records])

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
        """What is wrong with the file of ``write_analysis``."""
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
            raise DamagedFile(path, "it does not say of what it is") from None
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
        """What a clock measured, by row."""
        try:
            found = read_json(self.workdir / "timing.json")
        except (FileNotFoundError, DamagedFile):
            return {}
        return found if isinstance(found, dict) else {}

    def add_timing(self, seconds: Mapping[str, Mapping[str, float]]) -> None:
        """Adds to the seconds of rows that are there, and makes the sums of the table anew.

        Args:
          seconds: by row and by what they were spent on; under ``WHOLE_TABLE`` those of no row in particular.
        """
        timing = self.timing()
        for name in [name for name in seconds if name in timing or name == WHOLE_TABLE]:
            entry = timing.setdefault(name, {})
            for what, value in seconds[name].items():
                entry[what] = entry.get(what, 0.0) + value
        rows = [entry for name, entry in timing.items() if name != WHOLE_TABLE]
        for what in ("compile_seconds", "train_seconds", "search_seconds"):
            timing.setdefault(WHOLE_TABLE, {})[what] = sum(entry.get(what, 0.0) for entry in rows)
        replace_file(self.workdir / "timing.json", json_text(timing).encode())

    def _write_timing(self, name: str, timing: Mapping[str, Any]) -> None:
        replace_file(self.workdir / "timing.json", json_text({**self.timing(), name: timing}).encode())

    def _write_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Rows in the order of the table, whatever the order they ran in; rows it no longer has stand last."""
        rows = self.config()["rows"] if (self.workdir / "config.json").is_file() else []
        order = {row["name"]: place for place, row in enumerate(rows)}
        ordered = sorted(records, key=lambda record: order.get(record["row"], len(order)))
        replace_file(self.workdir / "records.jsonl", "".join(map(format_line, ordered)).encode())

    def _all(self) -> list[Record]:
        """Every line that is as it was written; another one is dropped, so its row is not done and runs again."""
        data = self._record_lines()
        if self._known is None or self._known[0] != data:
            records = [record for line in data.splitlines() if isinstance(record := parse_line(line), dict)]
            signed = all([record.pop("sha256", None) for record in records])
            self._known = (data, records, signed)
        return self._known[1]

    def is_signed(self) -> bool:
        """Whether every record has a digest; those of older versions have none."""
        self._all()
        return self._known is not None and self._known[2]

    def _record_lines(self) -> bytes:
        path = self.workdir / "records.jsonl"
        return path.read_bytes() if path.is_file() else b""

    def record_damage(self) -> DamagedFile | None:
        """The first line of the records that is not as it was written."""
        for number, line in enumerate(self._record_lines().splitlines(), 1):
            if isinstance(why := parse_line(line), str):
                return DamagedFile(self.workdir / "records.jsonl", f"line {number}: {why}")
        return None


def _analysis_sha256(digest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    return json_sha256([digest, arrays_sha256(arrays)])


def _slug(name: str) -> str:
    """A file name, unique also where case does not count."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The same bytes for the same arrays: NumPy dates every member of the archive 1980."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
