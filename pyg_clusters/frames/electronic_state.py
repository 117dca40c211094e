"""Charge and spin of a cluster, as stated by its frame."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
from ase import Atoms

from pyg_clusters.errors import InputError

CHARGE_NAMES: frozenset[str] = frozenset({"charge", "total_charge", "tot_charge", "net_charge", "molecular_charge"})
"""Names of the total charge (e) in the ``info`` of a frame, in upper or lower case."""

MULTIPLICITY_NAMES: frozenset[str] = frozenset({"multiplicity", "spin_multiplicity", "mult", "2s+1"})
"""Names of the spin multiplicity, 2S + 1."""

MOMENTS: frozenset[str] = frozenset({"magmom", "total_magmom"})
"""Names of the magnetic moment in Bohr magnetons. A moment that is not an integer is a result, not a statement."""

UNPAIRED_NAMES: frozenset[str] = frozenset({"uhf", "unpaired", "n_unpaired", "unpaired_electrons"}) | MOMENTS
"""Names of the number of unpaired electrons, 2S."""

SPIN_NAMES: frozenset[str] = frozenset({"spin", "total_spin"})
"""Names used for S, 2S or 2S + 1 by different programs; the parity of the number of electrons distinguishes them."""

STATE_NAMES: frozenset[str] = CHARGE_NAMES | MULTIPLICITY_NAMES | UNPAIRED_NAMES | SPIN_NAMES

INITIAL_ARRAYS: tuple[str, ...] = ("initial_charges", "initial_magmoms")
"""Arrays in which ASE passes charge and spin to calculators."""


def _any_of(names: Iterable[str]) -> str:
    return f"(?<![\\w+])({'|'.join(map(re.escape, sorted(names)))})"


WITHOUT_EQUALS: re.Pattern[str] = re.compile(
    rf"{_any_of(STATE_NAMES)}\s*:\s*([-+]?\d+)(?![\d.])"
    rf"|{_any_of(CHARGE_NAMES | MULTIPLICITY_NAMES)}\s+([-+]?\d+)(?![\w.-])",
    re.IGNORECASE,
)
"""Matches a charge or spin after a colon or a blank, and its value, which ASE would not read."""

BOTH: re.Pattern[str] = re.compile(
    r"\bcharge\s*[/,&]\s*(?:spin[\s_]*)?mult(?:iplicity)?\s*[:=]?\s*([-+]?\d+)[\s,/]+(\d+)(?![\w.])", re.IGNORECASE
)
"""Matches a charge and multiplicity after their names, as in ``Charge/Mult: 1 2``, and their values."""

STATED: re.Pattern[bytes] = re.compile(
    rf"{BOTH.pattern}|{_any_of(STATE_NAMES)}[\"']?\s*(?:=|(?::|(?<=\s))(?=\s*[-+]?\d))".encode()
    + rb"\s*(?![\"']?[-+]?0*(?:\.0*)?[\"']?(?:\s|$))",
    re.IGNORECASE,
)
"""Matches what may be a charge or spin, if it is not zero, in a comment line of XYZ."""

STATE_WORDS: tuple[bytes, ...] = (b"charge", b"mult", b"spin", b"uhf", b"unpaired", b"magmom", b"2s+1")
"""Words of which every one of :data:`STATE_NAMES` contains one; they are found faster than :data:`STATED`."""

NOBLE_GASES: tuple[int, ...] = (0, 2, 10, 18, 36, 54, 86, 118)
"""Numbers of electrons of the noble gases, which are the closed cores of other atoms."""

TOLERANCE: float = 0.01  # largest deviation from an integer of a charge or spin, which may be a sum over the atoms


@dataclass(frozen=True)
class ElectronicState:
    """Charge and spin of a cluster."""

    charge: int  #: Total charge in units of e.
    unpaired: int | None  #: Number of unpaired electrons, if the frame states it.
    electrons: int  #: Number of electrons.

    @property
    def multiplicity(self) -> int | None:
        """Spin multiplicity 2S + 1, if the frame states the spin."""
        return None if self.unpaired is None else self.unpaired + 1

    @property
    def info(self) -> dict[str, object]:
        """Statement in the ``info`` of a frame."""
        spin = {} if self.multiplicity is None else {"multiplicity": self.multiplicity}
        return {"charge": self.charge, **spin}

    @property
    def is_lowest_spin(self) -> bool:
        """Whether the frame states no spin, or a singlet or doublet."""
        return self.unpaired in (None, self.electrons % 2)


def electronic_state(atoms: Atoms, default_charge: int = 0) -> ElectronicState:
    """Read the charge and spin that a frame states; without a charge, the cluster has the default charge.

    They are read from ``info`` (``charge``, ``total_charge``, ``multiplicity``, ``spin``, ...) and from ASE's initial
    charges and magnetic moments, if these do not sum to zero. Charges and magnetic moments from a calculation
    (``atoms.calc.results``) are results, not statements.

    Raises:
        InputError: If a value is not an integer (``spin``: not a multiple of 0.5), or values contradict each other or
            the number of electrons.

    Example:
        >>> trimer = Atoms("Na3", [[0, 0, 0], [3.3, 0, 0], [0, 3.3, 0]], info={"total_charge": 1, "multiplicity": 1})
        >>> electronic_state(trimer)
        ElectronicState(charge=1, unpaired=0, electrons=32)
    """
    charges = [*_numbers(atoms, CHARGE_NAMES), *_initial_sum(atoms, "initial_charges")]
    charge = int(_agreed(charges, default_charge))
    _check_charge(atoms, charge)
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
            f"{names} means {unpaired} unpaired electrons, which is impossible with {electrons} electrons "
            f"({atoms.get_chemical_formula()}, charge {charge}); correct or remove it"
        )
    return ElectronicState(charge, unpaired, electrons)


def state_of_calculator(atoms: Atoms, parameters: object) -> dict[str, object]:
    """Charge and multiplicity among the parameters of a calculator, without those that the frame itself states.

    A value of 0 or ``None`` means the default of the calculator. Parameters that are not a mapping are ignored.

    Example:
        >>> state_of_calculator(Atoms("Na2", [[0, 0, 0], [0, 0, 3.6]]), {"xc": "PBE", "charge": 1})
        {'charge': 1}
    """
    if not isinstance(parameters, Mapping):
        return {}
    stated = {str(name).lower() for name in atoms.info}
    kinds = (CHARGE_NAMES, CHARGE_NAMES), (MULTIPLICITY_NAMES, MULTIPLICITY_NAMES | UNPAIRED_NAMES | SPIN_NAMES)
    found: dict[str, object] = {}
    for (names, alike), array in zip(kinds, INITIAL_ARRAYS, strict=True):
        if stated.isdisjoint(alike) and not np.any(atoms.arrays.get(array, 0)):
            values = {name: value for name, value in parameters.items() if name in names}
            found |= {name: value for name, value in values.items() if isinstance(value, Real) and value}
    return found


def may_state(comment: bytes) -> bool:
    """Whether a comment line of XYZ states a charge or spin other than zero."""
    words = comment.lower()
    return any(word in words for word in STATE_WORDS) and STATED.search(comment) is not None


def stated_states(frames: Iterable[Atoms]) -> np.ndarray | None:
    """Result of :func:`stated_state` for each frame, ``[num_frames]``; ``None`` if no frame states a charge or spin."""
    states = np.array([stated_state(atoms) for atoms in frames], dtype=object)
    return states if any(state is not None for state in states) else None


def stated_state(atoms: Atoms) -> ElectronicState | str | None:
    """Charge and spin that a frame or its calculator states; the fault if they are invalid, ``None`` if neither."""
    if added := state_of_calculator(atoms, getattr(atoms.calc, "parameters", None)):
        atoms = atoms.copy()
        atoms.info |= added
    names = {str(name).lower() for name in atoms.info}
    if names.isdisjoint(STATE_NAMES) and not any(name in atoms.arrays for name in INITIAL_ARRAYS):
        return None
    try:
        return electronic_state(atoms)
    except InputError as error:
        return str(error)


def state_problem(state: ElectronicState | str | None, charge: int = 0, any_spin: bool = False) -> str | None:
    """Reason why the charge or spin of a frame does not allow the use of a model; ``None`` if it does.

    Models have no input for charge or spin: they apply only to the charge and spin of their training set.

    Args:
        state: Statement of the frame, see :func:`stated_state`.
        charge: Charge of the clusters in the training set.
        any_spin: Whether the training set has states other than the lowest spin.
    """
    if isinstance(state, str):
        return state
    if (0 if state is None else state.charge) != charge:
        stated = "it states no charge" if state is None else f"its charge is {state.charge}"
        return f"{stated}, but the model was trained on clusters of charge {charge}; use a model trained on this charge"
    if state is not None and not any_spin and not state.is_lowest_spin:
        return (
            f"its multiplicity is {state.multiplicity}, but the model was trained on clusters of the lowest spin; use "
            "a model trained on this spin"
        )
    return None


def neutral_problem(atoms: Atoms, by: str) -> str | None:
    """Reason why the charge or spin of a frame does not allow a potential without them; ``None`` if it does."""
    try:
        state = electronic_state(atoms)
    except InputError as error:
        return str(error)
    if state.charge:
        return (
            f"its charge is {state.charge}, but {by} does not support charges; use a calculator that does (tblite), or "
            "remove the charge from the frame"
        )
    if not state.is_lowest_spin:
        return (
            f"its multiplicity is {state.multiplicity}, but {by} does not support spins; use a calculator that does "
            "(tblite), or remove the spin from the frame"
        )
    return None


def _check_charge(atoms: Atoms, charge: int):
    """Check that the valence shells allow a charge."""
    valence, room = np.sum([_valence(int(z)) for z in atoms.numbers if z > 0] or [(0, 0)], axis=0).tolist()
    if charge > valence:
        limit = f"has {valence} valence electrons"
    elif -charge > room:
        limit = f"accepts at most {room} electrons"
    else:
        return
    raise InputError(f"its charge is {charge:+d}, but {atoms.get_chemical_formula()} {limit}; correct the charge")


def _valence(number: int) -> tuple[int, int]:
    """Number of valence electrons of an atom, and number of electrons that it can accept.

    Closed d and f shells belong to the core from group 12 on. An atom accepts up to an octet in the p block, and two
    electrons elsewhere, which is more than in any known anion.
    """
    core = max(closed for closed in NOBLE_GASES if closed < number)
    electrons, period = number - core, NOBLE_GASES[NOBLE_GASES.index(core) + 1] - core
    inner = period - 8 if electrons >= period - 6 and period > 8 else 14 if period == 32 and electrons > 16 else 0
    valence = electrons - inner
    return valence, 8 - valence if period > 2 and electrons > period - 6 else 2


def _numbers(atoms: Atoms, names: frozenset[str], step: float = 1.0) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each statement of a frame under the given names."""
    for name, stated in atoms.info.items():
        if str(name).lower() not in names or stated is None:
            continue
        try:
            value = float(np.asarray(stated).reshape(()).item())
        except (TypeError, ValueError):
            value = float("nan")
        if str(name).lower() in MOMENTS and value % 1:
            continue
        exact = step * np.rint(value / step)
        if isinstance(stated, (bool, np.bool_)) or not abs(value - exact) < TOLERANCE:
            whole = "a whole number" if step == 1 else f"a multiple of {step}"
            raise InputError(f"{name} must be {whole}, got {np.asarray(stated).tolist()!r}; correct it")
        yield str(name), float(exact)


