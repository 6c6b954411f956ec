import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mmjax.errors import UsageError
from mmjax.evaluation import RecordStore, format_table, make_record, summarise, write_report
from mmjax.evaluation.report.columns import columns
from mmjax.evaluation.report.frame import make_frame
from mmjax.evaluation.report.kinds import sections
from mmjax.evaluation.report.write import MAIN, format_markdown
from mmjax.evaluation.statistics.significance import holm, seed_interval
from tests.evaluation.full import RESULTS
from tests.evaluation.table import QUALITY, SEEDS, config, targets, toy, write_logits, write_toy_row


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
        each = rows[name]["gains"].values()
        assert gain["mean"] == min(cell["mean"] for cell in each)
        assert all(cell["p"] == max(cell["p_permutation"], cell["p_t"], cell["p_both"]) for cell in each)
    assert set(rows["both"]["gains"]) == {"text", "audio"} and set(rows["other both"]["gains"]) == {"other text"}
    np.testing.assert_allclose([g["p_holm"] for g in gains.values()], holm([g["p"] for g in gains.values()]), atol=1e-9)
    assert gains["other both"]["verdict"] == "better"


def test_the_choice_of_the_best_single_never_sees_test(tmp_path):
    """Audio gets perfect test logits and useless validation logits: text stays the reference."""
    store = toy(tmp_path)
    truth = targets()["test"]["target"]
    perfect = np.tile(np.eye(2)[truth], (len(SEEDS), 1, 1))
    weak = store.logits("audio", "test")
    for name in ("both", "text"):  # the same on test, so that the fusion is no worse than text
        write_logits(store, name, {"validation": store.logits(name, "validation"), "test": weak})
    write_logits(store, "audio", {"validation": store.logits("audio", "validation"), "test": perfect})
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["audio"]["mean"] == 1.0 and rows["audio"]["interval"] == [pytest.approx(0.025 ** (1 / 12)), 1.0]
    assert rows["text"]["best_single"]
    gain = rows["both"]["gain"]  # but a fusion that audio beats on test is not to pass for one that text does not beat
    assert (gain["over"], gain["verdict"], gain["below"]) == ("audio", "worse", ["audio"])
    assert rows["both"]["gains"]["text"]["mean"] == 0 and gain["mean"] == pytest.approx(rows["both"]["mean"] - 1)
    text = write_report(tmp_path)
    assert " over audio |" in text and "chosen on validation; on test audio is ahead by" in text


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


def lines_of(text):
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}


def test_markdown_says_what_a_reader_needs(workdir):
    """What was found first, what lies behind it in a second block of tables, each as wide as it must be."""
    text = (workdir / "table.md").read_text()
    start = text.index("## first: behind the scores")
    each = text.index("## first: gain over each single modality")
    main, behind = lines_of(text[:start]), lines_of(text[start:each])
    assert "over text | " in text[each:] and lines_of(text[each:])["both"].count("[") == 2
    assert "80.3 (unchecked)" in main["both"]
    assert "best single" in main["text"]
    assert "not run" in main["missing"] and "missing" not in behind
    assert "81.0 " in main["published \\"]  # the bar in its name is escaped
    assert "55.0" in main["majority class of the test items"]
    assert "50.0" in main["chance"]
    assert "12.3 k" in behind["voted"]
    assert "2 M" in behind["voted"]
    for needed in ("Nothing real.", "## first\n", "## second\n", "## second: behind the scores", "12 groups (video)",
                   "5 seeds", "3 comparisons (Holm)", "Best single modality, first: text.",
                   "From: Somebody 2017, table 2; a book."):  # fmt: skip
        assert needed in text
    for block in text.split("\n\n"):  # every table reads as plain text too
        assert len({len(line) for line in block.splitlines() if line.startswith("|")}) <= 1


