"""ASE calculators by name, and their use for the charge and spin of a cluster."""

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.calculators.emt import parameters

from pyg_clusters.errors import InputError, MissingExtra, one_line
from pyg_clusters.files import file_fingerprint
from pyg_clusters.frames.atoms import join_atoms
from pyg_clusters.frames.electronic_state import INITIAL_ARRAYS, electronic_state, neutral_problem
from pyg_clusters.structures.potentials import GUPTA_PARAMETERS, ClusterEMT, GuptaCalculator
from pyg_clusters.structures.pyscf_calculator import PySCFCalculator, pyscf_problem
from pyg_clusters.trusted import current_folder

CALCULATORS: str = "gupta, emt, tblite, pyscf, gap:FILE or module:Class"
"""Names that :func:`named_calculator` accepts, for messages."""

EMT_METALS: list[str] = [symbol for symbol in parameters if symbol not in ("H", "C", "N", "O")]
"""Elements of ``emt``. The parameters of ASE for the other four "are not for any serious use"."""

FAILURES = (CalculatorError, ArithmeticError, RuntimeError)
"""Errors that calculators raise for a cluster on which they fail."""


def named_calculator(name: str, elements: Collection[str]) -> Calculator:
    """Return the ASE calculator of a name, for clusters of the given elements.

    - ``gupta``: :class:`~pyg_clusters.structures.GuptaCalculator`, for one element;
    - ``emt``: :class:`~pyg_clusters.structures.ClusterEMT`, for Al, Ni, Cu, Pd, Ag, Pt, Au and their alloys;
    - ``tblite``: GFN1-xTB (Grimme, Bannwarth, Shushkov, J. Chem. Theory Comput. 2017, 13, 1989);
    - ``pyscf``: :class:`~pyg_clusters.structures.PySCFCalculator`, density functional theory;
    - ``gap:FILE``: the Gaussian approximation potential in an XML file (Bartók, Payne, Kondor, Csányi, Phys. Rev. Lett.
      2010, 104, 136403), or another QUIP potential;
    - ``module:Class``: your own class, which is instantiated without arguments. It receives charged clusters only if
      its ``default_parameters`` (as defined by ASE) contain ``charge``, and spins other than singlet or doublet only
      if they contain ``multiplicity`` or the frame has initial magnetic moments; or if it sets ``charge_from_info =
      True`` and reads charge and spin from ``atoms.info``.

    Raises:
        InputError: If there is no such calculator, or it does not support an element.
        MissingExtra: If a package is not installed.

    Example:
        >>> type(named_calculator("emt", ["Cu", "Au"])).__name__
        'ClusterEMT'
    """
    if name in ("gupta", "emt"):
        check_elements(name, elements)
        return ClusterEMT() if name == "emt" else GuptaCalculator(next(iter(elements)), fragments="keep")
    if name == "tblite":
        try:
            from tblite.ase import TBLite
        except ImportError as error:
            raise MissingExtra("tblite", "tblite", "the calculator tblite") from error
        return TBLite(method="GFN1-xTB", verbosity=0)
    if name == "pyscf":
        return PySCFCalculator()
    if name.startswith("gap:"):
        return _gap(Path(name.removeprefix("gap:")))
    if ":" in name:
        return _own(name)
    raise InputError(f"there is no calculator {name!r}; use {CALCULATORS}")


def check_calculator(name: str):
    """Raise :class:`~pyg_clusters.errors.InputError` if there is no such calculator, before frames are read."""
    if name != "gupta":  # which needs an element
        named_calculator(name, ())


def check_elements(name: str, elements: Collection[str]):
    """Raise :class:`~pyg_clusters.errors.InputError` if ``gupta`` or ``emt`` has no parameters of these elements."""
    known = {"gupta": list(GUPTA_PARAMETERS), "emt": EMT_METALS}.get(name, [])
    for element in elements:
        if known and element not in known:
            raise InputError(f"the calculator {name} supports only {', '.join(known)}, not {element}; use another")
    if name == "gupta" and len(set(elements)) > 1:
        remedy = f"use emt for alloys of {', '.join(EMT_METALS)}"
        raise InputError(f"the calculator gupta is for one element, not {', '.join(elements)}; {remedy}")


def calculator_problem(name: str, atoms: Atoms) -> str | None:
    """Reason why a calculator cannot be used for a frame, if any: an unsupported element, charge or spin."""
    symbols = atoms.get_chemical_symbols()
    for number in sorted(np.unique(atoms.numbers, return_index=True)[1].tolist()):  # the first atom of each element
        try:
            check_elements(name, [symbols[0], symbols[number]])
        except InputError as error:
            return f"atom {number} is {symbols[number]}: {error}"
    try:
        state = electronic_state(atoms)
        takes_charge, takes_spin = _accepted_state(name)
        if (state.charge or not state.is_lowest_spin) and not takes_charge:
            return neutral_problem(atoms, f"the calculator {name}")
        if not (state.is_lowest_spin or takes_spin or "initial_magmoms" in atoms.arrays):
            return (
                f"its multiplicity is {state.multiplicity}, but the calculator {name} has no parameter multiplicity; "
                "use one that has it (tblite, pyscf), or state the spin by initial magnetic moments if it reads them"
            )
        if name == "pyscf":
            return pyscf_problem(atoms.numbers.tolist(), state.charge, state.multiplicity)
    except InputError as error:
        return str(error)
    return None


