"""Transforms that turn the positions of a cluster into descriptors and graphs."""

from pyg_clusters.transforms.graphs import RadiusGraph, ShellGraph
from pyg_clusters.transforms.running_coordination import RunningCoordination
from pyg_clusters.transforms.symmetry_functions import SymmetryFunctions
from pyg_clusters.transforms.topological_descriptor import TopologicalDescriptor

__all__ = ["RadiusGraph", "RunningCoordination", "ShellGraph", "SymmetryFunctions", "TopologicalDescriptor"]
