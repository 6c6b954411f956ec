"""A killed run's metrics are those of a run left alone; progress reads well with and without a terminal."""

import io
import json
import subprocess
import sys

import pytest

from mmjax.progress import MetricsLog, Progress, read_metrics


def write(folder, steps, start=0):
    with MetricsLog(folder, start) as log:
        for step in steps:
            log.write(step, {"train/loss": 1 / step})


def test_lines_after_the_checkpoint_and_torn_ones_go(tmp_path):
    write(tmp_path / "whole", range(1, 8))
    write(tmp_path / "killed", range(1, 6))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "train/lo')
    write(tmp_path / "killed", range(4, 8), start=3)
    whole, killed = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    assert [line["train/loss"] for line in read_metrics(tmp_path / "whole")] == [1 / n for n in range(1, 8)]


@pytest.mark.parametrize("damage", [b"\x00\xff{", b"[1]", b"7", b'{"loss": 1}', b'{"step": "a"}', b"[" * 100_000])
def test_damaged_lines_are_one_warning_that_names_the_file_and_a_continued_run_drops_them(tmp_path, damage):
    write(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + b"\n" + others[1])
    with pytest.warns(UserWarning, match=r"^damaged: .*metrics\.jsonl: 1 of 3 lines left out$"):
        assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3]
    with pytest.warns(UserWarning, match="left out"):
        write(tmp_path, [4], start=3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3, 4]


def test_not_a_number_is_null(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": float("nan"), "other": float("inf"), "third": 0.1})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "loss": None, "other": None, "third": 0.1}
    assert read_metrics(tmp_path / "nowhere") == []


def test_one_process_of_several_logs(tmp_path):
    with MetricsLog(tmp_path / "other", enabled=False) as log:
        log.write(1, {"loss": 1.0})
    assert not (tmp_path / "other").exists()


def test_event_files_hold_the_same_numbers(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    write(tmp_path, [1, 2])
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert found == [(1, "train/loss", 1.0), (2, "train/loss", 0.5)]


def test_torch_is_not_imported():
    program = "import sys, tempfile; from mmjax.progress import MetricsLog; MetricsLog(tempfile.mkdtemp()).close()"
    program += "; assert 'torch' not in sys.modules and 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


class TestProgress:
    def test_plain_lines_elsewhere(self):
        out = io.StringIO()
        with Progress(100, 10, seconds=0, stream=out) as progress:
            progress._clock -= 10
            progress.update(60, "loss 0.5000")
            progress.say("epoch 1")
        first, second = out.getvalue().splitlines()
        assert first == "step 60/100, 5.0 steps/s, loss 0.5000, 0:00:08 left" and second == "epoch 1"

    def test_lines_are_rare(self):
        out = io.StringIO()
        with Progress(100, stream=out) as progress:
            for step in range(50):
                progress.update(step)
        assert out.getvalue() == ""

    def test_a_bar_on_a_terminal(self):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        out = Terminal()
        with Progress(100, stream=out) as progress:
            progress.update(50, "loss 0.5000")
            progress.say("epoch [1]/2")
        assert "epoch [1]/2" in out.getvalue() and "step 50/100" in out.getvalue()
