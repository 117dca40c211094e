"""Output of commands: counts and tables, and progress on standard error, as bars in a terminal and lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

T = TypeVar("T")

SECONDS: float = 60.0  # time between two lines if standard error is not a terminal

WIDTH, MAX_WIDTH = 100, 1000  # of a table in characters: usual, and the largest

_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


def cell(value: object) -> str:
    """Text of a value in a table: floats with two decimals, NaN as a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Sequence[object]], words: Collection[str] = ("",)):
    """Print a table of rows of values (:func:`cell`).

    The columns of ``words`` are aligned left and not wrapped. A table that needs more than :data:`WIDTH` characters is
    printed in full, also in a narrower terminal.
    """
    columns, texts = list(columns), [[cell(value) for value in row] for row in rows]
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        column, left = [name, *(row[index] for row in texts)], name in words
        widest = max(len(word) for text in column for word in ([text] if left else text.split() or [""]))
        table.add_column(name, justify="left" if left else "right", no_wrap=left, min_width=widest)
    for row in texts:
        table.add_row(*row)
    needed = Console(width=MAX_WIDTH).measure(table).minimum
    Console(width=max(WIDTH, needed)).print(table)


def span(values: Collection[int]) -> str:
    """Smallest and largest of some integers, or their only value.

    Example:
        >>> span([31, 70, 46]), span([31, 31])
        ('31 to 70', '31')
    """
    low, high = min(values), max(values)
    return f"{low} to {high}" if low < high else str(low)


def count_of(number: int, noun: str) -> str:
    """Number and noun, in the plural where needed.

    Example:
        >>> count_of(1, "frame"), count_of(1200, "frame")
        ('1 frame', '1,200 frames')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def without_progress() -> Iterator[None]:
    """Hide progress within the block."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


def progress_is_shown(terminal: bool) -> bool:
    """Whether progress is shown as bars (``terminal=True``) or as lines (``terminal=False``)."""
    return not _hidden.get() and Console(stderr=True).is_terminal == terminal


class _Bar:
    """A bar in a terminal, removed at the end."""

    def __init__(self, columns: Iterable[ProgressColumn], total: int | None, done: int = 0):
        self.total, self.done = total, done
        self._start = self._last = time.monotonic()
        self._lines, disable = progress_is_shown(terminal=False), not progress_is_shown(terminal=True)
        self._bar = Progress(*columns, console=Console(stderr=True), disable=disable, transient=True)
        self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def _is_due(self, seconds: float) -> bool:
        """Whether to print a line, as the last one is at least ``seconds`` old."""
        due = self._lines and time.monotonic() - self._last >= seconds
        self._last = time.monotonic() if due else self._last
        return due


class FrameProgress(_Bar):
    """Count of frames: a bar in a terminal, a line per minute elsewhere.

    Args:
        text: Label of the count.
        total: Number of frames, if known.
        estimate: Whether to show the time left; not useful for frames of one batch, which end together.
    """

    def __init__(self, text: str = "frames", total: int | None = None, estimate: bool = True):
        self.text, self.estimate = text, estimate and total is not None
        count = TextColumn(f"{{task.completed:,.0f}}{'' if total is None else f' of {total:,}'} {text}")
        left = (TimeRemainingColumn(),) if self.estimate else ()
        super().__init__((SpinnerColumn() if total is None else BarColumn(), count, TimeElapsedColumn(), *left), total)

    def advance(self, count: int = 1):
        """Count further frames."""
        self.done += count
        self._bar.advance(self._task, count)
        if self._is_due(SECONDS):
            passed = time.monotonic() - self._start
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
    """Format a time in seconds, minutes or hours.

    Example:
        >>> duration(12.3), duration(754), duration(9000)
        ('12 s', '13 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ItemProgress(_Bar):
    """A bar in a terminal, a line per finished item elsewhere.

    Args:
        total: Number of items, if known.
        done: Number of items already finished.
        seconds: Shortest time between two lines.
    """

    def __init__(self, total: int | None, done: int = 0, seconds: float = 0.0):
        super().__init__(
            (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")), total, done
        )
        self.seconds = seconds

    def advance(self, text: str):
        """Count one more item and describe it."""
        self.done += 1
        self._bar.update(self._task, completed=self.done, description=text)
        if self._is_due(self.seconds):
            of = "" if self.total is None else f"/{self.total}"
            print(f"{self.done}{of} {text}", file=sys.stderr, flush=True)
