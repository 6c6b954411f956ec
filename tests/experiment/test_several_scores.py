"""Several scores an example, each in units of its own: from a table of columns to a report."""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics

from mmjax.datasets import from_arrays, from_table
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import run_table
from mmjax.experiment.analyses import Measure
from mmjax.experiment.default import default_table
from mmjax.heads import MultiRegressionHead, RegressionHead
from mmjax.resident import fit
from mmjax.tasks import MultiRegression
from mmjax.training import Train
from tests.experiment.test_default import checked

N = 150
RANDOM = np.random.default_rng(0)
LEFT, RIGHT = RANDOM.normal(size=(2, N, 4))
PLAIN = np.stack([LEFT[:, 0] + RIGHT[:, 0], LEFT[:, 1] - RIGHT[:, 1]], 1)
UNITS = np.array([[0.0, 5000.0], [1.0, 200.0]])
TARGET = UNITS[0] + UNITS[1] * PLAIN
QUICK = Train(epochs=12, batch_size=16, learning_rate=1e-2, select="scores_r2")


def arrays(target=TARGET):
    return from_arrays({"left": LEFT, "right": RIGHT}, target, name="several")


def table(target=TARGET, **fields):
    return default_table(arrays(target), seeds=2, trials=1, train=QUICK, **fields)


def test_the_default_table_has_a_head_and_a_task_of_several_scores():
    given = checked(arrays())
    assert isinstance(given.task, MultiRegression) and given.dataset.card.primary_metric == "scores_r2"
    assert given.train.select == "scores_r2"
    heads = [row.model.head for row in given.rows if hasattr(row.model, "head")]
    assert heads and all(head == MultiRegressionHead(2) for head in heads)
    assert {"mean of scores", "ridge regression"} <= {row.name for row in given.rows}
    columns = {name: TARGET[:, place] for place, name in enumerate(("first", "second"))}
    data = from_table({**columns, "x": LEFT[:, 0]}, features="x", label=["first", "second"])
    assert data.card.num_classes is None and data.splits["train"].target.shape == (90, 2)
    assert isinstance(checked(data).task, MultiRegression)


def test_the_units_of_a_score_change_nothing_but_its_units():
    row = next(row for row in table().rows if row.name == "concatenation")
    plain, moved = (
        fit(row.model, MultiRegression(), QUICK, arrays(target).splits, (0, 1)) for target in (PLAIN, TARGET)
    )
    np.testing.assert_allclose(moved.outputs["test"], UNITS[0] + UNITS[1] * plain.outputs["test"], rtol=1e-3, atol=1e-2)
    test = arrays().splits["test"].target
    for seed, epoch in enumerate(moved.epoch):
        expected = sklearn.metrics.r2_score(test, moved.outputs["test"][seed])
        assert moved.history["test/scores_r2"][epoch, seed] == pytest.approx(expected, abs=1e-4)
        assert expected > 0.5


def test_a_head_of_one_score_is_refused():
    row = next(row for row in table().rows if row.name == "concatenation")
    with pytest.raises(
        ValueError, match=r"a head gives scores of shape \(\), the target has 2 scores: MultiRegressionH"
    ):
        fit(row.model.clone(head=RegressionHead()), MultiRegression(), QUICK, arrays().splits, (0,))


def test_a_table_runs_to_its_report(tmp_path):
    given = table()
    names = ["left", "right", "mean of scores", "concatenation", "ridge regression"]
    given = dataclasses.replace(given, rows=[row for row in given.rows if row.name in names])
    text = run_table(
        given, name="several", workdir=tmp_path, measure=Measure(seeds=1, levels=2, draws=1), say=[].append
    )
    assert "R² (mean of scores)" in text and "mean of train" in text
    store, test = RecordStore(tmp_path), arrays().splits["test"].target
    for name in names:
        record = store.records(name)[0]
        expected = sklearn.metrics.r2_score(test, store.logits(name, "test")[0])
        assert record["metrics"]["scores_r2"] == pytest.approx(expected, abs=1e-4), name
        assert {"scores_mae", "scores_pearson"} <= set(record["metrics"])
    both, alone = (np.mean([r["metrics"]["scores_r2"] for r in store.records(n)]) for n in ("concatenation", "left"))
    assert both > alone + 0.2
