"""Labelling of frames, in one process or several, and the energies of ASE calculators as labels."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.calculators.singlepoint import SinglePointCalculator
from threadpoolctl import threadpool_limits

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.frames.join import join_atoms
from pyg_clusters.labels.dft.pyscf_import import lib
from pyg_clusters.structures import PySCFCalculator, named_calculator
from pyg_clusters.structures.calculators import calculator_problem, isolated

OLD: tuple[str, ...] = ("energy", "binding_energy", "forces", "set_aside")
"""Keys of another label that would contradict a new one."""


class LabellingError(RuntimeError):
    """A cluster cannot be labelled, as when a calculation does not converge: the message says why."""


@dataclass(frozen=True)
class LabelResult:
    """A frame with its labels, or with the reason for its rejection."""

    atoms: Atoms
    """The frame, with what it had before."""
    reason: str | None
    """Reason for its rejection; none if its labels are sound."""
    note: str
    """The result in a few words."""


def unlabelled(atoms: Atoms, names: Iterable[str] = ()) -> Atoms:
    """A copy of a frame, joined and without a cell, without results of another calculation, and without some values.

    Args:
        atoms: The frame.
        names: Values of frames or atoms that are left out, beside :data:`OLD`.

    Raises:
        InputError: If it is periodic and no isolated cluster.
    """
    copy = join_atoms(atoms)
    copy.calc = None
    copy.cell[:] = 0.0
    for name in (*OLD, *names):
        copy.info.pop(name, None)
        copy.arrays.pop(name, None)
    return copy


WATCH = 1.0
"""Seconds between looks at whether the main process still lives."""


def label_frames(
    frames: Sequence[Atoms], label: Callable[[Atoms], LabelResult], *, workers: int = 1, threads: int = 1
) -> Iterator[tuple[int, LabelResult, float]]:
    """Labels frames, in the order in which they are done.

    Args:
        frames: The clusters.
        label: Makes a label; for several workers it must be possible to pickle it.
        workers: Number of processes. They end when the main one is killed.
        threads: Threads of each.

    Yields:
        Place of the frame, what came of it, and how many seconds it took.

    Raises:
        InputError: If a process was ended from outside, as by a system that is out of memory.
    """
    if workers == 1:
        _limit_threads(threads)
        for place, atoms in enumerate(frames):
            yield place, *_timed(label, atoms)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(threads, os.getpid()))
    finished = False
    others = set(multiprocessing.active_children())
    try:
        places = {pool.submit(_timed, label, atoms): place for place, atoms in enumerate(frames)}
        for future in as_completed(places):
            yield places[future], *future.result()
        finished = True
    except BrokenProcessPool as error:
        raise InputError(
            "a worker was ended from outside, perhaps because memory ran out; start again with fewer --workers: what "
            "is done is kept"
        ) from error
    finally:
        workers_left = set() if finished else set(multiprocessing.active_children()) - others
        pool.shutdown(wait=finished, cancel_futures=True)
        for process in workers_left:  # a calculation may take hours
            process.terminate()


def _timed(label: Callable[[Atoms], LabelResult], atoms: Atoms) -> tuple[LabelResult, float]:
    start = time.perf_counter()
    return label(atoms), time.perf_counter() - start


def _begin(threads: int, parent: int):
    """Starts a worker, which leaves it to the main process what Ctrl-C does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _limit_threads(threads: int):
    threadpool_limits(threads)
    if lib is not None:
        lib.num_threads(threads)


def _end_with(parent: int):
    """Ends this process when its parent has ended, however that was."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)


FAILURES = (CalculatorError, ArithmeticError, RuntimeError)
"""Errors that calculators raise for a cluster on which they fail."""


@dataclass(frozen=True)
class EnergyLabeller:
    """Gives a cluster the energy (eV) and the forces (eV/Å) of an ASE calculator, at the charge and spin of its frame.

    Called with a cluster it returns a copy that has them as ASE has results, and its ``calculator`` in ``info``. A
    cluster that the calculator fails on, or whose energy or forces are not finite, is rejected with the reason.

    Args:
        calculator: A name that :func:`~pyg_clusters.structures.named_calculator` knows.

    Example:
        >>> labelled = EnergyLabeller("gupta")(Atoms("Na2", [[0, 0, 0], [0, 0, 3.08]]))
        >>> round(labelled.atoms.get_potential_energy(), 2), labelled.reason
        (-0.55, None)
    """

    calculator: str

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why the calculator cannot treat a cluster, if any."""
        return calculator_problem(self.calculator, atoms)

    def __call__(self, atoms: Atoms) -> LabelResult:
        result = unlabelled(atoms)
        calculator = _calculator(self.calculator, tuple(sorted(set(atoms.get_chemical_symbols()))))
        result.info["calculator"] = self.calculator
        if isinstance(calculator, PySCFCalculator):
            result.info["calculator"] += f" {calculator.level}"
        bare = isolated(atoms, calculator)
        try:
            energy, forces = float(bare.get_potential_energy()), bare.get_forces()
        except FAILURES as error:
            return LabelResult(result, one_line(error), "failed")
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            return LabelResult(result, "the energy or a force is not finite", "failed")
        result.calc = SinglePointCalculator(result, energy=energy, forces=forces)
        largest = float(np.linalg.norm(forces, axis=1).max())
        return LabelResult(result, None, f"{energy:.4f} eV, largest force {largest:.3f} eV/Å")


@lru_cache(maxsize=16)
def _calculator(name: str, elements: tuple[str, ...]) -> Calculator:
    return named_calculator(name, elements)
