"""Training with PyTorch Lightning; the models themselves are plain modules and need none of this."""

from pyg_clusters.training.checkpoint import load_model, save_model
from pyg_clusters.training.data import ClusterDataModule
from pyg_clusters.training.module import EnergyTraining
from pyg_clusters.training.run_folder import RunFolder

__all__ = ["ClusterDataModule", "EnergyTraining", "RunFolder", "load_model", "save_model"]
