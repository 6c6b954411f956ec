import io
import json
import zipfile

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation import RecordStore, report_logits, summarise
from mmjax.evaluation.measures.calibration import calibration_error
from mmjax.evaluation.report.advice import advise
from mmjax.evaluation.report.analyses import robustness_cells
from mmjax.evaluation.scores import Score, register, score, scores
from tests.evaluation.table import ITEMS, SEEDS, config, targets, toy

ROWS = ("text", "audio", "both", "voted")
STREAMS = {"text": ("text",), "audio": ("audio",)}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A finished table of four rows, as the runner leaves it."""
    rows = [row for row in config()["rows"] if row["name"] in ROWS]
    return toy(tmp_path_factory.mktemp("table"), names=ROWS, rows=rows, majority=0.5)


@pytest.fixture(scope="module")
def logits(table):
    return {row: {split: table.logits(row, split) for split in ITEMS} for row in ROWS}


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """Plots take a second each; only the test of the whole report draws them."""
    if "whole" not in request.node.name:
        monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda workdir, summary: {})


def truth(name):
    return {split: values[name] for split, values in targets().items()}


def test_the_whole_report_has_the_cells_of_a_table_of_the_same_logits(table, logits, tmp_path):
    report_logits(tmp_path, logits, truth("target"), streams=STREAMS, group=truth("group"))
    ours = {row["name"]: row for row in json.loads((tmp_path / "table.json").read_text())["rows"]}
    theirs = {row["name"]: row for row in summarise(table.workdir)["rows"]}
    for name in ROWS:
        for field in ("values", "mean", "sd", "seed_interval", "interval", "interval_unit", "validation", "calibration",
                      "gain", "gain_late_mean", "gain_ensemble", "best_single", "single", "seeds"):  # fmt: skip
            assert ours[name][field] == theirs[name][field], (name, field)
        accuracy = (logits[name]["test"].argmax(-1) == truth("target")["test"]).mean()
        assert ours[name]["mean"] == pytest.approx(accuracy)
        assert ours[name]["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert ours["both"]["gain"]["over"] == "text"
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "plots" / "rows.png").is_file()


def test_three_lines_read_the_file_that_a_pytorch_user_writes(table, logits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = {f"{row}/{split}": values for row, splits in logits.items() for split, values in splits.items()}
    arrays |= {f"{name}/{split}": truth(name)[split] for name in ("target", "group") for split in ITEMS}
    np.savez("logits.npz", **arrays)
    lines = """\
