"""Errors and intervals of trained models."""

from pyg_clusters.evaluation.evaluate import calibrate, evaluate
from pyg_clusters.evaluation.report import Evaluation

__all__ = ["Evaluation", "calibrate", "evaluate"]