def _initial_sum(atoms: Atoms, name: str) -> Iterator[tuple[str, float]]:
    """Yield the sum of ASE's initial charges or magnetic moments, if it is not zero."""
    values = atoms.arrays.get(name)
    if values is None or values.ndim > 1:  # non-collinear moments do not determine a number of unpaired electrons
        return
    total = float(values.sum())
    if not abs(total - round(total)) < TOLERANCE:
        raise InputError(f"{name} sum to {total:g}, which is not a whole number; correct or remove them")
    if round(total):
        yield f"the sum of {name}", float(round(total))


def _unpaired_of_spin(name: str, value: float, electrons: int) -> float:
    """Number of unpaired electrons from ``spin``, read as 2S, 2S + 1 or S as the number of electrons allows."""
    readings = {abs(value), value - 1, 2 * abs(value)}
    fitting = sorted({n for n in readings if n >= 0 and n % 1 == 0 and (electrons - n) % 2 == 0})
    if len(fitting) == 1:
        return fitting[0]
    reason = f"{name} = {value:g} may mean {' or '.join(f'{n:g}' for n in fitting) or 'no number of'} unpaired"
    raise InputError(f"{reason} electrons of {electrons}; state multiplicity instead")


def _agreed(values: Iterable[tuple[str, float]], default: float) -> float:
    """The common value of all statements."""
    values = list(values)
    for name, value in values[1:]:
        if value != values[0][1]:
            raise InputError(f"{values[0][0]} and {name} contradict each other; correct or remove one")
    return values[0][1] if values else default
