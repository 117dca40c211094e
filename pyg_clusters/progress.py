"""Progress on standard error: bars in a terminal, lines elsewhere."""

import sys
from collections.abc import Callable, Iterable, Iterator
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


def frame_progress(text: str = "frames") -> Progress:
    """Create a counter of frames, shown in a terminal only.

    Args:
        text: Label of the count.
    """
    columns = (SpinnerColumn(), TextColumn(f"{{task.completed:,.0f}} {text}"), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def counting(blocks: Iterable[T], length: Callable[[T], int]) -> Iterator[T]:
    """Pass blocks on and count their frames, in a terminal."""
    with frame_progress() as progress:
        task = progress.add_task("frames", total=None)
        for block in blocks:
            progress.advance(task, length(block))
            yield block


class ItemProgress:
    """A bar in a terminal, a line per finished item elsewhere.

    Args:
        total: Number of items.
        done: Number of items that are finished already.
    """

    def __init__(self, total: int, done: int = 0):
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.total, self.done, self.terminal = total, done, console.is_terminal
        self.bar = Progress(*columns, console=console, disable=not self.terminal, transient=True)
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
        if not self.terminal:
            print(f"{self.done}/{self.total} {text}", file=sys.stderr, flush=True)
