"""Nested parts of train: what each holds, what is reported of them, and that a killed run continues."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from mmjax import datasets
from mmjax.errors import UsageError
from mmjax.evaluation.measures.efficiency import subset
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, run_table
from mmjax.experiment.baselines import decide, logistic
from mmjax.experiment.commands import report
from mmjax.experiment.data import load_dataset
from mmjax.experiment.fractions import default_rows, run_fractions, write_fractions
from mmjax.experiment.identity import config_hash
from mmjax.fusion import decision
from mmjax.tasks import Regression
from mmjax.training import Train
from tests.experiment import small

FRACTIONS = (0.02, 0.12, 0.3, 0.6, 1.0)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Without the plots and pages of the parts, which are tested elsewhere."""
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})


def noisy(seed, classes=3):
    """As ``small.arrays``, with more items and more of an overlap."""
    rng = np.random.default_rng(seed)
    target = np.tile(np.arange(classes), 100)
    left, right = (rng.normal(rng.normal(size=(classes, 4))[target], 1.5) for _ in range(2))
    return datasets.from_arrays({"left": left, "right": right}, target, split=np.arange(300) // 100, name="small")


def centred(dataset):
    """A view that fits a statistic on train."""
    mean = {name: stream.values.mean((0, 1)) for name, stream in dataset.splits["train"].streams.items()}
    splits = {
        split: batch.replace(streams={k: s.replace(values=s.values - mean[k]) for k, s in batch.streams.items()})
        for split, batch in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def table(**arguments):
    linear = functools.partial(Row, fit=functools.partial(logistic, C=1.0), varies=False)
    vote = Row("vote", fit=functools.partial(decide, rule=decision.mean_of_logits), members=("left", "right"),
               role="mean of logits")  # fmt: skip
    rows = [linear("left", streams=("left",)), linear("right", streams=("right",)), vote, Row("guess", fit=small.guess)]
    return small.table(dataset=noisy(3), rows=rows, view=centred, seeds=3, **arguments)


def run(workdir, given=None, say=None, **arguments):
    arguments = {"fractions": FRACTIONS, **arguments}
    return run_fractions(run_table, given or table(), "small", workdir, say=say or [].append, **arguments)


def product(workdir):
    return [(workdir / name).read_bytes() for name in ("efficiency.json", "efficiency.md", "plots/data_efficiency.png")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
        return workdir, run(workdir)


def test_each_part_is_trained_on_alone_and_the_view_sees_no_more(finished):
    """The logits are those of a fit on the part, centred by the part's own means, without validation."""
    for fraction in FRACTIONS[1:]:
        part = centred(subset(noisy(3), fraction))
        assert part.splits["train"].size == pytest.approx(100 * fraction, abs=2)
        left = {k: b.replace(streams={"left": b.streams["left"]}) for k, b in part.splits.items()}
        alone = dataclasses.replace(part, splits=left)
        expected, refitted = (logistic(alone, 0, {}, C=1.0, refit=refit)["test"] for refit in (False, True))
        stored = RecordStore(finished[0] / f"fraction-{fraction:g}").logits("left", "test")
        np.testing.assert_allclose(stored, np.stack([expected] * 3), atol=1e-5)
        assert np.abs(stored - refitted).max() > 0.01


def test_what_is_reported_follows_from_the_scores(finished):
    workdir, text = finished
    found = json.loads((workdir / "efficiency.json").read_bytes())
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["left", "right", "vote"] and found["fractions"] == list(FRACTIONS[1:])
    target = noisy(3).splits["test"].target
    right = {
        name: np.stack([
            (RecordStore(workdir / f"fraction-{f:g}").logits(name, "test").argmax(-1) == target) for f in FRACTIONS[1:]
        ]).astype(float)
        for name in rows
    }  # fmt: skip
    for name, row in rows.items():
        mean = right[name].mean((1, 2))
        np.testing.assert_allclose(row["data_efficiency"]["mean"], mean, atol=1e-9)
        place = np.log10(found["items"])
        area = ((mean[1:] + mean[:-1]) / 2 * np.diff(place)).sum() / (place[-1] - place[0])
        assert row["data_efficiency"]["alc"] == pytest.approx(area, abs=1e-9)
        for point, (low, high) in zip(mean, row["data_efficiency"]["interval"]):
            assert low < point < high
    (single,) = (row["name"] for row in rows.values() if row["best_single"])
    gains = right["vote"].mean((1, 2)) - right[single].mean((1, 2))
    np.testing.assert_allclose([gain["mean"] for gain in rows["vote"]["gains"]], gains, atol=1e-9)
    enough = right["vote"].mean((1, 2)) >= right[single][-1].mean()
    saved = rows["vote"]["data_saved"]
    assert saved["over"] == single and saved["fraction"] == FRACTIONS[1:][enough.argmax()] < 1
    assert saved["saved"] == 1 - saved["fraction"]
    assert (saved["surely"]["fraction"] or 2) >= saved["fraction"]
    assert rows["left"]["gains"] is None and rows["vote"]["power_law"]["lower"] is None  # four sizes are too few
    assert "Skipped: 2 %: a class would have fewer than 2 items." in text and "5 would" in text
    line = next(line for line in text.splitlines() if line.startswith("| vote"))
    assert f" {100 * right['vote'][0].mean():.1f} |" in line and "±" not in line  # the three seeds of this row are one


def test_five_sizes_bound_the_exponent(finished, tmp_path):
    text = run(tmp_path, fractions=(*FRACTIONS, 0.2), rows=["left"])
    (row,) = json.loads((tmp_path / "efficiency.json").read_bytes())["rows"]
    law = row["power_law"]
    assert law["lower"] <= law["b"] and (law["upper"] is None or law["b"] <= law["upper"])
    assert "5 would" not in text and row["gains"] is None and "Data saved" not in text


def test_run_again_nothing_is_trained_and_the_bytes_stay(finished, tmp_path):
    workdir, before, lines = finished[0], product(finished[0]), []
    run(workdir, say=lines.append)
    assert sum("done before" in line for line in lines) == 3 * 4 and product(workdir) == before
    assert write_fractions(workdir).encode() == before[1] and product(workdir) == before
    assert report(workdir).encode() == before[1]  # the command knows what lies there


def test_killed_it_reports_what_there_is_and_continues_to_the_same_bytes(finished, tmp_path):
    def dying(line):
        if line.startswith("small, 30 % of train"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, say=dying)
    assert "Not finished: 12 %, 30 %." in write_fractions(tmp_path)
    lines = []
    run(tmp_path, say=lines.append)
    assert sum("done before" in line for line in lines) == 3 * 2 and product(tmp_path) == product(finished[0])


def test_all_of_train_is_the_table_itself(finished):
    given = table()
    rows = json.loads((finished[0] / "fraction-1" / "config.json").read_bytes())["rows"]
    dataset = load_dataset(given)
    assert rows[3]["config_hash"] == config_hash(given, given.rows[3], dataset)
    part = dataclasses.replace(given, fraction=0.3)
    assert load_dataset(part).splits["train"].size == 30
    assert config_hash(part, given.rows[3], dataset) != rows[3]["config_hash"]


def test_no_network_is_trained_on_validation_at_the_end(tmp_path, monkeypatch):
    seen = []

    def caught(table, **arguments):
        seen.append(table)
        raise KeyboardInterrupt

    rows = [Row("both", model=small.model(), role="concatenation"), Row("left", model=small.model(), streams=("left",))]
    with pytest.raises(KeyboardInterrupt):
        run_fractions(caught, small.table(rows=rows, train=Train(epochs=7, refit=True)), "small", tmp_path, (0.5,))
    (given,) = seen
    assert [(row.train.epochs, row.train.refit) for row in given.rows] == [(7, False)] * 2


def test_a_size_that_leaves_a_batch_of_next_to_nothing_is_named(finished, tmp_path):
    def killed(table, **arguments):
        raise KeyboardInterrupt

    rows = [Row("both", model=small.model(), role="concatenation"), Row("left", model=small.model(), streams=("left",))]
    given = small.table(dataset=noisy(3), rows=rows, train=Train(batch_size=29))
    with pytest.raises(KeyboardInterrupt):
        run_fractions(killed, given, "small", tmp_path, (0.12, 0.3, 0.6))  # 12, 30 and 60 of 100 items
    config = json.loads((tmp_path / "config.json").read_bytes())
    expected = [
        {"fraction": 0.3, "steps": 2, "last": 1, "batch": 29},
        {"fraction": 0.6, "steps": 3, "last": 2, "batch": 29},
    ]
    assert config["items"] == [12, 30, 60, 100] and config["small_batches"] == expected
    assert "Mind" not in finished[1]
    for fraction in FRACTIONS[1:]:
        (tmp_path / f"fraction-{fraction:g}").symlink_to(finished[0] / f"fraction-{fraction:g}")
    assert "Mind 30 %: there one step in 2 sees only 1 of the 29 items" in write_fractions(tmp_path)


def test_the_usual_rows_are_those_with_a_reference():
    def row(name, section, **fields):
        return Row(name, fit=small.guess, section=section, **fields)

    rows = [
        row("text", "a", streams=("left",)),
        row("video", "a", streams=("right",)),
        row("wide", "a", streams=("left",), baseline=False, role="matched"),
        row("late", "a", role="concatenation"),
        row("gate", "a"),
        row("linear", "b", streams=("left",)),
        row("long", "c", role="joint transformer"),
    ]
    given = small.table(rows=rows, extra=("long",))
    assert default_rows(given, small.arrays()) == ["text", "video", "late"]


def test_scores_without_classes_keep_their_direction(tmp_path):
    """Of an error, lower is better: intervals, areas and gains turn, the mean does not."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=90)
    data = datasets.from_arrays(
        {"left": target[:, None], "right": target[:, None]}, target, split=np.arange(90) // 30, name="small"
    )
    rows = [
        Row("left", fit=functools.partial(shifted, by=1.0), streams=("left",)),
        Row("both", fit=functools.partial(shifted, by=0.25), role="concatenation"),
    ]
    given = small.table(dataset=data, rows=rows, task=Regression(), seeds=3)
    run(tmp_path, given, fractions=(0.2, 1))
    found = {row["name"]: row for row in json.loads((tmp_path / "efficiency.json").read_bytes())["rows"]}
    np.testing.assert_allclose(found["left"]["data_efficiency"]["mean"], [1.0, 1.0], atol=1e-6)
    assert found["both"]["data_efficiency"]["alc"] == pytest.approx(0.25, abs=1e-6)
    assert [gain["mean"] for gain in found["both"]["gains"]] == pytest.approx([0.75, 0.75], abs=1e-6)
    assert found["both"]["data_saved"]["saved"] == pytest.approx(0.8)


def shifted(data, seed, members, *, by):
    return {split: np.asarray(data.splits[split].target) + by for split in ("validation", "test")}


def test_misuse_is_one_line(finished, tmp_path):
    with pytest.raises(UsageError, match="at most 1, got 10"):
        run(tmp_path, fractions=(10, 0.1))
    with pytest.raises(UsageError, match="the folds are: 3, 5"):
        run(tmp_path, small.table(options={"fold": "all"}, folds=(3, 5)))
    with pytest.raises(UsageError, match="50 % of train already"):
        run(tmp_path, table(fraction=0.5))
    with pytest.raises(UsageError, match="1 %: a class would have fewer than 2"):
        run(tmp_path, fractions=(0.01, 1))
    with pytest.raises(UsageError, match="name the rows"):
        run(tmp_path, small.table(dataset=noisy(0)))
    with pytest.raises(UsageError, match="measured is 'fractions'"):
        run_table(table(), name="small", workdir=finished[0], say=[].append)
    (tmp_path / "config.json").write_text('{"table": "small", "row": null}')
    with pytest.raises(UsageError, match="measured is None"):
        run(tmp_path)
    with pytest.raises(UsageError, match="no run over fractions"):
        write_fractions(tmp_path)
