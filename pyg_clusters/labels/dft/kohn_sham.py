"""Closed-shell self-consistent field, fast on one core, and Mulliken's gross orbital populations."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from pyg_clusters.labels.dft.density_fitting import FittedIntegrals
from pyg_clusters.labels.dft.integration_grid import IntegrationGrid
from pyg_clusters.labels.dft.level import ShieldingLevel, num_core_orbitals
from pyg_clusters.labels.dft.pyscf_import import dft, lib
from pyg_clusters.labels.labelling import LabellingError
from pyg_clusters.structures.pyscf_calculator import converged

FITTING = "def2-universal-jkfit"
"""Fitting basis of the test of stability where the level itself has exact integrals."""

LEVEL_SHIFT = 0.1
"""In hartree, for a second try where the first does not converge."""

CYCLES = (80, 100, 60)
"""Most cycles of the first try, with shifted levels, and without them again."""

NO_ORBITAL = 1e-8
"""Occupation below which a natural orbital of a guess is left out."""


@dataclass
class ClosedShell:
    """A converged closed-shell solution and what it was made of."""

    mf: "dft.rks.RKS"
    """PySCF's object with orbitals, occupations and energies in hartree."""
    integrals: FittedIntegrals
    grid: IntegrationGrid

    def free_memory(self):
        """Gives back what was held to save time."""
        self.grid.forget()

    @property
    def hybrid(self) -> float:
        """Fraction of exact exchange."""
        return exact_exchange(self.mf)

    @property
    def occupied(self) -> np.ndarray:
        """Occupied orbitals ``[num_functions, num_occupied]``."""
        return self.mf.mo_coeff[:, self.mf.mo_occ > 0]

    @property
    def virtual(self) -> np.ndarray:
        """Empty orbitals ``[num_functions, num_virtual]``."""
        return self.mf.mo_coeff[:, self.mf.mo_occ == 0]

    @property
    def density(self) -> np.ndarray:
        """Density matrix ``[num_functions, num_functions]`` of both spins."""
        return 2 * self.occupied @ self.occupied.T

    @property
    def gap(self) -> float:
        """Gap between the frontier orbitals in hartree."""
        return float(self.mf.mo_energy[self.mf.mo_occ == 0].min() - self.mf.mo_energy[self.mf.mo_occ > 0].max())

    @property
    def num_valence(self) -> int:
        """Occupied orbitals outside the noble-gas cores; all of them where no electron is."""
        num_occupied = int((self.mf.mo_occ > 0).sum())
        return num_occupied - num_core_orbitals(self.mf.mol.atom_charges()) or num_occupied


def solve_closed_shell(mol, level: ShieldingLevel, spare: float = 0.0) -> ClosedShell:
    """The closed-shell solution of a cluster.

    Args:
        mol: The cluster.
        level: The level of theory.
        spare: Bytes that may be used to save time.

    Raises:
        LabellingError: If it is not found, or if its highest occupied orbital lies above an empty one.
    """
    mf = level.mean_field(mol)
    solution = with_orbitals(mf, level, spare)
    with fitted_potential(mf, solution.integrals, solution.grid) if level.fitting else nullcontext():
        converge(mf, mf.get_init_guess(), "the closed-shell SCF")
    if solution.gap <= 0:
        raise LabellingError("the closed-shell SCF found no lowest state: an empty orbital lies below an occupied one")
    return solution


def with_orbitals(mf, level: ShieldingLevel, spare: float = 0.0) -> ClosedShell:
    """A calculation, done or yet to do, with fitted integrals and a grid."""
    integrals = FittedIntegrals(mf.mol, level.fitting or FITTING)
    return ClosedShell(mf, integrals, IntegrationGrid(mf, spare))


def converge(mf, guess: np.ndarray | None, name: str):
    """Runs a calculation, once more with shifted levels if it does not converge.

    Raises:
        LabellingError: If it does not converge even so.
    """
    if not converged(mf, guess, CYCLES, LEVEL_SHIFT):
        raise LabellingError(f"{name} did not converge in {' + '.join(map(str, CYCLES))} cycles")


