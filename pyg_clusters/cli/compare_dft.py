"""``pyg-clusters compare-dft``."""

from pathlib import Path

from rich.console import Console

from pyg_clusters.options.compare_dft import CompareDFTOptions

OPTIONS = CompareDFTOptions
EXAMPLE = "pyg-clusters compare-dft screening screening/vasp/*/OUTCAR"


def run(options: CompareDFTOptions):
    """Compare DFT results with predictions, and print a table."""
    from pyg_clusters.screening.dft import RESULTS, compare_dft

    comparison = compare_dft(options)
    Console(width=120).print(comparison.table())
    paths = ", ".join(str(Path(options.screening) / name) for name in RESULTS)
    print(f"{comparison.num_results} of {comparison.num_candidates} candidates: {paths}")
