"""What a table leaves on disk: the same bytes however often it was killed, and only what changed runs again."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.protocol import ROLES
from mmjax.evaluation.store import records
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, run_table, runner
from mmjax.experiment.analyses import Measure
from mmjax.experiment.commands import report
from mmjax.experiment.settings import apply_settings
from mmjax.resident import Prepared
from mmjax.tasks import Classification
from mmjax.training import Train
from tests.experiment import small
from tests.experiment.quick import quickly


class Killed(BaseException):
    """What no code of the package catches, as little as SIGKILL."""


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quickly(tmp_path_factory.mktemp("compiled")):
        yield


MEASURE = Measure(levels=1, draws=1, seeds=1)


def run(workdir, table=None, measure=MEASURE, **arguments):
    lines = []
    arguments |= {"measure": measure, "say": lines.append}
    text = run_table(table or small.table(), name="small", workdir=workdir, **arguments)
    return text, [line for line in lines if not line.endswith("\r")]


def product(workdir):
    files = [pathlib.Path(workdir) / name for name in ("table.json", "table.md", "table.tex", "records.jsonl")]
    return {path.name: path.read_bytes() for path in [*files, *(pathlib.Path(workdir) / "analysis").glob("*")]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The small table's product, made without interruption."""
    workdir = tmp_path_factory.mktemp("finished")
    text, lines = run(workdir)
    assert text == (workdir / "table.md").read_text() and not any("done before" in line for line in lines)
    return workdir


def test_a_users_own_arrays_become_a_table(finished):
    table = json.loads((finished / "table.json").read_bytes())
    rows = {row["name"]: row for row in table["rows"]}
    assert table["dataset"]["name"] == "small" and all(row["status"] == "done" for row in rows.values())
    assert rows["left"]["mean"] > 0.5 and rows["vote"]["gain"]["over"] in ("left", "right")
    assert {"config.json", "targets.npz", "records.jsonl", "timing.json", "logits"} <= {
        p.name for p in finished.iterdir()
    }
    assert "seconds" not in (finished / "table.json").read_text() + (finished / "records.jsonl").read_text()


def test_run_again_nothing_is_trained_and_the_bytes_stay(finished):
    before = product(finished)
    _, lines = run(finished)
    assert sum("done before" in line for line in lines) == 4 and product(finished) == before
    report(finished)
    assert product(finished) == before


def test_two_work_directories_hold_the_same_table(finished, tmp_path):
    run(tmp_path / "other")
    assert product(tmp_path / "other") == product(finished)


def test_killed_at_every_file_it_continues_to_the_same_bytes(finished, tmp_path, monkeypatch):
    """Dies the first time it would put a file in its place, and the second time just after it did."""
    real, met = records.os.replace, []

    def dying(source, target):
        met.append(name := pathlib.Path(target).name)
        if met.count(name) == 1:
            raise Killed
        real(source, target)
        if met.count(name) == 2 and name in ("records.jsonl", "config.json", "table.json"):
            raise Killed

    monkeypatch.setattr(records.os, "replace", dying)
    deaths = 0
    while deaths < 20:
        try:
            run(tmp_path)
            break
        except Killed:
            deaths += 1
    assert deaths == 19 and {"targets.npz", "inputs.json", "timing.json", "table.md", "table.tex", "report.html"} < set(
        met
    )
    assert product(tmp_path) == product(finished)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A table that holds all that the protocol asks for."""
    workdir = tmp_path_factory.mktemp("whole")
    run(workdir, small.conforming())
    return workdir


def summary_of(workdir):
    return json.loads((workdir / "table.json").read_bytes())


def test_the_clock_says_what_the_time_of_a_row_and_of_the_table_went_to(whole):
    timing = json.loads((whole / "timing.json").read_bytes())
    passed = timing.pop(records.WHOLE_TABLE)
    for what in ("compile_seconds", "train_seconds"):
        total = sum(row.get(what, 0) for row in timing.values())
        assert total > 0 and passed[what] == pytest.approx(total)
    assert all(row["measure_seconds"] > 0 for row in timing.values() if "compile_seconds" in row)
    assert all(row["write_seconds"] > 0 for row in timing.values())
    assert passed["measure_seconds"] > 0 and passed["write_seconds"] > sum(
        row["write_seconds"] for row in timing.values()
    )


def test_a_whole_table_conforms_with_its_controls(whole):
    summary = summary_of(whole)
    assert summary["conforming"] and summary["missing_parts"] == []
    assert "Non-conforming" not in (whole / "table.md").read_text()
    best = next(row["name"] for row in summary["rows"] if row["best_single"])
    other = {"left": "right", "right": "left"}[best]
    roles = {row["name"]: row["role"] for row in summary["rows"][-3:]}
    assert roles == {
        f"joined: {other} shuffled": "shuffled control",
        f"doubled: {other} shuffled": "shuffled control",
        f"2 models of {best}": "ensemble control",
    }
    assert all(row["status"] == "done" for row in summary["rows"])
    assert all(row["gain_ensemble"]["over"] == f"2 models of {best}" for row in summary["rows"] if row["gain"])


def test_killed_between_its_parts_it_ends_with_the_same_bytes(whole, tmp_path, monkeypatch):
    """Before the controls, before anything is measured, with the third row's measurements, before the report."""
    written = []
    write = RecordStore.write_analysis

    def dying(*arguments, **others):
        raise Killed

    def dying_third(store, name, *rest):
        written.append(name)
        if len(written) == 3:
            raise Killed
        write(store, name, *rest)

    for place, name, death in [
        (runner, "control_rows", dying),
        (runner, "analyse", dying),
        (RecordStore, "write_analysis", dying_third),
        (runner, "write_report", dying),
    ]:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(place, name, death)
            run(tmp_path, small.conforming())
    monkeypatch.setattr("mmjax.experiment.rows.prepare", None)
    _, lines = run(tmp_path, small.conforming())
    assert sum("done before" in line for line in lines) == 14 and not any("presence" in line for line in lines)
    assert product(tmp_path) == product(whole) and len(product(whole)) == 4 + 14


