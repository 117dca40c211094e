"""``pyg-clusters reproduce``."""

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from pyg_clusters.analysis import plots
from pyg_clusters.cli.parsing import parse, verb_parser
from pyg_clusters.cli.recipes import shipped_recipe
from pyg_clusters.cli.reproduce_layers import run_layers
from pyg_clusters.errors import InputError
from pyg_clusters.files import replacing
from pyg_clusters.reproduction import dart
from pyg_clusters.reproduction.trainings import run_trainings

COLUMNS = (
    "table",
    "row",
    "paper MAE",
    "paper RMSE",
    "paper clusters",
    "MAE",
    "RMSE",
    "clusters",
    "training clusters",
    "seeds",
    "minutes",
)


SHIPPED_DATA = "of GAP energies of the shipped gallium minima, of which there are fewer to train on"


def run(argv: Sequence[str]):
    """Trains what is missing and sets the figures of a paper beside ours."""
    if argv and argv[0] == "layers":
        run_layers(argv[1:])
        return
    parser = verb_parser(
        "reproduce",
        "The tables of a paper, beside ours: trains what is missing (a run that is stopped goes on when it is called "
        "again), and writes a table (Markdown, CSV), figures, and which of the paper's findings hold. "
        "`reproduce layers` compares layers instead: see its --help.",
        "pyg-clusters reproduce dart --out runs/reproduce_dart",
    )
    parser.add_argument("paper", type=Literal["dart"], help="dart: Modee et al. 2021")
    parser.add_argument("--quick", action="store_true", help="a few epochs: shows that all works, in ten minutes")
    parser.add_argument(
        "--only", type=str, nargs="+", help="tables or trainings by their names: 'Table 2', dart_without_k"
    )
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind; the splits stay the same")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--recipe", type=Path, help="recipe of DART instead of dart_gallium.yaml")
    parser.add_argument("--gnc", type=Path, help="folder of the paper's own data (GNC_31-70), instead of the shipped")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the results")
    options = parse(parser, argv)
    if options.seeds < 1 or options.workers < 1:
        raise InputError("--seeds and --workers must be at least 1")

    rows = _chosen(options.only, options.gnc is not None)
    quick: tuple[str, ...] = ()
    if options.quick:
        epochs = str(dart.QUICK_EPOCHS)
        cosine = "torch.optim.lr_scheduler.CosineAnnealingLR"
        quick = ("--trainer.max_epochs", epochs, "--model.scheduler", cosine)
        quick += ("--model.scheduler.init_args.T_max", epochs, "--model.average_decay", "null")
    trainings = dart.trainings(
        [row.training for row in rows],
        options.recipe or shipped_recipe("dart_gallium.yaml"),
        shipped_recipe("hdnn_gallium.yaml"),
        options.seeds,
        quick,
        options.gnc,
    )
    runs = options.out / ("quick" if options.quick else "full")
    run_trainings(trainings, runs, options.workers)
    results = dart.results(rows, runs, options.seeds, options.gnc)
    data = SHIPPED_DATA if options.gnc is None else f"those of the paper's own data in {options.gnc}"
    _write(results, options.out, options.quick, data)


def _chosen(only: Sequence[str] | None, gnc: bool) -> list[dart.Row]:
    hdnn = find_spec("torchani") is not None
    rows = dart.rows(hdnn, gnc)
    if not hdnn:
        print("BPSF-HDNN is left out: it needs torchani (pip install 'pyg-clusters[hdnn]')")
    if only is None:
        return rows
    unknown = [word for word in only if not any(_matches(word, row) for row in rows)]
    if unknown:
        names = ", ".join(dict.fromkeys([*(row.table for row in rows), *(row.training for row in rows)]))
        raise InputError(f"--only {unknown[0]!r} is in no table; there are {names}")
    return [row for row in rows if any(_matches(word, row) for word in only)]


def _matches(word: str, row: dart.Row) -> bool:
    everything = row.training == "dart_by_group" and word.lower() == "learning curve"  # its last point
    return word == row.training or word.lower() == row.table.lower() or everything


def _write(results: Sequence[dart.Result], folder: Path, quick: bool, data: str):
    lines = [_line(result) for result in results]
    mark = "QUICK RUN, a few epochs only: these are not the figures that the recipes reach" if quick else ""
    console = Console(width=150)
    table = Table(title="Modee et al. 2021: errors in kcal/mol per cluster", title_justify="left", caption=mark)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("table", "row") else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    findings = dart.findings(results)
    for finding in findings:
        print(f"{'holds' if finding.holds else 'DOES NOT HOLD'}: {finding.statement} {finding.figures}")

    name = "quick_" if quick else ""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[*COLUMNS, "note"], *([*line, mark] for line in lines)])
    with replacing(folder / f"{name}results.csv") as path:
        path.write_text(text.getvalue())
    with replacing(folder / f"{name}results.md") as path:
        path.write_text(_markdown(lines, findings, mark, data))
    for title, figure in _figures(results, mark).items():
        plots.save_figure(figure, folder / f"{name}{title}.png")
    print(f"results in {folder / name}results.md, .csv, and figures beside them")


def _line(result: dart.Result) -> list[str]:
    row = result.row
    paper = [f"{value:.2f}" for value in row.paper] if row.paper else ["", ""]
    return [
        row.table,
        row.label,
        *paper,
        str(row.paper_clusters or ""),
        _mean_and_spread(result.mae),
        _mean_and_spread(result.rmse),
        str(result.clusters),
        str(result.train_clusters),
        str(len(result.mae)),
        f"{result.minutes:.0f}",
    ]


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def _markdown(lines: Sequence[Sequence[str]], findings: Sequence[dart.Finding], mark: str, data: str) -> str:
    text = ["# Modee et al. 2021, beside the paper", ""]
    text += [f"**{mark}.**", ""] if mark else []
    text += [
        f"Errors in kcal/mol per cluster: the paper's of DFT energies of GNC_31-70, ours {data}.",
        "Minutes are those of one training on one thread.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "--:|" * (len(COLUMNS) - 2),
    ]
    text += ["| " + " | ".join(line) + " |" for line in lines]
    text += ["", "## Findings of the paper", ""]
    text += [f"- **{'Holds' if f.holds else 'Does not hold'}**: {f.statement} {f.figures}" for f in findings]
    return "\n".join(text) + "\n"


def _figures(results: Sequence[dart.Result], mark: str) -> dict:
    figures = {}
    title = "QUICK RUN: not the figures that the recipes reach" if mark else ""
    beside = [result for result in results if result.row.paper]
    if beside:
        figures["beside_the_paper"] = plots.errors_beside(
            [result.row.label for result in beside],
            np.array([result.row.paper[0] for result in beside if result.row.paper]),
            np.array([np.mean(result.mae) for result in beside]),
            np.array([_deviation(result.mae) for result in beside]),
            title,
        )
    curve = [
        r for r in results if r.row.table == "Learning curve" or (r.row.table, r.row.label) == ("By group", "DART")
    ]
    if len(curve) > 1:
        curve = sorted(curve, key=lambda result: result.train_clusters)
        figures["learning_curve"] = plots.error_by_training_clusters(
            np.array([result.train_clusters for result in curve]),
            np.array([np.mean(result.mae) for result in curve]),
            np.array([_deviation(result.mae) for result in curve]),
            title,
        )
    return figures


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
