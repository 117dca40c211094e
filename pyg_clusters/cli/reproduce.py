"""``pyg-clusters reproduce``."""

from collections.abc import Sequence

from pyg_clusters.cli import reproduce_dart, reproduce_layers, reproduce_nmr
from pyg_clusters.cli.subcommands import Part, run_part

PAPERS = {
    "dart": Part(reproduce_dart.run, "Modee et al. 2021: energies of gallium clusters"),
    "nmr": Part(reproduce_nmr.run, "Kaneko et al. 2023: shieldings of sodium clusters"),
    "layers": Part(reproduce_layers.run, "no paper: ten layers of PyG in the same model"),
}

EXAMPLES = (
    "pyg-clusters reproduce dart --out runs/reproduce_dart",
    "pyg-clusters reproduce nmr --quick --out runs/reproduce_nmr",
)


def run(argv: Sequence[str]):
    """Trains what is missing and sets the figures of a paper beside ours."""
    run_part("reproduce", "paper", PAPERS, EXAMPLES, argv)
