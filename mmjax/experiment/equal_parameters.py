"""Networks as wide as it takes: a single modality with as many parameters as the fusion it stands beside."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.experiment.checks import abstract_variables, naming
from mmjax.experiment.data import row_data
from mmjax.experiment.table import Matched, Row, Table

__all__ = ["count_params", "resolve"]

WIDEST = 4096
TOLERANCE = 0.05
"""As many parameters: not more apart than this share."""


def count_params(model: nn.Module, data: Dataset) -> int:
    """Parameters of a model on these data, found from shapes alone."""
    leaves = jax.tree.leaves(abstract_variables(model, data).get("params", {}))
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)


def resolve(row: Row, table: Table, dataset: Dataset, known: dict[tuple[int, bool], Dataset] | None = None) -> Row:
    """The row with a network: of a ``Matched`` one the width whose parameters come closest to those of its model row.

    Args:
      known: as in ``row_data``.

    Raises:
      UsageError: no width gives as many parameters, within 5 %; or what a module says of a width, with the row's name.
    """
    if not isinstance(row.model, Matched):
        return row
    with naming(row.name):
        return dataclasses.replace(row, model=_nearest(row, row.model, table, dataset, {} if known is None else known))


def _nearest(
    row: Row, matched: Matched, table: Table, dataset: Dataset, known: dict[tuple[int, bool], Dataset]
) -> nn.Module:
    like, build = table.pick([matched.like])[0], matched.build
    wanted, data = count_params(like.network, row_data(dataset, like, known)), row_data(dataset, row, known)
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
        said = f"with width {nearest} it has {counts[nearest]}, and no other width comes nearer"
        raise UsageError(f"it cannot have the {wanted} parameters of {like.name!r}: {said}")
    return build(nearest)