def test_the_report_is_made_again_from_files_alone(whole, tmp_path, monkeypatch):
    """Everything that a report leaves is deleted, and so are the models."""
    shutil.copytree(whole, tmp_path / "copy")
    names = ("table.json", "table.md", "table.tex", "report.html")
    for name in names:
        (tmp_path / "copy" / name).unlink()
    shutil.rmtree(tmp_path / "copy" / "checkpoints")
    for name in ("compile_row", "analyse", "load_raw"):
        monkeypatch.setattr(runner, name, None)
    assert report(tmp_path / "copy") == (whole / "table.md").read_text()
    for name in names:
        assert (tmp_path / "copy" / name).read_bytes() == (whole / name).read_bytes()
    there = {str(path.relative_to(whole)) for path in whole.rglob("*") if "checkpoints" not in path.parts}
    assert {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")} <= there


def test_a_table_of_some_rows_says_what_it_lacks(whole, tmp_path, monkeypatch):
    text, lines = run(tmp_path / "some", rows=["left", "right"])
    summary = summary_of(tmp_path / "some")
    assert not summary["conforming"] and "**Non-conforming**: the protocol also asks for mean of logits (" in text
    for role in sorted(set(ROLES) - {"single", "linear"}):
        assert f"{role} ({ROLES[role]})" in summary["missing_parts"] and f"{role} ({ROLES[role]})" in text
    assert "left alone" not in text and len(lines) == 4  # no controls either


def files_of(workdir, *but):
    return {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and not set(but) & set(p.parts)}


def test_a_part_of_a_finished_table_is_written_beside_it(whole, tmp_path, monkeypatch):
    """Some rows, fewer seeds, another setting of a row: whatever is asked, no byte of the whole changes."""
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    before = files_of(copy)
    with monkeypatch.context() as patch:
        patch.setattr("mmjax.experiment.rows.prepare", None)  # what stands in the whole is taken over, not trained
        text, lines = run(copy, small.conforming(), rows=["left", "mean of logits"])
        assert any(f"stays as it is; this part of it goes to {copy / 'part'}" in line for line in lines)
        assert sum("done before" in line for line in lines) == 3 and str(copy / "part") in lines[-1]
        assert text == (copy / "part" / "table.md").read_text() == report(copy / "part")
        missing = summary_of(copy / "part")["missing_parts"]
        assert "shuffled control" in [part.partition(" (")[0] for part in missing]
    few = dataclasses.replace(small.conforming(), seeds=1)
    run(copy, few)
    part = {row["name"]: row for row in summary_of(copy / "part")["rows"]}
    assert all(row["seeds"] == [0] and row["robustness"] for row in part.values())
    assert part["joined"]["interaction"] and len(part) == len(summary_of(whole)["rows"])
    run(copy, apply_settings(small.conforming(), ["rows.left.model.fusion.dim=5"]), rows=["left"])
    assert files_of(copy, "part") == before
    monkeypatch.setattr("mmjax.experiment.rows.prepare", None)
    assert run(copy, small.conforming())[0] == (whole / "table.md").read_text()
    assert product(copy) == product(whole)
    run(copy, small.conforming(), rows=["left"], force=True)
    assert not summary_of(copy)["conforming"]


def test_rows_of_a_part_are_taken_over_by_the_whole(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "copy")
    more = small.table(rows=[*small.table().rows, Row("another guess", fit=small.guess)])
    _, lines = run(tmp_path / "copy", more, rows=["another guess"])
    assert not any("done before" in line for line in lines)
    _, lines = run(tmp_path / "copy", more)
    assert sum("done before" in line for line in lines) == 5


def with_a_model(**train):
    rows = [Row("both", model=small.model()), Row("guess", fit=small.guess)]
    return small.table(rows=rows, train=Train(**{"epochs": 3, "batch_size": 8, **train}))


def test_a_row_killed_inside_continues_with_the_same_bits(tmp_path, monkeypatch):
    run(tmp_path / "reference", with_a_model(refit=True))
    seen, deadly = [], [("fit", 1), ("refit", 1)]

    train = Prepared.run

    def dying(*arguments, on_epoch, **others):
        def once(number, metrics):
            on_epoch(number, metrics)
            seen.append(("refit" if others.get("stop_at") is not None else "fit", number))
            if deadly and seen[-1] == deadly[0]:
                deadly.pop(0)
                raise Killed

        return train(*arguments, on_epoch=once, **others)

    monkeypatch.setattr(Prepared, "run", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            run(tmp_path / "killed", with_a_model(refit=True), snapshot_seconds=0.0)
    run(tmp_path / "killed", with_a_model(refit=True), snapshot_seconds=0.0)
    # The epoch in which it was killed runs again, the ones before it do not; nor does the last of a finished fit.
    first = [("fit", 0), ("fit", 1), ("fit", 1), ("fit", 2)]
    assert seen == [*first, ("refit", 0), ("refit", 1), ("fit", 2), ("refit", 1), ("refit", 2)]
    assert product(tmp_path / "killed") == product(tmp_path / "reference")
    assert not list((tmp_path / "killed" / "checkpoints").glob("running-*"))


@dataclasses.dataclass(frozen=True)
class Scaled(Classification):
    """The loss weighs as the validation loss of the epoch before."""

    def init_state(self):
        return 1.0

    def loss(self, outputs, batch, *, state):
        return state * super().loss(outputs, batch)

    def after_epoch(self, state, train_metrics, validation_metrics):
        return validation_metrics["loss"]


def test_a_refit_takes_the_state_of_a_task_from_the_fit_killed_or_not(tmp_path, monkeypatch):
    """Its own validation is part of its train and says nothing."""
    given, train = dataclasses.replace(with_a_model(refit=True), task=Scaled(3)), Prepared.run
    runs, deadly = [], [("fit", 1), ("refit", 1)]

    def watched(*arguments, on_epoch, **others):
        what = "refit" if others["stop_at"] is not None else "fit"

        def once(number, metrics):
            on_epoch(number, metrics)
            if deadly and (what, number) == deadly[0]:
                deadly.pop(0)
                raise Killed

        runs.append((what, train(*arguments, on_epoch=once, **others)))
        return runs[-1][1]

    monkeypatch.setattr(Prepared, "run", lambda *a, **k: watched(*a, **{"stop_at": None, **k}))
    for _ in range(2):
        with pytest.raises(Killed):
            run(tmp_path / "killed", given, snapshot_seconds=0.0)
    run(tmp_path / "killed", given, snapshot_seconds=0.0)
    runs.clear()
    run(tmp_path / "alone", given)
    (_, first), (what, refit) = runs
    assert what == "refit"
    np.testing.assert_array_equal(refit.task_states[1:], first.history["validation/loss"][:-1])
    np.testing.assert_array_equal(refit.task_states, first.task_states)
    assert not np.array_equal(refit.history["validation/loss"], first.history["validation/loss"])
    assert product(tmp_path / "killed") == product(tmp_path / "alone")


def test_a_snapshot_of_fewer_seeds_is_not_taken_for_this_row(tmp_path, monkeypatch):
    train = Prepared.run

    def dying(*arguments, on_epoch, **others):
        def once(number, metrics):
            if number == 1:
                raise Killed

        return train(*arguments, on_epoch=once, **others)

    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "run", dying)
        with pytest.raises(Killed):
            run(tmp_path, with_a_model(), snapshot_seconds=0.0)
    run(tmp_path, dataclasses.replace(with_a_model(), seeds=1), rows=["both"])
    assert RecordStore(tmp_path).seeds("both") == [0]


def test_a_setting_reruns_the_rows_that_it_changes_and_those_that_use_them(tmp_path):
    run(tmp_path)
    _, lines = run(tmp_path, apply_settings(small.table(), ["rows.left.fit.C=0.5"]))
    state = {line.split("] ")[1].split(":")[0]: "done before" in line for line in lines if line.startswith("[")}
    assert state == {"left": False, "right": True, "guess": True, "vote": False}
    _, lines = run(tmp_path, apply_settings(small.table(), ["rows.left.fit.C=0.5", "rows.right.notes=why"]))
    assert all("done before" in line for line in lines if line.startswith("["))


def test_a_damaged_file_of_logits_is_made_again(finished, tmp_path):
    run(tmp_path)
    path = next((tmp_path / "logits").glob("left-*"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UsageError, match=r"damaged: .*logits/left-"):
        report(tmp_path)
    _, lines = run(tmp_path)
    assert any(line.startswith("[ 1/4] left: damaged: ") and line.endswith("; made again") for line in lines)
    assert sum("done before" in line for line in lines) == 3 and product(tmp_path) == product(finished)


def test_seeds_are_added_and_a_report_of_fewer_uses_those_only(tmp_path):
    run(tmp_path, small.table(seeds=3))
    three = RecordStore(tmp_path).logits("guess", "test")
    _, lines = run(tmp_path, small.table(seeds=2))
    assert sum("done before" in line for line in lines) == 4
    assert json.loads((tmp_path / "part" / "table.json").read_bytes())["rows"][3]["seeds"] == [0, 1]
    run(tmp_path, small.table(seeds=4))
    np.testing.assert_array_equal(RecordStore(tmp_path).logits("guess", "test")[:3], three)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": Train(learning_rate=1e30)}, ["'both'", "not finite", "learning_rate"]),
        ({"train": Train(select="bleu")}, ["'both'", "'bleu'", "accuracy", "loss"]),
        ({"task": dataclasses.replace(small.table().task, num_classes=4)}, ["'both'", "3 classes", "4"]),
        ({"options": {"fold": 1}}, ["options", "fold"]),
        ({"options": {"fold": "all"}}, ["no folds"]),
    ],
)
def test_what_does_not_fit_is_said_with_the_row(tmp_path, change, words):
    with pytest.raises(UsageError) as error:
        run(tmp_path, dataclasses.replace(with_a_model(), **change))
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_a_fit_that_gives_nonsense_is_named(tmp_path):
    def short(data, seed, members):
        return {"validation": np.zeros((20, 3)), "test": np.zeros((19, 3))}

    with pytest.raises(UsageError, match="row 'short': fit must give finite scores for 20 test items"):
        run(tmp_path, small.table(rows=[Row("short", fit=short)]))
    with pytest.raises(UsageError, match=r"row 'up': .*no.*'up'|row 'up'"):
        run(tmp_path, small.table(rows=[Row("up", fit=small.guess, streams=("up",))]))


def test_a_member_with_too_few_seeds_is_named(tmp_path):
    rows = [Row("few", fit=small.guess, seeds=1), Row("vote", fit=small.guess, members=("few",))]
    with pytest.raises(UsageError, match="row 'vote': its member 'few' has only the seeds"):
        run(tmp_path, small.table(rows=rows))


def test_a_work_directory_has_one_owner(finished, tmp_path):
    with pytest.raises(UsageError, match="table is 'small' there and 'other' here"):
        run_table(small.table(), name="other", workdir=finished, say=print)
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot write the work directory"):
            run(workdir)
    with runner.claim(tmp_path / "held", {}), pytest.raises(UsageError, match="another process"):
        run(tmp_path / "held")


def test_without_a_place_it_goes_to_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_table(small.table(rows=[Row("guess", fit=small.guess)]), name="mine", say=[].append)
    assert (tmp_path / "runs" / "mine" / "table.md").is_file()
