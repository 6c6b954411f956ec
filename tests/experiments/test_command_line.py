"""The command line as a new user meets it: what is wrong is said in one line, with status 2 and no traceback."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from mmjax import cli as command_line
from mmjax import datasets, tables
from mmjax.datasets.uci_mfeat import RECIPE
from tests.experiment import small

ROOT = pathlib.Path(command_line.__file__).parents[1]


@pytest.fixture
def main(monkeypatch, tmp_path, capsys):
    """Runs a command in this process, in an empty folder: ``argv -> (status, printed, said)``."""
    monkeypatch.setattr(command_line, "configure", lambda: None)
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
    monkeypatch.delenv("MMJAX_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        try:
            status = command_line.main(argv)
        except SystemExit as ended:
            status = ended.code
        printed, said = capsys.readouterr()
        return status, printed, said

    return run


LINEAR = ("--rows", "logistic regression")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("table nope", ["'nope'", "digits", "cmu_mosi"]),
        ("train nope", ["'nope'", "digits"]),
        ("table digits --rows nope", ["'nope'", "early", "joint transformer"]),
        ("table digits --rows ,", ["names no row", "early"]),
        ("table digits --set train.epoch=3", ["'epoch'", "epochs", "batch_size"]),
        ("table digits --set train.epochs=many", ["train.epochs", "int", "'many'"]),
        ("table digits --set train.clip_norm=big", ["train.clip_norm", "float or None", "'big'"]),
        ("table digits --set train.learning_rate=None", ["train.learning_rate", "float"]),
        ("table digits --set train.optimizer=sgd", ["train.optimizer", "only in the table's file"]),
        ("table digits --set epochs", ["path.to.field=value"]),
        ("table digits --set options.colour=red", ["'colour'", "seed"]),
        ("table digits --set options.seed=red", ["seed", "'red'"]),
        ("table synthetic --set options.length=red", ["synthetic", "'red'"]),
        ("table digits --set options.fold=all", ["no folds"]),
        ("table fsdd_digits --set options.fold=9", ["fold", "9"]),
        ("table digits --seeds 0", ["--seeds", "at least 1", "0"]),
        ("table digits --set seeds=0", ["seeds", "at least 1", "0"]),
        ("train digits --smoke --patience=-5", ["patience", "at least 1", "-5"]),
        ("table digits --set train.learning_rate=-1", ["train.learning_rate", "-1"]),
        ("table digits --set train.clip_norm=0", ["train.clip_norm", "0"]),
        ("table digits --seeds many", ["--seeds", "'many'"]),
        ("table digits --depth 3", ["--depth"]),
        ("tables", ["'tables'", "table"]),
        ("table cmu_mosi", ["cmu_mosi", "--data-dir", "MMJAX_DATA_DIR"]),
        ("table cmu_mosi --data-dir nowhere", ["nowhere", "cmu_mosi"]),
        ("table digits --smoke --workdir file", ["'file'", "it is a file", "--workdir"]),
        ("table digits --smoke --workdir file/below", ["'file/below'", "--workdir"]),
        ("table digits --smoke --workdir /proc/self/nowhere", ["/proc/self/nowhere", "--workdir"]),
        ("table digits --smoke --rows early --set rows.early.model.fusion.dim=-1", ["'early'"]),
        ("table digits --smoke --rows early --set rows.early.model.head.num_classes=3", ["'early'", "10 classes", "3"]),
        ("table digits --smoke --rows early --set train.select=bleu", ["'bleu'", "accuracy, f1_macro"]),
        ("report nowhere", ["'nowhere'", "no work directory"]),
        ("report .", ["'.'", "no work directory"]),
        ("evaluate nowhere", ["'nowhere'"]),
        ("train digits --rows product", ["'product'", "joint transformer"]),
        ("train digits --fsdp 3", ["fsdp=3", "8"]),
        ("train digits --smoke --set train.batch_size=12", ["12", "8 devices", "multiple of 8"]),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(main, argv, words):
    pathlib.Path("file").write_text("")
    status, printed, said = main(*argv.split())
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 2 and printed == "" and "Traceback" not in said
    assert len(errors) == 1 and said.endswith(errors[0] + "\n"), said
    assert all(word in errors[0] for word in words), said


def test_altered_and_missing_source_files_are_named(main, tmp_path):
    names = list(RECIPE.files(RECIPE.options()))
    for name in names:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"not what it was")
    status, _, said = main("table", "uci_mfeat", "--data-dir", "data")
    assert status == 2 and said.count("\n") == 1 and "truncated or altered" in said and "sha256" in said
    (tmp_path / "data" / sorted(names)[0]).unlink()
    status, _, said = main("table", "uci_mfeat", "--data-dir", "data")
    assert status == 2 and said.count("\n") == 1 and f"{sorted(names)[0]} is missing" in said


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (np.where(np.arange(60)[:, None] == 7, np.nan, 1.0), ["hers", "train", "'left'", "example 7", "NaN"]),
        ((np.ones((60, 1, 2)), np.zeros((60, 1), bool)), ["hers", "'left'", "empty"]),
    ],
)
def test_unsound_arrays_are_named_by_data_set_modality_and_example(left, words):
    with pytest.raises(datasets.UsageError) as error:
        datasets.from_arrays({"left": left}, np.arange(60) % 3, split=np.repeat([0, 1, 2], 20), name="hers")
    assert all(word in str(error.value) for word in words if word != "train") and "\n" not in str(error.value)


def test_a_smoke_run_stays_beside_the_results_and_its_report_can_be_made_again(main):
    status, printed, said = main("table", "digits", "--smoke", *LINEAR)
    assert status == 0 and "logistic regression" in printed and "Warning" not in said
    assert not pathlib.Path("runs/digits").exists()
    before = pathlib.Path("runs/digits-smoke/table.json").read_bytes()
    assert main("report", "runs/digits-smoke")[:2] == (0, printed)
    assert pathlib.Path("runs/digits-smoke/table.json").read_bytes() == before
    status, _, said = main("table", "synthetic", "--smoke", "--workdir", "runs/digits-smoke")
    assert status == 2 and "holds other results" in said
    status, _, said = main("evaluate", "runs/digits-smoke")
    assert status == 2 and "report" in said


def test_names_with_commas_can_be_named():
    table = small.table(rows=[small.Row(n, fit=small.guess) for n in ("late", "late, end to end", "end to end")])
    assert table.split_names("late, late, end to end,end to end") == ["late", "late, end to end", "end to end"]
    assert table.split_names("end to end") == ["end to end"]


def test_an_interrupt_is_one_line_and_status_130(main, monkeypatch):
    def interrupted(*arguments, **others):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmjax.experiment.commands.run_table", interrupted)
    assert main("table", "digits") == (130, "", "interrupted; the same command continues\n")


def test_other_errors_keep_their_traceback(main, monkeypatch):
    def broken(*arguments, **others):
        raise ValueError("a bug")

    monkeypatch.setattr("mmjax.experiment.commands.run_table", broken)
    with pytest.raises(ValueError, match="a bug"):
        main("table", "digits")


def test_list_reads_a_line_of_every_file_without_importing_jax():
    code = "import sys, runpy; sys.argv = ['x', 'list']\ntry: runpy.run_module('experiments', run_name='__main__')\n"
    code += "finally: print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]" and [line.split()[0] for line in lines[:-1]] == list(tables.names())
    assert all(len(line) > 30 for line in lines[:-1])


def test_train_and_evaluate_tell_the_same(main):
    train = ("train", "digits", "--smoke", "--rows", "concatenation", "--seed", "1", "--workdir", "run")
    status, printed, _ = main(*train)
    assert status == 0 and printed.startswith("concatenation, seed 1, epoch ") and "test: accuracy" in printed
    config = json.loads(pathlib.Path("run/config.json").read_text())
    assert (config["table"], config["row"], config["seed"], config["smoke"]) == ("digits", "concatenation", 1, True)
    assert {"metrics.jsonl", "tensorboard", "checkpoints"} <= {path.name for path in pathlib.Path("run").iterdir()}
    assert main(*train)[:2] == (0, printed)  # finished: nothing is trained again
    status, scores, _ = main("evaluate", "run")
    assert status == 0 and scores.splitlines() == printed.splitlines()[1:3]
    evaluation = json.loads(pathlib.Path("run/evaluation.json").read_text())
    assert f"accuracy {evaluation['test']['accuracy']:.4f}" in scores.splitlines()[1]
    status, _, said = main(*train, "--set", "train.learning_rate=0.1")
    assert status == 2 and "another workdir" in said
    assert main("report", "run")[0] == 2


HELD = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background of a script ignores it
from mmjax.experiment.console import Lines

words, tell = sys.argv.pop(1), Lines.__call__

def tell_and_wait(self, text):
    tell(self, text)
    if words and words in text and not text.endswith("\\r"):  # that is printed on a terminal only
        sys.stdin.readline()

Lines.__call__ = tell_and_wait
runpy.run_module("experiments", run_name="__main__", alter_sys=True)
"""


