"""What a run folder says of its data."""

from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from pyg_clusters.cli.parsing import explain
from pyg_clusters.errors import InputError
from pyg_clusters.training import ClusterDataModule


def data_of_run(folder: Path) -> ClusterDataModule:
    """Data set and split of a run, from its resolved configuration and its saved split.

    Raises:
        InputError: If the folder is not that of a run, or its configuration is damaged.
    """
    configuration = folder / "config.yaml"
    if not configuration.is_file():
        raise InputError(f"{folder} is not the folder of a run (no config.yaml in it); give frames with --data")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ClusterDataModule, "data")
    try:
        data = yaml.safe_load(configuration.read_text())["data"]
        data["split"] = str(folder / "splits")
        data["max_train_clusters"] = None  # the saved split is the final one
        return parser.instantiate_classes(parser.parse_object({"data": data})).data
    except ArgumentError as error:
        raise InputError(f"{configuration}: {explain(str(error), parser)}") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{configuration}: damaged ({' '.join(str(error).split())[:200]})") from error
