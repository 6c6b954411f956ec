"""What the commands do, for the command line and for a notebook alike."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from mmjax.errors import UsageError
from mmjax.evaluation.report import write_report
from mmjax.experiment.runner import run_table
from mmjax.experiment.table import Table

__all__ = ["report", "table"]


class Lines:
    """Progress: whole lines everywhere; a line that ends in a carriage return is overwritten, on a terminal only."""

    def __init__(self, stream: Any = None):
        self.stream = stream or sys.stderr
        self.width = 0

    def __call__(self, text: str) -> None:
        passing = text.endswith("\r")
        text = text.rstrip("\r")
        if self.stream.isatty():
            self.stream.write("\r" + text.ljust(self.width) + ("" if passing else "\n"))
            self.width = len(text) if passing else 0
        elif not passing:
            self.stream.write(text + "\n")
        self.stream.flush()


def table(table: Table, *, rows: Sequence[str] | None = None, **arguments: Any) -> str:
    """Runs a table with progress on the standard error stream and returns its report."""
    return run_table(table, rows=rows, say=Lines(), **arguments)


def report(workdir: str) -> int:
    """Writes the report of a finished or half-finished table again from its files, and prints it."""
    if not (pathlib.Path(workdir) / "config.json").is_file():
        raise UsageError(f"{workdir!r} is no work directory of a table: it has no config.json")
    print(write_report(pathlib.Path(workdir)))
    return 0
