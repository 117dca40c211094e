"""``pyg-clusters ensemble``."""

from pyg_clusters.options.ensemble import EnsembleOptions

OPTIONS = EnsembleOptions
EXAMPLE = "pyg-clusters ensemble runs/dart_a runs/dart_b runs/dart_c --out runs/dart"


def run(options: EnsembleOptions):
    """Join runs into an ensemble."""
    from pyg_clusters.inference.run import ensemble

    print(f"{ensemble(options)} in {options.out}")
