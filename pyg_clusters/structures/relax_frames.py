"""Relaxation of one structure with any ASE calculator, and of the frames of files."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.optimize import OptimizeResult, minimize

from pyg_clusters.errors import one_line
from pyg_clusters.frames import BadFrame, ExtrapolationWarning, FrameLog, good_frames, read_atoms, write_extxyz
from pyg_clusters.frames.checks import warn_of_sizes
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.provenance import write_values
from pyg_clusters.frames.resume import input_settings
from pyg_clusters.frames.writing import open_output
from pyg_clusters.models.training_domain import domain_of, geometry_range_of
from pyg_clusters.options.structures import RelaxOptions
from pyg_clusters.pairs import bond_measures
from pyg_clusters.structures.calculators import (
    FAILURES,
    calculator_identity,
    calculator_problem,
    isolated,
    named_calculator,
)
from pyg_clusters.structures.relaxation import LEFT_RANGE, Minimum, batched_energy, broken, relaxed_frame
from pyg_clusters.terminal import FrameProgress, count_of

CORRECTIONS = 20  # number of steps that the optimiser stores to approximate the Hessian


class _Stop(Exception):
    """Stop of a relaxation: no evaluations left, a non-finite energy, or a geometry outside the valid range."""


def local_minimum(atoms: Atoms, calculator: Calculator, *, fmax: float = 0.01, max_steps: int = 1000) -> Minimum:
    """Relax a cluster by the limited-memory BFGS method (Byrd et al., SIAM J. Sci. Comput. 1995, 16, 1190).

    A metal cluster of 20 to 60 atoms takes about 50 to 150 evaluations, about half as many as with FIRE. To relax many
    clusters with a batched potential, see :func:`~pyg_clusters.structures.relax`.

    The relaxation stops, unconverged, if the geometry leaves the range in which the energy is reliable: the range of
    the training set for a :class:`~pyg_clusters.structures.ModelCalculator`, and physically possible geometries for
    other calculators.

    Args:
        atoms: The cluster, also in a periodic cell; it is not modified.
        calculator: Any ASE calculator. It is reset first; the result does not depend on earlier calculations.
        fmax: Convergence criterion: maximum norm of the force on an atom, in eV/Å.
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
    """Lowest point so far, and number of evaluations."""

    def __init__(self, atoms: Atoms, calculator: Calculator, max_steps: int):
        self.atoms = isolated(atoms, calculator)
        self.max_steps, self.steps = max_steps, 0
        self.initial, self.pos = self.atoms.positions.copy(), self.atoms.positions.copy()
        self.energy, self.largest = np.inf, np.inf
        self.trained = geometry_range_of(getattr(calculator, "model", None))
        self.start = self.measures()

    def to(self, fmax: float):
        def enough(intermediate_result: OptimizeResult):
            if self.largest <= fmax:
                raise StopIteration

        self.evaluate(self.pos.ravel())
        while self.largest > fmax:  # after a failed line search, restart from the lowest point
            before = self.steps
            options = {"maxcor": CORRECTIONS, "ftol": 0.0, "gtol": 0.1 * fmax, "maxiter": self.max_steps}
            minimize(self.evaluate, self.pos.ravel(), jac=True, method="L-BFGS-B", callback=enough, options=options)
            if self.steps - before < 3:
                return

    def evaluate(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        if self.steps == self.max_steps or not np.isfinite(flat).all():
            raise _Stop
        self.steps += 1
        self.atoms.positions = flat.reshape(-1, 3)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # trial steps of the line search may be rejected
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
        """Distances and coordination numbers at the current positions, ``[1, 3]``."""
        z, pos = torch.from_numpy(self.atoms.numbers).long(), torch.from_numpy(self.atoms.positions)
        return bond_measures(z, pos, torch.zeros_like(z), self.trained.scale)

    def result(self, fmax: float) -> Minimum:
        atoms = Atoms(self.atoms.numbers, self.pos)
        left_range = self.trained.reason(atoms) or broken(Atoms(atoms.numbers, self.initial), atoms)
        converged = bool(np.isfinite(self.energy) and self.largest <= fmax and left_range is None)
        return Minimum(atoms, self.energy, self.largest, self.steps, converged, left_range)


@dataclass
class Relaxed:
    """Result of :func:`relax_frames`."""

    frames: int  #: Number of frames written.
    not_converged: int  #: Number of frames that did not converge.
    #: Number of frames whose relaxation stopped where the energy is unreliable, or ended in pieces.
    left_range: int
    failed: int  #: Number of frames on which the calculator failed, which are unchanged.
    bad: list[BadFrame]  #: Skipped frames.
    file: str  #: Output file.

    def __str__(self) -> str:
        converged = f"{self.not_converged:,} of them not converged" if self.not_converged else "all converged"
        text = f"{count_of(self.frames, 'frame')} in {self.file}, {converged}"
        if unfinished := self.not_converged - self.left_range - self.failed:
            text += f"\n{unfinished:,} of these need more steps (--steps) or a larger --fmax"
        if self.left_range:
            text += (
                f"\n{self.left_range:,} of these left the geometries of the training set, or broke into pieces: their "
                "energies are not meaningful (the reasons are in left_range)"
            )
        if self.failed:
            text += (
                f"\nthe calculator failed on {self.failed:,} of these, which are unchanged (the reasons are in values "
                "that end in _error)"
            )
        return text


def relax_frames(options: RelaxOptions) -> Relaxed:
    """Relax frames to the nearest local minima and write them to a file.

    Raises:
        InputError: If a frame or the calculator cannot be used, or the file exists or belongs to another run.
    """
    batched = batched_energy(options.calculator)
    overwrite = options.overwrite or batched is None  # otherwise the frame log checks what may be overwritten
    with open_output(options, overwrite=overwrite):
        count: Counter[str] = Counter()
        sizes: set[int] = set()

        def problem(atoms: Atoms) -> str | None:
            count.update(constrained=int(bool(atoms.constraints)))
            return batched.problem(atoms) if batched else calculator_problem(options.calculator, atoms)

        bad: list[BadFrame] = []
        read = read_atoms(options.frames, problem=problem, on_bad=options.on_bad, fragments=options.fragments)
        frames = (frame.atoms for frame in good_frames(read, bad))

        def counted(atoms: Atoms) -> Atoms:
            left = {"not_converged": not atoms.info["converged"], "left_range": LEFT_RANGE in atoms.info}
            left["failed"] = f"{_name(options)}_error" in atoms.info
            count.update(frames=1, **{key: int(value) for key, value in left.items()})
            sizes.add(len(atoms))
            return atoms

        if batched:
            with FrameProgress("frames relaxed") as progress:
                relaxed = batched.relax(frames, options.fmax, options.steps, progress.advance)
                write_extxyz(Path(options.out), map(counted, relaxed))
        else:
            for atoms in _relaxed_one_by_one(frames, options):
                counted(atoms)
    if constrained := count["constrained"]:
        text = f"the constraints of {count_of(constrained, 'frame')} were ignored: all atoms were relaxed"
        warnings.warn(text, stacklevel=2)
    domain = domain_of(batched.model) if batched and batched.model is not None else None
    if domain is not None and sizes:
        warn_of_sizes(", ".join(options.frames), np.array(sorted(sizes)), domain.size_range)
    return Relaxed(count["frames"], count["not_converged"], count["left_range"], count["failed"], bad, options.out)


def _name(options: RelaxOptions) -> str:
    """Name of the calculator in the names of its results."""
    name = options.calculator
    return "gap" if name.startswith("gap:") else name.rpartition(":")[2].lower()


def relax_frame(atoms: Atoms, calculator: Calculator, name: str, fmax: float, steps: int) -> Atoms:
    """Return a relaxed copy of a frame; if the calculator fails, an unchanged copy marked as not converged."""
    try:
        found = local_minimum(atoms, calculator, fmax=fmax, max_steps=steps)
    except FAILURES as error:
        failed = atoms.copy()
        failed.calc = atoms.calc
        reason = one_line(error)
        write_values(failed.info, {f"{name}_error": reason, "converged": False})
        return failed
    return relaxed_frame(atoms, found, name)


def _relaxed_one_by_one(frames: Iterable[Atoms], options: RelaxOptions) -> Iterator[Atoms]:
    """Yield all relaxed frames, including those of an earlier run; each is saved before it is yielded."""
    calculator = named_calculator(options.calculator, ())
    name = _name(options)
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
