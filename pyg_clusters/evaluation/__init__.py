"""Errors and intervals of trained models."""

from pyg_clusters.evaluation.calibrate import calibrate
from pyg_clusters.evaluation.evaluate import evaluate
from pyg_clusters.evaluation.result import Evaluation

__all__ = ["Evaluation", "calibrate", "evaluate"]
