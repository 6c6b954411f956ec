"""``fold=all``: every fold has its own table, and the pooled one is their mean and spread, recomputed from disk."""

import json

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.experiment import Row, run_table
from mmjax.experiment.commands import report, train
from tests.experiment import small


@pytest.fixture
def folded(monkeypatch):
    """A table whose data set, known by name, has two folds; no plots."""
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})

    def load(name, *, fold, **folders):
        return small.arrays(seed=fold)

    monkeypatch.setattr("mmjax.datasets.load", load)
    rows = [small.table().rows[0], Row("guess", fit=small.guess), Row("long", fit=small.guess)]
    return small.table(
        dataset="small", rows=rows, options={"fold": "all"}, folds=(3, 5), extra=("long",), note="Noted."
    )


def test_the_pooled_table_is_the_mean_and_spread_of_the_folds(folded, tmp_path):
    text = run_table(folded, name="small", workdir=tmp_path, say=[].append)
    alone = {}
    for fold in (3, 5):
        rows = json.loads((tmp_path / f"fold-{fold}" / "table.json").read_text())["rows"]
        alone[fold] = {row["name"]: row.get("mean") for row in rows}
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["folds"] == [3, 5] and table["note"] == "Noted."
    for row in table["rows"][:2]:
        means = np.asarray([alone[fold][row["name"]] for fold in (3, 5)])
        assert means[0] != means[1]
        expected = [means.mean(), abs(means[0] - means[1]) / np.sqrt(2), means.min(), means.max()]
        np.testing.assert_allclose([row[k] for k in ("mean", "sd", "min", "max")], expected, atol=1e-9)
    assert table["rows"][2]["folds"] == [None, None] and "mean" not in table["rows"][2]
    assert text.endswith("\n\nNot run: long.\n") and "| long" not in text
    line = next(line for line in text.splitlines() if line.startswith("| left"))
    assert f"{100 * np.mean([alone[3]['left'], alone[5]['left']]):.1f}" in line and "sd between folds" in text


def test_folds_are_pooled_by_the_names_of_their_rows(tmp_path):
    """The control of a fold is named after its own best row; another place, or none, is no other row."""

    def table(**means):
        rows = [{"name": k, "section": "", "streams": ["a"], "extra": False, "mean": v} for k, v in means.items()]
        return {"primary": "accuracy", "seeds": [0, 1], "items": {"test": 9}, "rows": rows}

    tables = {
        0: table(text=0.5, late=0.7, late_shuffled=0.4),
        1: table(late=0.9, text=0.3),
        2: table(text=0.4, gated=1.0),
    }
    (tmp_path / "config.json").write_text(json.dumps({"table": "t", "title": "T", "note": "", "folds": [0, 1, 2]}))
    for fold, content in tables.items():
        (tmp_path / f"fold-{fold}").mkdir()
        (tmp_path / f"fold-{fold}" / "table.json").write_text(json.dumps(content))
    text = report(tmp_path)
    rows = {row["name"]: row for row in json.loads((tmp_path / "table.json").read_text())["rows"]}
    assert list(rows) == ["text", "late", "late_shuffled", "gated"]
    assert rows["text"]["folds"] == [0.5, 0.3, 0.4] and rows["text"]["mean"] == pytest.approx(0.4)
    assert rows["late"]["folds"] == [0.7, 0.9, None] and "mean" not in rows["late"]
    assert rows["gated"]["folds"] == [None, None, 1.0] and "is missing in some folds" in text


def test_run_or_reported_again_the_bytes_stay(folded, tmp_path):
    def files():
        return [(tmp_path / name).read_bytes() for name in ("table.json", "table.md", "fold-3/table.json")]

    run_table(folded, name="small", workdir=tmp_path, say=[].append)
    before, lines = files(), []
    run_table(folded, name="small", workdir=tmp_path, say=lines.append)
    assert sum("done before" in line for line in lines) == 4 and files() == before
    assert report(tmp_path).encode() == before[1] and files() == before


def test_of_a_half_finished_run_what_is_there_is_reported(folded, tmp_path):
    def dying(line):
        if len(folds := list(tmp_path.glob("fold-*"))) == 2:
            raise KeyboardInterrupt(folds)

    with pytest.raises(KeyboardInterrupt):
        run_table(folded, name="small", workdir=tmp_path, say=dying)
    assert "1 of 2 folds" in report(tmp_path)


def test_misuse_is_one_line(folded, tmp_path):
    with pytest.raises(UsageError, match="the folds are: 3, 5"):
        train(folded, row=None, workdir=tmp_path / "train")
    run_table(folded, name="small", workdir=tmp_path, say=[].append)
    one = small.table()
    with pytest.raises(UsageError, match="folds is"):
        run_table(one, name="small", workdir=tmp_path, say=[].append)
