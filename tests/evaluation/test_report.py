import json

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation import RecordStore, format_table, make_record, summarise, write_report
from mmjax.evaluation.significance import holm, seed_interval
from tests.evaluation.table import SEEDS, config, targets, toy, write_toy_row


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    toy(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def rows(workdir):
    return {row["name"]: row for row in summarise(workdir)["rows"]}


def test_cells_follow_from_the_logits(workdir, rows):
    store, truth = RecordStore(workdir), targets()["test"]["target"]
    for name in ("text", "both", "other both"):
        accuracy = (store.logits(name, "test").argmax(-1) == truth).mean(1)
        np.testing.assert_allclose(rows[name]["values"], accuracy, atol=1e-9)
        np.testing.assert_allclose(rows[name]["mean"], accuracy.mean(), atol=1e-9)
        np.testing.assert_allclose(rows[name]["seed_interval"], seed_interval(accuracy), atol=1e-9)
        np.testing.assert_allclose(rows[name]["metrics"]["accuracy"], accuracy.mean(), atol=1e-6)
        np.testing.assert_allclose(rows[name]["test_selected"], accuracy.mean() + 0.01, atol=1e-6)
        assert rows[name]["interval"][0] <= rows[name]["mean"] <= rows[name]["interval"][1]
        assert rows[name]["interval_unit"] == "group"
        assert (rows[name]["params"], rows[name]["flops"], rows[name]["epochs"]) == (12_345, 2e6, [2] * 5)


def test_gains_are_over_the_best_single_modality_of_the_section_by_validation(workdir, rows):
    assert rows["text"]["validation"] > rows["audio"]["validation"]
    assert rows["text"]["best_single"]
    assert rows["other text"]["best_single"]
    assert not rows["audio"]["best_single"]
    assert {name: row["gain"]["over"] for name, row in rows.items() if row["gain"]} == {
        "both": "text",
        "voted": "text",
        "other both": "other text",
    }
    gains = {name: row["gain"] for name, row in rows.items() if row["gain"]}
    for name, gain in gains.items():
        assert gain["mean"] == pytest.approx(rows[name]["mean"] - rows[gain["over"]]["mean"], abs=1e-9)
        assert gain["p"] == max(gain["p_permutation"], gain["p_t"])
    np.testing.assert_allclose([g["p_holm"] for g in gains.values()], holm([g["p"] for g in gains.values()]), atol=1e-9)
    assert gains["other both"]["verdict"] == "better"


def test_the_choice_of_the_best_single_never_sees_test(tmp_path):
    """Audio gets perfect test logits and useless validation logits: text stays the reference."""
    store = toy(tmp_path)
    records = store.records("audio")
    truth = targets()["test"]["target"]
    perfect = np.tile(np.eye(2)[truth], (len(SEEDS), 1, 1))
    store.write_row("audio", records, {"validation": store.logits("audio", "validation"), "test": perfect}, {})
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["audio"]["mean"] == 1.0
    assert rows["text"]["best_single"]


def test_same_bytes_again_also_from_an_interrupted_run(workdir, tmp_path):
    store = toy(tmp_path, names=("voted", "both"))
    write_report(tmp_path)  # a report of the half-finished table comes in between
    (tmp_path / "timing.json").unlink()
    for name in ("other both", "other text", "audio", "text"):
        write_toy_row(store, name, timing=99.0)
    assert write_report(tmp_path) == (workdir / "table.md").read_text()
    names = ["table.json", "table.md", "plots/rows.png", "plots/learning_curves.png"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes(), name
    before = [(tmp_path / name).read_bytes() for name in names]
    write_report(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_markdown_says_what_a_reader_needs(workdir):
    text = (workdir / "table.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "80.3 (unchecked)" in lines["both"]
    assert "best single" in lines["text"]
    assert "not run" in lines["missing"]
    assert "81.0 " in lines["published \\"]  # the bar in its name is escaped
    assert "55.0" in lines["majority class of the test items"]
    assert "50.0" in lines["chance"]
    assert "12.3 k" in lines["voted"]
    assert "2 M" in lines["voted"]
    for needed in ("Nothing real.", "## first", "## second", "12 groups (video)", "5 seeds", "3 comparisons (Holm)",
                   "Best single modality, first: text.", "From: Somebody 2017, table 2; a book."):  # fmt: skip
        assert needed in text
    widths = {len(line) for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1  # padded: it reads as plain text too


def test_terminal_table_has_the_same_cells(workdir):
    summary = summarise(workdir)
    text = format_table(summary)
    both = next(line for line in text.splitlines() if line.startswith("both "))
    row = next(row for row in summary["rows"] if row["name"] == "both")
    assert f"{100 * row['mean']:.1f} ± {100 * row['half_width']:.1f}" in both
    assert row["gain"]["verdict"] in both


def test_table_json_is_valid_json_without_clocks(workdir):
    text = (workdir / "table.json").read_text()
    json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
    assert "seconds" not in text
    assert json.loads(text) == summarise(workdir)


def test_rows_of_another_configuration_or_with_damaged_logits_are_not_run(tmp_path):
    store = toy(tmp_path)
    write_toy_row(store, "both", config_hash="an older one")
    path = tmp_path / store.records("voted")[0]["logits_path"]["test"].split(":")[0]
    path.write_bytes(path.read_bytes()[:-5])
    status = {row["name"]: row["status"] for row in summarise(tmp_path)["rows"]}
    assert {name for name, value in status.items() if value == "not run"} == {"both", "voted", "missing"}


def test_fewer_seeds_say_less(tmp_path):
    store = toy(tmp_path, names=("text", "audio"))
    write_toy_row(store, "both", seeds=SEEDS[:3])
    write_toy_row(store, "voted", seeds=SEEDS[:2])
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["both"]["gain"]["verdict"] == "too few seeds"
    assert rows["both"]["gain"]["seeds"] == [0, 1, 2]
    assert rows["voted"]["gain"]["verdict"] is None
    assert rows["voted"]["seed_interval"] is rows["voted"]["interval"] is None
    text = write_report(tmp_path)
    assert "both (3 seeds)" in text
    assert "voted (2 seeds)" in text
    toy(tmp_path, names=(), seeds=[0])  # a table of one seed reads only that one
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["both"]["seeds"] == [0]
    write_report(tmp_path)


def test_few_groups_are_named(tmp_path):
    store = toy(tmp_path, names=("text",))
    fewer = {split: {**values, "group": values["group"] % 3} for split, values in targets().items()}
    store.write_targets(fewer)
    summary = summarise(tmp_path)
    assert summary["unit"] == "item"
    assert "Fewer than 10 test groups (video)" in write_report(tmp_path)


def test_a_score_is_reported_as_an_error_in_its_own_units(tmp_path):
    draw = np.random.default_rng(0)
    store, truth = RecordStore(tmp_path), {k: draw.normal(size=50) for k in ("validation", "test")}
    store.write_config(config(primary="mae", majority=None, chance=None, references=[]))
    store.write_targets({split: {"target": values, "group": np.arange(50)} for split, values in truth.items()})
    for name, noise in (("text", 1.0), ("audio", 2.0), ("both", 0.2)):
        scores = {k: v + noise * draw.normal(size=(5, 50)) for k, v in truth.items()}
        records = [
            make_record(
                row=name, streams=[], dataset={}, method={"config_hash": f"hash of {name}"}, seed=seed,
                selection_rule="", epoch=None, test_selected=None, primary="mae", metrics={"mae": 0.5},
                validation_metrics={}, cost={}, env={},
            )
            for seed in SEEDS
        ]  # fmt: skip
        store.write_row(name, records, scores, {})
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    error = np.abs(store.logits("both", "test") - truth["test"]).mean()
    assert rows["both"]["mean"] == pytest.approx(error, abs=1e-6)
    assert rows["both"]["interval"][0] < error < rows["both"]["interval"][1]
    assert rows["text"]["best_single"]
    assert rows["both"]["gain"]["mean"] > 0
    assert rows["both"]["gain"]["verdict"] == "better"
    assert rows["both"]["calibration"] is None
    assert f"{error:.3f} ±" in write_report(tmp_path)


def test_what_cannot_be_reported_is_said_in_one_line(tmp_path):
    store = toy(tmp_path, names=("text",), primary="bleu4")
    with pytest.raises(UsageError, match="'bleu4' is no mean over items; the report knows accuracy, mae"):
        summarise(tmp_path)
    store.write_config(config(primary="mae"))
    with pytest.raises(UsageError, match=r"row 'text': mae needs outputs \[seeds, items\]"):
        summarise(tmp_path)
    store.write_config(config())
    store.write_targets({split: {k: v[:-1] for k, v in values.items()} for split, values in targets().items()})
    with pytest.raises(UsageError, match="row 'text' has 40 validation items, the targets have 39"):
        summarise(tmp_path)
    with pytest.raises(UsageError, match=r"no config\.json"):
        summarise(tmp_path / "nowhere")


def test_nothing_run_yet_is_a_report_without_plots(tmp_path):
    toy(tmp_path, names=())
    assert write_report(tmp_path).count("not run") >= 7
    assert not (tmp_path / "plots").exists()


def test_plots_are_as_wide_as_a_column_with_legible_type(workdir):
    import matplotlib.text
    from PIL import Image

    from mmjax.evaluation.plots import curves_figure, rows_figure

    summary = summarise(workdir)
    for figure in (rows_figure(summary), curves_figure(summary, RecordStore(workdir))):
        assert figure.get_size_inches()[0] == 3.4
        words = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
        assert min(text.get_fontsize() for text in words) >= 7
        labels = {text.get_text() for text in words}
        assert any("accuracy (%)" in label for label in labels)
    for path in (workdir / "plots").iterdir():
        with Image.open(path) as image:
            assert image.width == 1020
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn
            assert not image.info.keys() & {"Software", "Creation Time"}
