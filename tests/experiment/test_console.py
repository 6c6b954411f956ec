"""Progress on a terminal and elsewhere, and the watchdog that ends a hang."""

import io
import subprocess
import sys

from mmjax.experiment.console import Lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_a_passing_line_is_overwritten(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    say = Lines(stream)
    say("epoch 1 of a very long row name\r")
    say("epoch 2\r")
    say("done")
    assert stream.getvalue() == "\repoch 1 of a very l\repoch 2" + " " * 12 + "\rdone   \n"
    say("epoch 1\r")
    say.close()
    assert stream.getvalue().endswith("\repoch 1\n")


def test_elsewhere_only_whole_lines_are_written():
    stream = io.StringIO()
    say = Lines(stream)
    say("epoch 1\r")
    say("done")
    say.close()
    assert stream.getvalue() == "done\n"


def test_a_block_that_hangs_ends_with_stacks_and_advice():
    code = "import time\nfrom mmjax.watchdog import watchdog\nwith watchdog(1.0):\n    time.sleep(60)\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "no progress for 1 s" in ended.stderr and "NPROC=16" in ended.stderr
    assert "Timeout (0:00:01)!" in ended.stderr and 'File "<string>", line 4' in ended.stderr
