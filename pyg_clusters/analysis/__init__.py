"""Distributions, figures and reports of clusters and of what a model makes of them."""

from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution
from pyg_clusters.analysis.report import Report

__all__ = ["PairDistribution", "Report", "pair_distribution"]
