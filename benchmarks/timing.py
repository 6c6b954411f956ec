"""Paired timing: slices of two programs alternate in one process, on one thread each."""

import os
import statistics
import sys
import time
from collections.abc import Callable

__all__ = ["compare", "single_thread"]

ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    # XLA:CPU frees its buffers after every call; huge pages keep the page faults of that down.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def single_thread(*, huge_pages: bool = True) -> None:
    """Starts this process again with one thread for jax and PyTorch, bound to one core; returns in the new one.

    Args:
      huge_pages: whether the allocator of both is given huge pages, which a user's is not.
    """
    if os.environ.get("MMJAX_BENCHMARK") != "1":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        settings = {name: value for name, value in ONE_THREAD.items() if huge_pages or name != "GLIBC_TUNABLES"}
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **settings, "MMJAX_BENCHMARK": "1"})


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int = 7) -> float:
    """Median, least and greatest ratio of CPU times of ``ours`` to ``theirs``, printed; both are warmed up first.

    ``ours`` and ``theirs`` do the same amount of work and wait for its end.
    """
    for work in (ours, theirs):
        work()
    pairs = [(_cpu_seconds(ours), _cpu_seconds(theirs)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    times = [1000 * statistics.median(column) for column in zip(*pairs)]
    ratio = statistics.median(ratios)
    print(
        f"{name}: {ratio:.2f} [{min(ratios):.2f} .. {max(ratios):.2f}] of the peer's CPU time "
        f"({times[0]:.0f} ms beside {times[1]:.0f} ms, {rounds} rounds)"
    )
    return ratio
