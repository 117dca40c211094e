"""Batched inference over large sets of frames."""

from pyg_clusters.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
