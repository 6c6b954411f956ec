"""Progress of a table: lines, and on a terminal also a line that is overwritten."""

import shutil
import sys
from typing import Any

__all__ = ["Lines"]


class Lines:
    """Takes lines of progress; one that ends in a carriage return is overwritten by the next, on a terminal only."""

    def __init__(self, stream: Any = None):
        self.stream = stream or sys.stderr
        self.width = 0

    def __call__(self, text: str) -> None:
        passing = text.endswith("\r")
        text = text.rstrip("\r")
        if self.stream.isatty():
            if passing:  # a line that wraps cannot be overwritten
                text = text[: shutil.get_terminal_size().columns - 1]
            self.stream.write("\r" + text.ljust(self.width) + ("" if passing else "\n"))
            self.width = len(text) if passing else 0
        elif not passing:
            self.stream.write(text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Ends a line that the next one would overwrite."""
        if self.width:
            self.stream.write("\n")
            self.width = 0
