"""Training with PyTorch Lightning; the models are plain modules and do not need it."""

from pyg_clusters.training.callbacks import RunFolder
from pyg_clusters.training.data_module import ClusterDataModule
from pyg_clusters.training.energy import AdamWWithSGD, EnergyTraining
from pyg_clusters.training.forces import ForceTraining
from pyg_clusters.training.shieldings import ShieldingTraining
from pyg_clusters.training.train import train

__all__ = [
    "AdamWWithSGD",
    "ClusterDataModule",
    "EnergyTraining",
    "ForceTraining",
    "RunFolder",
    "ShieldingTraining",
    "train",
]
