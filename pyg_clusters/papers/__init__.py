"""Tables, figures and findings of papers, reproduced on the shipped data."""

from pyg_clusters.options.training import ReproduceDartOptions, ReproduceLayersOptions, ReproduceNmrOptions
from pyg_clusters.papers.dart import reproduce_dart
from pyg_clusters.papers.layers import reproduce_layers
from pyg_clusters.papers.nmr_report import reproduce_nmr

__all__ = [
    "ReproduceDartOptions",
    "ReproduceLayersOptions",
    "ReproduceNmrOptions",
    "reproduce_dart",
    "reproduce_layers",
    "reproduce_nmr",
]
