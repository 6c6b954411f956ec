"""What a run tells: ``metrics.jsonl`` and TensorBoard event files, and progress on a terminal or in plain lines."""

import json
import math
import os
import pathlib
import sys
import time
import warnings
from typing import Any

from mmjax.extras import extra
from mmjax.files import replace_file
from mmjax.typing import Mapping

__all__ = ["MetricsLog", "Progress", "read_metrics"]


class MetricsLog:
    """Writes numbers by step to ``metrics.jsonl`` and to TensorBoard event files; a context manager.

    A killed run may have logged beyond its checkpoint: lines after ``start_step`` and a torn last line are dropped, so
    that the file of a killed and continued run is the file of a run that was left alone. Nothing that a clock measured
    belongs here. With ``enabled=False`` nothing is written: of several processes one logs.
    """

    def __init__(self, directory: str | os.PathLike, start_step: int = 0, *, enabled: bool = True):
        self._file: Any = None
        self._events: Any = None
        if not enabled:
            return
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "metrics.jsonl"
        lines = [line for line in read_metrics(directory) if line["step"] <= start_step]
        replace_file(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self._file = path.open("a", encoding="utf-8")
        self._events = _summary_writer()(
            str(directory / "tensorboard"), purge_step=start_step + 1 if start_step else None
        )

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Numbers of a step; a number that is not finite becomes null, which JSON can say."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in metrics.items()}
        line = {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Everything is on disk afterwards."""
        for output in (self._file, self._events):
            if output is not None:
                output.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _summary_writer() -> type:
    """TensorboardX imports torch where it finds it, which takes seconds and serves nothing here: it is hidden."""
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        with extra():
            from tensorboardX import SummaryWriter
    finally:
        if hide:
            del sys.modules["torch"]
    return SummaryWriter


def read_metrics(directory: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, without a last one that a kill has torn; empty if there is none.

    Lines that are damaged are left out, with a warning that names the file.
    """
    path = pathlib.Path(directory) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line's end is torn or empty
    whole = [line for one in lines if (line := _parse(one)) is not None]
    if len(whole) < len(lines):
        warnings.warn(f"damaged: {path}: {len(lines) - len(whole)} of {len(lines)} lines left out", stacklevel=2)
    return whole


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and isinstance(values.get("step"), int) else None


class Progress:
    """Steps per second, loss and time left: a bar on a terminal, a plain line every ``seconds`` elsewhere.

    Attributes:
      total: steps in all.
      start: steps done before this run.
      seconds: between plain lines.
    """

    def __init__(self, total: int, start: int = 0, *, seconds: float = 30.0, stream: Any = None):
        self.total, self.start, self.seconds = total, start, seconds
        self.stream = stream or sys.stderr
        self._clock = self._told = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        if self.stream.isatty():
            self._open_bar()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(file=self.stream), refresh_per_second=4)
        self._task = self._bar.add_task("starting", total=self.total, completed=self.start)
        self._bar.start()

    def update(self, step: int, text: str = "") -> None:
        """Says that ``step`` steps are done."""
        now = time.monotonic()
        rate = (step - self.start) / max(now - self._clock, 1e-9)
        done = f"step {step}/{self.total}, {rate:.1f} steps/s" + (f", {text}" if text else "")
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=done)
        elif now - self._told >= self.seconds:
            self._told = now
            left = (self.total - step) / rate if rate else math.inf
            self.say(done + (f", {_clock(left)} left" if math.isfinite(left) else ""))

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
