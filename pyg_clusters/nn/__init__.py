"""Layers: convolutions over shells, and the scaling of outputs to energies and shieldings."""

from pyg_clusters.nn.elements import ElementChannels, ElementIndex
from pyg_clusters.nn.filtered_sum import Interpolation, filtered_sum
from pyg_clusters.nn.input_scale import InputScale
from pyg_clusters.nn.layer_adapter import GraphKind, LayerAdapter
from pyg_clusters.nn.output_scale import EnergyScale, ShieldingScale
from pyg_clusters.nn.pyg_model_adapter import WholeModel
from pyg_clusters.nn.shell_conv import ShellConv
from pyg_clusters.nn.spherical_harmonics import spherical_harmonics

__all__ = [
    "ElementChannels",
    "ElementIndex",
    "EnergyScale",
    "GraphKind",
    "InputScale",
    "Interpolation",
    "LayerAdapter",
    "ShellConv",
    "ShieldingScale",
    "WholeModel",
    "filtered_sum",
    "spherical_harmonics",
]
