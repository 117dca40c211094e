"""Closed-shell self-consistent field, integration grid, and Mulliken gross orbital populations."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.labels.dft import dft, lib
from pyg_clusters.labels.dft.density_fitting import FittedIntegrals
from pyg_clusters.labels.dft.level import ShieldingLevel, num_core_orbitals
from pyg_clusters.labels.labellers import LabellingError
from pyg_clusters.structures.pyscf_calculator import converged

POINTS_AT_ONCE = 2048  # maximum number of grid points per block

NEGLIGIBLE = 1e-6
"""Screening threshold: a basis function is omitted from a block if its value and gradient, times the square root of the
weight, are smaller at all points."""


@dataclass(frozen=True)
class GridBlock:
    """Block of neighbouring grid points, with the non-negligible basis functions in single precision."""

    coords: np.ndarray  #: Coordinates ``[points, 3]`` in bohr.
    weights: np.ndarray  #: Weights ``[points]``.
    functions: np.ndarray  #: Indices of the functions ``[block_functions]``.
    values: np.ndarray  #: Values of the functions and their gradients ``[4, points, block_functions]``.

    def density(self, density: np.ndarray) -> np.ndarray:
        """Compute the density and its gradient ``[4, points]`` from a symmetric density matrix."""
        contracted = self.values[0] @ self.of_matrix(density)
        rho = np.array([np.einsum("gi,gi->g", contracted, part) for part in self.values], dtype=float)
        rho[1:] *= 2
        return rho

    def of_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Select the rows and columns of the functions of the block, in single precision."""
        return matrix[np.ix_(self.functions, self.functions)].astype(np.float32)

    def weighted(self, potential: np.ndarray) -> np.ndarray:
        """Contract functions and gradients with a potential ``[4, points]``, halved for later symmetrisation."""
        parts = potential.astype(np.float32)
        scaled = self.values[0] * (0.5 * parts[0])[:, None]
        for gradient, part in zip(self.values[1:], parts[1:], strict=True):
            scaled += gradient * part[:, None]
        return scaled


