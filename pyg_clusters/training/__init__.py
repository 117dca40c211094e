"""Training with PyTorch Lightning; the models are plain modules and do not need it."""

from pyg_clusters.training.energy import EnergyTraining
from pyg_clusters.training.forces import ForceTraining
from pyg_clusters.training.shieldings import ShieldingTraining
from pyg_clusters.training.train import train
from pyg_clusters.training.trainer_parts import AdamWWithSGD, ClusterDataModule, RunFolder

__all__ = [
    "AdamWWithSGD",
    "ClusterDataModule",
    "EnergyTraining",
    "ForceTraining",
    "RunFolder",
    "ShieldingTraining",
    "train",
]
