"""Labelling clusters with energies and forces."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.calculators.singlepoint import SinglePointCalculator

from pyg_clusters.errors import one_line
from pyg_clusters.labels.labelling import LabelResult, unlabelled
from pyg_clusters.structures import named_calculator
from pyg_clusters.structures.calculators import calculator_problem, isolated

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
        result.info["calculator"] = self.calculator
        calculator = _calculator(self.calculator, tuple(sorted(set(atoms.get_chemical_symbols()))))
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
