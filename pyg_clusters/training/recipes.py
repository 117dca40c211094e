"""The recipes that come with the package."""

from pathlib import Path

from pyg_clusters.datasets.paths import PACKAGE
from pyg_clusters.errors import InputError


def shipped_recipe(name: str) -> Path:
    """File of a recipe that comes with the package: within the installed package, or in the checkout beside it.

    Raises:
        InputError: If there is no such recipe; the message lists those found.
    """
    homes = (PACKAGE / "_recipes", PACKAGE.parent / "train")
    for home in homes:
        if (home / name).is_file():
            return home / name
    found = sorted({recipe.name for home in homes for recipe in home.glob("*.yaml")})
    raise InputError(f"no file {name}, and no recipe of that name comes with the package; found: {', '.join(found)}")
