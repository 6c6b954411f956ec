"""Networks of matched size: a single modality with as many parameters as a fusion."""

import dataclasses

import flax.linen as nn

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.measures import cost
from mmjax.experiment.checks import abstract_variables, naming
from mmjax.experiment.data import Viewed, row_data
from mmjax.experiment.table import Matched, Row, Table

__all__ = ["count_params", "resolve"]

WIDEST = 4096
TOLERANCE = 0.05
"""Largest relative difference of parameters that counts as equal."""


def count_params(model: nn.Module, data: Dataset) -> int:
    """Parameters of a model on these data, from shapes alone."""
    return cost.count_params(abstract_variables(model, data).get("params", {}))


def resolve(row: Row, table: Table, dataset: Dataset, viewed: Viewed | None = None) -> Row:
    """The row with a network; a ``Matched`` one gets the width whose parameters come closest to those of its model.

    Args:
      viewed: as in ``row_data``.

    Raises:
      UsageError: no width comes within 5 %, or a module rejects a width; names the row.
    """
    if not isinstance(row.model, Matched):
        return row
    with naming(row.name):
        return dataclasses.replace(
            row, model=_nearest(row, row.model, table, dataset, {} if viewed is None else viewed)
        )


def _nearest(row: Row, matched: Matched, table: Table, dataset: Dataset, viewed: Viewed) -> nn.Module:
    like, build = table.pick([matched.like])[0], matched.build
    wanted, data = count_params(like.network, row_data(dataset, like, viewed)), row_data(dataset, row, viewed)
    low, high = 1, 16
    while count_params(build(high), data) < wanted:
        low, high = high, 2 * high
        if high > WIDEST:
            raise UsageError(f"it cannot have the {wanted} parameters of {like.name!r}: with width {low} it has fewer")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_params(build(middle), data) < wanted else (low, middle)
    counts = {width: count_params(build(width), data) for width in (low, high)}
    nearest = min(counts, key=lambda width: abs(counts[width] - wanted))
    if abs(counts[nearest] - wanted) > TOLERANCE * wanted:
        closest = f"with width {nearest} it has {counts[nearest]}, and no other width comes nearer"
        raise UsageError(f"it cannot have the {wanted} parameters of {like.name!r}: {closest}")
    return build(nearest)
