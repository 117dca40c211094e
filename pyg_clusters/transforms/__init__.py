"""Transforms that compute descriptors and graphs from the positions of clusters."""

from pyg_clusters.transforms.neighbors import RadiusGraph, RunningCoordination, ShellGraph, TopologicalDescriptor
from pyg_clusters.transforms.symmetry_functions import SymmetryFunctions

__all__ = ["RadiusGraph", "RunningCoordination", "ShellGraph", "SymmetryFunctions", "TopologicalDescriptor"]
