"""Tables on the streaming feed: what they leave is that of the resident feed, killed and continued included."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.store.damage import check_undamaged
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, run_table, streaming_rows
from mmjax.experiment.analyses import Measure
from mmjax.experiment.changes import training_code
from mmjax.experiment.identity import config_hash
from mmjax.experiment.settings import apply_settings
from mmjax.sharding import make_mesh
from mmjax.training import Train
from tests.compiled import cached_programs
from tests.experiment import small

TRAIN = Train(epochs=3, batch_size=8, learning_rate=1e-2)


class Killed(BaseException):
    """What no code of the package catches."""


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """One device, and every program compiled once."""
    with pytest.MonkeyPatch.context() as patch, cached_programs(tmp_path_factory.mktemp("compiled")):
        patch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
        patch.setattr("mmjax.streaming.make_mesh", lambda: make_mesh(devices=jax.devices()[:1]))
        yield


def table(**fields):
    rows = [Row("left", model=small.model(), streams=("left",)), Row("both", model=small.model())]
    return small.table(rows=rows, feed="streaming", train=TRAIN, **fields)


def finished(workdir, given, **arguments):
    lines = []
    text = run_table(given, workdir=workdir, measure=Measure(levels=1, draws=1), say=lines.append, **arguments)
    return text, lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, *finished(workdir, table())


def test_records_history_and_analyses_are_there(whole):
    workdir, text, _ = whole
    store, data = RecordStore(workdir), small.arrays()
    target = data.splits["test"].target
    for name in ("left", "both"):
        history, logits = store.history(name), store.logits(name, "test")
        assert logits.shape == (2, 20, 3) and store.seeds(name) == [0, 1]
        assert not np.allclose(logits[0], logits[1])
        assert {"train/loss", "validation/loss", "test/accuracy"} <= set(history)
        for seed, record in enumerate(store.records(name)):
            at = record["epoch"] - 1
            assert at == history["validation/loss"][:, seed].argmin() and history["test/loss"].shape == (3, 2)
            assert record["metrics"]["accuracy"] == pytest.approx((logits[seed].argmax(-1) == target).mean())
            assert record["metrics"]["loss"] == pytest.approx(float(history["test/loss"][at, seed]), rel=1e-4)
            assert record["test_selected"] == pytest.approx(float(history["test/accuracy"][:, seed].max()))
            assert "left" in record["per_mask"] and np.isfinite(history["train/loss"]).all()
    assert set(store.records("both")[0]["robustness"]) == {"left", "right", "all"}
    assert json.loads((workdir / "timing.json").read_bytes())["both"]["mapped"] == "streaming"
    check_undamaged(store)
    assert "both" in text and not list((workdir / "checkpoints").glob("running-*"))


def test_a_seed_that_was_finished_is_not_trained_again(whole, tmp_path, monkeypatch):
    workdir, text, _ = whole
    real, begun = streaming_rows.fit_streaming, []

    def dying(*arguments, **options):
        begun.append(options["seed"])
        if len(begun) == 4:
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(streaming_rows, "fit_streaming", dying)
    with pytest.raises(Killed):
        finished(tmp_path, table())
    (seed,) = (tmp_path / "checkpoints").glob("running-*/seed-0")
    log = (seed / "metrics.jsonl").read_bytes()
    logs = []

    def watched(*arguments, **options):
        fit = real(*arguments, **options)
        logs.append((options["workdir"] / "metrics.jsonl").read_bytes())
        return fit

    monkeypatch.setattr(streaming_rows, "fit_streaming", watched)
    again, lines = finished(tmp_path, table())
    assert again == text and any("left: done before" in line for line in lines)
    assert len(logs) == 2 and logs[0] == log  # of the row that was cut, the first seed as it was
    for name in ("left", "both"):
        for split in ("validation", "test"):
            stores = RecordStore(tmp_path), RecordStore(workdir)
            np.testing.assert_array_equal(*(store.logits(name, split) for store in stores))


def test_what_it_cannot_do_is_refused(tmp_path):
    refit = dataclasses.replace(table(), train=dataclasses.replace(TRAIN, refit=True))
    with pytest.raises(UsageError, match=r"row 'left': feed='streaming' has no refit: say train\.refit=False"):
        finished(tmp_path, refit)
    with pytest.raises(UsageError, match="row 'left': feed='streaming' searches no setting: say trials=1, not 2"):
        finished(tmp_path, table(trials=2))
    with pytest.raises(UsageError, match="feed of the table must be resident or streaming, got 'grain'"):
        apply_settings(table(), ["feed=grain"])
    with pytest.raises(UsageError, match="feed of row 'x' must be resident or streaming, got 'grain'"):
        small.table(rows=[Row("x", model=small.model(), feed="grain")])


def test_the_feed_is_part_of_what_a_row_is_and_only_of_networks():
    plain, data = dataclasses.replace(table(), feed="resident"), small.arrays()
    for row in plain.rows:
        other = dataclasses.replace(row, feed="streaming")
        assert config_hash(plain, row, data) != config_hash(table(), row, data) == config_hash(plain, other, data)
        assert any("fit_streaming" in name for name in training_code(table(), row))
        assert not any("fit_streaming" in name for name in training_code(plain, row))
    fit = Row("fit", fit=small.guess)
    assert config_hash(plain, fit, data) == config_hash(table(), fit, data)
