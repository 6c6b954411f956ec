"""Weights of sown losses, given for a table, are for the rows that sow them."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, commands, run_table
from mmjax.experiment.analyses import Measure
from mmjax.experiment.equal_parameters import resolve
from mmjax.experiment.identity import config_hash
from mmjax.experiment.loss_weights import sown_names, with_own_weights
from mmjax.experiment.table import Matched
from mmjax.training import Train
from tests.experiment import small

DATA = small.arrays()


class Pulled(nn.Module):
    """A linear model of which training, and nothing else, also pulls a bias by a loss that is sown."""

    loss: str = "pull"

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        bias = self.param("bias", nn.initializers.ones, (3,))
        if train:
            self.sow("losses", self.loss, (bias**2).sum())
        both = jnp.concatenate([streams[name].values[:, 0] for name in sorted(streams)], -1)
        return nn.Dense(3)(both) + bias


def table(weights, rows=None, **train):
    rows = rows or [
        Row("pulled", model=Pulled()),
        Row("plain", model=small.model()),
        Row("guess", fit=small.guess),
    ]
    return small.table(dataset=DATA, rows=rows, train=Train(epochs=2, batch_size=8, loss_weights=weights, **train))


def weights_of(table):
    return {row.name: dict((row.train or table.train).loss_weights) for row in with_own_weights(table, DATA).rows}


def test_names_are_found_without_computing():
    assert sown_names(Pulled(), DATA) == {"pull"} and sown_names(small.model(), DATA) == frozenset()


def test_rows_take_what_they_sow_and_a_name_that_no_row_sows_is_refused():
    assert weights_of(table({"pull": 0.5})) == {"pulled": {"pull": 0.5}, "plain": {}, "guess": {}}
    rows = [Row("one", model=Pulled("one")), Row("other", model=Matched(lambda width: Pulled("other"), like="one"))]
    assert weights_of(table({"one": 1.0, "other": 2.0}, rows)) == {"one": {"one": 1.0}, "other": {"other": 2.0}}
    with pytest.raises(UsageError, match=r"names 'kl', no loss that a row of the table sows; there is: pull$"):
        with_own_weights(table({"kl": 0.5, "pull": 1.0}), DATA)
    with pytest.raises(UsageError, match=r"names 'kl', no loss that a row of the table sows; its modules sow none$"):
        with_own_weights(small.table(dataset=DATA, train=Train(loss_weights={"kl": 0.5})), DATA)


def test_weights_of_a_rows_own_training_stay_and_other_settings_are_kept():
    own = Train(epochs=1, loss_weights={"kl": 3.0})
    rows = [Row("pulled", model=Pulled()), Row("plain", model=small.model(), train=own)]
    assert weights_of(table({"pull": 0.5}, rows))["plain"] == {"kl": 3.0}
    copied = dataclasses.replace(table({"pull": 0.5}).train, refit=True)  # as in a table of fractions
    rows[1] = dataclasses.replace(rows[1], train=copied)
    row = with_own_weights(table({"pull": 0.5}, rows), DATA).rows[1]
    assert row.train == dataclasses.replace(copied, loss_weights={})


def test_a_row_that_sows_nothing_is_the_same_row_whatever_the_weights_are():
    def hashes(weights):
        given = with_own_weights(table(weights), DATA)
        return {row.name: config_hash(given, resolve(row, given, DATA), DATA) for row in given.rows}

    before, after = hashes({}), hashes({"pull": 0.5})
    assert {name for name in before if before[name] != after[name]} == {"pulled"}


def test_a_table_and_a_streaming_run_train_with_them(tmp_path):
    nothing = Measure(noise="none", interactions="none")
    for weight in (0.0, 100.0):
        given = table({"pull": weight}, learning_rate=0.1)
        run_table(given, name="small", workdir=tmp_path / f"{weight}", measure=nothing, say=[].append)
    logits = [
        {name: RecordStore(tmp_path / f"{weight}").logits(name, "test") for name in ("pulled", "plain", "guess")}
        for weight in (0.0, 100.0)
    ]
    for name in ("plain", "guess"):
        np.testing.assert_array_equal(logits[0][name], logits[1][name])
    assert not np.array_equal(logits[0]["pulled"], logits[1]["pulled"])
    given = table({"pull": 1.0})
    for row in ("plain", "pulled"):
        assert row in commands.train(given, name="small", row=row, workdir=tmp_path / row)
    with pytest.raises(UsageError, match="no loss that a row of the table sows"):
        commands.train(table({"kl": 1.0}), name="small", row="plain", workdir=tmp_path / "refused")
