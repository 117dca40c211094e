"""Charge and spin of a cluster, as its frame states them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from pyg_clusters.errors import InputError

CHARGE_NAMES: frozenset[str] = frozenset({"charge", "total_charge", "tot_charge", "net_charge", "molecular_charge"})
"""Names of the total charge (e) in the ``info`` of a frame, in any case."""

MULTIPLICITY_NAMES: frozenset[str] = frozenset({"multiplicity", "spin_multiplicity", "mult", "2s+1"})
"""Names of the spin multiplicity, 2S + 1."""

UNPAIRED_NAMES: frozenset[str] = frozenset(
    {"uhf", "unpaired", "n_unpaired", "unpaired_electrons", "magmom", "total_magmom"}
)
"""Names of the number of unpaired electrons, 2S."""

SPIN_NAMES: frozenset[str] = frozenset({"spin", "total_spin"})
"""Names that some programs give to S, some to 2S and some to 2S + 1: the parity of the electrons decides."""

STATE_NAMES: frozenset[str] = CHARGE_NAMES | MULTIPLICITY_NAMES | UNPAIRED_NAMES | SPIN_NAMES

INITIAL_ARRAYS: tuple[str, ...] = ("initial_charges", "initial_magmoms")
"""Arrays by which ASE gives charge and spin to calculators."""

TOLERANCE: float = 0.01
"""So much the sum of initial charges or magnetic moments may differ from a whole number."""


@dataclass(frozen=True)
class ElectronicState:
    """Charge and spin of a cluster.

    Attributes:
        charge: Total charge in units of e.
        unpaired: Number of unpaired electrons, if the frame states it.
        electrons: Number of electrons.
    """

    charge: int
    unpaired: int | None
    electrons: int

    @property
    def multiplicity(self) -> int | None:
        """Spin multiplicity 2S + 1, if the frame states the spin."""
        return None if self.unpaired is None else self.unpaired + 1

    @property
    def is_lowest_spin(self) -> bool:
        """Whether the frame states no spin, or a singlet or doublet."""
        return self.unpaired in (None, self.electrons % 2)


def electronic_state(atoms: Atoms, default_charge: int = 0) -> ElectronicState:
    """Charge and spin that a frame states.

    They are read from ``info`` (``charge``, ``total_charge``, ``multiplicity``, ``spin``, ...) and from ASE's initial
    charges and magnetic moments, where these do not sum to zero. Charges and magnetic moments that a calculation has
    given (``atoms.calc.results``) are results, not statements.

    Args:
        atoms: The cluster.
        default_charge: Total charge of a cluster whose frame states none.

    Raises:
        InputError: If a value is not a whole number, or values contradict each other or the number of electrons.

    Example:
        >>> trimer = Atoms("Na3", [[0, 0, 0], [3.3, 0, 0], [0, 3.3, 0]], info={"total_charge": 1, "multiplicity": 1})
        >>> electronic_state(trimer)
        ElectronicState(charge=1, unpaired=0, electrons=32)
    """
    charges = [*_numbers(atoms, CHARGE_NAMES), *_initial_sum(atoms, "initial_charges")]
    charge = int(_agreed(charges, default_charge))
    electrons = int(atoms.numbers.sum()) - charge
    spins = [(name, value - 1) for name, value in _numbers(atoms, MULTIPLICITY_NAMES)]
    spins += [(name, abs(value)) for name, value in _numbers(atoms, UNPAIRED_NAMES)]
    spins += [(name, abs(value)) for name, value in _initial_sum(atoms, "initial_magmoms")]
    spins += [(name, _unpaired_of_spin(name, value, electrons)) for name, value in _numbers(atoms, SPIN_NAMES, 0.5)]
    if not spins:
        return ElectronicState(charge, None, electrons)
    unpaired = int(_agreed(spins, 0))
    if not 0 <= unpaired <= electrons or (electrons - unpaired) % 2:
        names = " and ".join(name for name, _ in spins)
        raise InputError(
            f"{names} means {unpaired} unpaired electrons, impossible with {electrons} electrons "
            f"({atoms.get_chemical_formula()}, charge {charge}); correct or remove it"
        )
    return ElectronicState(charge, unpaired, electrons)


def neutral_problem(atoms: Atoms, by: str) -> str | None:
    """Reason why a potential without charge and spin cannot be used for a frame, if so.

    Args:
        atoms: The frame.
        by: The potential, as messages call it.
    """
    try:
        state = electronic_state(atoms)
    except InputError as error:
        return str(error)
    if state.charge:
        return (
            f"its charge is {state.charge}, but {by} does not take a charge; use a calculator that does (tblite), or "
            "remove the charge from the frame"
        )
    if not state.is_lowest_spin:
        return (
            f"its multiplicity is {state.multiplicity}, but {by} does not take a spin; use a calculator that does "
            "(tblite), or remove the spin from the frame"
        )
    return None


def _numbers(atoms: Atoms, names: frozenset[str], step: float = 1.0) -> Iterator[tuple[str, float]]:
    """Name and value of each of some names that a frame states."""
    for name, given in atoms.info.items():
        if str(name).lower() not in names or given is None:
            continue
        try:
            value = float(np.asarray(given).reshape(()).item())
        except (TypeError, ValueError):
            value = float("nan")
        if isinstance(given, (bool, np.bool_)) or not np.isfinite(value) or value % step:
            whole = "a whole number" if step == 1 else f"a multiple of {step}"
            raise InputError(f"{name} must be {whole}, got {np.asarray(given).tolist()!r}; correct it")
        yield str(name), value


def _initial_sum(atoms: Atoms, name: str) -> Iterator[tuple[str, float]]:
    """Sum of ASE's initial charges or magnetic moments, if it is not zero."""
    values = atoms.arrays.get(name)
    if values is None or values.ndim > 1:  # non-collinear moments have no number of unpaired electrons
        return
    total = float(values.sum())
    if not abs(total - round(total)) < TOLERANCE:
        raise InputError(f"{name} sum to {total:g}, which is not a whole number; correct or remove them")
    if round(total):
        yield f"the sum of {name}", float(round(total))


def _unpaired_of_spin(name: str, value: float, electrons: int) -> float:
    """Number of unpaired electrons by the readings of ``spin`` (2S, 2S + 1 or S) that fit the number of electrons."""
    readings = {abs(value), value - 1, 2 * abs(value)}
    fitting = sorted({n for n in readings if n >= 0 and n % 1 == 0 and (electrons - n) % 2 == 0})
    if len(fitting) == 1:
        return fitting[0]
    reason = f"{name} = {value:g} may mean {' or '.join(f'{n:g}' for n in fitting) or 'no number of'} unpaired"
    raise InputError(f"{reason} electrons of {electrons}; state multiplicity instead")


def _agreed(values: Iterable[tuple[str, float]], default: float) -> float:
    """The value on which all statements agree."""
    values = list(values)
    for name, value in values[1:]:
        if value != values[0][1]:
            raise InputError(f"{values[0][0]} and {name} contradict each other; correct or remove one")
    return values[0][1] if values else default
