"""What a run folder says of its data and its model."""

from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch_geometric.transforms import Compose

from pyg_clusters.cli.parsing import explain
from pyg_clusters.errors import InputError
from pyg_clusters.inference import Predictor
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.models.extra_arguments import extra_arguments
from pyg_clusters.training import ClusterDataModule

CONFIGURATION = "config.yaml"
"""The resolved configuration in the folder of a run."""

FINGERPRINT = "data.sha256"
"""Hash of the data set that a run was split for."""


def data_of_run(folder: Path) -> ClusterDataModule:
    """Data set and split of a run, from its resolved configuration and its saved split.

    Raises:
        InputError: If the folder is not that of a run, or its configuration is damaged.
    """
    configuration = folder / CONFIGURATION
    if not configuration.is_file():
        raise InputError(f"{folder} is not the folder of a run (no config.yaml in it); give frames with --data")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ClusterDataModule, "data")
    try:
        data = yaml.safe_load(configuration.read_text())["data"]
        data["split"] = str(folder / "splits")
        data["max_train_clusters"] = None  # the saved split is the final one
        module = parser.instantiate_classes(parser.parse_object({"data": data})).data
    except ArgumentError as error:
        raise InputError(f"{configuration}: {explain(str(error), parser)}") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{configuration}: damaged ({' '.join(str(error).split())[:200]})") from error
    check_fingerprint(folder, module.dataset)
    return module


def check_fingerprint(folder: Path, dataset: object):
    """Checks that a data set is that which the run was split for.

    Raises:
        InputError: If its files, or how they are read, have changed.
    """
    kept, fingerprint = folder / FINGERPRINT, getattr(dataset, "fingerprint", None)
    if fingerprint is not None and kept.is_file() and kept.read_text().strip() != fingerprint:
        raise InputError(
            f"{folder}: the data set has changed since this run was split (its files, or how they are read); restore "
            "it, train anew, or give labelled frames with evaluate --data"
        )


def predictor_of(path: Path, device: str | None = None) -> Predictor:
    """Predictor of a run or a saved model; a model that needs a graph gets the transform of its run.

    Raises:
        InputError: If there is no model, no such device, or no run to take the transform from.
    """
    model = load_model(path)
    transform = None
    if any(extra_arguments(model).values()) and (path / CONFIGURATION).is_file():
        dataset = data_of_run(path).dataset
        transform = Compose([step for step in (dataset.pre_transform, dataset.transform) if step is not None])
    return Predictor(model, device=device or default_device(), transform=transform)


def default_device() -> str:
    """CUDA where there is a device, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
