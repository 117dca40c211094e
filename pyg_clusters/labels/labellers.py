"""Labeller of energies and forces by ASE calculators, and the processes in which labellers run."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.calculators.singlepoint import SinglePointCalculator
from threadpoolctl import threadpool_limits

from pyg_clusters.concurrency import LOST_AT_MOST, ray_cluster
from pyg_clusters.errors import InputError
from pyg_clusters.frames.atoms import ENERGIES, FORCES, join_atoms
from pyg_clusters.frames.energy_units import replace_energies
from pyg_clusters.labels.dft import lib
from pyg_clusters.labels.dft.level import GB
from pyg_clusters.structures import PySCFCalculator, named_calculator
from pyg_clusters.structures.calculators import calculate, calculator_problem

OLD: tuple[str, ...] = (*ENERGIES, *FORCES, "binding_energy", "calculator", "set_aside")
"""Keys of earlier labels, which are removed because they would contradict a new label."""


class LabellingError(RuntimeError):
    """Failure to label a cluster, for instance because a calculation does not converge; the message is the reason."""


@dataclass(frozen=True)
class LabelResult:
    """A frame with its labels, or with the reason for its rejection."""

    atoms: Atoms  #: The frame, with its other values.
    reason: str | None  #: Reason for the rejection; ``None`` if the labels are valid.
    note: str  #: Short summary of the result.


def unlabelled(atoms: Atoms, names: Iterable[str] = ()) -> Atoms:
    """Copy a frame without its cell and earlier labels (:data:`OLD` and ``names``), joined across the cell faces.

    Raises:
        InputError: If a periodic frame is not an isolated cluster.
    """
    copy = join_atoms(atoms, "refuse" if atoms.pbc.any() else "keep")
    copy.calc = None
    copy.cell[:] = 0.0
    replace_energies(copy.info)
    for name in (*OLD, *names):
        copy.info.pop(name, None)
        copy.arrays.pop(name, None)
    return copy


class Labeller(Protocol):
    """Interface of labellers; they must be picklable."""

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why a frame cannot be labelled, if any."""

    def needed_memory(self, atoms: Atoms) -> float:
        """Memory in bytes needed to label a frame; 0 if unknown."""

    def __call__(self, atoms: Atoms) -> LabelResult:
        """Label a frame."""


WATCH = 1.0  # interval in seconds at which a worker checks that the main process is alive


def label_frames(
    frames: Sequence[Atoms], label: Labeller, *, workers: int = 1, threads: int = 1
) -> Iterator[tuple[int, LabelResult, float]]:
    """Label frames in this process or in several workers, which exit when the main process is killed.

    Yields:
        Index of the frame, its result, and the time in seconds, in the order of completion.

    Raises:
        InputError: If a worker was killed, for instance because the system ran out of memory.
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
            "a worker was killed, perhaps because memory ran out; restart with fewer --workers: finished frames are "
            "kept"
        ) from error
    finally:
        workers_left = set() if finished else set(multiprocessing.active_children()) - others
        pool.shutdown(wait=finished, cancel_futures=True)
        for process in workers_left:  # a calculation may take hours
            process.terminate()


def label_on_ray(
    frames: Sequence[Atoms], label: Labeller, *, threads: int = 1, address: str | None = None
) -> Iterator[tuple[int, LabelResult, float]]:
    """Label frames on a Ray cluster; yields the same as :func:`label_frames`.

    Each frame occupies ``threads`` processor cores and reserves the memory that its labeller needs. If a worker is
    lost, its frame is assigned to another.

    Raises:
        MissingExtra: If Ray is not installed.
        InputError: If there is no Ray cluster at the address, a frame needs more memory than any node has, or workers
            are lost repeatedly.
    """
    with ray_cluster(address) as ray:
        task = ray.remote(num_cpus=threads, max_retries=LOST_AT_MOST)(_on_worker)
        largest = max(node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"])
        places = {}
        for place, atoms in enumerate(frames):
            memory = label.needed_memory(atoms)
            if memory > largest:
                raise InputError(
                    f"{atoms.get_chemical_formula()} needs {memory / GB:.1f} GB of memory, and the largest node of the "
                    f"Ray cluster gives {largest / GB:.1f}; add a larger node, or leave the frame out"
                )
            places[task.options(memory=int(memory)).remote(label, atoms, threads, memory)] = place
        try:
            while places:
                (done, *_), _ = ray.wait(list(places))
                yield places.pop(done), *ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise InputError(
                f"a frame was lost with its worker {LOST_AT_MOST + 1} times ({type(error).__name__}); check the nodes "
                "and their memory, and run the same command again: finished frames are kept"
            ) from error


def _on_worker(label: Labeller, atoms: Atoms, threads: int, memory: float) -> tuple[LabelResult, float]:
    _limit_threads(threads)
    return _timed(replace(cast(Any, label), memory=memory) if memory else label, atoms)


def _timed(label: Labeller, atoms: Atoms) -> tuple[LabelResult, float]:
    start = time.perf_counter()
    return label(atoms), time.perf_counter() - start


def _begin(threads: int, parent: int):
    """Initialise a worker; it ignores Ctrl-C, which the main process handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _limit_threads(threads: int):
    threadpool_limits(threads)
    if lib is not None:
        lib.num_threads(threads)


def _end_with(parent: int):
    """Exit this process when its parent no longer exists."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)


@dataclass(frozen=True)
class EnergyLabeller:
    """Labels of energy (eV) and forces (eV/Å) from an ASE calculator, at the charge and spin of the frame.

    Called with a cluster, it returns a copy with energy and forces, and with the name of the ``calculator`` in
    ``info``. A cluster is rejected if the calculator fails, or if its energy or forces are not finite.

    Args:
        calculator: Name of a calculator, see :func:`~pyg_clusters.structures.named_calculator`.

    Example:
        >>> labelled = EnergyLabeller("gupta")(Atoms("Na2", [[0, 0, 0], [0, 0, 3.08]]))
        >>> round(labelled.atoms.get_potential_energy(), 2), labelled.reason
        (-0.55, None)
    """

    calculator: str

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why the calculator cannot be used for a cluster, if any."""
        return calculator_problem(self.calculator, atoms)

    def needed_memory(self, atoms: Atoms) -> float:
        """Return 0: the memory needed by ASE calculators is unknown."""
        return 0.0

    def __call__(self, atoms: Atoms) -> LabelResult:
        result = unlabelled(atoms)
        calculator = _calculator(self.calculator, tuple(sorted(set(atoms.get_chemical_symbols()))))
        result.info["calculator"] = self.calculator
        if isinstance(calculator, PySCFCalculator):
            result.info["calculator"] += f" {calculator.level}"
        try:
            energy, forces = calculate(atoms, calculator)
        except CalculatorError as error:
            return LabelResult(result, str(error), "failed")
        result.calc = SinglePointCalculator(result, energy=energy, forces=forces)
        largest = float(np.linalg.norm(forces, axis=1).max())
        return LabelResult(result, None, f"{energy:.4f} eV, largest force {largest:.3f} eV/Å")


@lru_cache(maxsize=16)
def _calculator(name: str, elements: tuple[str, ...]) -> Calculator:
    return named_calculator(name, elements)
