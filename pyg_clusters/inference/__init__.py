"""Batched inference over large sets of frames."""

from pyg_clusters.inference.predictor import Prediction, Predictor
from pyg_clusters.inference.shielding_predictor import ShieldingPrediction, ShieldingPredictor

__all__ = ["Prediction", "Predictor", "ShieldingPrediction", "ShieldingPredictor"]
