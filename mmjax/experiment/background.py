"""What comes next is begun while this goes on: compiling the next rows is most of what a small table waits for."""

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
U = TypeVar("U")


def ahead(
    function: Callable[[T], U], items: Iterable[T], *, count: int = 2
) -> Generator[tuple[T, Callable[[], U]], None, None]:
    """Each item, and a call that waits for what the function makes of it or raises what it raised.

    The items stay in their order, and up to ``count`` of those to come are worked on in threads meanwhile. Left early,
    what has begun is not waited for.

    Args:
      function: safe to call from several threads.
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
