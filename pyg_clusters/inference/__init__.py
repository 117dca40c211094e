"""Batched inference over large sets of frames."""

from pyg_clusters.inference.calibration import Calibration
from pyg_clusters.inference.prediction import Prediction
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.inference.trained_range import TrainedRange

__all__ = ["Calibration", "Prediction", "Predictor", "TrainedRange"]
