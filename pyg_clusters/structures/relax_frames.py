"""Relaxation: one structure with any ASE calculator, and the frames of files."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from scipy.optimize import OptimizeResult, minimize

from pyg_clusters.errors import one_line
from pyg_clusters.formatting import count_of
from pyg_clusters.frames import BadFrame, ExtrapolationWarning, FrameLog, good_frames, read_atoms, write_extxyz
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.provenance import at_new_positions, write_values
from pyg_clusters.frames.resume import input_settings
from pyg_clusters.frames.writing import open_output
from pyg_clusters.models.training_domain import geometry_range_of, measures
from pyg_clusters.options.structures import RelaxOptions
from pyg_clusters.progress import FrameProgress
from pyg_clusters.structures.calculators import calculator_identity, calculator_problem, isolated, named_calculator
from pyg_clusters.structures.relaxation import (
    LEFT_RANGE,
    BatchedEnergy,
    batched_energy,
    chunks,
    relax_chunk,
)

CORRECTIONS = 20
"""Number of steps that the optimizer stores."""


@dataclass
class Minimum:
    """Result of a quench."""

    atoms: Atoms
    """The cluster, without calculator."""
    energy: float
    """Energy in eV."""
    fmax: float
    """Largest force on an atom in eV/Å."""
    steps: int
    """Evaluations of energy and forces."""
    converged: bool
    """Whether the largest force is below the limit, and the cluster inside the range."""
    left_range: str | None = None
    """Reason why the final geometry is outside the trained range; none if it is inside."""


class _Stop(Exception):
    """The evaluations are used up, the energy is not finite, or the cluster left the range."""


def local_minimum(atoms: Atoms, calculator: Calculator, *, fmax: float = 0.01, max_steps: int = 1000) -> Minimum:
    """Quench one cluster with the limited-memory BFGS method (Byrd et al., SIAM J. Sci. Comput. 1995, 16, 1190).

    It takes about 50 to 150 evaluations for a metal cluster of 20 to 60 atoms, about half as many as FIRE. For many
    clusters with a batched potential see :func:`~pyg_clusters.structures.relax`.

    A cluster that leaves the range of geometries in which the energy can be trusted is stopped there and counts as not
    converged. The range is that of the training set for a :class:`~pyg_clusters.structures.ModelCalculator`, and the
    physically possible one for other calculators.

    Args:
        atoms: The cluster; it is not changed.
        calculator: Any ASE calculator. It is reset first, so that the result does not depend on earlier calculations.
        fmax: The cluster is relaxed when no force on an atom is larger, in eV/Å.
        max_steps: Maximum number of evaluations of energy and forces.

    Example:
        >>> from pyg_clusters.structures import ClusterEMT
        >>> dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.8]])
        >>> found = local_minimum(dimer, ClusterEMT())
        >>> print(f"{found.atoms.get_distance(0, 1):.2f} Å, {found.energy:.2f} eV")
        2.17 Å, 3.18 eV
    """
    descent = _Descent(atoms, calculator, max_steps)
    try:
        descent.to(fmax)
    except _Stop:
        pass
    return descent.result(fmax)


class _Descent:
    """The lowest point so far and the evaluations that were made."""

    def __init__(self, atoms: Atoms, calculator: Calculator, max_steps: int):
        self.atoms = isolated(atoms, calculator)
        self.max_steps, self.steps = max_steps, 0
        self.pos, self.energy, self.largest = atoms.positions.copy(), np.inf, np.inf
        self.trained = geometry_range_of(getattr(calculator, "model", None))
        self.start = self.measures()

    def to(self, fmax: float):
        def enough(intermediate_result: OptimizeResult):
            if self.largest <= fmax:
                raise StopIteration

        self.evaluate(self.pos.ravel())
        while self.largest > fmax:  # a line search that fails starts again from the lowest point
            before = self.steps
            options = {"maxcor": CORRECTIONS, "ftol": 0.0, "gtol": 0.1 * fmax, "maxiter": self.max_steps}
            minimize(self.evaluate, self.pos.ravel(), jac=True, method="L-BFGS-B", callback=enough, options=options)
            if self.steps - before < 3:
                return

    def evaluate(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        if self.steps == self.max_steps:
            raise _Stop
        self.steps += 1
        self.atoms.positions = flat.reshape(-1, 3)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # a line search may try geometries that it rejects
            energy, forces = float(self.atoms.get_potential_energy()), self.atoms.get_forces()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise _Stop
        if energy <= self.energy:
            self.pos, self.energy = self.atoms.positions.copy(), energy
            self.largest = float(np.sqrt((forces**2).sum(axis=1).max()))
            if self.trained.outside(self.measures(), self.start):
                raise _Stop
        return energy, -forces.ravel()

    def measures(self) -> torch.Tensor:
        """Distances and coordination numbers at the present positions, ``[1, 3]``."""
        z, pos = torch.from_numpy(self.atoms.numbers).long(), torch.from_numpy(self.atoms.positions)
        return measures(z, pos, torch.zeros_like(z))

    def result(self, fmax: float) -> Minimum:
        atoms = Atoms(self.atoms.numbers, self.pos)
        left_range = self.trained.reason(atoms)
        converged = bool(np.isfinite(self.energy) and self.largest <= fmax and left_range is None)
        return Minimum(atoms, self.energy, self.largest, self.steps, converged, left_range)


@dataclass
class Relaxed:
    """Result of :func:`relax_frames`.

    Attributes:
        frames: Number of frames written.
        not_converged: Number of frames that did not converge.
        left_range: Number of frames that were stopped outside the geometries in which the energy can be trusted.
        bad: Frames that were skipped.
        file: File of the relaxed frames.
    """

    frames: int
    not_converged: int
    left_range: int
    bad: list[BadFrame]
    file: str

    def __str__(self) -> str:
        text = f"{count_of(self.frames, 'frame')} in {self.file}, {self.not_converged} of them not converged"
        if self.left_range:
            text += (
                f"\n{self.left_range} of these were stopped where they left the geometries in which the energy can be "
                "trusted (reason in info left_range): their energies mean nothing"
            )
        return text


def relax_frames(options: RelaxOptions) -> Relaxed:
    """Relax frames to the nearest local minima and write them.

    Raises:
        InputError: If a frame or the calculator cannot be used, or the file exists or belongs to another run.
    """
    batched = batched_energy(options.calculator)
    overwrite = options.overwrite or batched is None  # otherwise the log of frames decides what may be replaced
    with open_output(options, overwrite=overwrite):

        def problem(atoms: Atoms) -> str | None:
            return batched.problem(atoms) if batched else calculator_problem(options.calculator, atoms)

        bad: list[BadFrame] = []
        read = read_atoms(options.frames, problem=problem, on_bad=options.on_bad, fragments=options.fragments)
        frames = (frame.atoms for frame in good_frames(read, bad))
        count: Counter[str] = Counter()

        def counted(atoms: Atoms) -> Atoms:
            count.update(frames=1, not_converged=not atoms.info["converged"], left_range=LEFT_RANGE in atoms.info)
            return atoms

        if batched:
            write_extxyz(Path(options.out), map(counted, _relaxed_in_batches(frames, options, batched)))
        else:
            for atoms in _relaxed_one_by_one(frames, options):
                counted(atoms)
    return Relaxed(count["frames"], count["not_converged"], count["left_range"], bad, options.out)


def relax_frame(atoms: Atoms, calculator: Calculator, name: str, fmax: float, steps: int) -> Atoms:
    """Relaxed copy of a frame; if the calculator fails, the unchanged frame, not converged."""
    try:
        found = local_minimum(atoms, calculator, fmax=fmax, max_steps=steps)
    except CalculatorError as error:
        failed = atoms.copy()
        failed.calc = atoms.calc
        reason = one_line(error)
        write_values(failed.info, {f"{name}_error": reason, "converged": False})
        return failed
    relaxed = at_new_positions(atoms, found.atoms.positions)
    if found.left_range is not None:
        relaxed.info[LEFT_RANGE] = found.left_range
    relaxed.info |= {
        f"{name}_energy": found.energy,
        f"{name}_fmax": found.fmax,
        f"{name}_steps": found.steps,
        "converged": found.converged,
    }
    return relaxed


def _relaxed_in_batches(frames: Iterable[Atoms], options: RelaxOptions, by: BatchedEnergy) -> Iterator[Atoms]:
    with FrameProgress("frames relaxed") as progress:
        for chunk in chunks(frames):
            yield from relax_chunk(chunk, by, options.fmax, options.steps, progress.advance)


def _relaxed_one_by_one(frames: Iterable[Atoms], options: RelaxOptions) -> Iterator[Atoms]:
    """All relaxed frames, those of an earlier run included; each is on the disk when it comes."""
    calculator = named_calculator(options.calculator, ())
    name = options.calculator.rpartition(":")[2].lower()
    settings = {key: getattr(options, key) for key in ("fmax", "steps", "on_bad", "fragments")}
    settings |= {"calculator": calculator_identity(options.calculator)}
    settings |= input_settings(expand_paths(options.frames))
    log = FrameLog(Path(options.out), settings, overwrite=options.overwrite)
    with FrameProgress("frames relaxed") as progress:
        for atoms, relaxed in zip_longest(frames, log.frames):
            if relaxed is None:
                relaxed = relax_frame(atoms, calculator, name, options.fmax, options.steps)
                log.append(relaxed)
            yield relaxed
            progress.advance()