def test_what_lies_behind_the_scores_is_as_narrow_as_a_terminal():
    summary = json.loads((RESULTS / "cmu_mosi" / "table.json").read_text())
    columns_shown = [column for column in columns(summary) if column.key not in (*MAIN, "over_each")]
    text = format_markdown(make_frame(summary))
    for title, rows in sections(summary["rows"]):
        block = text.partition(f"## {title}: behind the scores\n")[2].partition("\n## ")[0]
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert lines and max(map(len, (line for line in lines if line.count("|") > 3))) <= 120  # a column alone may
        for row in rows:
            cells = {cell.strip() for line in lines if line.split("|")[1].strip() == row["name"]
                     for cell in line.split("|")[2:]}  # fmt: skip
            assert {column.cell(row).text for column in columns_shown} - {"–"} <= cells, row["name"]


def test_a_table_that_lacks_parts_says_so_on_its_face(workdir, tmp_path):
    summary = summarise(workdir)
    assert not summary["conforming"]
    said = "**Non-conforming**: the protocol also asks for " + "; ".join(summary["missing_parts"]) + "."
    assert said in (workdir / "table.md").read_text() and said in format_table(summary)
    for part in ("matched (", "mean of logits (", "concatenation (", "shuffled control (", "ensemble control ("):
        assert part in said
    store = whole_toy(tmp_path)
    assert summarise(tmp_path)["missing_parts"] == [] and "Non-conforming" not in write_report(tmp_path)
    rows = store.config()["rows"]
    store.write_config(config(rows=[row for row in rows if row["name"] != "shuffled"]))
    assert [part.partition(" (")[0] for part in summarise(tmp_path)["missing_parts"]] == ["shuffled control"]


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


ROLES = {"text": "", "audio": "", "wide text": "matched", "voted": "mean of logits",
         "product": "prior-corrected product", "both": "concatenation", "joint": "joint transformer",
         "shuffled": "shuffled control", "two texts": "ensemble control"}  # fmt: skip
RIGHT = {"text": 42, "audio": 30, "wide text": 42, "voted": 45, "product": 36, "both": 48, "joint": 45, "shuffled": 39,
         "two texts": 42}  # fmt: skip


def whole_toy(folder):
    """A table of one section that has every role; of the 60 test items each row gets the first so many right."""
    rows = [
        {"name": name, "section": "only", "kind": "model", "role": role, "single": name in ("text", "audio"),
         "streams": ["audio"] if name == "audio" else ["text"] if "text" in name else ["audio", "text"],
         "paper": None, "config_hash": f"hash of {name}"}
        for name, role in ROLES.items()
    ]  # fmt: skip
    store = toy(folder, names=(), rows=rows)
    for name, count in RIGHT.items():
        write_toy_row(store, name)
        logits = {}
        for split, truth in targets().items():
            right = np.arange(len(truth["target"])) < count
            said = np.where(right, truth["target"], 1 - truth["target"])
            logits[split] = np.tile(np.eye(2, dtype=np.float32)[said], (len(SEEDS), 1, 1))
        write_logits(store, name, logits)
    return store


def test_gains_over_the_late_mean_and_over_the_ensemble_by_hand(tmp_path):
    """48 of 60 right, against 45 of the untrained mean and 42 of two models of text: 5 and 10 points."""
    whole_toy(tmp_path)
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["text"]["best_single"] and rows["text"]["role"] == "single"
    late, ensemble = rows["both"]["gain_late_mean"], rows["both"]["gain_ensemble"]
    assert (late["over"], ensemble["over"]) == ("voted", "two texts")
    assert late["mean"] == pytest.approx(3 / 60) and ensemble["mean"] == pytest.approx(6 / 60)
    assert late["lower"] <= late["mean"] <= late["upper"] and late["seeds"] == list(SEEDS)
    assert "verdict" not in late and "p_holm" not in late  # the table tests one hypothesis a row
    assert rows["product"]["gain_late_mean"]["mean"] == pytest.approx(-9 / 60)
    assert rows["joint"]["gain_late_mean"]["mean"] == 0
    assert rows["voted"]["gain_late_mean"] is None  # itself
    assert rows["voted"]["gain_ensemble"]["mean"] == pytest.approx(3 / 60)
    for alone in ("text", "audio", "wide text", "two texts"):
        assert rows[alone]["gain_late_mean"] is None and rows[alone]["gain_ensemble"] is None
    line = lines_of(write_report(tmp_path).partition("gain over each")[0])["both"]
    assert "+5.0 [" in line and "+10.0 [" in line


