"""Layers: shell convolution, adapters for PyG layers, electronic features, and scaling of outputs to energies and
shieldings.
"""

from pyg_clusters.nn.extended_huckel import ExtendedHuckel
from pyg_clusters.nn.inputs import ElementChannels, ElementIndex, InputScale
from pyg_clusters.nn.layer_adapter import GraphKind, LayerAdapter
from pyg_clusters.nn.neighbor_sums import Interpolation, filtered_sum, spherical_harmonics
from pyg_clusters.nn.output_scale import EnergyScale, OutputScale
from pyg_clusters.nn.pyg_model_adapter import WholeModel
from pyg_clusters.nn.shell_conv import ShellConv
from pyg_clusters.nn.shielding_scale import GeneralizedLogistic, ShieldingScale

__all__ = [
    "ElementChannels",
    "ElementIndex",
    "EnergyScale",
    "ExtendedHuckel",
    "GeneralizedLogistic",
    "GraphKind",
    "InputScale",
    "Interpolation",
    "LayerAdapter",
    "OutputScale",
    "ShellConv",
    "ShieldingScale",
    "WholeModel",
    "filtered_sum",
    "spherical_harmonics",
]
