"""Tables of numbers and of labels from the first row to the report, and of classes by a metric of the whole set."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from mmjax import datasets, fusion
from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, run_table
from mmjax.experiment.baselines import decide, decision_rows, logistic, ridge
from mmjax.experiment.checks import with_primary
from mmjax.fusion import decision
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.tasks import Classification, MultiLabel, Regression
from tests.experiment import small

NAMES = ("left", "right")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})


def arrays(target, codes, name):
    """Two modalities, each of which shows its code with noise."""
    rng = np.random.default_rng(1)
    streams = {side: code + 0.5 * rng.normal(size=code.shape) for side, code in zip(NAMES, codes)}
    return datasets.from_arrays(streams, target, split=np.arange(len(target)) // 40, name=name)


def finished(table, folder):
    text = run_table(table, workdir=folder, say=lambda line: None)
    rows = {row["name"]: row for row in json.loads((folder / "table.json").read_text())["rows"]}
    return text, rows, RecordStore(folder)


def linear(method):
    fit = functools.partial(method, C=1.0, refit=False)
    alone = [Row(name, fit=fit, streams=(name,), varies=False) for name in NAMES]
    return [*alone, Row("both", fit=fit, varies=False, role="linear")]


def regression(metric=""):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(2, 120, 3))
    data = arrays(codes[0, :, 0] + codes[1, :, 0], codes, "numbers")
    data = dataclasses.replace(data, card=dataclasses.replace(data.card, primary_metric=metric))
    return small.table(
        dataset=data, rows=[*linear(ridge), *decision_rows(NAMES, scores=True)], task=Regression(), trials=1
    )


def test_a_table_of_numbers_has_error_correlation_and_constants(tmp_path):
    text, rows, store = finished(regression(), tmp_path)
    (target, _), outputs = store.targets("test"), store.logits("both", "test")[0]
    error, r = np.abs(outputs - target).mean(), scipy.stats.pearsonr(outputs, target).statistic
    assert rows["both"]["mean"] == pytest.approx(error, rel=1e-5)
    assert rows["both"]["metrics"]["pearson"] == pytest.approx(r, abs=1e-4)
    train = regression().dataset.splits["train"].target
    line = next(line for line in text.splitlines() if "median of train" in line)
    assert f"{np.abs(target - np.median(train)).mean():.3f}" in line
    assert rows["mean of scores"]["robustness"] is None or "patterns" in rows["mean of scores"]["robustness"]
    assert rows["both"]["gain"]["mean"] > 0 and rows["both"]["calibration"] is None
    assert sum(line.startswith("Left out") and line.endswith("is a number.") for line in text.splitlines()) == 1


def test_a_table_of_numbers_by_correlation(tmp_path):
    text, rows, store = finished(regression("pearson"), tmp_path)
    (target, _), outputs = store.targets("test"), store.logits("both", "test")[0]
    assert rows["both"]["mean"] == pytest.approx(scipy.stats.pearsonr(outputs, target).statistic)
    assert "Pearson's r" in text and "of train" not in text  # a constant has no correlation


def test_a_table_of_classes_by_macro_f1(tmp_path):
    data = small.arrays()
    data = dataclasses.replace(data, card=dataclasses.replace(data.card, primary_metric="f1_macro"))
    vote = functools.partial(decide, rule=decision.mean_of_logits)
    rows = [*linear(logistic), Row("vote", fit=vote, members=NAMES, role="mean of logits")]
    text, rows, store = finished(small.table(dataset=data, rows=rows), tmp_path)
    (target, _), logits = store.targets("test"), store.logits("both", "test")[0]
    expected = sklearn.metrics.f1_score(target, logits.argmax(-1), average="macro")
    assert rows["both"]["mean"] == pytest.approx(expected) and "Macro F1 in percent" in text
    assert rows["both"]["calibration"] is not None and "Left out" not in text


def test_a_card_without_a_metric_takes_the_first_of_the_task():
    card = lambda data, task: with_primary(data, task).card.primary_metric  # noqa: E731
    assert card(regression().dataset, Regression()) == "mae"
    assert card(small.arrays(), Classification(3)) == "accuracy"
    with pytest.raises(UsageError, match="numbers has no primary_metric, and object names no scores"):
        with_primary(regression().dataset, object())


def least_squares(data, seed, members):
    """A linear answer of each label by itself, 0 between yes and no."""
    design = {
        k: np.concatenate([s.values[:, 0] for _, s in sorted(b.streams.items())], 1) for k, b in data.splits.items()
    }
    target = 2.0 * data.splits["train"].target - 1
    weights = np.linalg.lstsq(design["train"], target, rcond=None)[0]
    return {split: design[split] @ weights for split in ("validation", "test")}


def label_table(**arguments):
    rng = np.random.default_rng(2)
    target = rng.integers(0, 2, (120, 3))
    codes = 2.0 * target[:, None, :2].transpose(1, 0, 2) - 1, 2.0 * target[:, None, 1:].transpose(1, 0, 2) - 1
    data = arrays(target, [code[0] for code in codes], "labels")
    vote = functools.partial(decide, rule=decision.mean_of_logits)
    rows = [
        *(Row(name, fit=least_squares, streams=(name,), varies=False) for name in NAMES),
        Row("vote", fit=vote, members=NAMES, role="mean of logits"),
        Row("network", model=Multimodal({}, fusion.Concat(4), ClassificationHead(3)), role="concatenation"),
    ]
    data = dataclasses.replace(data, card=dataclasses.replace(data.card, primary_metric="labels_f1_micro"))
    return small.table(dataset=data, rows=rows, task=MultiLabel(3), **arguments)


def test_a_table_of_labels_has_f1_area_and_the_shares_of_train(tmp_path):
    text, rows, store = finished(label_table(), tmp_path)
    (target, _), logits = store.targets("test"), store.logits("vote", "test")[0]
    assert target.shape == (40, 3)
    assert rows["vote"]["mean"] == pytest.approx(sklearn.metrics.f1_score(target, logits > 0, average="micro"))
    for record in store.records("network"):
        outputs = store.logits("network", "test")[record["seed"]]
        area = sklearn.metrics.roc_auc_score(target, outputs, average="macro")
        assert record["metrics"]["labels_auroc"] == pytest.approx(area)
        exact = (outputs > 0) == (target > 0.5)
        assert record["metrics"]["labels_exact"] == pytest.approx(exact.all(-1).mean())
        assert "calibration" not in record
    share = label_table().dataset.splits["train"].target.mean(0)
    given = np.broadcast_to(share > 0.5, target.shape)
    line = next(line for line in text.splitlines() if "share of each label of train" in line)
    assert f"{100 * sklearn.metrics.f1_score(target, given, average='micro'):.1f}" in line
    line = next(line for line in text.splitlines() if "| every label " in line)
    assert f"{100 * sklearn.metrics.f1_score(target, np.ones_like(target), average='micro'):.1f}" in line
    network = rows["network"]
    assert {"left", "right", "left+right"} == set(network["robustness"]["patterns"]) and network["robustness"]["noise"]
    gap = network["interaction"]["emap"]
    assert gap["score"] + gap["gap"] == pytest.approx(network["mean"], abs=0.1) and network["calibration"] is None
    assert "Micro F1 in percent" in text and "The answer here is any number of labels" in text


def test_rows_for_one_class_are_refused_where_items_have_several_labels(tmp_path):
    table = label_table()
    with pytest.raises(UsageError, match="row 'both' is for one class an item, labels has several labels"):
        run_table(dataclasses.replace(table, rows=[*table.rows, *linear(logistic)[2:]]), workdir=tmp_path)
