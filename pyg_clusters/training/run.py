"""What a run folder says of its data and its model."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from pyg_clusters.datasets.splits import PARTS, Split
from pyg_clusters.errors import InputError
from pyg_clusters.models.checkpoint import (
    is_ensemble,
    member_folders,
    model_folder,
    read_configuration,
)
from pyg_clusters.options.parsing import explain
from pyg_clusters.training import ClusterDataModule
from pyg_clusters.trusted import check_extent, check_trusted, current_folder, trusts_files

CONFIGURATION = "config.yaml"
"""The resolved configuration in the folder of a run."""

RECIPE_KEYS = ("seed_everything", "trainer", "model", "data", "out", "init_from")
"""What a recipe holds."""

FINGERPRINT = "data.sha256"
"""Hash of the data set that a run was split for."""


def data_of_run(folder: Path) -> ClusterDataModule:
    """Data set and split of a run, from its resolved configuration and its saved split.

    Those of an ensemble are those of its members, which must be one split of one data set.

    Raises:
        InputError: If the folder is not that of a run, or its configuration is damaged.
    """
    if is_ensemble(folder):
        return _data_of_members(member_folders(folder))
    configuration = folder / CONFIGURATION
    if not configuration.is_file():
        raise InputError(f"{folder} is not the folder of a run (no config.yaml in it); give frames with --data")
    data = read_yaml(configuration).get("data")
    if not isinstance(data, dict):
        raise InputError(f"{configuration}: damaged (it says nothing of the data); restore it, or give --data")
    check_trusted(data, configuration, "data")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ClusterDataModule, "data")
    data["split"] = str(folder / "splits")
    data["max_train_clusters"] = None  # the saved split is the final one
    try:
        with current_folder() if trusts_files() else nullcontext():
            module = parser.instantiate_classes(parser.parse_object({"data": data})).data
    except InputError:
        raise
    except ArgumentError as error:
        raise InputError(f"{configuration}: {explain(str(error), parser)}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise InputError(f"{configuration}: damaged ({' '.join(str(error).split())[:200]})") from error
    check_fingerprint(folder, module.dataset)
    return module


def read_yaml(file: Path) -> dict:
    """The values of a recipe, or of the resolved configuration of a run.

    Raises:
        InputError: If it cannot be read or is damaged.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: damaged ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(values, dict):
        raise InputError(f"{file}: damaged (it holds no recipe)")
    check_extent(values, file)
    return values


def check_run_configuration(file: Path):
    """Checks the recipe in a folder, or the resolved configuration of a run, before it is trained by.

    Raises:
        InputError: If it is damaged, holds something else, or names a class that is not trusted.
    """
    values = read_yaml(file)
    unknown = [str(name) for name in values if name not in RECIPE_KEYS]
    if unknown:
        raise InputError(f"{file}: {', '.join(unknown)[:80]} is in no recipe; it holds {', '.join(RECIPE_KEYS)}")
    check_trusted(values, file)


def target_of_run(path: Path) -> str | None:
    """Name of the target that a run, the members of an ensemble or a saved model were trained on, where it is known.

    Raises:
        InputError: If there is no model, or its files are damaged.
    """
    folder = model_folder(member_folders(path)[0] if is_ensemble(path) else path)
    target = read_configuration(folder).get("notes", {}).get("target")
    return target if isinstance(target, str) else None


def _data_of_members(folders: Sequence[Path]) -> ClusterDataModule:
    first = data_of_run(folders[0])
    for folder in folders[1:]:
        kept = [other / FINGERPRINT for other in (folders[0], folder)]
        if all(path.is_file() for path in kept) and kept[0].read_text() != kept[1].read_text():
            raise InputError(f"{folder} was trained on other data than {folders[0]}: they make no ensemble")
        split = Split.load(folder / "splits")
        if not all(torch.equal(getattr(split, part), getattr(first.split, part)) for part in PARTS):
            raise InputError(f"{folder} was split otherwise than {folders[0]}: no cluster is held out from all members")
    return first


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


def groups_of(data: ClusterDataModule, clusters: Tensor) -> np.ndarray:
    """Which clusters are alike, ``[num_graphs]``: those of a group, where the data were split by group; else none."""
    groups = getattr(data.dataset, "groups", None)
    if groups is None or bool(torch.isin(groups[clusters], groups[data.split.train]).any()):
        return clusters.numpy()
    return groups[clusters].numpy()
