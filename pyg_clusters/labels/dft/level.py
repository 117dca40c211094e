"""Level of theory of shieldings, and the memory that a calculation needs."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from pyg_clusters.errors import InputError
from pyg_clusters.frames.electronic_state import electronic_state
from pyg_clusters.labels.dft import df, dft, gto
from pyg_clusters.structures.calculators import basis_shells

NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86)
"""Electrons of the cores."""


@dataclass(frozen=True)
class ShieldingLevel:
    """Functional, basis and numerical settings of a calculation of shieldings.

    The defaults are B3LYP/6-31G(d) with cartesian functions (Kaneko et al. 2023), and numerical settings whose error of
    the isotropic shielding is about 0.1 ppm: Na8 differs from exact integrals, a fine grid and tight convergence by at
    most 0.05 ppm, Na14 by 0.10 ppm (fitting basis) and up to 0.17 ppm (grid).
    """

    xc: str = "b3lyp"
    """A functional of the gradient of the density, hybrid or not, by PySCF's name. Its B3LYP is Gaussian's."""
    basis: str = "6-31g*"
    """Basis set, by PySCF's name."""
    cartesian: bool = True
    """Six d functions, as 6-31G(d) has them, instead of five."""
    fitting: str | None = "def2-universal-jkfit"
    """Basis in which products of orbitals are expanded, the same one in every two-electron term, so that the result
    does not depend on the origin of the gauge; none for exact integrals, which take many times longer."""
    grid: int = 1
    """PySCF's level of the integration grid, 0 (coarse) to 9."""
    scf_tolerance: float = 1e-7
    """Convergence of the energy in hartree, judged by the gradient."""
    response_tolerance: float = 1e-4
    """Convergence of the coupled-perturbed equations."""
    core_potential: str | None = None
    """Effective core potential, by PySCF's name, in place of the core electrons; there are no shieldings with it."""

    def __post_init__(self):
        if not 0 <= self.grid <= 9:
            raise InputError(f"the level of the grid is 0 to 9, got {self.grid}")
        for name in ("scf_tolerance", "response_tolerance"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} must be between 0 and 1, got {getattr(self, name)}")

    def __str__(self) -> str:
        integrals = f"density fitting {self.fitting}" if self.fitting else "exact integrals"
        functions = "cartesian" if self.cartesian else "spherical"
        return (
            f"{self.xc.upper()}/{self.basis.upper()} ({functions}), closed shell, GIAO, {integrals}, grid {self.grid}"
        )

    def molecule(self, atoms: Atoms, charge: int = 0) -> "gto.Mole":
        """A cluster as PySCF has it, with the origin in its middle, where it costs the least accuracy."""
        positions = atoms.positions - atoms.positions.mean(axis=0)
        return gto.M(
            atom=list(zip(atoms.get_chemical_symbols(), positions, strict=True)),
            unit="Angstrom",
            basis=self.basis,
            ecp=self.core_potential or {},
            cart=self.cartesian,
            charge=charge,
            verbose=0,
        )

    def mean_field(self, mol: "gto.Mole") -> "dft.rks.RKS":
        """The closed-shell calculation with exact integrals, not yet run."""
        mf = dft.RKS(mol, xc=self.xc)
        mf.grids.level = self.grid
        mf.conv_tol, mf.conv_tol_grad = 100 * self.scf_tolerance, 2000 * self.scf_tolerance
        mf.chkfile = None
        return mf


def problem_of(atoms: Atoms, default_charge: int, level: ShieldingLevel) -> str | None:
    """Reason why a cluster has no closed-shell calculation at this level, if so.

    Args:
        atoms: The cluster, with the charge and spin of its frame.
        default_charge: Total charge, if the frame states none.
        level: The level of theory.
    """
    try:
        state = electronic_state(atoms, default_charge)
    except InputError as error:
        return str(error)
    charge, electrons = state.charge, state.electrons
    if electrons < 2 or electrons % 2:
        return (
            f"{electrons} electrons ({atoms.get_chemical_formula()}, charge {charge}) cannot be a singlet; "
            "give another --charge, or a charge in the info of the frame"
        )
    if state.unpaired:
        return f"its multiplicity is {state.multiplicity}, but this label is of closed shells; correct or remove it"
    if level.core_potential and electrons <= num_core_electrons(atoms, level.core_potential):
        return f"no electron is left outside the cores ({atoms.get_chemical_formula()}, charge {charge})"
    missing = without_basis(set(atoms.get_chemical_symbols()), level.basis)
    if missing:
        return f"there is no basis {level.basis} for {', '.join(missing)}"
    return None


