"""Layers: convolutions over shells, and the scaling of outputs to energies."""

from pyg_clusters.nn.energy_scale import EnergyScale
from pyg_clusters.nn.shell_conv import ShellConv

__all__ = ["EnergyScale", "ShellConv"]
