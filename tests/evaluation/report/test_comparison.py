import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import friedmanchisquare

from mmjax.errors import UsageError
from mmjax.evaluation import compare_tables

METHODS = ("mean of logits", "gated", "FiLM")


def write(folder, dataset, scores, *, primary="accuracy", joined="late", alone=0.5, **changes):
    """A ``table.json`` with these test scores by method; the concatenation is called ``joined`` there."""

    def row(name, mean, **fields):
        return {"name": name, "mean": mean, "single": False, "best_single": False, "role": None, "status": "done",
                "streams": ["a", "b"], **fields}  # fmt: skip

    rows = [row("a", alone, single=True, best_single=True, role="single"), row("b", 0.99, single=True, role="single"),
            row("a, as many parameters", 0.98, role="matched"), row(joined, scores[0], role="concatenation"),
            row("late: b shuffled", 0.97, role="shuffled control")]  # fmt: skip
    rows += [row(name, score) for name, score in zip(METHODS, scores[1:])]
    rows += [{"name": "extra", "single": False, "status": "not run", "streams": ["a", "b"], "role": None}]
    table = {"dataset": {"name": dataset}, "primary": primary, "higher_is_better": primary != "mae", "rows": rows}
    folder.mkdir(parents=True)
    (folder / "table.json").write_text(json.dumps({**table, **changes}))
    return folder


def ranks_of(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: float(cells[1]) for cells in lines[2:]}


def test_ranks_by_test_score_with_roles_in_place_of_names(tmp_path):
    """By hand: of five methods, best first, one: FiLM, gated, concatenation, mean, single; two: gated, FiLM, ..."""
    one = write(tmp_path / "one", "first", [0.7, 0.6, 0.8, 0.9], joined="concatenation")
    two = write(tmp_path / "two", "second", [0.7, 0.6, 0.9, 0.8], joined="late fusion | MLP")
    text = compare_tables([one, two], tmp_path / "out")
    found = ranks_of(text)
    assert found == {
        "FiLM": 1.5,
        "gated": 1.5,
        "concatenation": 3.0,
        "mean of logits": 4.0,
        "best single modality": 5.0,
    }
    assert "90.0 (1)" in text
    assert "shuffled" not in text
    assert "as many parameters" not in text
    assert (tmp_path / "out" / "ranks.md").read_text() == text
    with Image.open(tmp_path / "out" / "ranks.png") as image:
        assert image.width == 1020
        assert np.asarray(image.convert("L")).std() > 5
    assert "Too few data sets: with 2" in text
    assert "no two methods can be told apart" in text


def test_many_data_sets_tell_methods_apart_and_an_error_is_better_lower(tmp_path):
    draw = np.random.default_rng(0)
    scores = np.array([0.8, 0.7, 0.6, 0.5]) + draw.uniform(0, 0.02, (12, 4))
    folders = [write(tmp_path / str(i), f"data {i}", row.tolist(), alone=0.4) for i, row in enumerate(scores[:11])]
    # of the last data set the errors are in the opposite order of the scores, so the ranks are the same
    folders.append(write(tmp_path / "mae", "data 11", (1 - scores[11]).tolist(), primary="mae", alone=0.9))
    text = compare_tables(folders, tmp_path)
    assert ranks_of(text) == {"concatenation": 1, "mean of logits": 2, "gated": 3, "FiLM": 4, "best single modality": 5}
    chi2 = friedmanchisquare(*scores.T, np.full(12, 0.4)).statistic
    assert f"chi-square {chi2:.2f}" in text
    assert "The methods differ at 5 %." in text
    assert "Too few" not in text
    # Nemenyi: 2.728 sqrt(5 6 / 72) = 1.76, so neighbours are not told apart
    assert "1.76 or more apart" in text
    assert "* concatenation; mean of logits\n" in text


def test_what_is_not_in_every_table_is_named(tmp_path):
    one = write(tmp_path / "one", "first", [0.7, 0.6, 0.8, 0.9])
    two = write(tmp_path / "two", "second", [0.7, 0.6, 0.8])
    text = compare_tables([one, two], tmp_path)
    assert "Not in every table, so not ranked: FiLM." in text
    assert "FiLM" not in ranks_of(text)


def test_products_and_the_mean_of_logits_count_once(tmp_path):
    """Three rows that decide alike would take three ranks from whoever is better or worse."""
    folders = []
    for name, best in (("first", 0.9), ("second", 0.8)):
        folder = write(tmp_path / name, name, [0.7, 0.6, 0.8, best])
        table = json.loads((folder / "table.json").read_text())
        mean = next(row for row in table["rows"] if row["name"] == "mean of logits")
        table["rows"] += [{**mean, "name": twin, "mean": 0.61} for twin in ("product", "prior-corrected product")]
        table["rows"][-1]["role"] = "prior-corrected product"
        (folder / "table.json").write_text(json.dumps(table))
        folders.append(folder)
    text = compare_tables(folders, tmp_path)
    assert set(ranks_of(text)) == {"concatenation", "mean of logits", "gated", "FiLM", "best single modality"}
    assert "counted with it: product; prior-corrected product." in text and "Not in every table" not in text


def test_one_table_has_ranks_and_no_test(tmp_path):
    text = compare_tables([write(tmp_path / "one", "first", [0.7, 0.6, 0.8, 0.9])], tmp_path)
    assert "Too few data sets: 1; ranks only" in text
    assert "Friedman" not in text
    assert (tmp_path / "ranks.png").is_file()


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path):
    one = write(tmp_path / "one", "first", [0.7, 0.6, 0.8, 0.9])
    with pytest.raises(UsageError, match="no table to compare"):
        compare_tables([], tmp_path)
    with pytest.raises(UsageError, match=r"holds no table\.json"):
        compare_tables([one, tmp_path / "none"], tmp_path)
    with pytest.raises(UsageError, match="data set 'first' stands in two of the tables"):
        compare_tables([one, write(tmp_path / "again", "first", [0.7])], tmp_path)
    with pytest.raises(UsageError, match="have 1 methods in common; two are needed"):
        alone = {"name": "x", "mean": 0.5, "single": False, "best_single": True, "status": "done"}
        compare_tables([one, write(tmp_path / "other", "other", [0.7], rows=[alone])], tmp_path)
    (tmp_path / "folds").mkdir()
    (tmp_path / "folds" / "table.json").write_text(json.dumps({"folds": [1, 2], "rows": []}))
    with pytest.raises(UsageError, match="pools several folds"):
        compare_tables([one, tmp_path / "folds"], tmp_path)
    (tmp_path / "folds" / "table.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        compare_tables([tmp_path / "folds"], tmp_path)