class IntegrationGrid:
    """Integration grid in blocks, with values of the basis functions that are cached as memory allows.

    Args:
        mf: PySCF mean-field object with a gradient functional.
        spare: Memory in bytes for cached values, which are otherwise recomputed in each pass.

    Raises:
        InputError: If the functional is not a (hybrid) gradient functional.
    """

    def __init__(self, mf: "dft.rks.RKS", spare: float = 0.0):
        if mf._numint._xc_type(mf.xc) != "GGA" or mf._numint.rsh_and_hybrid_coeff(mf.xc)[0]:
            raise InputError(f"{mf.xc} is not a (hybrid) gradient functional; choose one, such as b3lyp")
        if mf.grids.coords is None:
            mf.grids.build()
        self.mol, self.functional, self.xc = mf.mol, mf._numint, mf.xc
        self._coords, self._weights = mf.grids.coords, mf.grids.weights
        self._points = points_together(self._coords, POINTS_AT_ONCE)
        self._spare, self._kept = spare, dict[int, GridBlock]()

    def blocks(self) -> Iterator[GridBlock]:
        """Yield the blocks of the grid."""
        for number, points in enumerate(self._points):
            block = self._kept.get(number)
            if block is None:
                block = self._block(points)
                if block.values.nbytes < self._spare:
                    self._kept[number] = block
                    self._spare -= block.values.nbytes
            yield block

    def _block(self, points: np.ndarray) -> GridBlock:
        coords, weights = self._coords[points], self._weights[points]
        values = dft.numint.eval_ao(self.mol, coords, deriv=1)
        largest = np.abs(values).max(axis=0) * np.sqrt(np.abs(weights))[:, None]
        functions = np.flatnonzero(largest.max(axis=0) > NEGLIGIBLE)
        return GridBlock(coords, weights, functions, np.ascontiguousarray(values[:, :, functions], np.float32))

    def forget(self):
        """Free the memory of cached values, and stop caching."""
        self._spare = 0.0
        self._kept.clear()

    def potential(self, densities: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the exchange-correlation energy in hartree and the potential matrix.

        Args:
            densities: Density matrix ``[num_functions, num_functions]``, or the density matrices of both spins
                ``[2, num_functions, num_functions]``; the potential has the same shape.
        """
        spin = densities.ndim - 2
        parts = densities.reshape(-1, *densities.shape[-2:])
        matrices = np.zeros_like(parts)
        energy = 0.0
        for block in self.blocks():
            rho = np.array([block.density(part) for part in parts])
            per_electron, potential = self.functional.eval_xc_eff(
                self.xc, rho if spin else rho[0], deriv=1, xctype="GGA", spin=spin
            )[:2]
            energy += float(rho[:, 0].sum(axis=0) @ (block.weights * per_electron))
            chosen = np.ix_(block.functions, block.functions)
            for matrix, part in zip(matrices, potential.reshape(-1, 4, len(block.weights)), strict=True):
                matrix[chosen] += block.values[0].T @ block.weighted(part * block.weights)
        return energy, (matrices + matrices.swapaxes(-1, -2)).reshape(densities.shape)


def points_together(coords: np.ndarray, most: int) -> list[np.ndarray]:
    """Divide points into groups of neighbours, by halving along the longest side until no group exceeds ``most``.

    Example:
        >>> points_together(np.array([[0.0, 0, 0], [9, 0, 0], [1, 0, 0], [8, 0, 0]]), 2)
        [array([0, 2]), array([3, 1])]
    """
    groups, whole = [], [np.arange(len(coords))]
    while whole:
        points = whole.pop()
        if len(points) <= most:
            groups.append(points)
            continue
        axis = np.ptp(coords[points], axis=0).argmax()
        points = points[np.argsort(coords[points, axis], kind="stable")]
        whole += [points[len(points) // 2 :], points[: len(points) // 2]]
    return groups


FITTING = "def2-universal-jkfit"  # auxiliary basis of the stability test if the level of theory uses exact integrals
LEVEL_SHIFT = 0.1  # level shift in hartree of the second attempt to converge

CYCLES = (80, 100, 60)
"""Maximum number of cycles of the first attempt, of the second with level shift, and of the third without."""

NO_ORBITAL = 1e-8  # occupation below which natural orbitals of the initial guess are neglected


@dataclass
class ClosedShell:
    """Converged closed-shell solution, with its integrals and integration grid."""

    mf: "dft.rks.RKS"  #: PySCF mean-field object with orbitals, occupations and energies in hartree.
    integrals: FittedIntegrals
    grid: IntegrationGrid

    def free_memory(self):
        """Free the memory of cached values."""
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
        """Virtual orbitals ``[num_functions, num_virtual]``."""
        return self.mf.mo_coeff[:, self.mf.mo_occ == 0]

    @property
    def density(self) -> np.ndarray:
        """Total density matrix of both spins ``[num_functions, num_functions]``."""
        return 2 * self.occupied @ self.occupied.T

    @property
    def gap(self) -> float:
        """HOMO-LUMO gap in hartree."""
        return float(self.mf.mo_energy[self.mf.mo_occ == 0].min() - self.mf.mo_energy[self.mf.mo_occ > 0].max())

    @property
    def num_valence(self) -> int:
        """Number of occupied orbitals outside the noble-gas cores; all occupied orbitals if there are none outside."""
        num_occupied = int((self.mf.mo_occ > 0).sum())
        return num_occupied - num_core_orbitals(self.mf.mol.atom_charges()) or num_occupied


def solve_closed_shell(mol, level: ShieldingLevel, spare: float = 0.0) -> ClosedShell:
    """Solve the closed-shell self-consistent field of a cluster.

    Args:
        mol: PySCF molecule.
        level: Level of theory.
        spare: Memory in bytes for caching.

    Raises:
        LabellingError: If it does not converge, or if an occupied orbital lies above a virtual one.
    """
    mf = level.mean_field(mol)
    solution = with_orbitals(mf, level, spare)
    with fitted_potential(mf, solution.integrals, solution.grid) if level.fitting else nullcontext():
        converge(mf, mf.get_init_guess(), "the closed-shell SCF")
    if solution.gap <= 0:
        raise LabellingError("the closed-shell SCF is not the ground state: a virtual orbital is below an occupied one")
    return solution


def with_orbitals(mf, level: ShieldingLevel, spare: float = 0.0) -> ClosedShell:
    """Combine a calculation, converged or not, with density-fitted integrals and a grid."""
    integrals = FittedIntegrals(mf.mol, level.fitting or FITTING)
    return ClosedShell(mf, integrals, IntegrationGrid(mf, spare))


def converge(mf, guess: np.ndarray | None, name: str):
    """Run a self-consistent field, if necessary again with a level shift.

    Raises:
        LabellingError: If it does not converge.
    """
    if not converged(mf, guess, CYCLES, LEVEL_SHIFT):
        raise LabellingError(f"{name} did not converge in {' + '.join(map(str, CYCLES))} cycles")


@contextmanager
def fitted_potential(mf, integrals: FittedIntegrals, grid: IntegrationGrid) -> Iterator[None]:
    """Replace the potential of a (restricted or unrestricted) calculation by density fitting and cached grid values.

    Equations and results are those of the density fitting of PySCF, but on one core it takes less time.
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
        del mf.get_veff  # break the reference cycle, which would keep the memory until garbage collection


def exact_exchange(mf) -> float:
    """Fraction of exact exchange of the functional of a calculation."""
    return float(mf._numint.rsh_and_hybrid_coeff(mf.xc)[2])


def _orbitals(tagged, density: np.ndarray, spin: int | None = None) -> np.ndarray:
    """Orbitals C with the one-spin density matrix C Cᵀ: those stored with the matrix, or its natural orbitals."""
    orbitals, occupations = getattr(tagged, "mo_coeff", None), getattr(tagged, "mo_occ", None)
    if orbitals is not None and occupations is not None:
        if spin is not None:
            orbitals, occupations = orbitals[spin], occupations[spin]
        return orbitals[:, occupations > 0]
    weights, natural = np.linalg.eigh(density)
    chosen = weights > NO_ORBITAL
    return natural[:, chosen] * np.sqrt(weights[chosen])


LETTERS = "SPD"
COMPONENTS = ("", "X", "Y", "Z", "XX", "YY", "ZZ", "XY", "XZ", "YZ")  # cartesian components in the order of the columns


def gross_populations(solution: ClosedShell) -> np.ndarray:
    """Mulliken gross populations of the basis functions ``[num_functions]``, the diagonal of density times overlap."""
    return np.einsum("ij,ji->i", solution.density, solution.mf.get_ovlp())


def population_table(solution: ClosedShell, populations: np.ndarray) -> tuple[list[str], np.ndarray] | None:
    """Arrange the populations of a cluster of one element by basis function, with the names and order of Gaussian.

    The d shells are numbered after the last s shell: the 19 functions of sodium in 6-31G(d) are 1S 2S 2PX ... 4PZ 5DXX
    5DYY 5DZZ 5DXY 5DXZ 5DYZ.

    Returns:
        Names, and populations ``[num_atoms, len(names)]`` in electrons; ``None`` for clusters of several elements, or
        for spherical functions.
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
    """Mulliken charges of the atoms ``[num_atoms]`` in elementary charges."""
    mol = solution.mf.mol
    electrons = [populations[start:end].sum() for _, _, start, end in mol.aoslice_by_atom()]
    return mol.atom_charges() - np.array(electrons)


def _key(shell: str, component: str, num_s: int) -> tuple[int, int, int]:
    """Sorting key of a function (number, letter, component) from PySCF names such as ``3d`` and ``xx``."""
    number, letter = int(shell[:-1]), LETTERS.index(shell[-1].upper())
    return number + (num_s - 2 if letter == 2 else 0), letter, COMPONENTS.index(component.upper())
