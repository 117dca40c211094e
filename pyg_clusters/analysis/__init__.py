"""Distributions, descriptions, spectra, figures and reports of clusters and of trained models."""

from pyg_clusters.analysis.core_surface_report import analyse_core_surface
from pyg_clusters.analysis.description import describe
from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution
from pyg_clusters.analysis.report import Report

__all__ = ["PairDistribution", "Report", "analyse_core_surface", "describe", "pair_distribution"]
