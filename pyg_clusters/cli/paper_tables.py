"""Tables and findings of a paper, on the screen, in Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pyg_clusters.files import replacing
from pyg_clusters.reproduction.findings import Finding

QUICK_MARK = "QUICK RUN, a few epochs only: these are not the figures that the recipes reach"
"""In every table of a quick run."""

QUICK_TITLE = "QUICK RUN: not the figures that the recipes reach"
"""In every figure of one."""

TEXT_COLUMNS: int = 2
"""The first columns hold words, the others numbers."""


def print_table(
    title: str, columns: Sequence[str], lines: Sequence[Sequence[str]], caption: str = "", width: int = 150
):
    """Prints a table."""
    console = Console(width=width)
    table = Table(title=title, title_justify="left", caption=caption)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < TEXT_COLUMNS else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def print_findings(findings: Sequence[Finding]):
    """Prints a finding a line."""
    for finding in findings:
        print(f"{finding.verdict}: {finding.statement} {finding.figures}")


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    head = ["| " + " | ".join(columns) + " |", "|---" * TEXT_COLUMNS + "|" + "--:|" * (len(columns) - TEXT_COLUMNS)]
    return head + ["| " + " | ".join(line) + " |" for line in lines]


def markdown_findings(findings: Sequence[Finding]) -> list[str]:
    """Lines of a list in Markdown."""
    return [f"- **{f.verdict.capitalize()}**: {f.statement} {f.figures}" for f in findings]


def write_csv(path: Path, columns: Sequence[str], lines: Sequence[Sequence[object]]):
    """Writes lines of words and numbers as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *lines])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def write_text(path: Path, lines: Sequence[str]):
    """Writes lines of text."""
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and, of more than one value, standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def deviation(values: Sequence[float]) -> float:
    """Standard deviation; not-a-number for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
