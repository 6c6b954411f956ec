"""A part of a table is written beside the whole, in ``part/``, so that no option of a run changes a finished table."""

import pathlib
from collections.abc import Sequence

from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.files import read_json

__all__ = ["PART", "is_part", "lender_of"]

PART = "part"


def is_part(workdir: pathlib.Path, rows: Sequence[str] | None, seeds: int) -> bool:
    """Whether a finished whole table stands there, and a run is asked for some of its rows, or for fewer seeds."""
    try:
        config, summary = RecordStore(workdir).config(), read_json(workdir / "table.json")
    except (UsageError, FileNotFoundError):  # nothing there, or nothing that could be kept
        return False
    return not config.get("part") and (rows is not None or seeds < len(summary.get("seeds", ())))


def lender_of(workdir: pathlib.Path) -> RecordStore | None:
    """Where rows of the same table may stand already: for a part the whole, for the whole its part."""
    other = workdir.parent if workdir.name == PART else workdir / PART
    return RecordStore(other) if (other / "records.jsonl").is_file() else None
