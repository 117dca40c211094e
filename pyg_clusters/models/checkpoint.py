"""Saved models: weights as safetensors, everything else as JSON. Nothing is unpickled."""

import hashlib
import importlib
import inspect
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.files import atomic_write, read_json, write_json, write_text
from pyg_clusters.models.ensemble import Ensemble
from pyg_clusters.options.parsing import nearest
from pyg_clusters.options.training import ModelsOptions
from pyg_clusters.trusted import check_trusted, current_folder, trusting_files, trusts_files

WEIGHTS = "model.safetensors"
CONFIGURATION = "model.json"
ENSEMBLE = "ensemble.json"  # lists the folders of the members of an ensemble
BEST = "best"  # subfolder of a run with the model of smallest validation error

OWN_MODELS = "pyg_clusters.models"

SHIPPED: Path = Path(__file__).parent.parent / "pretrained"
"""Folder of the pretrained models of the package, each with its card (README.md)."""


def save_model(model: nn.Module, folder: str | Path, notes: dict[str, Any] | None = None):
    """Save a model for :func:`load_model`.

    The arguments of the model's constructor are read from its attributes of the same names.

    Args:
        model: The model.
        folder: Folder of the two files, created if missing.
        notes: Further information of JSON types, such as the training data and metrics with units.

    Raises:
        TypeError: If the model has no attribute for an argument, or the argument cannot be written as JSON.
    """
    folder = Path(folder)
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    configuration = {
        "class_path": f"{type(model).__module__}.{type(model).__qualname__}",
        "init_args": init_args(model),
        "notes": notes or {},
    }
    text = json.dumps(configuration, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / WEIGHTS) as path:
        safetensors.torch.save_model(model, str(path))
    write_text(folder / CONFIGURATION, text)


def load_model(path: str | Path, trust: bool = False) -> nn.Module:
    """Load a model in evaluation mode.

    The folder of an ensemble (``ensemble.json``) gives an :class:`~pyg_clusters.models.Ensemble`.

    Args:
        path: Folder of the model or of the run that trained it, or name of a pretrained model.
        trust: Whether the folder may name any class, for example your own. Importing and creating a class runs its
            code; by default only the classes of :data:`pyg_clusters.trusted.TRUSTED` are allowed.

    Raises:
        InputError: If there is no model, its class is not trusted, or its files are corrupted or inconsistent.
    """
    with trusting_files(trust):
        return _load_ensemble(path) if is_ensemble(path) else _load_single(path)


def _load_single(path: str | Path) -> nn.Module:
    folder = model_folder(path)
    configuration = read_configuration(folder)
    spec = {name: configuration[name] for name in ("class_path", "init_args")}
    check_trusted(spec, folder / CONFIGURATION)
    try:
        with current_folder() if trusts_files() else nullcontext():
            module, _, name = configuration["class_path"].rpartition(".")
            if module.startswith(OWN_MODELS):  # the class may have moved to another module since the model was saved
                module = OWN_MODELS
            model_class = getattr(importlib.import_module(module), name)
            if not (isinstance(model_class, type) and issubclass(model_class, nn.Module)):
                raise InputError(f"{folder / CONFIGURATION}: {configuration['class_path']} is not a torch.nn.Module")
            model = rebuild(model_class, folder)
    except InputError as error:
        raise InputError(f"{folder}: the model cannot be rebuilt: {error}") from error
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS}: corrupted weights ({error}); copy or train them again") from error
    except Exception as error:  # the class may be of any package
        raise InputError(f"{folder}: the model cannot be rebuilt: {type(error).__name__}: {one_line(error)}") from error
    return model.eval()


def save_ensemble(folder: str | Path, members: Sequence[str | Path], notes: dict[str, Any] | None = None):
    """Combine runs or saved models into an ensemble for :func:`load_model`, by writing ``ensemble.json``.

    Args:
        folder: Folder of the ensemble, created if missing.
        members: Folders of the members, which are stored relative to ``folder`` and not copied. They need not be
            trained yet.
        notes: Further information of JSON types.

    Example:
        >>> import tempfile
        >>> from pyg_clusters.models import DART
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(3):
        ...     save_model(DART(), folder / f"member_{number}")
        >>> save_ensemble(folder, [folder / f"member_{number}" for number in range(3)])
        >>> load_model(folder)
        Ensemble(3 x DART)
    """
    folder = Path(folder)
    names = [os.path.relpath(Path(member).absolute(), folder.absolute()) for member in members]
    write_json(folder / ENSEMBLE, {"members": names, "notes": notes or {}})


def located(path: str | Path) -> Path:
    """Folder of the pretrained model of this name, or the path itself."""
    path = Path(path)
    return path if path.exists() or str(path) not in available_models() else SHIPPED / path


def is_ensemble(path: str | Path) -> bool:
    """Whether a path or name belongs to an ensemble."""
    return (located(path) / ENSEMBLE).is_file()


def member_folders(path: str | Path) -> list[Path]:
    """Folders of the members of an ensemble."""
    file, remedy = located(path) / ENSEMBLE, "create it again with pyg-clusters ensemble"
    names = read_json(file, remedy).get("members")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: corrupted (members is not a list of folders); {remedy}")
    return [Path(os.path.normpath(file.parent / name)) for name in names]


def ensemble_notes(path: str | Path) -> dict[str, Any]:
    """Notes that were saved with an ensemble."""
    file, remedy = located(path) / ENSEMBLE, "create it again with pyg-clusters ensemble"
    notes = read_json(file, remedy).get("notes")
    if not isinstance(notes, dict):
        raise InputError(f"{file}: corrupted (notes are missing); {remedy}")
    return notes


