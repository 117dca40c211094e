"""SIGINT and SIGTERM as exceptions."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_requested: list[int] = []  # numbers of the signals received since stopping_on_signals was entered
_deferring: list[None] = []  # an item for each active deferring_stop


class Stopped(KeyboardInterrupt):
    """Request to stop the process.

    Args:
        number: Number of the signal.

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
