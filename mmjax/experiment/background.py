"""Runs the next items ahead in threads: compilation takes most of the time of a small table."""

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

__all__ = ["map_ahead"]

T = TypeVar("T")
U = TypeVar("U")


def map_ahead(
    function: Callable[[T], U], items: Iterable[T], *, count: int = 2
) -> Generator[tuple[T, Callable[[], U]], None, None]:
    """Each item, and a call that waits for the result of the function or raises its error.

    Items keep their order; up to ``count`` following ones are computed in threads meanwhile. Closing the generator does
    not wait for them.

    Args:
      function: thread-safe.
      items: of any number.
      count: at least 1.
    """
    pool = concurrent.futures.ThreadPoolExecutor(count, thread_name_prefix="ahead")
    begun: collections.deque[tuple[T, concurrent.futures.Future[U]]] = collections.deque()
    waiting = iter(items)
    try:
        while True:
            for item in waiting:
                begun.append((item, pool.submit(function, item)))
                if len(begun) > count:
                    break
            if not begun:
                return
            item, future = begun.popleft()
            yield item, future.result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
