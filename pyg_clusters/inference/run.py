"""Folder of a training run: model, data, split and errors."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn
from torch_geometric.data import Data
from torch_geometric.data import Dataset as GraphDataset
from torch_geometric.transforms import Compose

from pyg_clusters.datasets.splits import PARTS, Split
from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.errors import InputError, one_line
from pyg_clusters.files import read_json
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference.calibration import CALIBRATION, Calibration
from pyg_clusters.inference.predictor import Prediction, Predictor
from pyg_clusters.models import Ensemble, LastLayerPosterior
from pyg_clusters.models.checkpoint import (
    ENSEMBLE,
    ensemble_notes,
    is_ensemble,
    load_model,
    located,
    member_folders,
    model_folder,
    read_configuration,
    runs_within,
    save_ensemble,
    usable_device,
    weights_hash,
)
from pyg_clusters.models.contract import extra_arguments
from pyg_clusters.options.parsing import explain
from pyg_clusters.options.training import EnsembleOptions
from pyg_clusters.trusted import check_extent, check_trusted, current_folder, trusts_files

CONFIGURATION = "config.yaml"  # resolved configuration: the recipe with all defaults
SPLITS = "splits"  # folder of the indices of the training, validation and test clusters
FINGERPRINT = "data.sha256"  # hash of the data set that the split was made for
HISTORY = "metrics.csv"  # errors and learning rate, a row per epoch
CHECKPOINT = "checkpoints/last.ckpt"  # state from which a training resumes
FINISHED = "finished.json"  # summary of a finished training
METRICS = "test_metrics.json"  # errors on the test set
PREDICTIONS = "test_predictions.csv"  # predictions for the test set
FIGURES = "figures"  # folder of figures


class Run:
    """Trained model with the data, split and errors of its training run.

    Args:
        path: Folder of a run, of an ensemble or of a saved model, or the name of a pretrained model. Saved and
            pretrained models have no configuration, data and errors; data and split of an ensemble are those that its
            members share.

    Example:
        >>> run = Run("gallium")
        >>> type(run.model).__name__, run.is_ensemble, run.has_data
        ('DART', False, False)
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def is_ensemble(self) -> bool:
        """Whether it is an ensemble of runs or models."""
        return is_ensemble(self.path)

    @cached_property
    def members(self) -> "list[Run]":
        """Members of an ensemble, empty for a single model."""
        return [Run(folder) for folder in member_folders(self.path)] if self.is_ensemble else []

    @property
    def has_data(self) -> bool:
        """Whether the data set is known; it is not for a saved model without its run."""
        if self.members:
            return all(member.has_data for member in self.members)
        return (self.path / CONFIGURATION).is_file()

    @property
    def configuration(self) -> dict[str, Any]:
        """Resolved configuration of the training run.

        Raises:
            InputError: If there is none, or it is corrupted.
        """
        if not (self.path / CONFIGURATION).is_file():
            if within := runs_within(self.path):
                raise InputError(f"{self.path} is not the folder of a run; did you mean {within[0]}?")
            raise InputError(
                f"{self.path} is not the folder of a run (no {CONFIGURATION} in it); a model without its run can be "
                f"evaluated on labelled frames: pyg-clusters evaluate {self.path} FRAMES"
            )
        return read_yaml(self.path / CONFIGURATION)

    @property
    def folder(self) -> Path:
        """Folder of the model files; for an ensemble, that of its first member."""
        return self.members[0].folder if self.members else model_folder(self.path)

    @property
    def card(self) -> Path:
        """Card of a pretrained model; other models have none."""
        return located(self.path) / "README.md"

    @property
    def notes(self) -> dict[str, Any]:
        """Data, target and errors stored with the model; those of an ensemble override those of its first member."""
        notes = read_configuration(self.folder)["notes"]
        return {**notes, **ensemble_notes(self.path)} if self.is_ensemble else notes

    @property
    def target(self) -> str | None:
        """Name of the label that the model was trained on, if known."""
        target = self.notes.get("target")
        return target if isinstance(target, str) else None

    @property
    def forces(self) -> str | None:
        """Name of the forces that the model was trained on; ``None`` if it was not trained on forces."""
        trained = any("force_mae" in name for name in self.notes)
        return str(self.notes.get("forces", "forces")) if trained else None

    @property
    def metrics(self) -> dict[str, float | None] | None:
        """Errors on the test set over all clusters, by name and unit, if the run was evaluated with these weights."""
        file, remedy = self.path / METRICS, f"recreate it with pyg-clusters evaluate {self.path}"
        if not file.is_file():
            return None
        content = read_json(file, remedy)
        if "weights" in content and content["weights"] != weights_hash(self.path):  # the training was resumed
            return None
        errors = content.get("overall")
        if isinstance(errors, dict) and isinstance(forces := content.get("forces"), dict):
            errors |= {f"force_{name}": value for name, value in forces.items()}
        if not isinstance(errors, dict) or not all(isinstance(value, int | float | None) for value in errors.values()):
            raise InputError(f"{file}: corrupted (overall is not a mapping of numbers); {remedy}")
        return errors

    @property
    def test_error(self) -> float | None:
        """Mean absolute error on the test set in kcal/mol per cluster, if known."""
        if self.metrics is not None:
            return self.metrics.get("mae_kcal_mol")
        return None if self.is_ensemble else self.notes.get("test_mae_kcal_mol")

    @cached_property
    def model(self) -> nn.Module:
        """Trained model, in evaluation mode.

        Raises:
            InputError: If there is none, or it cannot be loaded.
        """
        return load_model(self.path)

    @cached_property
    def data(self) -> TrainingData:
        """Data set and split of the training run.

        Raises:
            InputError: If they are unknown or have changed, if the configuration is corrupted, or if the members of an
                ensemble differ in them.
        """
        if self.members:
            return _shared_data(self.members)
        configuration = self.path / CONFIGURATION
        data = self.configuration.get("data")
        if not isinstance(data, dict):
            raise InputError(f"{configuration}: corrupted (it has no data); restore it, or give files of frames")
        check_trusted(data, configuration, "data")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(TrainingData, "data")
        data["split"] = str(self.path / SPLITS)
        data["max_train_clusters"] = None  # the saved split is the final one
        try:
            with current_folder() if trusts_files() else nullcontext():
                module = parser.instantiate_classes(parser.parse_object({"data": data})).data
        except InputError:
            raise
        except ArgumentError as error:
            raise InputError(f"{configuration}: {explain(str(error), parser)}") from error
        except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
            raise InputError(f"{configuration}: corrupted ({one_line(error)})") from error
        self.check_fingerprint(module.dataset)
        return module

    @property
    def dataset(self) -> GraphDataset:
        """Data set of the training run."""
        return self.data.dataset

    @property
    def split(self) -> Split:
        """Training, validation and test clusters."""
        return self.data.split

    def check_fingerprint(self, dataset: object):
        """Check that a data set and its arguments are those for which the run was split."""
        saved, fingerprint = self._fingerprint, getattr(dataset, "fingerprint", None)
        if fingerprint is not None and saved is not None and saved != fingerprint:
            raise InputError(
                f"{self.path}: the data set has changed since this run was split (its files, or how they are read); "
                "restore it, train again, or evaluate it on files of labelled frames"
            )

    @property
    def _fingerprint(self) -> str | None:
        file = self.path / FINGERPRINT
        return file.read_text(errors="replace", encoding="utf-8").strip() if file.is_file() else None

    def predictor(self, device: str | None = None, calibration: Calibration | None = None) -> Predictor:
        """Predictor of the model; one that needs graphs gets the transform of the data set.

        Args:
            device: Device; CUDA by default where it is available.
            calibration: Calibration of the model, used as the source of the spread.

        Raises:
            InputError: If there is no such model or device.
        """
        model = self.model
        if calibration is not None and calibration.covariance is not None:
            model = LastLayerPosterior(model, calibration.covariance)
        transform = None
        if any(extra_arguments(model).values()) and self.has_data:
            steps = [self.dataset.pre_transform, self.dataset.transform]
            transform = Compose([step for step in steps if step is not None])
        return Predictor(model, device=usable_device(device), transform=transform)

    def data_predictor(
        self, device: str | None = None, calibration: Calibration | None = None
    ) -> Callable[[Data], Prediction]:
        """Return a function that predicts batches of the data set from its stored values."""
        if not self.data.per_atom:
            predictor = self.predictor(device, calibration)
            return lambda batch: predictor(batch.z, batch.pos, batch.ptr)
        stored = self.data.batches.stored(self.split.train[:1].tolist())
        names = [name for name in extra_arguments(self.model) if name in stored]
        transform = None if names else self.dataset.transform
        of_atoms = Predictor(self.model, device=usable_device(device), transform=transform)
        return lambda batch: of_atoms(batch.z, batch.pos, batch.ptr, {name: batch[name] for name in names})

    def calibration(self, coverage: float | None = None) -> Calibration | None:
        """Load the calibration, if there is one for the current weights.

        Args:
            coverage: Coverage of the requested intervals; if omitted, the calibration may be missing.

        Raises:
            InputError: If a coverage is given and no calibration supports it, or if the file is corrupted.
        """
        file = located(self.path) / CALIBRATION
        if not file.is_file() and not self.is_ensemble:
            file = model_folder(self.path) / CALIBRATION
        reason = f"{self.path} is not calibrated: run pyg-clusters calibrate {self.path} first"
        if file.is_file():
            weights, calibration = weights_hash(self.path), Calibration.load(file)
            if calibration.weights == weights:
                if coverage is not None:
                    calibration.quantile(coverage)
                return calibration
            reason = f"{file} belongs to other weights: run pyg-clusters calibrate {self.path} again"
        if coverage is not None:
            raise InputError(reason)
        return None


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a recipe, or the resolved configuration of a run."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: corrupted ({one_line(error)})") from error
    if not isinstance(values, dict):
        raise InputError(f"{file}: corrupted (it contains no recipe)")
    check_extent(values, file)
    return values


