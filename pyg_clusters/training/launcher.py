"""Several trainings, each a process and a run folder of its own, so many at a time."""

import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.stopping import Stopped
from pyg_clusters.training.run_folder import FINISHED
from pyg_clusters.trusted import trusts_files

POLL_SECONDS: float = 0.5

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "PYTHONSAFEPATH": "1",  # no file of the current folder is imported in place of a package
    # Fresh memory for every large tensor costs more than the arithmetic on it: let the process keep what it has.
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
}
"""What processes begin with."""


@dataclass(frozen=True)
class Training:
    """A training to be made.

    Attributes:
        name: Name of its folder.
        recipe: Its recipe.
        options: Options of ``pyg-clusters train`` that change the recipe.
    """

    name: str
    recipe: Path
    options: tuple[str, ...] = field(default=())

    def arguments(self, folder: Path) -> list[str]:
        """Arguments of ``pyg-clusters`` that begin it, or go on with it."""
        run = folder / self.name
        if (run / "config.yaml").exists():
            return ["train", "--resume", str(run), *(["--trust"] if trusts_files() else [])]
        return ["train", "--config", str(self.recipe), "--out", str(run), *self.options]


def run_trainings(trainings: Sequence[Training], folder: Path, workers: int = 2, say: Callable[[str], None] = print):
    """Makes the trainings that are not finished, with one thread each.

    The output of each goes to ``NAME.log``. A call that is stopped can be made again: finished trainings are left
    alone, the others go on.

    Args:
        trainings: The trainings, in the order in which they begin.
        folder: Folder of the run folders.
        workers: Trainings at a time.
        say: Is given a line whenever a training begins or ends.

    Raises:
        InputError: If a training fails (the others are stopped, to be gone on with), or the folder holds one of the
            same name by another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for training in trainings:
        _remember(training, folder)
    waiting = [training for training in trainings if not (folder / training.name / FINISHED).exists()]
    say(f"{len(trainings)} trainings, {len(trainings) - len(waiting)} of them finished already")
    running: dict[Training, tuple[BaseProcess, float]] = {}
    with ExitStack() as stack:
        # Only noted when it comes, so that no training is lost between its beginning and the callback that stops it.
        asked_to_stop: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: asked_to_stop.append(number))
        stack.callback(signal.signal, signal.SIGTERM, before)
        while waiting or running:
            while waiting and len(running) < workers:
                training = waiting.pop(0)
                process = _begin(training, folder)
                stack.callback(_stop, process)
                running[training] = process, time.monotonic()
                say(f"begin {training.name}")
            time.sleep(POLL_SECONDS)
            if asked_to_stop:
                raise Stopped(asked_to_stop[0])  # the callbacks stop all
            for training, (process, begin) in list(running.items()):
                if process.is_alive():
                    continue
                del running[training]
                if process.exitcode:
                    raise InputError(f"training {training.name} failed ({_last_line(folder, training)})")
                say(f"end   {training.name} after {(time.monotonic() - begin) / 60:.1f} min")


def _remember(training: Training, folder: Path):
    """Keeps what a training is made by; refuses to go on with one that was begun otherwise."""
    if not training.recipe.is_file():
        raise InputError(f"{training.recipe}: no such recipe")
    kept = folder / f"{training.name}.json"
    made_by = {"recipe": training.recipe.read_text(encoding="utf-8"), "options": list(training.options)}
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) != made_by:
        raise InputError(f"{folder / training.name} was begun by another recipe or other options; choose another --out")
    with atomic_write(kept) as path:
        path.write_text(json.dumps(made_by, indent=2), encoding="utf-8")


def seconds_of(run: Path) -> float | None:
    """How long the training of a run took, if it is finished."""
    summary = run / FINISHED
    return json.loads(summary.read_text())["seconds"] if summary.is_file() else None


def _begin(training: Training, folder: Path) -> BaseProcess:
    """Begins a training in a copy of a process that has imported everything, which takes longer than a small one."""
    context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
    if sys.platform == "linux":  # where a copy of a process that has loaded libraries is safe
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pyg_clusters.cli.train"])
    process = context.Process(
        target=_train, args=(training.arguments(folder), folder / f"{training.name}.log"), name=training.name
    )
    with _environment():
        process.start()
    return process


def _train(arguments: list[str], log: Path):
    """What the process does: the same as ``python -m pyg_clusters``."""
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
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return f"{lines[-1][:300] if lines else 'it said nothing'}; see {log}"
