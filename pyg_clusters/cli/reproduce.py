"""``pyg-clusters reproduce``."""

from typing import Any

from pyg_clusters.cli.commands import Command
from pyg_clusters.options.reproduce import ReproduceDartOptions, ReproduceLayersOptions, ReproduceNmrOptions


def run_dart(options: ReproduceDartOptions):
    """Reproduce Modee et al. 2021."""
    from pyg_clusters.papers import reproduce_dart

    show(reproduce_dart(options))


def run_nmr(options: ReproduceNmrOptions):
    """Reproduce Kaneko et al. 2023."""
    from pyg_clusters.papers import reproduce_nmr

    show(reproduce_nmr(options))


def run_layers(options: ReproduceLayersOptions):
    """Compare layers in the same model."""
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


KIND = "paper"
COMMANDS = {
    "dart": Command(
        ReproduceDartOptions,
        "pyg-clusters reproduce dart --out runs/reproduce_dart",
        run_dart,
        "Modee et al. 2021: energies of gallium clusters",
    ),
    "nmr": Command(
        ReproduceNmrOptions,
        "pyg-clusters reproduce nmr --quick --out runs/reproduce_nmr",
        run_nmr,
        "Kaneko et al. 2023: shieldings of sodium clusters",
    ),
    "layers": Command(
        ReproduceLayersOptions,
        "pyg-clusters reproduce layers --out runs/layers",
        run_layers,
        "no paper: ten layers of PyG in the same model",
    ),
}