def test_controls_are_no_comparisons_of_the_table(tmp_path):
    """Four fusions are tested, and the shuffled control beside them costs them nothing and gets no verdict."""
    store = whole_toy(tmp_path)
    summary = summarise(tmp_path)
    rows = {row["name"]: row for row in summary["rows"]}
    assert summary["comparisons"] == 4 and summary["smallest_p"] == pytest.approx(4 * 2 / 2**12)
    control = rows["shuffled"]["gain"]
    assert (control["over"], control["verdict"], control["p_holm"]) == ("text", None, None)
    assert control["mean"] == pytest.approx(-3 / 60) and control["p"] == rows["shuffled"]["gains"]["text"]["p"]
    text = write_report(tmp_path)
    main = lines_of(text.partition("behind the scores")[0])
    assert f"({control['p']:.3f})" in main["shuffled"] and "Corrected for 4 comparisons (Holm)" in text
    assert f"can get is {summary['smallest_p']:.2g}." in text
    median = np.median([rows[name]["gain"]["detectable"] for name in ("voted", "product", "both", "joint")])
    assert summary["detectable_gain"] == pytest.approx(median)
    assert f"finds a true gain of {100 * median:.1f} points" in text
    without = [row for row in store.config()["rows"] if row["name"] != "shuffled"]
    store.write_config(config(rows=without))
    assert {r["name"]: r["gain"] for r in summarise(tmp_path)["rows"]}["both"] == rows["both"]["gain"]


def test_gains_over_them_stay_within_a_section(tmp_path):
    given = config()
    for row in given["rows"]:
        row["role"] = {"voted": "mean of logits"}.get(row["name"], "")
    toy(tmp_path, rows=given["rows"])
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["both"]["gain_late_mean"]["mean"] == pytest.approx(rows["both"]["mean"] - rows["voted"]["mean"])
    assert rows["both"]["gain_ensemble"] is None and rows["other both"]["gain_late_mean"] is None


def swept(draw, name):
    """What analysis leaves of a row of two modalities."""
    logits = {f"pattern/{p}": draw.normal(size=(5, 60, 2)) for p in ("audio+text", "audio", "text", "")}
    noise = {f"noise/{target}": draw.uniform(0.3, 0.9, (3, 2, 5)) for target in ("audio", "text", "all")}
    mixed = {
        "emap/score": draw.uniform(0, 1, (5, 3)), "emap/gap": draw.normal(size=(5, 3)), "emap/items": np.asarray(60),
        "shapley/values": draw.normal(size=(5, 2)), "shapley/worth": np.ones((2, 5)),
        "shapley/rule": np.asarray("permutation"), "perceptual/values": draw.normal(size=(5, 2)),
    }  # fmt: skip
    return {**logits, **noise, **(mixed if name == "both" else {})}


