"""Columns of numbers and of categories as one vector an example."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.raw.columns import is_missing
from mmjax.errors import UsageError

__all__ = ["Vectors", "to_numbers", "to_vectors"]

MOST_CATEGORIES = 50
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


@dataclasses.dataclass(frozen=True)
class Vectors:
    """A modality of vectors.

    Attributes:
      values: ``[n, d]`` float32.
      present: ``[n]`` whether any of the cells holds something.
      names: of the ``d`` numbers.
      filled: empty cells that the mean of train fills.
    """

    values: np.ndarray
    present: np.ndarray
    names: tuple[str, ...]
    filled: int


def to_numbers(cells: Sequence[Any]) -> np.ndarray | None:
    """``[n]`` float64, NaN where missing; None where some cell is no number."""
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        try:
            values[row] = (
                TRUTH[cell.strip().lower()] if isinstance(cell, str) and cell.strip().lower() in TRUTH else cell
            )
        except (TypeError, ValueError):
            return None
    return values


def to_vectors(columns: Mapping[str, Sequence[Any]], train: np.ndarray, place: Callable[[int], str]) -> Vectors:
    """One vector an example: numbers as they are, categories as 0 and 1 by the names that train has.

    An empty cell of numbers gets the mean of train, an empty or unknown category zeros; a row whose cells are all empty
    lacks the modality.

    Args:
      columns: cells by name.
      train: ``[n]`` whether the row is of train.
      place: names a row.

    Raises:
      UsageError: infinity, a column without a number in train, or more than 50 categories.
    """
    parts, names, numeric = [], [], []
    present = np.zeros(len(train), bool)
    for name, cells in columns.items():
        there = np.asarray([not is_missing(cell) for cell in cells])
        present |= there
        values = to_numbers(cells)
        if values is None:
            labels = [str(cell).strip() if filled else "" for cell, filled in zip(cells, there)]
            kinds = sorted({label for label, filled, used in zip(labels, there, train) if filled and used})
            if len(kinds) > MOST_CATEGORIES:
                row = next(row for row, cell in enumerate(cells) if to_numbers([cell]) is None)
                raise UsageError(
                    f"column {name!r} is no number ({place(row)}: {str(cells[row])[:40]!r}) and has {len(kinds)} "
                    f"values, more than {MOST_CATEGORIES} categories; is it text?"
                )
            parts.append(np.asarray([[label == kind for kind in kinds] for label in labels], np.float32))
            names += [f"{name}={kind}" for kind in kinds]
            continue
        if np.isinf(values).any():
            raise UsageError(f"column {name!r}, {place(int(np.flatnonzero(np.isinf(values))[0]))} holds infinity")
        train_values = values[train & there]
        if not train_values.size:
            raise UsageError(f"column {name!r} holds no number in train")
        numeric.append(there)
        parts.append(np.where(there, values, train_values.mean())[:, None].astype(np.float32))
        names.append(name)
    filled = sum(int((present & ~there).sum()) for there in numeric)
    return Vectors(np.concatenate(parts, axis=1), present, tuple(names), filled)
