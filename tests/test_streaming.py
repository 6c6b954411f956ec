"""The streaming feed: stops early, survives kills and signals with the same bits, never keeps a broken state."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from mmjax.errors import UsageError
from mmjax.progress import MetricsLog, read_metrics
from mmjax.resident import fit
from mmjax.sharding import make_mesh
from mmjax.streaming import evaluate_streaming, fit_streaming
from mmjax.training import Train
from tests.compiled import cached_programs
from tests.streaming_run import TRAIN, one_device, run, slowly
from tests.toy import DROPPED, MODEL, SPLITS, TASK


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Compiling is most of a short run's time."""
    with cached_programs(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that nothing disturbed: its folder and result."""
    workdir = tmp_path_factory.mktemp("alone")
    return workdir, run(workdir, transforms=(lambda batch, rng: batch,))


def start(workdir):
    return subprocess.Popen([sys.executable, "-m", "tests.streaming_run", str(workdir)], stderr=subprocess.DEVNULL)


def wait_for(workdir, lines):
    """Returns when that many lines of metrics are there."""
    until = time.monotonic() + 120
    while len(read_metrics(workdir)) < lines:
        if time.monotonic() > until:
            pytest.fail(f"no {lines} lines of metrics after two minutes")
        time.sleep(0.02)


def assert_same_run(workdir, alone):
    assert (workdir / "metrics.jsonl").read_bytes() == (alone[0] / "metrics.jsonl").read_bytes()
    assert (workdir / "result.json").read_bytes() == (alone[0] / "result.json").read_bytes()
    assert (workdir / "best.safetensors").read_bytes() == (alone[0] / "best.safetensors").read_bytes()


def test_killed_then_told_to_stop_then_finished_it_is_the_same_run(tmp_path, alone):
    for number, lines, status in [(signal.SIGKILL, 7, -signal.SIGKILL), (signal.SIGTERM, 13, 77)]:
        process = start(tmp_path)
        wait_for(tmp_path, lines)
        process.send_signal(number)
        assert process.wait(60) == status
        assert not (tmp_path / "result.json").exists()
    run(tmp_path, transforms=(slowly,))
    assert_same_run(tmp_path, alone)


def test_interrupted_in_this_process_and_continued_with_a_damaged_checkpoint(tmp_path, alone, monkeypatch):
    before, write = signal.getsignal(signal.SIGINT), MetricsLog.write

    def interrupt(log, step, metrics):
        write(log, step, metrics)
        if step == 7:  # is logged while step 8 runs, in the second epoch
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(MetricsLog, "write", interrupt)
        run(tmp_path, transforms=(lambda batch, rng: batch,))
    assert stopped.value.code == 130 and signal.getsignal(signal.SIGINT) is before
    assert read_metrics(tmp_path)[-1]["step"] == 8
    newest = tmp_path / "checkpoints" / "8" / "state"
    for path in newest.rglob("d/*"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.warns(UserWarning, match="checkpoint 8 is damaged"):
        run(tmp_path, transforms=(lambda batch, rng: batch,))
    assert_same_run(tmp_path, alone)


def test_keeps_the_epoch_that_is_best_on_validation(alone):
    workdir, result = alone
    lines = read_metrics(workdir)
    validation = [line["validation/loss"] for line in lines if "validation/loss" in line]
    training = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(training) == 20 and len(validation) == result.epochs == 4
    assert result.epoch == np.argmin(validation)
    assert result.metrics["validation/loss"] == min(validation)
    found = evaluate_streaming(DROPPED, TASK, TRAIN, SPLITS["test"], workdir=workdir, mesh=one_device())
    assert {f"test/{name}": value for name, value in found.items()}.items() <= result.metrics.items()
    exported = load_file(workdir / "best.safetensors")
    np.testing.assert_array_equal(
        exported["params/head/mlp/dense_0/kernel"], result.variables["params"]["head"]["mlp"]["dense_0"]["kernel"]
    )


def test_a_finished_run_is_not_run_again(alone):
    before = (alone[0] / "metrics.jsonl").read_bytes()
    again = run(alone[0])
    assert (alone[0] / "metrics.jsonl").read_bytes() == before and again.metrics == alone[1].metrics


def test_another_run_in_the_same_folder_is_refused(alone):
    with pytest.raises(UsageError, match=r"holds a run with seed=0, this one has 1"):
        run(alone[0], seed=1)
    with pytest.raises(UsageError, match="holds a run with model=None, this one has 'x'"):
        run(alone[0], config={"model": "x"})


def test_stops_when_validation_no_longer_improves(tmp_path):
    train = dataclasses.replace(TRAIN, learning_rate=0.0, optimizer=optax.sgd, epochs=50)
    result = fit_streaming(MODEL, TASK, train, SPLITS, workdir=tmp_path, patience=2, mesh=one_device())
    assert (result.epoch, result.epochs) == (0, 3)  # the first of equals is the best
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert sorted(steps) == [5, 10, 15]  # the best and the newest two


def test_a_loss_that_is_not_finite_ends_the_epoch_and_is_never_kept(tmp_path):
    train = dataclasses.replace(TRAIN, learning_rate=1e30, optimizer=optax.sgd)
    with pytest.raises(UsageError, match=r"not finite in epoch \d \(\d of 5 steps\): lower train.learning_rate=1e\+30"):
        fit_streaming(MODEL, TASK, train, SPLITS, workdir=tmp_path, mesh=one_device())
    assert not any((tmp_path / "checkpoints").iterdir())


def test_both_feeds_learn_by_the_same_step(alone):
    lines = [line["train/loss"] for line in read_metrics(alone[0]) if "train/loss" in line]
    streamed = np.mean(np.reshape(lines, (4, 5)), 1)
    resident = fit(DROPPED, TASK, TRAIN, SPLITS, [0]).history["train/loss"][:, 0]
    for losses in (streamed, resident):
        assert losses[-1] < 0.7 * losses[0]
    assert abs(streamed[0] - resident[0]) < 0.3 * resident[0]  # the same initialisation, another order


def test_what_cannot_run_is_said_in_one_line(tmp_path):
    start = functools.partial(fit_streaming, MODEL, TASK, workdir=tmp_path, mesh=one_device())
    with pytest.raises(UsageError, match="batch_size=12 does not divide over 8 devices"):
        start(Train(batch_size=12), SPLITS, mesh=make_mesh())
    with pytest.raises(UsageError, match="there is no 'validation'"):
        start(TRAIN, {"train": SPLITS["train"]})
    with pytest.raises(UsageError, match=r"train.select='f2' is no metric of the task; it has: accuracy"):
        start(dataclasses.replace(TRAIN, select="f2"), SPLITS)
    with pytest.raises(UsageError, match="no run in"):
        evaluate_streaming(MODEL, TASK, TRAIN, SPLITS["test"], workdir=tmp_path / "nothing")
