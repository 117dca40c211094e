"""Models of cluster energies and atomic shieldings."""

from pyg_clusters.models.alloy_dart import AlloyDART
from pyg_clusters.models.checkpoint import available_models, load_model, save_ensemble, save_model
from pyg_clusters.models.contract import ClusterModel, HasAtomicEnergies, HasFastPath, HasFeatures, HasSpread
from pyg_clusters.models.dart import DART, AtomicEnergies
from pyg_clusters.models.ensemble import Ensemble, LastLayerPosterior
from pyg_clusters.models.hdnn import HDNN
from pyg_clusters.models.layered import LayeredModel
from pyg_clusters.models.node_schnet import NodeSchNet
from pyg_clusters.models.shielding_lasso import ShieldingLasso
from pyg_clusters.models.smooth_dart import ShieldingDART, SmoothDART
from pyg_clusters.models.training_domain import TrainingDomain

__all__ = [
    "DART",
    "HDNN",
    "AlloyDART",
    "AtomicEnergies",
    "ClusterModel",
    "Ensemble",
    "HasAtomicEnergies",
    "HasFastPath",
    "HasFeatures",
    "HasSpread",
    "LastLayerPosterior",
    "LayeredModel",
    "NodeSchNet",
    "ShieldingDART",
    "ShieldingLasso",
    "SmoothDART",
    "TrainingDomain",
    "available_models",
    "load_model",
    "save_ensemble",
    "save_model",
]
