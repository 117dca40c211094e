"""Shipped data sets and recipes by name, and cards of data sets: source, contents and checksums."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any, get_origin

import yaml

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.options.training import RecipesOptions

MAIN_FILES: dict[str, str] = {
    "gallium": "gallium_minima",
    "copper_gold": "copper_gold_minima",
    "sodium": "sodium_shielding",
}
"""Names of the main files of the shipped data sets."""

TARGETS: dict[str, str] = {"gallium": "binding_energy", "copper_gold": "binding_energy"}
"""Names of the energies of the shipped data sets."""

PACKAGE: Path = Path(__file__).resolve().parent


def shipped_folder(name: str) -> Path:
    """Folder of a shipped data set, in the installed package or the checkout.

    Raises:
        InputError: If there is no such data set; the message lists those available.
    """
    found = _data_sets()
    if name not in found:
        raise InputError(f"no data set {name!r} comes with the package; found: {', '.join(sorted(found)) or 'none'}")
    return found[name]


def shipped_frames() -> dict[str, Path]:
    """Shipped files of frames by name; the name of a data set is short for its main file (:data:`MAIN_FILES`).

    Example:
        >>> sorted(name for name in shipped_frames() if name.startswith("gallium_md_5"))
        ['gallium_md_57', 'gallium_md_57_quenched']
    """
    files = {name: sorted(folder.glob("*.extxyz*")) for name, folder in sorted(_data_sets().items())}
    frames = {file.name.partition(".")[0]: file for paths in files.values() for file in paths}
    return frames | {name: frames[main] for name, main in MAIN_FILES.items() if main in frames}


def shipped_recipes() -> dict[str, Path]:
    """Shipped recipes by name.

    Example:
        >>> shipped_recipes()["dart-gallium"].name
        'dart_gallium.yaml'
    """
    files = [file for home in _homes("_recipes", "train") for file in sorted(home.glob("*.yaml"))]
    return {file.stem.replace("_", "-"): file for file in files}


def shipped_recipe(name: str) -> Path:
    """File of a shipped recipe, by its name or file name (``dart-gallium`` or ``dart_gallium.yaml``).

    Raises:
        InputError: If there is no such recipe.
    """
    recipes = shipped_recipes()
    key = name.removesuffix(".yaml").replace("_", "-")
    if key not in recipes:
        raise InputError(f"no file {name}, and no recipe of that name comes with the package: {', '.join(recipes)}")
    return recipes[key]


def recipe_file(name: str) -> Path:
    """File of a recipe: an existing file, or a shipped recipe by its name.

    Raises:
        InputError: If there is neither.
    """
    return file if (file := Path(name)).exists() else shipped_recipe(name)


def list_recipes(options: RecipesOptions) -> str:
    """Shipped recipes and their purposes as text, or the text of one recipe.

    Raises:
        InputError: If there is no recipe of that name.
    """
    if options.name is not None:
        return shipped_recipe(options.name).read_text(encoding="utf-8").rstrip("\n")
    lines = []
    for name, file in shipped_recipes().items():
        about = takewhile(lambda line: line.startswith("# "), file.read_text(encoding="utf-8").splitlines())
        purpose = re.split(r"(?<! al)[.:,;(] |\.? pyg-clusters ", " ".join(line[2:] for line in about))[0].strip()
        lines.append(f"{name:<24} {purpose}")
    next_step = "pyg-clusters train NAME --out RUN; pyg-clusters new-recipe FILES... --out FILE for your own data"
    return "\n".join([*lines, "", next_step])


def _homes(installed: str, checkout: str) -> list[Path]:
    """Folders of the installed package and of a checkout, the preferred one last."""
    return [PACKAGE.parent / checkout, PACKAGE / installed]


def _data_sets() -> dict[str, Path]:
    return {card.parent.name: card.parent for home in _homes("_data", "datasets") for card in home.glob("*/card.yaml")}


@dataclass(frozen=True)
class CardProperty:
    """A property of the clusters."""

    unit: str  #: Its unit, ``"none"`` for a string or a number without one.
    shape: str  #: ``"[1]"`` for a value per cluster, ``"[num_atoms]"`` or ``"[num_atoms, 3]"`` for values per atom.
    description: str  #: Its meaning.


@dataclass(frozen=True)
class CardFile:
    """A file of the data set."""

    sha256: str  #: Its checksum.
    frames: int  #: Number of frames.
    sizes: dict[int, int]  #: Number of frames of each cluster size.
    description: str  #: Its contents.


@dataclass(frozen=True)
class Card:
    """Description of a data set, from the ``card.yaml`` next to its files."""

    name: str  #: Name of its folder.
    title: str  #: Title in one line.
    source: str  #: Source of structures and labels.
    level_of_theory: str  #: Method by which the labels were computed.
    licence: str  #: SPDX name of the licence.
    citation: str  #: Publications to cite.
    properties: dict[str, CardProperty]  #: Unit, shape and meaning of each property.
    files: dict[str, CardFile]  #: Checksum and contents of each file.

    @classmethod
    def load(cls, path: str | Path) -> "Card":
        """Read and validate a card.

        Raises:
            InputError: If a key is missing or unknown, or a value has another type; the message names it.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML ({one_line(error)})") from error
        values = _checked(cls, content, str(path))
        for part, kind in (("properties", CardProperty), ("files", CardFile)):
            values[part] = {
                name: kind(**_checked(kind, entry, f"{path}: {part}: {name}")) for name, entry in values[part].items()
            }
        for name, file in values["files"].items():
            if (total := sum(file.sizes.values())) != file.frames:
                raise InputError(f"{path}: files: {name}: sizes add up to {total}, but frames is {file.frames}")
        return cls(**values)

    def verify(self, folder: str | Path, filename: str) -> Path:
        """Path of a file in the folder, whose checksum is compared with that of the card.

        Raises:
            InputError: If the file is not on the card, is missing, or has been changed.
        """
        if filename not in self.files:
            raise InputError(f"{filename}: not on the card of {self.name}, which has {', '.join(self.files)}")
        path = Path(folder) / filename
        if sha256_of(path) != self.files[filename].sha256:
            raise InputError(f"{path}: corrupted or changed (its SHA-256 differs from the card); restore the file")
        return path


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 checksum of a file."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _checked(kind: type, content: Any, where: str) -> dict[str, Any]:
    """Content as keyword arguments of a dataclass, with keys and types checked."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected keys and values, got {type(content).__name__}")
    known = {field.name: field.type for field in fields(kind)}
    for key in content:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}; the keys are {', '.join(known)}")
    for key, annotation in known.items():
        if key not in content:
            raise InputError(f"{where}: missing key {key!r}")
        if not _is_of_type(content[key], annotation):
            kind_of_value = _TYPE_NAMES[get_origin(annotation) or annotation]
            raise InputError(f"{where}: {key} must be {kind_of_value}, got {content[key]!r}")
    return dict(content)


_TYPE_NAMES: dict[Any, str] = {str: "text", int: "a whole number", dict: "keys and values"}


def _is_of_type(value: Any, annotation: Any) -> bool:
    if annotation == dict[int, int]:
        return isinstance(value, dict) and all(type(n) is int for pair in value.items() for n in pair)
    return isinstance(value, get_origin(annotation) or annotation) and not isinstance(value, bool)
