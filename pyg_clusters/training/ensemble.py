"""Training of the members of an ensemble."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, output_lock, read_json
from pyg_clusters.models import save_ensemble
from pyg_clusters.models.checkpoint import ENSEMBLE, member_folders
from pyg_clusters.options.parsing import options_of
from pyg_clusters.training.launcher import Training, run_trainings
from pyg_clusters.training.run import CONFIGURATION, check_run_configuration
from pyg_clusters.trusted import check_trusted

RECIPE = "recipe.yaml"
"""The recipe of the members, in the folder of an ensemble."""


def train_ensemble(recipe: Path, options: Sequence[str], number: int, folder: Path, workers: int):
    """Trains members that differ in their seeds (0, 1, ...) alone.

    Args:
        recipe: Recipe of a member.
        options: Options of ``pyg-clusters train`` that change it.
        number: Number of members.
        folder: Folder of the ensemble; those of the members are in it. Finished members are left alone, others go on.
        workers: Trainings at a time, one thread each.

    Raises:
        InputError: If a training fails, or the folder holds something else.
    """
    if number < 2 or workers < 1:
        raise InputError(f"an ensemble needs at least two members and one worker, got {number} and {workers}")
    if not recipe.is_file():
        raise InputError(f"{recipe}: no such recipe")
    if (folder / "config.yaml").exists():
        raise InputError(f"{folder} holds a run already; choose another --out")
    with output_lock(folder, folder=True):
        _train_members(recipe, options, number, folder, workers)


def _train_members(recipe: Path, options: Sequence[str], number: int, folder: Path, workers: int):
    kept = {"number": number, "options": list(options)}
    if (folder / ENSEMBLE).exists():
        if notes_of(folder) != kept or (folder / RECIPE).read_text() != recipe.read_text():
            raise InputError(f"{folder} was begun by another recipe or other options; choose another --out")
    else:
        with atomic_write(folder / RECIPE) as path:
            path.write_text(recipe.read_text())
        save_ensemble(folder, [folder / f"member_{seed}" for seed in range(number)], kept)
    trainings = [
        Training(
            f"member_{seed}",
            folder / RECIPE,
            (*options, "--seed_everything", str(seed), "--data.shuffle_seed", str(seed)),
        )
        for seed in range(number)
    ]
    run_trainings(trainings, folder, workers)


def resume_ensemble(folder: Path, workers: int):
    """Goes on with an ensemble that was stopped."""
    notes = notes_of(folder)
    if not notes:
        raise InputError(f"{folder} is an ensemble of runs that were trained apart; resume each of them")
    check_run_configuration(folder / RECIPE)
    for name, value in options_of(notes["options"]):
        check_trusted(yaml.safe_load(value), folder / ENSEMBLE, name.rpartition(".")[2].rstrip("+"))
    for member in member_folders(folder):
        if (member / CONFIGURATION).exists():
            check_run_configuration(member / CONFIGURATION)
    train_ensemble(folder / RECIPE, notes["options"], notes["number"], folder, workers)


def notes_of(folder: Path) -> dict:
    """Options and number of the members of an ensemble, as :func:`train_ensemble` was called.

    Raises:
        InputError: If the file is damaged.
    """
    file, remedy = folder / ENSEMBLE, "train the ensemble again"
    notes = read_json(file, remedy).get("notes")
    if not isinstance(notes, dict):
        raise InputError(f"{file}: corrupted (notes are missing); {remedy}")
    number, options = notes.get("number"), notes.get("options")
    sound = isinstance(number, int) and isinstance(options, list) and all(isinstance(text, str) for text in options)
    if notes and not sound:
        raise InputError(f"{file}: corrupted (number or options are of other types); {remedy}")
    return notes
