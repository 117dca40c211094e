"""Shipped data sets and recipes, by name."""

import re
from itertools import takewhile
from pathlib import Path

from pyg_clusters.errors import InputError
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
