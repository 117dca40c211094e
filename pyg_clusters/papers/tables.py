"""Tables, findings and figures of a reproduced paper, and its training runs."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis.plots import (
    BLUE,
    GREY,
    SIZE,
    SMALL,
    figure_with_axes,
    legend,
    plain_log_ticks,
    save_figure,
    tidy,
)
from pyg_clusters.errors import InputError
from pyg_clusters.files import read_json, write_text
from pyg_clusters.inference.run import FINISHED, SPLITS
from pyg_clusters.terminal import print_table

Row = TypeVar("Row")

QUICK_MARK = "QUICK RUN, a few epochs only: these are not the errors that the recipes reach"
"""Mark of every table of a quick run."""

QUICK_TITLE = "QUICK RUN: not the errors that the recipes reach"
"""Title of every figure of a quick run."""


@dataclass(frozen=True)
class Finding:
    """A statement of a paper, confirmed or rejected."""

    statement: str  #: Statement of the paper.
    holds: bool | None  #: Whether our results confirm it; ``None`` if they cannot decide.
    figures: str  #: Our values, and those of the paper if it gives them.

    @property
    def verdict(self) -> str:
        """Verdict as text."""
        return "not decided" if self.holds is None else "holds" if self.holds else "does not hold"


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str  #: Title.
    columns: Sequence[str]  #: Headings.
    lines: Sequence[Sequence[str]]  #: Cells of each line.
    words: int = 2  #: Number of text columns on the left; the other columns contain numbers.

    @property
    def markdown(self) -> list[str]:
        """Lines of the table in Markdown."""
        alignment = "|---" * self.words + "|" + "--:|" * (len(self.columns) - self.words)
        return [_markdown_line(self.columns), alignment, *map(_markdown_line, self.lines)]


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Reproduction:
    """Result of reproducing a paper."""

    tables: list[Table]  #: Our values and those of the paper.
    report: Path  #: Report in Markdown; tables (.csv) and figures (.png) are in the same folder.
    findings: list[Finding] = field(default_factory=list)  #: Findings of the paper, confirmed or rejected.
    mark: str = ""  #: Mark of a quick run; otherwise empty.
    notes: str = ""  #: Remarks on the results.

    def print(self):
        """Print tables and findings."""
        for table in self.tables:
            print_table(table.title, table.columns, table.lines, table.columns[: table.words])
            print(self.mark, end="\n" if self.mark else "")
        for finding in self.findings:
            print(f"{finding.verdict}: {finding.statement} {finding.figures}")
        if self.notes:
            print(self.notes)
        print(f"results in {self.report}, .csv, and figures in the same folder")


def write_report(
    folder: Path,
    title: str,
    text: Sequence[str],
    tables: Sequence[Table],
    figures: Mapping[str, Figure],
    *,
    findings: Sequence[Finding] = (),
    mark: str = "",
    notes: str = "",
) -> Reproduction:
    """Write tables and findings as ``results.md``, the first table as ``results.csv``, and figures.

    The titles of all tables except the first become headings. Notes precede the text, which precedes the first table.
    ``mark`` is the mark of a quick run, whose files have the prefix ``quick_``.
    """
    prefix = "quick_" if mark else ""
    first, *others = tables
    lines = [f"# {title}", "", *([f"**{mark}.**", ""] if mark else []), *([notes, ""] if notes else [])]
    lines += [*text, "", *first.markdown]
    for table in others:
        lines += ["", f"## {table.title}", "", *table.markdown]
    if findings:
        lines += ["", "## Findings of the paper", ""]
        lines += [f"- **{f.verdict.capitalize()}**: {f.statement} {f.figures}" for f in findings]
    write_csv(folder / f"{prefix}results.csv", [*first.columns, "note"], [[*line, mark] for line in first.lines])
    report = folder / f"{prefix}results.md"
    write_text(report, "\n".join(lines) + "\n")
    for name, figure in figures.items():
        save_figure(figure, folder / f"{prefix}{name}.png")
    return Reproduction(list(tables), report, list(findings), mark, notes)


def write_csv(path: Path, columns: Sequence[str], lines: Sequence[Sequence[object]]):
    """Write lines of words and numbers as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *lines])
    write_text(path, text.getvalue())


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and, for several values, standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def deviation(values: Sequence[float]) -> float:
    """Standard deviation; NaN for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def chosen_rows(only: Sequence[str] | None, rows: Sequence[Row], names: Callable[[Row], Sequence[str]]) -> list[Row]:
    """Rows with one of the given names; all rows by default.

    Raises:
        InputError: If no row has one of the names.
    """
    if only is None:
        return list(rows)
    known = {name.lower(): name for row in rows for name in names(row)}
    unknown = [word for word in only if word.lower() not in known]
    if unknown:
        raise InputError(f"--only {unknown[0]!r} is not in any table; choose from {', '.join(known.values())}")
    words = {word.lower() for word in only}
    return [row for row in rows if words & {name.lower() for name in names(row)}]


def seconds_of_finished(run: Path) -> float:
    """Duration of a training run in s.

    Raises:
        InputError: If it is not finished.
    """
    if not (run / FINISHED).is_file():
        raise InputError(f"{run}: the training is not finished")
    return read_json(run / FINISHED, "train again")["seconds"]


def num_train_clusters(run: Path) -> int:
    """Number of training clusters of a run."""
    return len((run / SPLITS / "train.txt").read_text(encoding="utf-8").split())


def bars_beside_paper(
    labels: Sequence[str], paper: np.ndarray, ours: Sequence[Sequence[float]], xlabel: str, title: str
) -> Figure:
    """Errors of the paper ``[num_rows]`` and ours, one per training run of each row, as a pair of bars per row."""
    figure, axes = figure_with_axes("", "")
    tidy(axes, xlabel, "")
    y, means = np.arange(len(labels))[::-1], np.array([np.mean(values) for values in ours])
    spread = np.nan_to_num([deviation(values) for values in ours])
    bars = [axes.barh(y + 0.2, paper, 0.36, color=GREY, label="paper (its own data)")]
    bars += [axes.barh(y - 0.2, means, 0.36, color=BLUE, xerr=spread, label="this package", capsize=2)]
    for each in bars:
        axes.bar_label(each, fmt="%.2f", padding=4, fontsize=SMALL)
    axes.set_yticks(y, labels)
    axes.set_xlim(0, 1.15 * max(paper.max(), means.max()))
    axes.set_title(title, fontsize=10)
    figure.set_size_inches(SIZE[0], max(2.4, 0.55 * len(labels) + 1.2))
    legend(axes, loc="lower right")
    return figure


def power_law(clusters: np.ndarray, errors: Sequence[Sequence[float]], ylabel: str, title: str) -> Figure:
    """Errors on the test set, one per training run, with a power law in the training clusters ``[num_rows]``."""
    means = np.array([np.mean(values) for values in errors])
    spread = np.nan_to_num([deviation(values) for values in errors])
    figure, axes = figure_with_axes("training clusters", ylabel)
    axes.errorbar(clusters, means, spread, color=BLUE, marker="o", capsize=2, label="test set")
    exponent, factor = np.polyfit(np.log(clusters), np.log(means), 1)
    x = np.geomspace(min(clusters), 4 * max(clusters))
    label = f"MAE ∝ N$^{{{exponent:.2f}}}$"
    axes.plot(x, np.exp(factor) * x**exponent, color=GREY, linestyle="--", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log_ticks(axes)
    axes.set_title(title, fontsize=10)
    legend(axes, loc="upper right")
    return figure