def _shared_data(members: list[Run]) -> TrainingData:
    first, *others = members
    for other in others:
        if None not in (first._fingerprint, other._fingerprint) and first._fingerprint != other._fingerprint:
            raise InputError(f"{other.path} was trained on other data than {first.path}; they cannot form an ensemble")
        split = Split.load(other.path / SPLITS)
        if not all(torch.equal(getattr(split, part), getattr(first.split, part)) for part in PARTS):
            raise InputError(
                f"{other.path} uses a different split from {first.path}: no cluster is held out from all members"
            )
    return first.data


def ensemble(options: EnsembleOptions) -> Ensemble:
    """Join runs or saved models into an ensemble, and write its folder.

    Raises:
        InputError: If a member is missing, or the members were trained on different data.

    Example:
        >>> from pyg_clusters.options.training import EnsembleOptions
        >>> ensemble(EnsembleOptions(runs=["runs/a", "runs/b"], out="runs/both"))  # doctest: +SKIP
        Ensemble(2 x DART)
    """
    out = Path(options.out)
    with open_output(options, results=(ENSEMBLE,)):
        runs = [Run(path) for path in options.runs]
        joined = Ensemble([run.model for run in runs])
        known = [run for run in runs if run.target is not None]
        for run in known:
            if run.target != known[0].target:
                raise InputError(
                    f"{known[0].path} was trained on {known[0].target}, {run.path} on {run.target}; they "
                    "cannot form an ensemble"
                )
        save_ensemble(out, options.runs)
    return joined
