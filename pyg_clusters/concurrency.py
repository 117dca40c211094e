"""Signals, threads and workers: stops by SIGINT and SIGTERM, prefetching, and connections to a Ray cluster."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from pyg_clusters.errors import InputError, MissingExtra, one_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_requested: list[int] = []  # numbers of the signals received since stopping_on_signals was entered
_deferring: list[None] = []  # an item for each active deferring_stop


class Stopped(KeyboardInterrupt):
    """Request to stop the process, with the number of the signal.

    Example:
        >>> Stopped(15).exit_code, str(Stopped(15))
        (143, 'stopped by SIGTERM')
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise :class:`Stopped` on SIGINT and SIGTERM within the block, in the main thread.

    An exception raised by a signal is lost where Python cannot propagate it (in a finaliser, or a callback of HDF5).
    Its traceback is then suppressed, and :func:`check_stopped` raises it again.
    """
    with keeping_handlers(), _silent_where_lost():
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    signal.signal(number, request_stop)
        try:
            yield
        finally:
            _requested.clear()


@contextmanager
def _silent_where_lost() -> Iterator[None]:
    """Suppress the traceback of a :class:`Stopped` that Python, or Cython in a callback, cannot propagate."""
    before = sys.unraisablehook, sys.excepthook

    def unraisable(lost: "sys.UnraisableHookArgs"):
        if not issubclass(lost.exc_type, Stopped):
            before[0](lost)

    def uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None):
        if not issubclass(kind, Stopped):
            before[1](kind, error, traceback)

    sys.unraisablehook, sys.excepthook = unraisable, uncaught
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = before


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM after a block in which a library installs its own."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def deferring_stop() -> Iterator[None]:
    """Defer signals: within the block, only :func:`check_stopped` raises :class:`Stopped`.

    Use this for callbacks of C libraries that do not support exceptions (HDF5 ends in a segmentation fault), and for
    code that starts processes and must stop them.
    """
    _deferring.append(None)
    try:
        yield
    finally:
        _deferring.pop()


def request_stop(number: int, _: object):
    """Handle a signal."""
    _requested.append(number)
    if not _deferring:
        raise Stopped(number)


def check_stopped():
    """Raise :class:`Stopped` if a signal was received.

    Raises:
        Stopped: For the first signal.
    """
    if _requested:
        raise Stopped(_requested[0])


T = TypeVar("T")

_END = object()


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """Prefetch items in a background thread, up to ``depth`` ahead, in order.

    An error in the thread is raised here, after the items before it. A generator is closed in the thread that ran it,
    so that its resources (an open file, a lock) are released there. The garbage collector may close an abandoned reader
    in the middle of any call of another one: readers therefore share no locks, unlike those of ``concurrent.futures``.

    Example:
        >>> list(read_ahead(range(5), depth=2))
        [0, 1, 2, 3, 4]
    """
    iterator = iter(items)
    results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    wanted, stopped, finished = threading.Semaphore(max(1, depth)), threading.Event(), threading.Event()

    def read():
        failure = None
        try:
            with closing(iterator) if isinstance(iterator, Generator) else nullcontext():
                while wanted.acquire() and not stopped.is_set() and (item := next(iterator, _END)) is not _END:
                    results.put((item, None))
        except BaseException as error:  # errors of any kind are raised in the thread of the consumer
            failure = error
        results.put((_END, failure))
        finished.set()

    thread = threading.Thread(target=read, name="read_ahead", daemon=True)
    thread.start()
    try:
        while (found := results.get())[0] is not _END:
            wanted.release()
            yield found[0]
        if found[1] is not None:
            raise found[1]
    finally:
        stopped.set()
        wanted.release()
        finished.wait()
        thread.join(timeout=1.0)  # the collector may have interrupted a call that holds the lock on the list of threads


ANSWER_WITHIN: float = 10.0  # seconds within which a cluster must respond
LOST_AT_MOST: int = 5  # number of workers that may be lost in succession without any result in between


@contextmanager
def ray_cluster(address: str | None) -> Iterator[Any]:
    """Connect to a Ray cluster and yield the module ``ray``; an existing connection is reused and left open.

    Args:
        address: ``host:port`` or ``auto``; by default ``RAY_ADDRESS`` if set, or else a new cluster on this machine.

    Raises:
        MissingExtra: If Ray is not installed.
        InputError: If there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("ray", "ray", "the engine ray") from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None):
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    advice = "give the host:port that ray start --head printed"
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:  # Ray itself waits for minutes if there is no response
            socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN).close()
        with keeping_handlers():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster there ({one_line(error)}); {advice}") from error
