"""Selection of candidates for DFT calculations among the frames of trajectories."""

from pyg_clusters.options.screening import BenchmarkScreeningOptions, CompareDFTOptions, ScreenOptions
from pyg_clusters.screening.benchmark import benchmark_screening
from pyg_clusters.screening.dft import compare_dft
from pyg_clusters.screening.screen import screen

__all__ = [
    "BenchmarkScreeningOptions",
    "CompareDFTOptions",
    "ScreenOptions",
    "benchmark_screening",
    "compare_dft",
    "screen",
]
