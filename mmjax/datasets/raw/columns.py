"""A CSV file, a data frame or a mapping of lists as named columns, with the place of each row for messages."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.errors import UsageError

__all__ = ["Columns", "is_missing", "read_columns"]

DELIMITERS = ",;\t|"


@dataclasses.dataclass(frozen=True)
class Columns:
    """A table in memory.

    Attributes:
      name: of the file, or ``table``.
      cells: the values of each column, ``[rows]``.
      place: number of a row -> what the user calls it, e.g. ``line 12``.
      folder: to which paths in cells are relative.
    """

    name: str
    cells: dict[str, list[Any]]
    place: Callable[[int], str]
    folder: pathlib.Path

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))

    def column(self, name: str, what: str) -> list[Any]:
        """The values of a column.

        Raises:
          UsageError: there is none of that name; the message lists those that are.
        """
        if name not in self.cells:
            raise UsageError(f"{self.name} has no column {name!r} ({what}); its columns are: {', '.join(self.cells)}")
        return self.cells[name]


def is_missing(cell: Any) -> bool:
    """None, NaN, pandas' NA, or nothing but spaces."""
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and cell != cell) or type(cell).__name__ in ("NAType", "NaTType")


def read_columns(source: Any, folder: str | os.PathLike | None = None) -> Columns:
    """The columns of a table.

    Args:
      source: path of a CSV file (UTF-8, with a header; commas, semicolons, tabs or bars between cells), a data frame
        (pandas, polars), or a mapping of column name to values.
      folder: to which paths in cells are relative; default: the file's, else the working directory.

    Raises:
      UsageError: one line: no such file, no header, a line with another number of cells.
    """
    if isinstance(source, str | os.PathLike):
        path = pathlib.Path(source)
        names, rows, lines = _read_csv(path)
        cells: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        return Columns(path.name, cells, lambda row: f"line {lines[row]}", pathlib.Path(folder or path.parent))
    names = list(source) if isinstance(source, Mapping) else list(getattr(source, "columns", ()))
    if not names:
        raise UsageError(f"a table is the path of a CSV file, a data frame, or a mapping of lists, got {type(source)}")
    cells = {str(name): list(source[name]) for name in names}
    if len({len(values) for values in cells.values()}) > 1:
        raise UsageError(f"columns differ in length: { {name: len(values) for name, values in cells.items()} }")
    index = [] if isinstance(source, Mapping) else list(getattr(source, "index", ()))
    labels = index if len(index) == len(next(iter(cells.values()))) else range(len(next(iter(cells.values()))))
    if not len(labels):
        raise UsageError("the table has no rows")
    return Columns("table", cells, lambda row: f"row {labels[row]}", pathlib.Path(folder or "."))


def _read_csv(path: pathlib.Path) -> tuple[list[str], list[list[str]], list[int]]:
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(header), strict=True)
            names = [name.strip() for name in next(reader, [])]
            rows, lines, line = [], [], reader.line_num + 1
            for row in reader:
                if row:  # a blank line is none
                    rows.append(row)
                    lines.append(line)
                line = reader.line_num + 1
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(path)!r}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{str(path)!r} is not UTF-8 ({error.reason} at byte {error.start}); save it as such"
        ) from None
    except (csv.Error, OSError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as CSV: {error}") from None
    _check_shape(path.name, names, rows, lines)
    return names, rows, lines


def _delimiter(header: str) -> str:
    return max(DELIMITERS, key=header.count)


def _check_shape(name: str, names: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
    if not rows:
        raise UsageError(f"{name} has no rows below its header")
    for one in names:
        if not one or names.count(one) > 1:
            raise UsageError(
                f"{name}: the header has {'no name for a column' if not one else f'{one!r} twice'}: {names}"
            )
    for row, line in zip(rows, lines):
        if len(row) != len(names):
            raise UsageError(f"{name}, line {line} has {len(row)} cells, the header {len(names)}")
