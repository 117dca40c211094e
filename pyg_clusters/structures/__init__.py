"""Cluster structures: random generation, search for local minima, potentials, batched relaxation, duplicates."""

from pyg_clusters.options.structures import QuenchSettings
from pyg_clusters.structures.calculators import named_calculator
from pyg_clusters.structures.potentials import (
    GUPTA_PARAMETERS,
    ClusterEMT,
    EnergyFunction,
    Gupta,
    GuptaCalculator,
    GuptaParameters,
    ModelCalculator,
    energy_and_forces,
)
from pyg_clusters.structures.pyscf_calculator import PySCFCalculator
from pyg_clusters.structures.quench import isolated_energies, quench
from pyg_clusters.structures.relax_frames import local_minimum
from pyg_clusters.structures.relaxation import Minimum, Relaxation, relax
from pyg_clusters.structures.sblda import sblda

__all__ = [
    "GUPTA_PARAMETERS",
    "ClusterEMT",
    "EnergyFunction",
    "Gupta",
    "GuptaCalculator",
    "GuptaParameters",
    "Minimum",
    "ModelCalculator",
    "PySCFCalculator",
    "QuenchSettings",
    "Relaxation",
    "energy_and_forces",
    "isolated_energies",
    "local_minimum",
    "named_calculator",
    "quench",
    "relax",
    "sblda",
]
