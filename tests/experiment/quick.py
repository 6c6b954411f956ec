"""Runs of whole tables in a few seconds: what is traced and compiled once is so once, and nothing is drawn."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mmjax.batches import concat_batches
from mmjax.evaluation.measures.mixing import Probe
from mmjax.experiment import rows
from tests.compiled import cached_programs


@contextlib.contextmanager
def quickly(folder):
    """Plots have tests of their own, programs are kept here and in ``folder``, and no commit comes in between."""
    prepare, cost, begin = rows.prepare, rows._cost, Probe.__init__
    prepared, costs, probed = {}, {}, {}

    def prepare_once(model, task, train, splits, seeds, **others):
        """The programs of an equal row, for these data."""
        key = repr((model, task, train, shapes(splits), tuple(seeds), others))
        if key not in prepared:
            prepared[key] = prepare(model, task, train, splits, seeds, **others)
        held_out = concat_batches(*(splits[name] for name in prepared[key].sizes))
        data, held_out = jax.tree.map(jnp.asarray, (splits["train"], held_out))
        return dataclasses.replace(prepared[key], data=data, held_out=held_out)

    def cost_once(model, task, train, data, state=None):
        key = repr((model, task, train, shapes(data.splits["train"])))
        if key not in costs:
            costs[key] = cost(model, task, train, data, state)
        return costs[key]

    def begin_once(probe, model, task, variables, **others):
        begin(probe, model, task, variables, **others)
        probe._programs = probed.setdefault(repr((model, task, others)), probe._programs)

    with pytest.MonkeyPatch.context() as patch, cached_programs(folder):
        patch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
        patch.setattr(rows, "environment", lambda: {"commit": "any"})
        patch.setattr(rows, "prepare", prepare_once)
        patch.setattr(rows, "_cost", cost_once)
        patch.setattr(Probe, "__init__", begin_once)
        yield


def shapes(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), tree)
