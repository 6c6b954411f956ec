"""Runs of part of a table are written to ``part/``, so that no option of a run changes a finished table."""

import pathlib
from collections.abc import Sequence

from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.files import read_json

__all__ = ["PART", "is_part", "lender_of"]

PART = "part"


def is_part(workdir: pathlib.Path, rows: Sequence[str] | None, seeds: int) -> bool:
    """Whether the folder has a finished whole table, and a run is for some of its rows or for fewer seeds."""
    try:
        config, summary = RecordStore(workdir).config(), read_json(workdir / "table.json")
    except (UsageError, FileNotFoundError):  # nothing there, or damaged
        return False
    return not config.get("part") and (rows is not None or seeds < len(summary.get("seeds", ())))


def lender_of(workdir: pathlib.Path) -> RecordStore | None:
    """Store that may already have rows of the same table: for a part the whole, for the whole its part."""
    other = workdir.parent if workdir.name == PART else workdir / PART
    return RecordStore(other) if (other / "records.jsonl").is_file() else None