from mmjax.evaluation import report_logits
streams = {"text": ("text",), "audio": ("audio",)}
print(report_logits("my_report", "logits.npz", streams=streams))"""
    assert len(lines.splitlines()) == 3
    exec(lines, {})
    rows = {row["name"]: row for row in summarise("my_report")["rows"]}
    theirs = {row["name"]: row for row in summarise(table.workdir)["rows"]}
    assert {name: row["gain"] for name, row in rows.items()} == {name: theirs[name]["gain"] for name in ROWS}


def test_a_table_without_all_baselines_says_so_and_gets_advice(logits, tmp_path):
    text = report_logits(tmp_path, logits, truth("target"), streams=STREAMS, title="Mine", dataset="mine")
    assert "**Non-conforming**" in text
    assert "# Mine" in text
    assert advise(summarise(tmp_path)).startswith("Advice: Mine\n\nUSE ")


def test_roles_and_cost_reach_the_table(logits, tmp_path):
    roles, cost = {"voted": "mean of logits"}, {"both": {"params": 12, "flops": 34}}
    report_logits(tmp_path, logits, truth("target"), streams=STREAMS, roles=roles, cost=cost)
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert (rows["both"]["params"], rows["both"]["flops"], rows["text"]["params"]) == (12, 34, None)
    assert rows["both"]["gain_late_mean"]["over"] == "voted"
    assert rows["both"]["gain_late_mean"]["mean"] == pytest.approx(rows["both"]["mean"] - rows["voted"]["mean"])


def test_one_seed_without_a_seed_axis(logits, tmp_path):
    first = {row: {split: values[0] for split, values in splits.items()} for row, splits in logits.items()}
    report_logits(tmp_path, first, truth("target"), streams=STREAMS)
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["both"]["seeds"] == [0]
    assert rows["both"]["gain"]["verdict"] is None
    assert rows["both"]["mean"] == pytest.approx((first["both"]["test"].argmax(-1) == truth("target")["test"]).mean())


def test_without_a_single_modality_there_are_no_gains_and_it_says_so(logits, tmp_path):
    text = report_logits(tmp_path, {"both": logits["both"]}, truth("target"))
    assert "No single modality is among the rows" in text
    assert "the protocol also asks for a single modality alone" in text
    (row,) = summarise(tmp_path)["rows"]
    assert row["gain"] is None
    assert "NOT DECIDED: no single modality was run" in advise(summarise(tmp_path))


def test_scores_instead_of_classes(tmp_path):
    draw = np.random.default_rng(0)
    target = {split: draw.normal(size=n) for split, n in ITEMS.items()}
    made = {
        name: {split: values + noise * draw.normal(size=(5, len(values))) for split, values in target.items()}
        for name, noise in (("text", 1.0), ("audio", 2.0), ("both", 0.2))
    }
    said = report_logits(tmp_path, made, target, streams=STREAMS, primary="mae")
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    error = np.abs(made["both"]["test"].astype(np.float32) - target["test"]).mean()
    assert f"{error:.3f} ±" in said
    assert rows["both"]["mean"] == pytest.approx(error, abs=1e-6)
    assert rows["both"]["gain"]["verdict"] == "better"
    text = advise(summarise(tmp_path))
    assert 'USE THE FUSION "both".' in text
    assert f"{error:.3f} mae" in text


def test_patterns_of_presence_are_kept_as_measured_rows_keep_them(logits, tmp_path):
    presence = {"both": {"text": logits["text"]["test"], "audio": logits["audio"]["test"]}}
    report_logits(tmp_path, logits, truth("target"), streams=STREAMS, presence=presence)
    store, target = RecordStore(tmp_path), truth("target")["test"]
    digest, arrays = store.analysis("both")
    assert digest["seeds"] == list(SEEDS)
    np.testing.assert_array_equal(arrays["pattern/audio+text"], logits["both"]["test"])
    cells = robustness_cells(
        arrays,
        target,
        metric=score("accuracy"),
        chance=0.5,
        reference=None,
        singles={},
        chosen_by={},
        scales={},
        regime="own",
    )
    alone = (logits["text"]["test"].argmax(-1) == target).mean()
    assert cells["patterns"]["text"]["mean"] == pytest.approx(alone)
    assert cells["missing"]["audio"]["mean"][-1] == pytest.approx(alone)
    most = np.bincount(truth("target")["validation"]).argmax()
    assert cells["missing"]["all"]["mean"][-1] == pytest.approx((target == most).mean())
    ece = np.mean([calibration_error(one, target) for one in logits["audio"]["test"]])
    assert cells["patterns"]["audio"]["ece"] == pytest.approx(ece)


def test_the_same_call_writes_the_same_bytes_and_other_logits_replace_them(logits, tmp_path):
    report_logits(tmp_path, logits, truth("target"), streams=STREAMS)
    before = (tmp_path / "table.json").read_bytes()
    report_logits(tmp_path, logits, truth("target"), streams=STREAMS)
    assert (tmp_path / "table.json").read_bytes() == before
    changed = {**logits, "both": {split: -values for split, values in logits["both"].items()}}
    report_logits(tmp_path, changed, truth("target"), streams=STREAMS)
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["both"]["gain"]["verdict"] == "worse"


def test_a_trained_table_is_not_written_over(table, logits):
    before = (table.workdir / "config.json").read_bytes()
    with pytest.raises(UsageError, match="is the work directory of a table; give an empty folder"):
        report_logits(table.workdir, logits, truth("target"), streams=STREAMS)
    assert (table.workdir / "config.json").read_bytes() == before


def _with(logits, change):
    test = change(logits["both"]["test"].copy())
    return {**logits, "both": {**logits["both"], "test": test}}


def _nan(values):
    values[0, 0, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda x: x[:, :-1],
            r"row 'both': test must be \[seeds, items, classes\] .* with 60 items as the target, got",
        ),
        (_nan, r"row 'both': test holds NaN or infinity \(1 of 600 values\)"),
        (lambda x: x[:3], "row 'both' has {'validation': 5, 'test': 3} seeds"),
        (lambda x: x[..., :1], "row 'both': test has 1 classes, its target names class 1"),
        (lambda x: np.concatenate([x, x], -1), "row 'both' has 4 classes, the first row 2"),
        (lambda x: x.astype(str), "row 'both': logits of test must be numbers"),
        (lambda x: x[0, 0], "row 'both': test must be"),
        (lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), "row 'both': test holds probabilities .* logarithm"),
    ],
)
def test_wrong_logits_are_said_in_one_line(logits, tmp_path, change, said):
    with pytest.raises(UsageError, match=said) as caught:
        report_logits(tmp_path, _with(logits, change), truth("target"), streams=STREAMS)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_wrong_arguments_are_said_in_one_line(logits, tmp_path):
    def fails(said, given=logits, target=None, **arguments):
        with pytest.raises(UsageError, match=said) as caught:
            report_logits(tmp_path / "out", given, truth("target") if target is None else target, **arguments)
        assert "\n" not in str(caught.value)

    fails("streams names the row 'txt'; the rows are text, audio, both, voted", streams={"txt": ("text",)})
    fails("streams knows one modality, 'text'; say also which ones row 'audio' sees", streams={"text": ("text",)})
    fails("'late' is no role", streams=STREAMS, roles={"voted": "late"})
    fails("row 'both' has no logits of validation", {"both": {"test": logits["both"]["test"]}})
    fails("no logits: give", {})
    fails(r"target of test must be \[items\]", target={"validation": [0, 1], "test": np.eye(2)})
    fails("must be numbers of classes from 0", target={"validation": np.array([0.0, 1.0]), "test": [0, 1]})
    fails("no target of test", target={"validation": truth("target")["validation"]})
    fails(r"group of validation must be \[items\]", group={"validation": [1, 2]})
    fails("no score 'bleu4'; there are acc2_has0, ", primary="bleu4")
    fails("presence of row 'both' needs audio, text; got text", streams=STREAMS,
          presence={"both": {"text": logits["text"]["test"]}})  # fmt: skip
    fails("no file", tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    fails("is no .npz of plain arrays", tmp_path / "bad.npz")
    np.savez(tmp_path / "odd.npz", logits=np.zeros(3))
    fails("array 'logits' of .* is none of ROW/validation", tmp_path / "odd.npz")


def made_of(outputs, seed=0):
    """Outputs of three rows, ``both`` far better than the others, and their targets."""
    draw = np.random.default_rng(seed)
    target, logits = {}, {name: {} for name in ("text", "audio", "both")}
    for split, n in ITEMS.items():
        if outputs in ("values", "vectors"):
            target[split] = signal = draw.normal(size=(n, 3) if outputs == "vectors" else n)
        elif outputs == "labels":
            target[split] = draw.integers(0, 2, (n, 3))
            signal = 2.0 * target[split] - 1
        else:
            target[split] = draw.integers(0, 3, n)
            signal = np.eye(3)[target[split]]
        for name, noise in (("text", 1.0), ("audio", 2.0), ("both", 0.1)):
            logits[name][split] = signal + noise * draw.normal(size=(5, *signal.shape))
    return logits, target


ANY = ("classes", "values", "vectors", "labels")


@pytest.mark.parametrize("name", [k for k, v in scores().items() if v.outputs in ANY])
def test_any_score_gets_its_values_intervals_gains_and_verdicts(name, tmp_path):
    metric = score(name)
    logits, target = made_of(metric.outputs)
    text = report_logits(tmp_path, logits, target, streams=STREAMS, primary=name)
    summary = summarise(tmp_path)
    rows = {row["name"]: row for row in summary["rows"]}
    for row in logits:
        values = metric.of(np.float32(logits[row]["test"]).astype(np.float64), target["test"])
        np.testing.assert_allclose(rows[row]["values"], values, rtol=1e-9)
        low, high = rows[row]["interval"]
        assert low <= values.mean() <= high
        validation = metric.of(np.float32(logits[row]["validation"]).astype(np.float64), target["validation"])
        assert rows[row]["validation"] == pytest.approx(validation.mean())
        assert (rows[row]["calibration"] is not None) == (metric.outputs == "classes")
        shown = f"{metric.factor * values.mean():.{metric.digits}f}".replace("-", "−")
        assert f" {shown} ±" in text or f" {shown} |" in text
    gain = rows["both"]["gain"]
    assert rows["text"]["best_single"] and gain["over"] == "text" and gain["verdict"] == "better"
    assert gain["mean"] == pytest.approx(metric.sign * (rows["both"]["mean"] - rows["text"]["mean"]))
    assert summary["higher_is_better"] == metric.higher_is_better
    assert bool(summary["decisions"]) == (metric.outputs == "classes")
    assert metric.label.lower() in text.lower()
    assert ("jackknife pseudo-value" in text) == (not metric.is_mean)
    assert 'USE THE FUSION "both".' in advise(summary)


def test_a_score_of_ones_own_is_a_primary_metric(tmp_path):
    logits, target = made_of("labels")
    hamming = Score(
        "labels_hamming_loss", "share of labels that are wrong", "Hamming loss", "labels", higher_is_better=False,
        items=lambda outputs, target: ((np.asarray(outputs) > 0) != (target > 0.5)).mean(-1), margin=0.02,
    )  # fmt: skip
    if hamming.name not in scores():
        register(hamming)
    text = report_logits(tmp_path, logits, target, streams=STREAMS, primary=hamming.name)
    row = next(row for row in summarise(tmp_path)["rows"] if row["name"] == "both")
    wrong = (np.float32(logits["both"]["test"]) > 0) != (target["test"] > 0.5)
    assert row["mean"] == pytest.approx(wrong.mean()) and row["gain"]["verdict"] == "better"
    assert "lies within 0.02 labels_hamming_loss of zero" in text


def test_patterns_of_labels_are_pooled_for_a_metric_of_the_whole_set(tmp_path):
    logits, target = made_of("labels")
    presence = {"both": {name: logits[name]["test"] for name in STREAMS}}
    report_logits(tmp_path, logits, target, streams=STREAMS, presence=presence, primary="labels_f1_micro")
    row = next(row for row in summarise(tmp_path)["rows"] if row["name"] == "both")
    curve = row["robustness"]["missing"]["audio"]
    metric, half = score("labels_f1_micro"), curve["levels"].index(0.5)
    pooled = np.concatenate([np.float32(logits[name]["test"]) for name in ("both", "text")], axis=1)
    expected = metric.of(pooled, np.concatenate([target["test"]] * 2)).mean()  # each item once with, once without
    assert curve["mean"][half] == pytest.approx(expected)
    assert curve["mean"][-1] == pytest.approx(metric.of(np.float32(logits["text"]["test"]), target["test"]).mean())


def test_a_constant_has_no_correlation_and_the_table_says_so(tmp_path):
    logits, target = made_of("values")
    logits["constant"] = {split: np.zeros_like(values) for split, values in logits["text"].items()}
    text = report_logits(tmp_path, logits, target, streams=STREAMS, primary="pearson")
    rows = {row["name"]: row for row in summarise(tmp_path)["rows"]}
    assert rows["constant"]["status"] == "not defined" and rows["both"]["gain"]["verdict"] == "better"
    assert "not defined: the metric has no value" in text


def test_labels_of_a_wrong_shape_are_told(tmp_path):
    logits, target = made_of("labels")
    arguments = {"streams": STREAMS, "primary": "labels_exact"}
    with pytest.raises(UsageError, match=r"target of validation must be \[items, labels\], 0 or 1 each; got"):
        report_logits(tmp_path, logits, {split: values[:, 0] for split, values in target.items()}, **arguments)
    with pytest.raises(UsageError, match="must be 0 or 1 for each label; got 2"):
        report_logits(tmp_path, logits, {split: 2 * values for split, values in target.items()}, **arguments)
    with pytest.raises(UsageError, match="row 'text': validation has 3 labels, its target is"):
        report_logits(tmp_path, logits, {split: values[:, :2] for split, values in target.items()}, **arguments)


def test_several_scores_of_a_wrong_shape_are_told_and_absence_is_each_ones_median(tmp_path):
    logits, target = made_of("vectors")
    arguments = {"streams": STREAMS, "primary": "scores_mae"}
    with pytest.raises(UsageError, match=r"target of validation must be \[items, scores\]; got"):
        report_logits(tmp_path, logits, {split: values[:, 0] for split, values in target.items()}, **arguments)
    with pytest.raises(UsageError, match="row 'text': validation has 3 scores, its target is"):
        report_logits(tmp_path, logits, {split: values[:, :2] for split, values in target.items()}, **arguments)
    presence = {"text": {"": logits["text"]["test"]}}
    with pytest.raises(UsageError, match="presence of row 'text'"):
        report_logits(tmp_path, logits, target, presence=presence, **arguments)
    presence = {"both": {name: logits[name]["test"] for name in STREAMS}}
    report_logits(tmp_path, logits, target, presence=presence, **arguments)
    nothing = RecordStore(tmp_path).analysis("both")[1]["pattern/"]
    np.testing.assert_allclose(nothing[0, 0], np.median(target["validation"], axis=0), rtol=1e-6)


def archive_of(texts):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return data.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"PK\3\4" + bytes(60),
        lambda data: archive_of({"target/test.npy": "a word", "a/test.npy": "another"}),
        lambda data: data[:200] + bytes(40) + data[240:],
        lambda data: b"\x93NUMPY\1\0" + bytes(20),
    ],
)
def test_a_bad_archive_is_said_in_one_line(tmp_path, damage):
    path = tmp_path / "logits.npz"
    np.savez_compressed(
        path, **{"target/test": np.arange(60) % 2, "a/test": np.random.default_rng(0).normal(size=(60, 2))}
    )
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=r"logits\.npz' is no \.npz of plain arrays \(.+\); write it with") as error:
        report_logits(tmp_path / "report", path)
    assert "\n" not in str(error.value)


def test_decisions_are_those_of_the_best_row_of_each_modality(tmp_path):
    """A second, weaker row of audio comes last and changes nothing of what the decisions share."""
    rng = np.random.default_rng(5)
    target = {split: rng.integers(0, 3, 90) for split in ("validation", "test")}

    def row(skill):
        return {split: 9.0 * skill * np.eye(3)[y] + rng.normal(size=(3, 90, 3)) for split, y in target.items()}

    rows = {"text": row(0.3), "audio": row(0.2), "both": row(0.4), "weak audio": row(0.0)}
    streams = {"text": ["text"], "audio": ["audio"], "weak audio": ["audio"], "both": ["audio", "text"]}
    cells = []
    for number, names in enumerate((("text", "audio", "both"), ("text", "audio", "both", "weak audio"))):
        given = {name: rows[name] for name in names}
        report_logits(tmp_path / str(number), given, target, streams={name: streams[name] for name in names})
        cells.append(json.loads((tmp_path / str(number) / "table.json").read_text())["decisions"])
    assert cells[0] == cells[1] and cells[0][0]["unique"][0] > 0