def calculator_identity(name: str) -> str:
    """Name of a calculator and fingerprint of its potential or module, for the settings of a resumable job."""
    file = Path(name.removeprefix("gap:"))
    if ":" in name and not name.startswith("gap:"):
        with suppress(InputError, TypeError):  # an error on creation, or a class without a file
            file = Path(inspect.getfile(_class_of(name)))
    return f"{name}, {file_fingerprint(file)}" if file.is_file() and ":" in name else name


def isolated(atoms: Atoms, calculator: Calculator) -> Atoms:
    """Copy a cluster without its cell, and attach a calculator with the charge and spin of the cluster.

    A cluster in a periodic cell is joined across the cell faces. Calculators without the parameters ``charge`` and
    ``multiplicity`` may read them from the ``info``, the initial charges and the initial magnetic moments of the copy.

    Raises:
        InputError: If a periodic structure is not an isolated cluster, or its charge and spin contradict each other.
    """
    positions = join_atoms(atoms).positions if atoms.pbc.any() else atoms.positions
    copy = Atoms(atoms.numbers, positions, info=dict(atoms.info))
    for name in INITIAL_ARRAYS:
        if name in atoms.arrays:
            copy.set_array(name, atoms.arrays[name])
    parameters = _parameters(calculator)
    if "charge" in parameters:
        state = electronic_state(atoms)
        given: dict[str, object] = {"charge": state.charge}
        if "multiplicity" in parameters:
            given["multiplicity"] = state.multiplicity or type(calculator).default_parameters.get("multiplicity")
        calculator.set(**given)
    if hasattr(calculator, "reset"):  # ASE would return the results of the ion for the neutral cluster
        calculator.reset()
    copy.calc = calculator
    return copy


def calculate(atoms: Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    """Compute the energy in eV and the forces ``[num_atoms, 3]`` in eV/Å of a cluster, as :func:`isolated` describes.

    Raises:
        CalculatorError: If the calculator fails, or a result is not finite.
    """
    cluster = isolated(atoms, calculator)
    try:
        energy, forces = float(cluster.get_potential_energy()), cluster.get_forces()
    except FAILURES as error:
        raise CalculatorError(one_line(error)) from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise CalculatorError("the energy or a force is not finite")
    return energy, forces


def lowest_spin(numbers: np.ndarray, calculator: Calculator) -> dict[str, int]:
    """Lowest multiplicity of a neutral cluster as ``info``; empty if the calculator has no such parameter."""
    return {"multiplicity": 1 + int(numbers.sum()) % 2} if "multiplicity" in _parameters(calculator) else {}


def _parameters(calculator: Calculator) -> dict:
    """Parameters of a calculator by name, including defaults."""
    return {**getattr(calculator, "default_parameters", {}), **getattr(calculator, "parameters", {})}


@lru_cache
def _accepted_state(name: str) -> tuple[bool, bool]:
    """Whether a calculator accepts a charge and a spin, as a parameter or from ``atoms.info``."""
    if name == "gupta":
        return False, False
    calculator = named_calculator(name, ())
    if getattr(calculator, "charge_from_info", False):
        return True, True
    parameters = _parameters(calculator)
    return "charge" in parameters, "multiplicity" in parameters


def _gap(file: Path) -> Calculator:
    if not file.is_file():
        raise InputError(f"the calculator gap:{file}: no such file; give the XML file of a potential")
    try:
        from quippy.potential import Potential
    except ImportError as error:
        raise MissingExtra("quippy-ase", "gap", "the calculator gap") from error
    try:
        return Potential(param_filename=str(file))
    except RuntimeError as error:
        raise InputError(f"the calculator gap:{file}: {one_line(error, 120)}") from error


@contextmanager
def _creating(name: str) -> Iterator[None]:
    """Report errors on the import or creation of the calculator ``module:Class``."""
    try:
        with current_folder():
            yield
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"the calculator {name} cannot be created: {error}; is its module on PYTHONPATH?") from error


def _class_of(name: str) -> Callable[[], Calculator]:
    module, _, attribute = name.partition(":")
    with _creating(name):
        return getattr(importlib.import_module(module), attribute)


def _own(name: str) -> Calculator:
    make = _class_of(name)
    with _creating(name):
        calculator = make()
    if not hasattr(calculator, "get_property"):
        raise InputError(f"{name} creates a {type(calculator).__name__}, which is not an ASE calculator")
    return calculator
