"""Recipes on the command line, and checks of recipes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from pyg_clusters.errors import InputError
from pyg_clusters.inference.run import read_yaml
from pyg_clusters.options.parsing import options_of
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.trusted import check_extent, check_trusted, names_of_classes

KEYS = ("seed_everything", "trainer", "model", "data", "out", "init_from")  # keys of a recipe


def check_recipe(file: Path):
    """Check a recipe in a folder of results, or the resolved configuration of a run, before it is used."""
    values = read_yaml(file)
    unknown = [str(key) for key in values if key not in KEYS]
    if unknown:
        raise InputError(f"{file}: {', '.join(unknown)[:80]} is not a key of a recipe; the keys are {', '.join(KEYS)}")
    check_trusted(values, file)


def recipes_in(argv: Sequence[str]) -> Iterator[dict]:
    """Values of the recipes that can be read; errors in others are left to the parser."""
    for name, value in options_of(argv):
        recipe = None
        with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
            recipe = yaml.safe_load(Path(value).read_text(encoding="utf-8")) if name in ("config", "c") else None
        check_extent(recipe, value)
        if isinstance(recipe, dict):
            yield recipe


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


def with_recipe(argv: list[str]) -> list[str]:
    """Replace a recipe in the first argument, given by its file or shipped name, by ``--config FILE``."""
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    recipes = []
    for before, argument in zip(["", *argv], argv, strict=False):
        option, equals, name = argument.partition("=")
        if before in ("--config", "-c"):
            recipes.append(_recipe(argument))
        else:
            recipes.append(f"{option}={_recipe(name)}" if equals and option in ("--config", "-c") else argument)
    return recipes


def _recipe(name: str) -> str:
    """File of a recipe; the text of a recipe is returned as it is."""
    return name if name.startswith("{") or Path(name).exists() else str(shipped_recipe(name))


def take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """Remove ``name VALUE`` or ``name=VALUE`` from the arguments."""
    for index, argument in enumerate(argv):
        if argument == name:
            if index + 1 == len(argv):
                raise InputError(f"{name} needs a value")
            return argv[:index] + argv[index + 2 :], argv[index + 1]
        if argument.startswith(name + "="):
            return argv[:index] + argv[index + 1 :], argument.partition("=")[2]
    return argv, None
