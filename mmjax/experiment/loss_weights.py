"""Weights of losses that modules sow, given for a whole table: each row takes those that its network sows."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from mmjax.datasets.base import Dataset
from mmjax.experiment.checks import abstract_variables, naming, some_shapes
from mmjax.experiment.data import Viewed, row_data
from mmjax.experiment.table import Matched, Row, Table
from mmjax.objective import check_names, sown_losses
from mmjax.stream import Batch, drop_rows
from mmjax.typing import Key, PyTree

__all__ = ["sown_names", "with_own_weights"]

WIDTH = 16  # of a network as wide as it takes; the names do not depend on it


def sown_names(model: nn.Module, data: Dataset) -> frozenset[str]:
    """The names under which a network sows losses in training, from shapes alone."""

    def losses(variables: PyTree, batch: Batch, key: Key) -> dict[str, list[Any]]:
        _, changed = model.apply(
            variables,
            drop_rows(batch.streams, batch.weight),
            targets=batch.target,
            train=True,
            rngs={"dropout": key, "sample": key},
            mutable=[*(name for name in variables if name != "params"), "losses"],
        )
        return sown_losses(changed.get("losses", {}))

    batch = some_shapes(data.splits["train"])
    return frozenset(jax.eval_shape(losses, abstract_variables(model, data), batch, jax.random.key(0)))


def with_own_weights(table: Table, dataset: Dataset, viewed: Viewed | None = None) -> Table:
    """The table whose rows take those of its loss weights that they sow; weights of a row's own ``train`` are its own.

    A row that sows none of them is the same row, by its configuration's digest too, whatever the weights are.

    Args:
      viewed: as in ``row_data``.

    Raises:
      UsageError: a name that no row of the table sows; the message lists those that are.
    """
    weights = table.train.loss_weights
    if not weights:
        return table
    viewed = {} if viewed is None else viewed
    names = {row.name: _row_names(row, dataset, viewed) for row in table.rows}
    check_names(weights, frozenset().union(*names.values()), "a row of the table")

    def own(row: Row) -> Row:
        train = row.train or table.train
        kept = {name: weight for name, weight in weights.items() if name in names[row.name]}
        if train.loss_weights != weights or len(kept) == len(weights):
            return row
        return dataclasses.replace(row, train=dataclasses.replace(train, loss_weights=kept))

    return dataclasses.replace(table, rows=[own(row) for row in table.rows])


def _row_names(row: Row, dataset: Dataset, viewed: Viewed) -> frozenset[str]:
    if row.model is None:
        return frozenset()
    model = row.model.build(WIDTH) if isinstance(row.model, Matched) else row.model
    with naming(row.name):
        return sown_names(model, row_data(dataset, row, viewed))