def test_what_was_measured_is_in_the_table_and_only_of_this_configuration_and_these_seeds(tmp_path):
    store, draw = whole_toy(tmp_path), np.random.default_rng(0)
    bare = summarise(tmp_path)["rows"][5]
    assert bare["robustness"] is bare["interaction"] is None and bare["interaction_note"]
    measured = {name: swept(draw, name) for name in ("both", "voted", "joint")}
    for name, arrays in measured.items():
        store.write_analysis(name, {"config_hash": f"hash of {name}", "seeds": list(SEEDS)}, arrays)
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    both = rows["both"]["robustness"]
    np.testing.assert_allclose(both["noise"]["text"]["mean"], measured["both"]["noise/text"].mean((1, 2)), atol=1e-9)
    ours, theirs = (measured[name]["noise/text"].mean((1, 2)) for name in ("both", "voted"))
    over = (ours - ours[0]) - (theirs - theirs[0])
    assert both["noise"]["text"]["effective"] == pytest.approx((over[0] / 2 + over[1] + over[2] / 2) / 2, abs=1e-9)
    assert rows["voted"]["robustness"]["noise"]["all"]["effective"] == pytest.approx(0)  # it is the reference
    assert set(both["patterns"]) == {"audio+text", "audio", "text"} and both["multibench"]["relative"] in (0, 1)
    pool = [rows[name]["robustness"]["multibench"]["relative"] for name in measured]
    assert (min(pool), max(pool)) == (0, 1)
    assert rows["both"]["interaction"]["emap"]["gap"] == pytest.approx(measured["both"]["emap/gap"].mean(), abs=1e-9)
    assert rows["both"]["interaction_note"] == "" and "--interactions all" in rows["joint"]["interaction_note"]
    text = write_report(tmp_path)
    for title in ("EMAP gap", "Shapley shares, %", "kept, missing, %", "kept, noise, %", "worst drop", "harmful"):
        assert text.count(f"| {title}") + text.count(f" {title} |") >= 1
    for change in ({"config_hash": "an older one"}, {"seeds": [0, 1, 2]}):
        digest = {"config_hash": "hash of both", "seeds": list(SEEDS), **change}
        store.write_analysis("both", digest, measured["both"])
        row = summarise(tmp_path)["rows"][5]
        assert row["robustness"] is row["interaction"] is None


def test_reported_again_after_everything_was_deleted_the_bytes_are_the_same(tmp_path):
    store, draw = whole_toy(tmp_path), np.random.default_rng(0)
    for name in ("both", "voted", "joint"):
        store.write_analysis(name, {"config_hash": f"hash of {name}", "seeds": list(SEEDS)}, swept(draw, name))
    text = write_report(tmp_path)
    made = [tmp_path / name for name in ("table.json", "table.md", "table.tex", "report.html")]
    made += sorted((tmp_path / "plots").iterdir())
    before = {path: path.read_bytes() for path in made}
    for path in made:
        path.unlink()
    shutil.rmtree(tmp_path / "plots")
    assert write_report(tmp_path) == text
    assert {path: path.read_bytes() for path in made} == before and len(before) > 8


def test_a_published_number_has_a_status_and_other_conventions_are_refused(tmp_path):
    store = whole_toy(tmp_path)
    rows = store.config()["rows"]
    paper = {"value": 79.0, "source": "a book", "checked": True}
    rows[5]["paper"], rows[6]["paper"] = paper, {**paper, "cannot_run": "no code"}
    store.write_config(config(rows=[*rows, {**rows[0], "name": "never", "single": False, "paper": paper}]))
    summary = summarise(tmp_path)
    status = {row["name"]: row["target"] and row["target"]["status"] for row in summary["rows"]}
    assert {name: one for name, one in status.items() if one} == {
        "both": "reproduced",
        "joint": "cannot run",
        "never": "cannot run",
    }
    assert "reproduced" in lines_of(write_report(tmp_path).partition("behind the scores")[0])["both"]
    both = next(row for row in summary["rows"] if row["name"] == "both")
    cell = next(c for c in columns(summary) if c.key == "target").cell
    assert cell(both).text == "reproduced (+1.0 [+1.0, +1.0])"  # the difference and its interval
    few = {**both, "target": {**both["target"], "difference_interval": None}}
    assert cell(few).text == "reproduced (+1.0)"
    older = {"value": 79.0, "status": "reproduced", "tolerance": 7.04}  # a table of before there was a difference
    assert cell({**both, "target": older}).text == "reproduced"
    assert cell(next(row for row in summary["rows"] if row["name"] == "joint")).text == "cannot run"
    rows[5]["paper"] = {**paper, "metric": "acc2_non0"}
    store.write_config(config(rows=rows, metric="acc2_has0"))
    with pytest.raises(UsageError, match=r"row 'both' measures acc2_has0 .* reports acc2_non0 .* not compared"):
        summarise(tmp_path)
    rows[5]["paper"] = {**paper, "metric": "acc2_has0"}
    store.write_config(config(rows=rows, metric="acc2_has0"))
    summary = summarise(tmp_path)
    assert summary["metric_name"] == summary["rows"][5]["target"]["metric"] == "acc2_has0"
    assert summary["rows"][6]["target"]["metric"] == "acc2_has0"  # that of the table where it says none
    elsewhere = {**config()["references"][0], "metric": "acc2_non0"}
    store.write_config(config(rows=rows, metric="acc2_has0", references=[elsewhere]))
    with pytest.raises(UsageError, match=r"row 'published \| elsewhere' measures acc2_has0"):
        summarise(tmp_path)


