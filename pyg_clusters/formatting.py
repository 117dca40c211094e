"""Counts, numbers and tables as text."""

import math
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table


def cell(value: object) -> str:
    """Text of a value in a table: floats with two decimals, NaN as a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def print_table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Sequence[object]],
    words: Collection[str] = ("",),
    width: int = 100,
):
    """Print a table of rows of values (:func:`cell`); the columns of ``words`` are aligned left and not wrapped."""
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in words else "right", no_wrap=name in words)
    for row in rows:
        table.add_row(*map(cell, row))
    Console(width=width).print(table)


def print_lines(lines: Iterable[str]):
    """Print remarks, one per line."""
    for line in lines:
        print(line)


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
