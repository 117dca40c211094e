"""Parallel training runs, each with its own process and run folder; training of ensembles."""

import json
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml

from pyg_clusters.concurrency import check_stopped, deferring_stop, stopping_on_signals
from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, output_lock, write_json
from pyg_clusters.inference.run import CONFIGURATION, FINISHED, Run
from pyg_clusters.models import save_ensemble
from pyg_clusters.models.checkpoint import ENSEMBLE, ensemble_notes
from pyg_clusters.options.parsing import options_of
from pyg_clusters.training.recipes import check_recipe
from pyg_clusters.trusted import check_trusted, trusts_files

POLL_SECONDS: float = 0.5

RECIPE = "recipe.yaml"  # recipe of the members, in the folder of an ensemble

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "PYTHONSAFEPATH": "1",  # so that no file of the current folder is imported instead of a package
    # Allocating large tensors costs more than the arithmetic on them: let the process keep its memory.
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
}
"""Environment of the processes."""


@dataclass(frozen=True)
class Training:
    """One of several training runs."""

    name: str  #: Name of its folder.
    recipe: Path  #: Recipe.
    options: tuple[str, ...] = ()  #: Options of ``pyg-clusters train`` that change the recipe.

    def arguments(self, folder: Path) -> list[str]:
        """Arguments of ``pyg-clusters`` that start or resume it."""
        run = folder / self.name
        if (run / CONFIGURATION).exists():
            return ["train", "--resume", str(run), *(["--trust"] if trusts_files() else [])]
        return ["train", "--config", str(self.recipe), "--out", str(run), *self.options]


def run_trainings(trainings: Sequence[Training], folder: Path, workers: int = 2):
    """Perform the unfinished training runs, with one thread each, and print when each starts and ends.

    The output of each is written to ``NAME.log``. A repeated call skips finished runs and resumes the others.

    Args:
        trainings: Training runs in the order in which they start.
        folder: Folder of the run folders.
        workers: Number of runs in parallel.

    Raises:
        InputError: If a run fails (the others are stopped), or was started with a different recipe or options.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for training in trainings:
        _save_settings(training, folder)
    waiting = [training for training in trainings if not (folder / training.name / FINISHED).exists()]
    print(f"{len(trainings)} training runs, {len(trainings) - len(waiting)} of them already finished")
    running: dict[Training, tuple[BaseProcess, float]] = {}
    # Signals are deferred, so that no run is lost between its start and the callback that stops it.
    with stopping_on_signals(), deferring_stop(), ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < workers:
                training = waiting.pop(0)
                process = _begin(training, folder)
                stack.callback(_stop, process)
                running[training] = process, time.monotonic()
                print(f"started {training.name}")
            time.sleep(POLL_SECONDS)
            check_stopped()  # the callbacks stop all runs
            for training, (process, start) in list(running.items()):
                if process.is_alive():
                    continue
                del running[training]
                if process.exitcode:
                    raise InputError(f"training {training.name} failed ({_last_line(folder, training)})")
                print(f"finished {training.name} after {(time.monotonic() - start) / 60:.1f} min")


def _save_settings(training: Training, folder: Path):
    """Save the recipe and options of a run, or check that they have not changed."""
    if not training.recipe.is_file():
        raise InputError(f"{training.recipe}: no such recipe")
    file = folder / f"{training.name}.json"
    settings = {"recipe": training.recipe.read_text(encoding="utf-8"), "options": list(training.options)}
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != settings:
        raise _other_settings(folder / training.name)
    write_json(file, settings)


def _other_settings(folder: Path) -> InputError:
    return InputError(f"{folder} was started with a different recipe or other options; choose another --out")


def train_ensemble(recipe: Path, options: Sequence[str], number: int, folder: Path, workers: int):
    """Train members that differ only in their seeds (0, 1, ...), skipping finished ones and resuming others.

    Args:
        recipe: Recipe of a member.
        options: Options of ``pyg-clusters train`` that change it.
        number: Number of members.
        folder: Folder of the ensemble, with the folders of the members in it.
        workers: Number of runs in parallel, with one thread each.
    """
    if number < 2 or workers < 1:
        raise InputError(f"an ensemble needs at least two members and one worker, got {number} and {workers}")
    if not recipe.is_file():
        raise InputError(f"{recipe}: no such recipe")
    if (folder / CONFIGURATION).exists():
        raise InputError(f"{folder} already contains a run; choose another --out")
    names = [f"member_{seed}" for seed in range(number)]
    with output_lock(folder, folder=True):
        notes = {"number": number, "options": list(options)}
        if (folder / ENSEMBLE).exists():
            if _notes(folder) != notes or (folder / RECIPE).read_bytes() != recipe.read_bytes():
                raise _other_settings(folder)
        else:
            with atomic_write(folder / RECIPE) as path:
                path.write_bytes(recipe.read_bytes())
            save_ensemble(folder, [folder / name for name in names], notes)
        seeds = [("--seed_everything", str(seed), "--data.shuffle_seed", str(seed)) for seed in range(number)]
        members = zip(names, seeds, strict=True)
        run_trainings([Training(name, folder / RECIPE, (*options, *seed)) for name, seed in members], folder, workers)


def resume_ensemble(folder: Path, workers: int):
    """Resume the training of an ensemble that was trained by :func:`train_ensemble`."""
    notes = _notes(folder)
    if not notes:
        raise InputError(f"{folder} is an ensemble of runs that were trained separately; resume each of them")
    check_recipe(folder / RECIPE)
    for name, value in options_of(notes["options"]):
        check_trusted(yaml.safe_load(value), folder / ENSEMBLE, name.rpartition(".")[2].rstrip("+"))
    for member in Run(folder).members:
        if (member.path / CONFIGURATION).exists():
            check_recipe(member.path / CONFIGURATION)
    train_ensemble(folder / RECIPE, notes["options"], notes["number"], folder, workers)


def _notes(folder: Path) -> dict[str, Any]:
    """Number of members and options of an ensemble, as passed to :func:`train_ensemble`."""
    notes = ensemble_notes(folder)
    number, options = notes.get("number"), notes.get("options")
    valid = isinstance(number, int) and isinstance(options, list) and all(isinstance(text, str) for text in options)
    if notes and not valid:
        raise InputError(f"{folder / ENSEMBLE}: corrupted (number or options are of other types); train it again")
    return notes


def _begin(training: Training, folder: Path) -> BaseProcess:
    """Start a run, on Linux in a fork of a process that has already imported this package."""
    context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
    if sys.platform == "linux":  # elsewhere a fork of a process with loaded libraries is unsafe
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([str(__package__)])
    process = context.Process(
        target=_train, args=(training.arguments(folder), folder / f"{training.name}.log"), name=training.name
    )
    with _environment():
        process.start()
    return process


def _train(arguments: list[str], log: Path):
    """Run ``python -m pyg_clusters`` with its output in a file."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    sys.argv = ["pyg-clusters", *arguments]
    runpy.run_module("pyg_clusters", run_name="__main__")


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _stop(process: BaseProcess):
    if process.is_alive():
        process.terminate()
    process.join()


def _last_line(folder: Path, training: Training) -> str:
    log = folder / f"{training.name}.log"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{lines[-1][:300] if lines else 'no output'}; see {log}"
