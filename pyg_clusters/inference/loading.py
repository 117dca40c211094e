"""Predictors and calibrations of trained models, by folder or name."""

from pathlib import Path

from pyg_clusters.inference.calibration import Calibration
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.inference.run import Run


def load_predictor(model: str | Path, device: str | None = None, calibration: Calibration | None = None) -> Predictor:
    """Predictor of a trained model, see :meth:`Run.predictor`."""
    return Run(model).predictor(device, calibration)


def load_calibration(model: str | Path, coverage: float | None = None) -> Calibration | None:
    """Calibration of a trained model, see :meth:`Run.calibration`."""
    return Run(model).calibration(coverage)
