"""``pyg-clusters reproduce``."""

from collections.abc import Sequence

from pyg_clusters.cli import reproduce_dart, reproduce_nmr
from pyg_clusters.cli.reproduce_layers import run_layers
from pyg_clusters.errors import InputError

PAPERS = {
    "dart": (reproduce_dart.run, "Modee et al. 2021: energies of gallium clusters"),
    "nmr": (reproduce_nmr.run, "Kaneko et al. 2023: shieldings of sodium clusters"),
    "layers": (run_layers, "no paper: ten layers of PyG in the same model"),
}

HELP = f"""usage: pyg-clusters reproduce PAPER [ARGUMENTS]    (PAPER --help tells the arguments)

{chr(10).join(f"  {name:<8} {purpose}" for name, (_, purpose) in PAPERS.items())}

example: pyg-clusters reproduce dart --out runs/reproduce_dart
example: pyg-clusters reproduce nmr --quick --out runs/reproduce_nmr
"""


def run(argv: Sequence[str]):
    """Trains what is missing and sets the figures of a paper beside ours."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        raise SystemExit(0)
    paper, *rest = argv
    if paper not in PAPERS:
        raise InputError(f"reproduce: there is no paper {paper!r}; give one of {', '.join(PAPERS)} first")
    PAPERS[paper][0](rest)