def weights_hash(path: str | Path) -> str:
    """SHA-256 hash of the weights of a model or of all members of an ensemble."""
    folders = member_folders(path) if is_ensemble(path) else [Path(path)]
    digest = hashlib.sha256()
    for folder in folders:
        digest.update((model_folder(folder) / WEIGHTS).read_bytes())
    return digest.hexdigest()


def _load_ensemble(path: str | Path) -> Ensemble:
    folders = member_folders(path)
    try:
        ensemble = Ensemble([_load_single(member) for member in folders]).eval()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    targets = [read_configuration(model_folder(member))["notes"].get("target") for member in folders]
    for member, target in zip(folders, targets, strict=True):
        if target != targets[0]:
            raise InputError(
                f"{path}: {folders[0]} was trained on {targets[0]}, {member} on {target}; give members with one target"
            )
    return ensemble


def rebuild(model_class: type[nn.Module], folder: str | Path) -> nn.Module:
    """Create a model of the given class from its folder; errors of :mod:`torch` and of the class are not caught."""
    folder = Path(folder)
    model = model_class(**read_configuration(folder)["init_args"])
    weights = safetensors.torch.load_file(folder / WEIGHTS)
    if any(weights[name].dtype == torch.double for name, _ in model.named_parameters() if name in weights):
        model = model.double()
    safetensors.torch.load_model(model, folder / WEIGHTS)
    return model.eval()


def model_folder(path: str | Path) -> Path:
    """Folder of the model files of a run, of a saved model, or of the pretrained model of this name.

    Raises:
        InputError: If there is none.
    """
    path = located(path)
    for folder in (path, path / BEST):
        if (folder / CONFIGURATION).is_file() and (folder / WEIGHTS).is_file():
            return folder
    what = "is not a folder" if path.exists() else "does not exist"
    if path.is_dir():
        what = "contains no trained model yet (best/model.safetensors)"
    if within := runs_within(path):
        raise InputError(f"{os.fspath(path)} is not the folder of a run or a model; did you mean {within[0]}?")
    if near := nearest(str(path), available_models()):
        raise InputError(f"{os.fspath(path)} {what}{near}")
    names = ", ".join(available_models())
    raise InputError(
        f"{os.fspath(path)} {what}; give the folder of a run or of a saved model, or the name of a pretrained model "
        f"({names})"
    )


def runs_within(path: Path) -> list[Path]:
    """Subfolders that hold runs or models."""
    entries = sorted(path.iterdir()) if path.is_dir() else []
    return [entry for entry in entries if any((entry / name).exists() for name in (CONFIGURATION, "best"))]


def available_models() -> dict[str, str]:
    """Names of the pretrained models of the package and titles of their cards.

    Example:
        >>> available_models()["gallium"]
        'DART for Ga31 to Ga70'
    """
    cards = sorted(SHIPPED.glob("*/README.md"))
    return {card.parent.name: card.read_text(encoding="utf-8").splitlines()[0].partition(": ")[2] for card in cards}


def list_models(options: ModelsOptions) -> str:
    """Names and titles of the pretrained models as text."""
    lines = [f"{name:<20} {title}" for name, title in available_models().items()]
    return "\n".join([*lines, "", "pyg-clusters predict NAME FRAMES... --out FILE; pyg-clusters info NAME"])


def read_configuration(folder: Path) -> dict[str, Any]:
    """Configuration of a saved model: ``class_path``, ``init_args`` and ``notes``.

    Raises:
        InputError: If the file is missing or corrupted.
    """
    file = folder / CONFIGURATION
    configuration = read_json(file, "copy or train the model again")
    if not {"class_path", "init_args"} <= configuration.keys():
        raise InputError(f"{file}: class_path and init_args are missing; not a model of this package")
    configuration.setdefault("notes", {})
    for name, kind in {"class_path": str, "init_args": dict, "notes": dict}.items():
        if not isinstance(configuration[name], kind):
            raise InputError(f"{file}: corrupted ({name} is a {type(configuration[name]).__name__}); copy it again")
    return configuration


def init_args(model: nn.Module) -> dict[str, Any]:
    """Arguments of a model's constructor, read from its attributes of the same names.

    Arguments that are passed on to the base class (``**kwargs``) are included.

    Raises:
        TypeError: If the model has no attribute for an argument, or the argument cannot be written as JSON.
    """
    name, arguments = type(model).__name__, {}
    for each in type(model).__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = list(inspect.signature(vars(each)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if not hasattr(model, parameter.name):
                raise TypeError(f"{name} must keep its argument {parameter.name!r} as an attribute to be saved")
            value = getattr(model, parameter.name)
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                remedy = "; save its members, and pass their folders to save_ensemble" if name == "Ensemble" else ""
                raise TypeError(f"{name} cannot be saved: its argument {parameter.name!r}: {error}{remedy}") from error
            arguments[parameter.name] = value
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return arguments


def difference(model: nn.Module, trained: nn.Module) -> str | None:
    """Class, or else arguments, in which a model differs from a trained model to start from, if it does."""
    if type(model) is not type(trained):
        return f"{type(model).__name__}, the model to start from is {type(trained).__name__}"
    ours, theirs = (
        {name: str(list(value) if isinstance(value, tuple) else value) for name, value in init_args(each).items()}
        for each in (model, trained)
    )
    names = [name for name in ours if ours[name] != theirs.get(name)]
    listed = [", ".join(f"{name}={of.get(name)}" for name in names) for of in (ours, theirs)]
    return f"{listed[0]}, the model to start from {listed[1]}" if names else None


def usable_device(device: torch.device | str | None) -> torch.device:
    """Return the device of a name; by default CUDA if it is available, else the CPU.

    Raises:
        InputError: If the device cannot be used.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!s} cannot be used ({str(error).splitlines()[0][:120]})") from error
    return device
