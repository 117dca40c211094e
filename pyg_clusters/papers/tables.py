"""Tables and findings of a paper, on the screen, in Markdown and as CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.papers.findings import Finding

Row = TypeVar("Row")

QUICK_MARK = "QUICK RUN, a few epochs only: these are not the figures that the recipes reach"
"""In every table of a quick run."""

QUICK_TITLE = "QUICK RUN: not the figures that the recipes reach"
"""In every figure of one."""


def print_table(
    title: str,
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    caption: str = "",
    width: int = 150,
    words: int = 2,
):
    """Prints a table, of which the first so many columns hold words and the others numbers."""
    console = Console(width=width)
    table = Table(title=title, title_justify="left", caption=caption)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < words else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def print_findings(findings: Sequence[Finding]):
    """Prints a finding a line."""
    for finding in findings:
        print(f"{finding.verdict}: {finding.statement} {finding.figures}")


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[str]], words: int = 2) -> list[str]:
    """Lines of a table in Markdown, of which the first so many columns hold words and the others numbers."""
    head = ["| " + " | ".join(columns) + " |", "|---" * words + "|" + "--:|" * (len(columns) - words)]
    return head + ["| " + " | ".join(line) + " |" for line in lines]


def markdown_findings(findings: Sequence[Finding]) -> list[str]:
    """Lines of a list in Markdown."""
    return [f"- **{f.verdict.capitalize()}**: {f.statement} {f.figures}" for f in findings]


def write_csv(path: Path, columns: Sequence[str], lines: Sequence[Sequence[object]]):
    """Writes lines of words and numbers as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *lines])
    with atomic_write(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def write_text(path: Path, lines: Sequence[str]):
    """Writes lines of text."""
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and, of more than one value, standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def deviation(values: Sequence[float]) -> float:
    """Standard deviation; not-a-number for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def chosen_rows(only: Sequence[str] | None, rows: Sequence[Row], names: Callable[[Row], Sequence[str]]) -> list[Row]:
    """The rows that one of the words names, all of them without words.

    Args:
        only: Names of tables or of what is trained, whatever their case.
        rows: All rows.
        names: Those by which a row can be called.

    Raises:
        InputError: If a word names no row.
    """
    if only is None:
        return list(rows)
    known = {name.lower(): name for row in rows for name in names(row)}
    unknown = [word for word in only if word.lower() not in known]
    if unknown:
        raise InputError(f"--only {unknown[0]!r} is in no table; there are {', '.join(known.values())}")
    words = {word.lower() for word in only}
    return [row for row in rows if words & {name.lower() for name in names(row)}]