def without_basis(symbols: Collection[str], basis: str) -> list[str]:
    """The elements of some that a basis set does not know."""
    return sorted(symbol for symbol in symbols if not num_functions(symbol, basis))


@lru_cache
def num_functions(symbol: str, basis: str) -> int:
    """Number of cartesian functions of an element in a basis set; none, if the set does not know the element."""
    return sum(_cartesians(shell[0]) * (len(shell[-1]) - 1) for shell in basis_shells(symbol, basis))


@lru_cache
def num_fitting_functions(symbol: str, basis: str, fitting: str) -> int:
    """Number of solid harmonics of an element in a fitting basis."""
    mol = gto.M(atom=symbol, basis=basis, spin=atomic_numbers[symbol] % 2, verbose=0)
    return df.addons.make_auxmol(mol, fitting).nao


def num_core_electrons(atoms: Atoms, core_potential: str) -> int:
    """Electrons of a cluster that an effective core potential stands for."""
    symbols = atoms.get_chemical_symbols()
    cores = {symbol: gto.basis.load_ecp(core_potential, symbol) for symbol in set(symbols)}
    return sum(cores[symbol][0] if cores[symbol] else 0 for symbol in symbols)


def num_core_orbitals(numbers: np.ndarray) -> int:
    """Orbitals of the noble-gas cores of atoms."""
    return sum(max(core for core in NOBLE_GASES if core < number) // 2 for number in numbers)


def _cartesians(angular_momentum: int) -> int:
    return (angular_momentum + 1) * (angular_momentum + 2) // 2


GB = 1e9
BUFFERS = 1500
"""Bytes of buffers for each element of a matrix."""

FREE = 0.9
"""Share of the free memory that the commands take by default."""

BASE = 0.5 * GB
"""Of the interpreter and its libraries."""


def needed_memory(atoms: Atoms, level: ShieldingLevel) -> float:
    """Bytes without which a cluster cannot be done: integrals, products of orbitals and first-order integrals."""
    functions, fitting = _sizes(atoms, level)
    of_atom = 4 * 4 * functions**2 * fitting / len(atoms)
    return _always(functions, fitting) + _held(atoms, level) + of_atom


def spare_memory(memory: float, atoms: Atoms, level: ShieldingLevel) -> float:
    """Bytes left during the self-consistent field, to save time."""
    return max(memory - _always(*_sizes(atoms, level)) - _held(atoms, level), 0.0)


def free_memory() -> float:
    """Bytes that the machine can give: what it calls available, or else half of all."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _always(functions: int, fitting: int) -> float:
    """Bytes of the interpreter, the metric of the fitting basis and buffers."""
    return BASE + 3 * 8 * fitting**2 + BUFFERS * functions**2


def _held(atoms: Atoms, level: ShieldingLevel) -> float:
    """Bytes of the fitted integrals, and twice those of the products of orbitals with all functions."""
    functions, fitting = _sizes(atoms, level)
    cores = num_core_orbitals(atoms.numbers)
    orbitals = atoms.numbers.sum() / 2 - cores + cores / len(atoms)
    return 4 * fitting * functions * ((functions + 1) / 2 + 2 * orbitals)


def _sizes(atoms: Atoms, level: ShieldingLevel) -> tuple[int, int]:
    """Number of basis and of fitting functions."""
    symbols = atoms.get_chemical_symbols()
    functions = sum(num_functions(symbol, level.basis) for symbol in symbols)
    fitting = level.fitting or "def2-universal-jkfit"
    return functions, sum(num_fitting_functions(symbol, level.basis, fitting) for symbol in symbols)
