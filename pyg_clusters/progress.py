"""How far long work has come."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

T = TypeVar("T")


def counting(blocks: Iterable[T], length: Callable[[T], int]) -> Iterator[T]:
    """Passes blocks on and counts their frames on standard error, if that is a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} frames"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("frames", total=None)
        for block in blocks:
            progress.advance(task, length(block))
            yield block
