"""Further scores that a table judges by: the same intervals, gains and verdicts as by its own score."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mmjax.errors import UsageError
from mmjax.evaluation.report.summary import summarise
from mmjax.evaluation.report.write import write_report
from mmjax.experiment import Row, Table
from mmjax.fusion import Concat
from mmjax.tasks import Classification
from tests.evaluation.table import targets, toy


def by_name(workdir):
    return {row["name"]: row for row in summarise(workdir)["rows"] if row["status"] == "done"}


def test_by_the_primary_score_the_cells_are_those_of_the_table(tmp_path):
    toy(tmp_path, also=["accuracy"], judged=["accuracy"])
    rows = by_name(tmp_path)
    gains = [row["gain"] for row in rows.values() if row["gain"]]
    assert gains and gains[0]["verdict"]
    for row in rows.values():
        cell = row["judged"]["accuracy"]
        assert (cell["mean"], cell["interval"], cell["gain"]) == (row["mean"], row["interval"], row["gain"])


def test_by_another_score_means_and_gains_are_its_own(tmp_path):
    store = toy(tmp_path, also=["f1_weighted"], judged=["f1_weighted"])
    truth, rows = targets()["test"]["target"], by_name(tmp_path)

    def mean(name):
        said = store.logits(name, "test").argmax(-1)
        return np.mean([f1_score(truth, one, average="weighted") for one in said])

    for name, row in rows.items():
        cell = row["judged"]["f1_weighted"]
        assert cell["mean"] == pytest.approx(mean(name), abs=1e-6)
        assert cell["interval"][0] <= cell["mean"] <= cell["interval"][1]
        if gain := cell["gain"]:
            assert gain["mean"] == pytest.approx(mean(name) - mean(gain["over"]), abs=1e-6)
            assert gain["verdict"] and gain["over"] == row["gain"]["over"]
    text = write_report(tmp_path)
    behind = text[text.index("behind the scores") :]
    assert "| f1_weighted, interval |" in behind and "f1_weighted, gain |" in behind
    line = next(line for line in behind.splitlines() if line.startswith("| both"))
    gain = rows["both"]["judged"]["f1_weighted"]["gain"]
    assert f"{100 * gain['lower']:+.1f}, {100 * gain['upper']:+.1f}], {gain['verdict']}" in line.replace("−", "-")


def test_a_table_judges_by_its_further_scores_only():
    row = Row("both", model=Concat(4))
    with pytest.raises(UsageError, match="judges by 'cider_d', which is not among its further scores"):
        Table("title", "easy_vqa", Classification(2), [row], also=("accuracy",), judged=("cider_d",))
