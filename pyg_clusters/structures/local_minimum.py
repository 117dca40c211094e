"""The local minimum below a structure, for any ASE calculator."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.optimize import OptimizeResult, minimize

from pyg_clusters.frames import ExtrapolationWarning
from pyg_clusters.models.training_domain import geometry_range_of, measures
from pyg_clusters.structures.calculators import isolated

CORRECTIONS = 20
"""Steps that the optimizer remembers."""


@dataclass
class Minimum:
    """Where a quench ended."""

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
    """No evaluation is left, the energy is not finite, or the cluster left the range."""


def local_minimum(atoms: Atoms, calculator: Calculator, *, fmax: float = 0.01, max_steps: int = 1000) -> Minimum:
    """Quenches one cluster with the limited-memory BFGS method (Byrd et al., SIAM J. Sci. Comput. 1995, 16, 1190).

    It takes about 50 to 150 evaluations for a metal cluster of 20 to 60 atoms, about half of those of FIRE. For many
    clusters with a batched potential see :func:`~pyg_clusters.structures.relax`.

    A cluster that leaves the range of geometries in which the energy is to be trusted is stopped there and not
    converged: that of the training set for a :class:`~pyg_clusters.structures.ModelCalculator`, what is physically
    possible for other calculators.

    Args:
        atoms: The cluster; it is not changed.
        calculator: Any ASE calculator. It is reset first, so that the result does not depend on what it did before.
        fmax: The cluster is relaxed when no force on an atom is larger, in eV/Å.
        max_steps: Most evaluations of energy and forces.

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
            warnings.simplefilter("ignore", ExtrapolationWarning)  # a line search may try what it does not take
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
        """Distances and coordination numbers of the cluster as it is, ``[1, 3]``."""
        z, pos = torch.from_numpy(self.atoms.numbers).long(), torch.from_numpy(self.atoms.positions)
        return measures(z, pos, torch.zeros_like(z))

    def result(self, fmax: float) -> Minimum:
        atoms = Atoms(self.atoms.numbers, self.pos)
        left_range = self.trained.reason(atoms)
        converged = bool(np.isfinite(self.energy) and self.largest <= fmax and left_range is None)
        return Minimum(atoms, self.energy, self.largest, self.steps, converged, left_range)
