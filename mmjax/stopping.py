"""How a long run ends: a signal asks it to stop, a watchdog ends it where it hangs."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from mmjax.watchdog import watchdog

__all__ = ["INTERRUPTED", "PREEMPTED", "StopSignals", "armed"]

# Exit statuses after a signal; whoever started the run may start the same command again.
PREEMPTED, INTERRUPTED = 77, 130
# No chunk of steps takes this long; beyond it the machine hangs (see mmjax.watchdog).
WATCHDOG_SECONDS, REARM_SECONDS = 1800.0, 60.0


class StopSignals:
    """Remembers a request to stop; the second Ctrl-C interrupts at once.

    In a run of several processes ``jax.distributed`` catches SIGTERM, and all processes agree on the step.
    """

    def __init__(self):
        self.status: int | None = None
        self._old: dict[int, Any] = {}

    def _received(self, number: int, frame: Any) -> None:
        if self.status == INTERRUPTED and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.status = INTERRUPTED if number == signal.SIGINT else PREEMPTED

    def __enter__(self) -> "StopSignals":
        main = threading.current_thread() is threading.main_thread()  # elsewhere Python takes no handlers
        if main and jax.process_count() == 1:
            for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._old[number] = signal.signal(number, self._received)
        return self

    def poll(self, step: int) -> int | None:
        """The status to end with after this step, or None."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.status = PREEMPTED
        return self.status

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def armed() -> Iterator[Callable[[], None]]:
    """A watchdog over the whole run: the function it gives says that the run is alive."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(watchdog(WATCHDOG_SECONDS))
        since = time.monotonic()

        def alive() -> None:
            nonlocal since
            if time.monotonic() - since > REARM_SECONDS:
                stack.close()
                stack.enter_context(watchdog(WATCHDOG_SECONDS))
                since = time.monotonic()

        yield alive
