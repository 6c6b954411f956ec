"""The data of a table: as built, after the table's view, and as a row sees them."""

import dataclasses
from typing import Any

from mmjax import datasets
from mmjax.datasets import views
from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.measures import efficiency
from mmjax.experiment.table import Row, Table
from mmjax.stream import select

__all__ = ["Viewed", "apply_view", "load_dataset", "load_raw", "row_data"]

Viewed = dict[tuple[int, bool], Dataset]
"""Data by the id of a view, and whether for a refit."""


def load_raw(table: Table, **folders: Any) -> Dataset:
    """The data of a table before its view; noise on images, waveforms and words is applied to these.

    Raises:
      UsageError: unknown options, invalid data, or a fraction too small.
    """
    dataset = table.dataset
    if isinstance(dataset, str):
        try:
            dataset = datasets.load(dataset, **folders, **table.options)
        except TypeError as error:  # an option of another type than its check expects
            raise UsageError(f"{table.dataset}: options {dict(table.options)}: {error}") from error
    elif table.options:
        raise UsageError(f"options {sorted(table.options)} are for a data set given by name")
    else:
        dataset = datasets.check(dataset)
    dataset = views.pad_targets(dataset)
    dataset = views.limit(dataset, table.limit) if table.limit else dataset
    return dataset if table.fraction is None else efficiency.subset(dataset, table.fraction)


def load_dataset(table: Table, **folders: Any) -> Dataset:
    """The data of a table, after its view.

    Raises:
      UsageError: as ``load_raw``.
    """
    dataset = load_raw(table, **folders)
    return apply_view(table, dataset)


def apply_view(table: Table, dataset: Dataset) -> Dataset:
    """The data after the table's view, targets of one length in all splits."""
    return views.pad_targets(table.view(dataset)) if table.view else dataset


def row_data(dataset: Dataset, row: Row, viewed: Viewed | None = None, *, refit: bool = False) -> Dataset:
    """The data of a row: after its view, with its streams alone.

    Args:
      dataset: of the table.
      row: which row.
      viewed: cache of the data after each view, which keeps them in memory once.
      refit: train and validation as one, see ``mmjax.datasets.views.refit_splits``.
    """
    viewed = {} if viewed is None else viewed
    key = id(row.view), refit
    if key not in viewed:
        if refit:
            viewed[key] = views.refit_splits(row_data(dataset, dataclasses.replace(row, streams=None), viewed))
        else:
            viewed[key] = views.pad_targets(row.view(dataset)) if row.view else dataset
    data = viewed[key]
    if row.streams is None:
        return data
    splits = {k: batch.replace(streams=select(batch.streams, row.streams)) for k, batch in data.splits.items()}
    return dataclasses.replace(data, splits=splits)
