"""SIGINT and SIGTERM as exceptions that cannot get lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_requested: list[int] = []
"""Numbers of the signals that have come since :func:`stopping_on_signals` was entered."""


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

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

    An exception that a signal raises is lost where Python cannot pass it on (in a finaliser, or a callback of HDF5):
    :func:`check_stopped` raises it again.
    """
    with keeping_handlers():
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    signal.signal(number, request_stop)
        try:
            yield
        finally:
            _requested.clear()


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM after a block in which a library sets its own."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def request_stop(number: int, _: object):
    """Handle a signal."""
    _requested.append(number)
    raise Stopped(number)


def check_stopped():
    """Raise :class:`Stopped` if a signal has come.

    Raises:
        Stopped: Of the first signal.
    """
    if _requested:
        raise Stopped(_requested[0])
