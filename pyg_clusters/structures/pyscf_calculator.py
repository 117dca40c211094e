"""Density functional theory of isolated clusters with PySCF."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes
from ase.data import atomic_numbers, chemical_symbols
from ase.units import Bohr, Hartree

from pyg_clusters.errors import InputError, MissingExtra

BASIS, BASIS_OF_TRANSITION_METALS = "def2-svp", "def2-tzvp"
"""PySCF names of the default basis sets, all-electron up to krypton. The smaller one binds Cu4 by 1.66 instead of 1.31
eV per atom. (LANL2DZ and ccECP treat one electron of sodium; they bind Na2 by 0.47 and 0.55 instead of 0.78 eV.)"""
TRANSITION_METALS: frozenset[int] = frozenset((*range(21, 31), *range(39, 49), 57, *range(72, 81)))
CORE_POTENTIAL: str = "def2-svp"
"""PySCF name of the effective core potentials of elements beyond krypton, for any def2 basis set."""
KRYPTON: int = 36
FITTING: str = "def2-universal-jfit"  # auxiliary basis of the density fitting of the Coulomb energy
LEVEL_SHIFT: float = 0.2  # level shift in hartree of the second attempt to converge the self-consistent field
CYCLES: tuple[int, int, int] = (60, 100, 100)
"""Maximum number of cycles of the first attempt, of the second with level shift, and of the third without."""


class PySCFCalculator(Calculator):
    """ASE calculator for clusters by density-fitted Kohn-Sham theory: energy (eV) and forces (eV/Å).

    Uses a pure functional in a Gaussian basis without periodic images. Fermi smearing of the occupations helps the
    self-consistent field to converge if the gap is small. The energy is the electronic free energy at this smearing,
    and the forces are its negative gradient. The zero of energy is that of separated electrons and nuclei (or ionic
    cores): energies of different levels of theory cannot be compared. To obtain binding energies, subtract the energies
    of the isolated atoms, calculated with their ground-state multiplicity.

    ``label energy`` and ``relax`` read charge and multiplicity from the frame. Singlets are spin-restricted, other
    multiplicities unrestricted. Without a multiplicity, an even number of electrons is treated as a closed shell, and
    an odd number raises an error.

    Args:
        charge: Total charge in e.
        multiplicity: Spin multiplicity 2S + 1.
        xc: PySCF name of a local or gradient functional. Hybrid functionals raise an error, because the auxiliary basis
            is made for the Coulomb energy only.
        smearing: Width of the Fermi smearing in eV; 0 for integer occupations.
        grid: PySCF level of the integration grid, from 0 (coarse) to 9.
        basis: PySCF name of a basis set of the def2 family: def2-svp, def2-tzvp, ...; by default def2-TZVP for
            transition metals and def2-SVP for all other elements.

    Raises:
        InputError: In a calculation, if an element has no basis set, or an odd number of electrons no multiplicity.
        MissingExtra: If PySCF is not installed.

    Example:
        >>> dimer = Atoms("Na2", [[0, 0, 0], [0, 0, 3.08]])
        >>> dimer.calc = PySCFCalculator()  # doctest: +SKIP
        >>> dimer.get_potential_energy()  # doctest: +SKIP
    """

    implemented_properties = ["energy", "free_energy", "forces"]
    default_parameters = {"charge": 0, "multiplicity": None, "xc": "pbe", "smearing": 0.05, "grid": 2, "basis": None}

    def __init__(self, **parameters: Any):
        need_pyscf()
        self._density: tuple | None = None
        super().__init__(**parameters)

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Change parameters, and discard the results of the earlier ones."""
        if unknown := parameters.keys() - self.default_parameters.keys():
            raise InputError(
                f"PySCFCalculator has no parameter {sorted(unknown)[0]}; it has {', '.join(self.default_parameters)}"
            )
        if changed := super().set(**parameters):
            self.reset()
        return changed

    def reset(self):
        """Clear the results and the density matrix from which the next calculation would start."""
        super().reset()
        self._density = None

    @property
    def level(self) -> str:
        """Description of the level of theory."""
        given = self.parameters
        fermi = f", Fermi {given['smearing']:g} eV" if given["smearing"] else ""
        basis = given["basis"] or f"{BASIS}, transition metals {BASIS_OF_TRANSITION_METALS}"
        return f"{given['xc'].upper()}/{basis}, {FITTING}, grid {given['grid']}{fermi}"

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute the results; called by ASE."""
        super().calculate(atoms, list(properties), list(system_changes))
        cluster = self.atoms
        assert cluster is not None
        mf = self._mean_field(cluster)
        self._converge(mf, cluster)
        energy = Hartree * float(mf.e_free if self.parameters["smearing"] else mf.e_tot)
        self.results = {"energy": energy, "free_energy": energy}
        gradient = mf.nuc_grad_method()
        gradient.grid_response = True
        self.results["forces"] = -Hartree / Bohr * gradient.kernel()

    def _mean_field(self, cluster: Atoms):
        from pyscf import dft, gto, scf

        if cluster.pbc.any():
            raise InputError("this calculator is for isolated clusters: set atoms.pbc = False")
        given = self.parameters
        charge, multiplicity = given["charge"], given["multiplicity"]
        if problem := pyscf_problem(cluster.numbers.tolist(), charge, multiplicity, given["basis"]):
            raise InputError(problem)
        mol = gto.M(
            atom=list(zip(cluster.get_chemical_symbols(), cluster.positions - cluster.positions.mean(0), strict=True)),
            basis={symbol: basis_of(symbol, given["basis"]) for symbol in cluster.symbols.species()},
            ecp={symbol: CORE_POTENTIAL for symbol in cluster.symbols.species() if atomic_numbers[symbol] > KRYPTON},
            charge=charge,
            spin=(multiplicity or 1) - 1,
            verbose=0,
        )
        if mol.nelectron < max(mol.spin, 1):
            raise InputError(f"{mol.nelectron} electrons outside the cores cannot have {mol.spin} unpaired ones")
        mf = (dft.UKS if mol.spin else dft.RKS)(mol, xc=given["xc"])
        if mf._numint.libxc.is_hybrid_xc(given["xc"]):
            raise InputError(f"the functional {given['xc']} has exact exchange; use one without, such as pbe")
        mf = mf.density_fit(auxbasis=FITTING)
        mf.grids.level, mf.conv_tol, mf.chkfile = given["grid"], 1e-8, None
        if given["smearing"]:
            mf = scf.addons.smearing(mf, given["smearing"] / Hartree, "fermi", fix_spin=True)
        return mf

    def _converge(self, mf, cluster: Atoms):
        """Run the self-consistent field from the last density matrix of the same composition and state, if any."""
        state = (*cluster.numbers, self.parameters["charge"], self.parameters["multiplicity"])
        guess = self._density[1] if self._density is not None and self._density[0] == state else None
        if not converged(mf, guess, CYCLES, LEVEL_SHIFT):
            raise CalculatorError(
                f"the self-consistent field did not converge in {' + '.join(map(str, CYCLES))} cycles"
            )
        self._density = state, np.asarray(mf.make_rdm1())


def converged(mf: Any, guess: Any, cycles: Sequence[int], level_shift: float) -> bool:
    """Run a self-consistent field, if necessary with a level shift, and return whether it converged.

    The cycles are maximum numbers as in :data:`CYCLES`, the level shift of the virtual orbitals is in hartree, and the
    guess is a density matrix, or ``None`` for the default of PySCF.
    """
    for part, (most, shift) in enumerate(zip(cycles, (0.0, level_shift, 0.0), strict=True)):
        mf.max_cycle, mf.level_shift = most, shift
        mf.kernel(mf.make_rdm1() if part else guess)
        if mf.converged and not shift:
            return True
    return False


def need_pyscf(purpose: str = "the calculator pyscf"):
    """Raise :class:`~pyg_clusters.errors.MissingExtra` if PySCF is not installed."""
    try:
        import pyscf  # noqa: F401
    except ImportError as error:
        raise MissingExtra("pyscf", "dft", purpose) from error


def pyscf_problem(
    numbers: Sequence[int], charge: int, multiplicity: int | None, basis: str | None = None
) -> str | None:
    """Reason why PySCF cannot calculate a cluster of this charge (e) and multiplicity 2S + 1, if any."""
    need_pyscf()
    for symbol in sorted({chemical_symbols[number] for number in numbers}):
        if not basis_shells(symbol, name := basis_of(symbol, basis)):
            return f"the calculator pyscf has no basis functions {name} for {symbol}; use another calculator"
    electrons = int(sum(numbers)) - charge
    if multiplicity is None and electrons % 2:
        return f"it has an odd number of electrons ({electrons}): state multiplicity=2 (or 4, ...) in the frame"
    if multiplicity is not None and (electrons - multiplicity) % 2 == 0:
        return f"multiplicity {multiplicity} is impossible with {electrons} electrons; correct or remove it"
    return None


def basis_of(symbol: str, basis: str | None) -> str:
    """Basis set of an element: the given one, or the default."""
    return basis or (BASIS_OF_TRANSITION_METALS if atomic_numbers[symbol] in TRANSITION_METALS else BASIS)


@lru_cache
def basis_shells(symbol: str, basis: str) -> list:
    """Shells of an element in a basis set in PySCF format; empty if the basis set lacks the element."""
    from pyscf import gto

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PySCF suggests looking for the basis set online
            return gto.basis.load(basis, symbol)
    except (RuntimeError, KeyError):  # PySCF's BasisNotFoundError is a RuntimeError
        return []
