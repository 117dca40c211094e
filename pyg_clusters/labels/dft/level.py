"""Level of theory of shieldings, and memory requirements."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from pyg_clusters.errors import InputError
from pyg_clusters.frames.electronic_state import NOBLE_GASES, electronic_state
from pyg_clusters.labels.dft import df, dft, gto
from pyg_clusters.structures.pyscf_calculator import basis_shells


@dataclass(frozen=True)
class ShieldingLevel:
    """Functional, basis set and numerical settings of a shielding calculation.

    The defaults are B3LYP/6-31G(d) with Cartesian functions (Kaneko et al. 2023). The default numerical settings give
    isotropic shieldings within about 0.1 ppm: for Na8, the deviation from exact integrals, a fine grid and tight
    convergence is at most 0.05 ppm; for Na14 it is 0.10 ppm (density fitting) and up to 0.17 ppm (grid).
    """

    xc: str = "b3lyp"  #: PySCF name of a gradient functional, pure or hybrid. PySCF defines B3LYP as Gaussian does.
    basis: str = "6-31g*"  #: PySCF name of the basis set.
    #: Whether to use six Cartesian d functions, as 6-31G(d) is defined, instead of five spherical ones.
    cartesian: bool = True
    #: Auxiliary basis of the density fitting, or ``None`` for exact integrals, which are many times slower. The same
    #: basis is used in every two-electron term, and the shieldings do not depend on the gauge origin.
    fitting: str | None = "def2-universal-jkfit"
    grid: int = 1  #: PySCF level of the integration grid, from 0 (coarse) to 9.
    #: Convergence of the energy in hartree. In practice the orbital gradient (2000 times as large) decides.
    scf_tolerance: float = 1e-7
    response_tolerance: float = 1e-4  #: Convergence of the coupled-perturbed equations.
    #: PySCF name of an effective core potential that replaces the core electrons. Shieldings cannot be computed with
    #: it.
    core_potential: str | None = None

    def __post_init__(self):
        if not 0 <= self.grid <= 9:
            raise InputError(f"the grid level must be 0 to 9, got {self.grid}")
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
        """Convert a cluster to a PySCF molecule, centred at the origin to minimise rounding errors."""
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
        """Set up the closed-shell calculation with exact integrals, without running it."""
        mf = dft.RKS(mol, xc=self.xc)
        mf.grids.level = self.grid
        mf.conv_tol, mf.conv_tol_grad = 100 * self.scf_tolerance, 2000 * self.scf_tolerance
        mf.chkfile = None
        return mf


def problem_of(atoms: Atoms, default_charge: int, level: ShieldingLevel) -> str | None:
    """Reason why a closed-shell calculation of a cluster at this level is impossible, if any.

    Args:
        atoms: Cluster, with the charge and spin of its frame.
        default_charge: Total charge in e if the frame does not state a charge.
        level: Level of theory.
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
        return f"its multiplicity is {state.multiplicity}, but this label is for closed shells; correct or remove it"
    if level.core_potential and electrons <= num_core_electrons(atoms, level.core_potential):
        return f"no electron is left outside the cores ({atoms.get_chemical_formula()}, charge {charge})"
    missing = without_basis(set(atoms.get_chemical_symbols()), level.basis)
    if missing:
        return f"there is no basis {level.basis} for {', '.join(missing)}"
    return None


def without_basis(symbols: Collection[str], basis: str) -> list[str]:
    """Elements that a basis set does not include, sorted."""
    return sorted(symbol for symbol in symbols if not num_functions(symbol, basis))


@lru_cache
def num_functions(symbol: str, basis: str) -> int:
    """Number of Cartesian functions of an element in a basis set; 0 if the set does not include the element."""
    shells = [(shell[0], len(shell[-1]) - 1) for shell in basis_shells(symbol, basis)]
    return sum((degree + 1) * (degree + 2) // 2 * count for degree, count in shells)


@lru_cache
def num_fitting_functions(symbol: str, basis: str, fitting: str) -> int:
    """Number of functions of an element in an auxiliary basis."""
    mol = gto.M(atom=symbol, basis=basis, spin=atomic_numbers[symbol] % 2, verbose=0)
    return df.addons.make_auxmol(mol, fitting).nao


def num_core_electrons(atoms: Atoms, core_potential: str) -> int:
    """Number of electrons of a cluster that an effective core potential replaces."""
    symbols = atoms.get_chemical_symbols()
    cores = {symbol: gto.basis.load_ecp(core_potential, symbol) for symbol in set(symbols)}
    return sum(cores[symbol][0] if cores[symbol] else 0 for symbol in symbols)


def num_core_orbitals(numbers: np.ndarray) -> int:
    """Number of noble-gas core orbitals of atoms."""
    return sum(max(core for core in NOBLE_GASES if core < number) // 2 for number in numbers)


GB = 1e9
BUFFERS = 1500  # bytes of buffers per matrix element

FREE = 0.9
"""Fraction of the free memory that the commands use by default."""

BASE = 0.5 * GB  # bytes used by the interpreter and its libraries


def needed_memory(atoms: Atoms, level: ShieldingLevel) -> float:
    """Minimum memory of a calculation in bytes: integrals, orbital products and first-order integrals."""
    functions, fitting = _sizes(atoms, level)
    of_atom = 4 * 4 * functions**2 * fitting / len(atoms)
    return _always(functions, fitting) + _held(atoms, level) + of_atom


def spare_memory(memory: float, atoms: Atoms, level: ShieldingLevel) -> float:
    """Memory in bytes left during the self-consistent field, which can be used for caching."""
    return max(memory - _always(*_sizes(atoms, level)) - _held(atoms, level), 0.0)


def free_memory() -> float:
    """Available memory of this machine in bytes; half of the total memory if it is not reported."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _always(functions: int, fitting: int) -> float:
    """Bytes of the interpreter, the Coulomb metric of the auxiliary basis and buffers."""
    return BASE + 3 * 8 * fitting**2 + BUFFERS * functions**2


def _held(atoms: Atoms, level: ShieldingLevel) -> float:
    """Bytes of the three-centre integrals, and of two copies of the products of orbitals with all functions."""
    functions, fitting = _sizes(atoms, level)
    cores = num_core_orbitals(atoms.numbers)
    orbitals = atoms.numbers.sum() / 2 - cores + cores / len(atoms)
    return 4 * fitting * functions * ((functions + 1) / 2 + 2 * orbitals)


def _sizes(atoms: Atoms, level: ShieldingLevel) -> tuple[int, int]:
    """Numbers of basis functions and of auxiliary functions."""
    symbols = atoms.get_chemical_symbols()
    functions = sum(num_functions(symbol, level.basis) for symbol in symbols)
    fitting = level.fitting or "def2-universal-jkfit"
    return functions, sum(num_fitting_functions(symbol, level.basis, fitting) for symbol in symbols)
