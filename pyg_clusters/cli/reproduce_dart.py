"""``pyg-clusters reproduce dart``."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pyg_clusters.analysis import plots
from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.errors import InputError
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.papers import dart
from pyg_clusters.papers.findings import Finding
from pyg_clusters.papers.tables import (
    QUICK_MARK,
    QUICK_TITLE,
    chosen_rows,
    deviation,
    markdown_findings,
    markdown_table,
    mean_and_spread,
    print_findings,
    print_table,
    write_csv,
    write_text,
)
from pyg_clusters.training.launcher import run_trainings
from pyg_clusters.training.recipes import shipped_recipe

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
    parser = verb_parser(
        "reproduce dart",
        "The tables of a paper, beside ours: trains what is missing (a run that is stopped goes on when it is called "
        "again), and writes a table (Markdown, CSV), figures, and which of the paper's findings hold.",
        "pyg-clusters reproduce dart --out runs/reproduce_dart",
    )
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
    with open_output(options.out, ("reproduce", "dart", *argv), results=()):
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
    return chosen_rows(only, rows, _names)


def _names(row: dart.Row) -> tuple[str, ...]:
    curve = ("Learning curve",) if row.training == "dart_by_group" else ()  # its last point
    return (row.table, row.training, *curve)


def _write(results: Sequence[dart.Result], folder: Path, quick: bool, data: str):
    lines = [_line(result) for result in results]
    mark = QUICK_MARK if quick else ""
    print_table("Modee et al. 2021: errors in kcal/mol per cluster", COLUMNS, lines, mark)
    findings = dart.findings(results)
    print_findings(findings)

    name = "quick_" if quick else ""
    write_csv(folder / f"{name}results.csv", [*COLUMNS, "note"], [[*line, mark] for line in lines])
    write_text(folder / f"{name}results.md", _markdown(lines, findings, mark, data))
    for title, figure in _figures(results, mark).items():
        save_figure(figure, folder / f"{name}{title}.png")
    print(f"results in {folder / f'{name}results.md'}, .csv, and figures beside them")


def _line(result: dart.Result) -> list[str]:
    row = result.row
    paper = [f"{value:.2f}" for value in row.paper] if row.paper else ["", ""]
    return [
        row.table,
        row.label,
        *paper,
        str(row.paper_clusters or ""),
        mean_and_spread(result.mae),
        mean_and_spread(result.rmse),
        str(result.clusters),
        str(result.train_clusters),
        str(len(result.mae)),
        f"{result.minutes:.0f}",
    ]


def _markdown(lines: Sequence[Sequence[str]], findings: Sequence[Finding], mark: str, data: str) -> list[str]:
    text = ["# Modee et al. 2021, beside the paper", ""]
    text += [f"**{mark}.**", ""] if mark else []
    text += [
        f"Errors in kcal/mol per cluster: the paper's of DFT energies of GNC_31-70, ours {data}.",
        "Minutes are those of one training on one thread.",
        "",
        *markdown_table(COLUMNS, lines),
        "",
        "## Findings of the paper",
        "",
        *markdown_findings(findings),
    ]
    return text


def _figures(results: Sequence[dart.Result], mark: str) -> dict:
    figures = {}
    title = QUICK_TITLE if mark else ""
    beside = [result for result in results if result.row.paper]
    if beside:
        figures["beside_the_paper"] = plots.errors_beside(
            [result.row.label for result in beside],
            np.array([result.row.paper[0] for result in beside if result.row.paper]),
            np.array([np.mean(result.mae) for result in beside]),
            np.array([deviation(result.mae) for result in beside]),
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
            np.array([deviation(result.mae) for result in curve]),
            title,
        )
    return figures
