"""Doing the next piece of work while the last one is used."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """Takes items in a thread, up to ``depth`` of them before they are asked for; in order.

    What goes wrong in the thread is raised here, after the items before it. A generator is closed in the thread that
    ran it, so that whatever it holds (an open file, a lock) is let go there.

    Example:
        >>> list(read_ahead(range(5), depth=2))
        [0, 1, 2, 3, 4]
    """
    iterator = iter(items)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read_ahead")
    waiting = deque(thread.submit(next, iterator, _END) for _ in range(max(1, depth)))
    try:
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, iterator, _END))
            yield item  # type: ignore[misc]
    finally:
        for future in waiting:
            future.cancel()
        if isinstance(iterator, Generator):
            thread.submit(iterator.close)
        thread.shutdown(wait=True)
