"""Recipes: the files and options that a training is configured with."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from pyg_clusters.errors import InputError
from pyg_clusters.inference.run import read_yaml
from pyg_clusters.options.parsing import options_of
from pyg_clusters.trusted import check_extent, check_trusted, names_of_classes

KEYS = ("seed_everything", "trainer", "model", "data", "out", "init_from")
"""Keys of a recipe."""


def check_recipe(file: Path):
    """Check a recipe in a folder of results, or the resolved configuration of a run, before it is used.

    Raises:
        InputError: If it is damaged, holds something else, or names a class that is not trusted.
    """
    values = read_yaml(file)
    unknown = [str(key) for key in values if key not in KEYS]
    if unknown:
        raise InputError(f"{file}: {', '.join(unknown)[:80]} is in no recipe; it holds {', '.join(KEYS)}")
    check_trusted(values, file)


def recipes_in(argv: Sequence[str]) -> Iterator[dict]:
    """Values of the recipes that can be read; the parser reports errors in others."""
    for name, value in options_of(argv):
        recipe = None
        with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
            recipe = yaml.safe_load(Path(value).read_text(encoding="utf-8")) if name in ("config", "c") else None
        check_extent(recipe, value)
        if isinstance(recipe, dict):
            yield recipe


def classes_in_recipes(argv: Sequence[str]) -> Iterator[str]:
    """Import paths of the classes in the recipes of a command line."""
    for recipe in recipes_in(argv):
        yield from names_of_classes(recipe)


def classes_in_options(argv: Sequence[str]) -> Iterator[str]:
    """Import paths of the classes in the options of a command line."""
    for name, value in options_of(argv):
        values = None
        with suppress(yaml.YAMLError, RecursionError, ValueError):
            values = yaml.safe_load(value)
        check_extent(values, f"--{name}")
        yield from names_of_classes(values, name.rpartition(".")[2])


def names_training(argv: Sequence[str]) -> bool:
    """Whether a recipe or an option names the class of the training (``model.class_path``)."""
    if any(argument.partition("=")[0] in ("--model", "--model.class_path") for argument in argv):
        return True
    models = [recipe.get("model") for recipe in recipes_in(argv)]
    return any(isinstance(model, dict) and "class_path" in model for model in models)
