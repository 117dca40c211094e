"""Distributions, descriptions, spectra, figures and reports of clusters and of trained models."""

from pyg_clusters.analysis.core_surface_report import analyse_core_surface
from pyg_clusters.analysis.description import describe
from pyg_clusters.analysis.info import info
from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution
from pyg_clusters.analysis.report import Report
from pyg_clusters.analysis.spectra import spectrum
from pyg_clusters.options.frames import CoreSurfaceOptions, DescribeOptions, InfoOptions, SpectrumOptions

__all__ = [
    "CoreSurfaceOptions",
    "DescribeOptions",
    "InfoOptions",
    "PairDistribution",
    "Report",
    "SpectrumOptions",
    "analyse_core_surface",
    "describe",
    "info",
    "pair_distribution",
    "spectrum",
]