def test_few_groups_are_named(tmp_path):
    store = toy(tmp_path, names=())
    fewer = {split: {**values, "group": values["group"] % 3} for split, values in targets().items()}
    store.write_targets(fewer)
    write_toy_row(store, "text")
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
                selection_rule="", epoch=None, test_selected=None, primary="mae",
                metrics={"mae": np.abs(scores["test"][seed] - truth["test"]).mean()},
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
    with pytest.raises(UsageError, match="no score 'bleu4'; there are acc2_has0, "):
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

    from mmjax.evaluation.report.plots import curves_figure, rows_figure

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


def test_gains_over_a_row_that_the_table_names_instead_of_single_modalities(tmp_path):
    """Also over one of another section; a row is no gain over itself, a control gets no verdict."""
    given = config()["rows"]
    for row in given:
        row |= {"single": False, "streams": ["audio", "text"]}
        row["versus"] = {"both": "text", "voted": "other text", "audio": "text"}.get(row["name"], "")
        row["role"] = {"audio": "shuffled control"}.get(row["name"], "")
        if row["name"] == "voted":
            row["streams"] = ["text"]  # of one modality too, where a row is named
    toy(tmp_path, rows=given)
    summary = summarise(tmp_path)
    rows = {row["name"]: row for row in summary["rows"]}
    assert {name: row["gain"]["over"] for name, row in rows.items() if row.get("gain")} == {
        "both": "text",
        "voted": "other text",
        "audio": "text",
    }
    for name, over in (("both", "text"), ("voted", "other text"), ("audio", "text")):
        assert rows[name]["gain"]["mean"] == pytest.approx(rows[name]["mean"] - rows[over]["mean"], abs=1e-9)
    assert summary["comparisons"] == 2 and rows["audio"]["gain"]["verdict"] is None and rows["both"]["gain"]["verdict"]
    text = write_report(tmp_path)
    main = lines_of(text.partition("behind the scores")[0])
    assert "over other text" in main["voted"] and "gain over an earlier row" in text
    assert "Of no gain over the row it is compared with" in text and "single modality" not in text.partition("##")[2]


def test_further_scores_of_the_task_stand_behind_that_of_the_table(tmp_path):
    toy(tmp_path)
    assert "recall@5" not in write_report(tmp_path)
    toy(tmp_path, also=["recall@5_forward", "median_rank_backward"])
    store = RecordStore(tmp_path)
    for row in QUALITY:
        more = {"recall@5_forward": 0.125, "median_rank_backward": 7.5}
        records = [{**one, "metrics": {**one["metrics"], **more}} for one in store.records(row)]
        store.write_row(row, records, {split: store.logits(row, split) for split in ("validation", "test")}, {})
    text = write_report(tmp_path)
    behind = text[text.index("## first: behind the scores") :]
    assert "| recall@5_forward % | median_rank_backward |" in behind
    first = next(line for line in behind.splitlines() if line.startswith("| both"))
    assert " 12.5 " in first and " 7.5 " in first
    assert "counted from 1; mean over seeds." in behind
    assert "recall@5" not in text[: text.index("## first: behind the scores")]


def test_ignoring_the_input_is_told_by_the_score_of_the_table(tmp_path):
    """Beside F1 the share of the most frequent class would be taken for its F1."""
    store = RecordStore(tmp_path)
    store.write_config(config(primary="f1_weighted"))
    store.write_targets(targets())
    truth = targets()["test"]["target"]
    constant = np.full(len(truth), np.bincount(truth).argmax())
    summary = summarise(tmp_path)
    assert summary["majority"] == pytest.approx(f1_score(truth, constant, average="weighted"), abs=1e-6)
    assert summary["chance"] is None and summary["majority"] < 0.45
