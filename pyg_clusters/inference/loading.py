"""Predictors and calibrations of trained models, by folder or name."""

from pathlib import Path

from torch_geometric.transforms import Compose

from pyg_clusters.errors import InputError
from pyg_clusters.inference.calibration import CALIBRATION, Calibration
from pyg_clusters.inference.predictor import Predictor, usable_device
from pyg_clusters.models import LastLayerPosterior
from pyg_clusters.models.checkpoint import is_ensemble, load_model, model_folder, weights_hash
from pyg_clusters.models.forward_arguments import extra_arguments
from pyg_clusters.training.run import CONFIGURATION, data_of_run


def load_predictor(model: str | Path, device: str | None = None, calibration: Calibration | None = None) -> Predictor:
    """Predictor of a trained model; one that needs graphs gets the transform of its run.

    Args:
        model: Folder of a run, an ensemble or a saved model, or the name of a pretrained model.
        device: Device; CUDA by default where it is available.
        calibration: Calibration of the model, if the spread is to come from it.

    Raises:
        InputError: If there is no such model or device, or no run to take the transform from.
    """
    path = Path(model)
    network = load_model(path)
    if calibration is not None and calibration.covariance is not None:
        network = LastLayerPosterior(network, calibration.covariance)
    transform = None
    if any(extra_arguments(network).values()) and (is_ensemble(path) or (path / CONFIGURATION).is_file()):
        dataset = data_of_run(path).dataset
        transform = Compose([step for step in (dataset.pre_transform, dataset.transform) if step is not None])
    return Predictor(network, device=usable_device(device), transform=transform)


def load_calibration(model: str | Path, coverage: float | None = None) -> Calibration | None:
    """Calibration of a trained model, if there is one for its present weights.

    Args:
        model: As for :func:`load_predictor`.
        coverage: Coverage of the intervals that the calibration is needed for; without it, it may be missing.

    Raises:
        InputError: If there is a coverage but no calibration that allows it, or the file is corrupted.
    """
    path = Path(model)
    file = path / CALIBRATION
    if not file.is_file() and not is_ensemble(path):
        file = model_folder(path) / CALIBRATION
    if not file.is_file():
        if coverage is not None:
            raise InputError(f"{path} is not calibrated: run pyg-clusters calibrate {path} first")
        return None
    calibration = Calibration.load(file)
    if calibration.weights != weights_hash(path):
        if coverage is not None:
            raise InputError(f"{file} belongs to other weights: run pyg-clusters calibrate {path} again")
        return None
    if coverage is not None:
        calibration.quantile(coverage)
    return calibration
