"""Training with PyTorch Lightning; the models themselves are plain modules and need none of this."""

from pyg_clusters.training.adamw_sgd import AdamWWithSGD
from pyg_clusters.training.data import ClusterDataModule
from pyg_clusters.training.energy import EnergyTraining
from pyg_clusters.training.forces import ForceTraining
from pyg_clusters.training.run_folder import RunFolder
from pyg_clusters.training.shieldings import ShieldingTraining

__all__ = [
    "AdamWWithSGD",
    "ClusterDataModule",
    "EnergyTraining",
    "ForceTraining",
    "RunFolder",
    "ShieldingTraining",
]
