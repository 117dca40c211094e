"""Transforms that turn the positions of a cluster into descriptors and graphs."""

from pyg_clusters.transforms.descriptors import RunningCoordination, TopologicalDescriptor
from pyg_clusters.transforms.graphs import RadiusGraph, ShellGraph
from pyg_clusters.transforms.symmetry_functions import SymmetryFunctions

__all__ = ["RadiusGraph", "RunningCoordination", "ShellGraph", "SymmetryFunctions", "TopologicalDescriptor"]
