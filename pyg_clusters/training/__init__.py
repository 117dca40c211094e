"""Training with PyTorch Lightning; the models themselves are plain modules and need none of this."""

from pyg_clusters.training.data import ClusterDataModule
from pyg_clusters.training.force_module import ForceTraining
from pyg_clusters.training.module import EnergyTraining
from pyg_clusters.training.run_folder import RunFolder
from pyg_clusters.training.shielding_module import ShieldingTraining
from pyg_clusters.training.weights_and_biases import AdamWWithSGD

__all__ = [
    "AdamWWithSGD",
    "ClusterDataModule",
    "EnergyTraining",
    "ForceTraining",
    "RunFolder",
    "ShieldingTraining",
]