@contextmanager
def fitted_potential(mf, integrals: FittedIntegrals, grid: IntegrationGrid) -> Iterator[None]:
    """Lets a restricted or unrestricted calculation take its potential from fitted integrals and kept grid values.

    The equations are those of PySCF's density-fitted calculations and so are the numbers; on one core it takes less
    time.
    """

    def get_veff(mol=None, dm=None, *_, **__):
        densities = np.asarray(mf.make_rdm1() if dm is None else dm)
        energy, potential = grid.potential(densities)
        coulomb = integrals.coulomb(densities if densities.ndim == 2 else densities.sum(axis=0))
        if densities.ndim == 2:
            exchange = 2 * integrals.exchange(_orbitals(dm, densities / 2))
            energy -= 0.25 * exact_exchange(mf) * float(np.vdot(densities, exchange))
            potential += coulomb - 0.5 * exact_exchange(mf) * exchange
        else:
            exchange = np.array([integrals.exchange(_orbitals(dm, d, spin)) for spin, d in enumerate(densities)])
            energy -= 0.5 * exact_exchange(mf) * float(np.vdot(densities, exchange))
            potential += coulomb - exact_exchange(mf) * exchange
        total = densities if densities.ndim == 2 else densities.sum(axis=0)
        return lib.tag_array(potential, ecoul=0.5 * float(np.vdot(total, coulomb)), exc=energy)

    mf.get_veff = get_veff
    try:
        yield
    finally:
        del mf.get_veff  # else the two would hold each other, and all that memory, until Python looks for cycles


def exact_exchange(mf) -> float:
    """Fraction of exact exchange in the functional of a calculation."""
    return float(mf._numint.rsh_and_hybrid_coeff(mf.xc)[2])


def _orbitals(tagged, density: np.ndarray, spin: int | None = None) -> np.ndarray:
    """Orbitals C of the density matrix C Cᵀ of one spin: those it was made of, if known, or its natural ones."""
    orbitals, occupations = getattr(tagged, "mo_coeff", None), getattr(tagged, "mo_occ", None)
    if orbitals is not None and occupations is not None:
        if spin is not None:
            orbitals, occupations = orbitals[spin], occupations[spin]
        return orbitals[:, occupations > 0]
    weights, natural = np.linalg.eigh(density)
    chosen = weights > NO_ORBITAL
    return natural[:, chosen] * np.sqrt(weights[chosen])


LETTERS = "SPD"
COMPONENTS = ("", "X", "Y", "Z", "XX", "YY", "ZZ", "XY", "XZ", "YZ")
"""Cartesian components in the order of columns."""


def gross_populations(solution: ClosedShell) -> np.ndarray:
    """Electrons of each basis function ``[num_functions]``: the diagonal of density times overlap (Mulliken 1955)."""
    return np.einsum("ij,ji->i", solution.density, solution.mf.get_ovlp())


def population_table(solution: ClosedShell, populations: np.ndarray) -> tuple[list[str], np.ndarray] | None:
    """Populations of a cluster of one element by function, as Gaussian names and orders them.

    A shell of d functions has the number after that of the last s shell: the 19 functions of sodium in 6-31G(d) are
    1S 2S 2PX ... 4PZ 5DXX 5DYY 5DZZ 5DXY 5DXZ 5DYZ.

    Returns:
        Names, and populations ``[num_atoms, len(names)]``; none, if there are several elements, or functions that are
        not cartesian.
    """
    mol = solution.mf.mol
    if len(set(mol.atom_charges())) > 1 or not mol.cart:
        return None
    labels = mol.ao_labels(fmt=False)[: len(populations) // mol.natm]
    num_s = sum(label[2].endswith("s") for label in labels)
    keys = [_key(label[2], label[3], num_s) for label in labels]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    names = [
        f"{number}{LETTERS[letter]}{COMPONENTS[component]}"
        for number, letter, component in map(keys.__getitem__, order)
    ]
    return names, populations.reshape(mol.natm, -1)[:, order]


def mulliken_charges(solution: ClosedShell, populations: np.ndarray) -> np.ndarray:
    """Charge of each atom ``[num_atoms]`` in elementary charges."""
    mol = solution.mf.mol
    electrons = [populations[start:end].sum() for _, _, start, end in mol.aoslice_by_atom()]
    return mol.atom_charges() - np.array(electrons)


def _key(shell: str, component: str, num_s: int) -> tuple[int, int, int]:
    """Number, letter and component of a function, from PySCF's names such as ``3d`` and ``xx``."""
    number, letter = int(shell[:-1]), LETTERS.index(shell[-1].upper())
    return number + (num_s - 2 if letter == 2 else 0), letter, COMPONENTS.index(component.upper())
