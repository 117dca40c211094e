"""Predictors and calibrations of trained runs."""

from pathlib import Path

import torch
from torch_geometric.transforms import Compose

from pyg_clusters.errors import InputError
from pyg_clusters.inference import Calibration, Predictor
from pyg_clusters.inference.calibration import CALIBRATION
from pyg_clusters.models import LastLayerPosterior
from pyg_clusters.models.checkpoint import (
    is_ensemble,
    load_model,
    model_folder,
    weights_hash,
)
from pyg_clusters.models.forward_arguments import extra_arguments
from pyg_clusters.training.run import CONFIGURATION, data_of_run


def calibration_of(path: Path, required: bool = False) -> Calibration | None:
    """The calibration of a run, an ensemble or a saved model, if it was made and the weights are still the same.

    Args:
        path: The folder, or the name of a model that ships.
        required: Whether to insist on one.

    Raises:
        InputError: If there is none where one is required, it is damaged, or it belongs to other weights.
    """
    file = path / CALIBRATION
    if not file.is_file() and not is_ensemble(path):
        file = model_folder(path) / CALIBRATION
    if not file.is_file():
        if required:
            raise InputError(f"{path} is not calibrated: run pyg-clusters calibrate {path} first")
        return None
    calibration = Calibration.load(file)
    if calibration.weights != weights_hash(path):
        if required:
            raise InputError(f"{file} belongs to other weights: run pyg-clusters calibrate {path} again")
        return None
    return calibration


def predictor_of(path: Path, device: str | None = None, calibration: Calibration | None = None) -> Predictor:
    """Predictor of a run or a saved model; a model that needs a graph gets the transform of its run.

    Args:
        path: Its folder.
        device: Where to compute.
        calibration: Its calibration, where the spread is to come from what that says.

    Raises:
        InputError: If there is no model, no such device, or no run to take the transform from.
    """
    model = load_model(path)
    if calibration is not None and calibration.covariance is not None:
        model = LastLayerPosterior(model, calibration.covariance)
    transform = None
    if any(extra_arguments(model).values()) and (is_ensemble(path) or (path / CONFIGURATION).is_file()):
        dataset = data_of_run(path).dataset
        transform = Compose([step for step in (dataset.pre_transform, dataset.transform) if step is not None])
    return Predictor(model, device=device or default_device(), transform=transform)


def default_device() -> str:
    """CUDA where there is a device, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
