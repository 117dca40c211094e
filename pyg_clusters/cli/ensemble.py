"""``pyg-clusters ensemble``."""

from collections.abc import Sequence

from pyg_clusters.options.ensemble import EnsembleOptions
from pyg_clusters.options.parsing import parse_options

EXAMPLE = "pyg-clusters ensemble runs/dart_a runs/dart_b runs/dart_c --out runs/dart"


def run(argv: Sequence[str]):
    """Join runs into an ensemble."""
    options = parse_options("ensemble", EnsembleOptions, EXAMPLE, argv)
    from pyg_clusters.inference.run import ensemble

    print(f"{ensemble(options)} in {options.out}")
