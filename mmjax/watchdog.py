"""A hang ends with the stacks of all threads and advice, never in silence."""

import contextlib
import faulthandler
import sys
import threading
from collections.abc import Iterator

__all__ = ["watchdog"]

ADVICE = (
    "mmjax: no progress for {seconds:.0f} s, ending with the stacks of all threads. Batches of LAPACK calls (QR, "
    "Cholesky) at the same time can starve XLA's threads on a machine of few cores: set NPROC=16 and start the same "
    "command again; it continues."
)


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Ends the process with its stacks if the block takes longer than ``seconds``; 0 or less does nothing."""
    if seconds <= 0:
        yield
        return
    # faulthandler cannot print advice of its own, so a timer says it a moment before.
    advice = threading.Timer(max(seconds - 0.5, 0.0), lambda: print(ADVICE.format(seconds=seconds), file=sys.stderr))
    advice.daemon = True
    advice.start()
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        advice.cancel()
        faulthandler.cancel_dump_traceback_later()