class Run(subprocess.Popen):
    """A table of three rows in a process of its own, that waits where it has printed ``words``; jax compiles once."""

    def __init__(self, folder, workdir, words=""):
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}
        rows = "upper,lower,mean of logits"
        argv = ["table", "digits", "--smoke", "--rows", rows, "--workdir", str(workdir)]
        super().__init__(
            [sys.executable, "-c", HELD, words, *argv], cwd=ROOT, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.words = words

    def end(self, number):
        """Sends a signal when the line has come; returns the status and the lines printed after that."""
        for line in self.stderr:
            if self.words in line:
                self.send_signal(number)
                self.stdin.close()  # a signal that comes just before it reads would leave it reading
                return (self.wait(timeout=100), self.stderr.read().splitlines())
        raise AssertionError(f"ended without {self.words!r}")


def test_killed_or_interrupted_the_same_command_ends_with_the_same_table(tmp_path):
    reference = Run(tmp_path, tmp_path / "reference")
    printed, said = reference.communicate(timeout=200)
    assert reference.returncode == 0 and "mean of logits" in printed, said
    table = (tmp_path / "reference" / "table.json").read_bytes()

    workdir = tmp_path / "killed"
    assert Run(tmp_path, workdir, "2 seeds").end(signal.SIGKILL)[0] == -signal.SIGKILL
    status, said = Run(tmp_path, workdir, "] upper: ").end(signal.SIGINT)
    assert (status, said[-1:]) == (130, ["interrupted; the same command continues"]), said
    assert Run(tmp_path, workdir, "presence patterns").end(signal.SIGKILL)[0] == -signal.SIGKILL
    last = Run(tmp_path, workdir)
    again, said = last.communicate(timeout=200)
    assert last.returncode == 0 and again == printed and "upper: done before" in said
    assert (workdir / "table.json").read_bytes() == table


def test_sigterm_says_that_the_same_command_continues(tmp_path):
    """At once, also while the main thread is inside a call that no Python handler interrupts."""
    code = (
        "import ctypes, sys\n"
        "from mmjax.cli import speak_when_terminated\n"
        "speak_when_terminated()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).sleep(60); ctypes.CDLL(None).sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               cwd=ROOT)  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143 and said == "terminated; the same command continues\n"


def test_report_takes_the_name_of_a_table_as_advise_does(main, tmp_path):
    shutil.copytree(ROOT / "experiments" / "results" / "digits", tmp_path / "runs" / "digits")
    status, _, said = main("report", "digits")
    assert status == 2 and "'runs/digits' is no work directory of a table" in said  # results hold no configuration
    (tmp_path / "runs" / "digits" / "config.json").write_text("[" * 100_000)
    for command in ("report", "advise"):
        (tmp_path / "runs" / "digits" / "table.json").write_text("[" * 100_000)
        status, _, said = main(command, "digits")
        assert status == 2 and said.startswith("error: damaged: runs/digits/") and said.count("\n") == 1
