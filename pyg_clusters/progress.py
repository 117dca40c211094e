"""Progress on standard error: bars in a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

SECONDS: float = 60.0
"""Time between two lines where standard error is no terminal."""

_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def without_progress() -> Iterator[None]:
    """Hide progress within the block."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


def progress_is_shown(terminal: bool) -> bool:
    """Whether progress is shown as bars, or else (``terminal=False``) as lines."""
    return not _hidden.get() and Console(stderr=True).is_terminal == terminal


class FrameProgress:
    """Count of frames: a bar in a terminal, a line per minute elsewhere.

    Args:
        text: Label of the count.
        total: Number of frames, if known.
        estimate: Whether to show the time left; not for frames of one batch, which end together.
    """

    def __init__(self, text: str = "frames", total: int | None = None, estimate: bool = True):
        self.text, self.total, self.done, self.estimate = text, total, 0, estimate and total is not None
        self._start = self._last = time.monotonic()
        self._lines = progress_is_shown(terminal=False)
        count = TextColumn(f"{{task.completed:,.0f}}{'' if total is None else f' of {total:,}'} {text}")
        left = (TimeRemainingColumn(),) if self.estimate else ()
        columns = (SpinnerColumn() if total is None else BarColumn(), count, TimeElapsedColumn(), *left)
        disable = not progress_is_shown(terminal=True)
        self._bar = Progress(*columns, console=Console(stderr=True), disable=disable, transient=True)
        self._task = self._bar.add_task(text, total=total)

    def __enter__(self) -> "FrameProgress":
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def advance(self, count: int = 1):
        """Count further frames."""
        self.done += count
        self._bar.advance(self._task, count)
        now = time.monotonic()
        if self._lines and now - self._last >= SECONDS:
            self._last = now
            passed = now - self._start
            left = ""
            if self.estimate and self.total and self.done:
                left = f", {duration(passed * (self.total / self.done - 1))} left"
            of = f" of {self.total:,}" if self.total else ""
            print(f"{self.done:,}{of} {self.text} after {duration(passed)}{left}", file=sys.stderr, flush=True)


def counting(blocks: Iterable[T], length: Callable[[T], int], total: int | None = None) -> Iterator[T]:
    """Yield blocks and count their frames."""
    with FrameProgress(total=total) as progress:
        for block in blocks:
            progress.advance(length(block))
            yield block


def duration(seconds: float) -> str:
    """Time in a unit of its magnitude.

    Example:
        >>> duration(12.3), duration(754), duration(9000)
        ('12 s', '13 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ItemProgress:
    """A bar in a terminal, a line per finished item elsewhere.

    Args:
        total: Number of items.
        done: Number of items already finished.
    """

    def __init__(self, total: int, done: int = 0):
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.total, self.done, self._lines = total, done, progress_is_shown(terminal=False)
        disable = not progress_is_shown(terminal=True)
        self.bar = Progress(*columns, console=Console(stderr=True), disable=disable, transient=True)
        self.task = self.bar.add_task("", total=total, completed=done)

    def __enter__(self) -> "ItemProgress":
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def advance(self, text: str):
        """Count one more item and describe it."""
        self.done += 1
        self.bar.update(self.task, completed=self.done, description=text)
        if self._lines:
            print(f"{self.done}/{self.total} {text}", file=sys.stderr, flush=True)
