"""Keeps freed memory in the process, since XLA on a CPU frees its buffers after every call and takes them anew."""

import ctypes
import sys
from typing import Any

__all__ = ["keep_freed_memory", "return_freed_memory"]

# Parameters of mallopt, from malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells the GNU C library's allocator to hand nothing back to the system; returns whether it was told.

    A step of a transformer on a CPU frees some 100 MB and takes them again in the next call: each page of them faults
    anew, which is a third of the time of a step of its own (``benchmarks/README.md``). With one arena, no mappings of
    their own for large blocks and no trimming, freed pages stay and are taken again. It holds for the whole process
    and for as long as it runs, so that programs call it at their start and the library never does. What the process
    once held it keeps until its end, or until ``return_freed_memory``. Elsewhere than on Linux with that library it
    does nothing.
    """
    if (mallopt := _function("mallopt")) is None:
        return False
    # One arena: the others are heaps of 64 MB, beyond which a block is a mapping of its own again.
    return all(mallopt(name, value) == 1 for name, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST)))


def return_freed_memory() -> bool:
    """Hands what the process has freed so far back to the system, once; returns whether anything was.

    Between two stages that do not take the same buffers again, such as training and measuring; ``keep_freed_memory``
    holds on. It takes some milliseconds. Elsewhere than on Linux with the GNU C library it does nothing.
    """
    trim = _function("malloc_trim")
    return trim is not None and trim(0) == 1


def _function(name: str) -> Any:
    """A function of the GNU C library; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another C library
        return None
