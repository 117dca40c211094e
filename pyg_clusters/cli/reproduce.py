"""``pyg-clusters reproduce``."""

from collections.abc import Sequence
from typing import Any

from pyg_clusters.cli.subcommands import Part, run_part
from pyg_clusters.options.parsing import parse_options
from pyg_clusters.options.reproduce import ReproduceDartOptions, ReproduceLayersOptions, ReproduceNmrOptions

EXAMPLES = (
    "pyg-clusters reproduce dart --out runs/reproduce_dart",
    "pyg-clusters reproduce nmr --quick --out runs/reproduce_nmr",
)


def run(argv: Sequence[str]):
    """Reproduce the tables of a paper."""
    papers = {
        "dart": Part(run_dart, "Modee et al. 2021: energies of gallium clusters"),
        "nmr": Part(run_nmr, "Kaneko et al. 2023: shieldings of sodium clusters"),
        "layers": Part(run_layers, "no paper: ten layers of PyG in the same model"),
    }
    run_part("reproduce", "paper", papers, EXAMPLES, argv)


def run_dart(argv: Sequence[str]):
    """Reproduce Modee et al. 2021."""
    options = parse_options("reproduce dart", ReproduceDartOptions, EXAMPLES[0], argv)
    from pyg_clusters.papers import reproduce_dart

    show(reproduce_dart(options))


def run_nmr(argv: Sequence[str]):
    """Reproduce Kaneko et al. 2023."""
    options = parse_options("reproduce nmr", ReproduceNmrOptions, EXAMPLES[1], argv)
    from pyg_clusters.papers import reproduce_nmr

    show(reproduce_nmr(options))


def run_layers(argv: Sequence[str]):
    """Compare layers in the same model."""
    example = "pyg-clusters reproduce layers --out runs/layers"
    options = parse_options("reproduce layers", ReproduceLayersOptions, example, argv)
    from pyg_clusters.papers import reproduce_layers

    show(reproduce_layers(options))


def show(reproduction: Any):
    """Print tables and findings."""
    from rich.console import Console
    from rich.table import Table

    for table in reproduction.tables:
        shown = Table(title=table.title, title_justify="left", caption=reproduction.mark)
        for index, name in enumerate(table.columns):
            shown.add_column(name, justify="left" if index < table.words else "right")
        for line in table.lines:
            shown.add_row(*line)
        Console(width=150).print(shown)
    for finding in reproduction.findings:
        print(f"{finding.verdict}: {finding.statement} {finding.figures}")
    if reproduction.notes:
        print(reproduction.notes)
    print(f"results in {reproduction.report}, .csv, and figures beside them")
