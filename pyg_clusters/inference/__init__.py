"""Batched inference over large sets of frames."""

from pyg_clusters.inference.calibration import Calibration
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.predictor import Prediction, Predictor

__all__ = ["Calibration", "OutOfRangeFlagger", "Prediction", "Predictor"]
