"""Units: energies in eV, lengths in Å, shieldings in ppm everywhere; kcal/mol only where people read errors.

Files state units of energies and forces in many spellings, also at the end of names.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from ase import units

from pyg_clusters.errors import InputError

KCAL_PER_MOL: float = 23.060548
"""One eV in kcal/mol."""

ENERGY_UNITS: Mapping[str, float] = {
    "eV": units.eV,
    "meV": units.eV / 1000,
    **dict.fromkeys(("Hartree", "Ha"), units.Hartree),
    "mHa": units.Hartree / 1000,
    **dict.fromkeys(("Rydberg", "Ry"), units.Rydberg),
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
}
"""Units of energy in eV, by their names in ASE."""

LENGTH_UNITS: Mapping[str, float] = {
    **dict.fromkeys(("Angstrom", "Ang"), 1.0),
    "Bohr": units.Bohr,
    "nm": units.nm,
    "pm": units.nm / 1000,
}
"""Units of length in Å, by their names in ASE."""

LENGTH_NAMES: Mapping[str, float] = {
    **{name.lower(): length for name, length in LENGTH_UNITS.items()},
    **dict.fromkeys(("angstroms", "angstroem", "a", "å"), 1.0),
    **dict.fromkeys(("bohrs", "a0", "au", "a.u.", "atomic", "atomic_unit", "atomic_units"), units.Bohr),
    **dict.fromkeys(("nanometer", "nanometre"), units.nm),
    **dict.fromkeys(("picometer", "picometre"), units.nm / 1000),
    **dict.fromkeys(("m", "meter", "metre"), units.m),
}
"""Units of length in Å, by their names in files, in lower case."""


def unit_of(name: str, known: Mapping[str, float], argument: str) -> float:
    """Value of a unit by its name in upper or lower case.

    Raises:
        InputError: If the unit is unknown.

    Example:
        >>> unit_of("bohr", LENGTH_UNITS, "length_unit")
        0.5291772105638411
    """
    value = next((value for key, value in known.items() if key.lower() == str(name).strip().lower()), None)
    if value is None:
        raise InputError(f"{argument} is {name!r}; use one of {', '.join(known)}")
    return value


MEV: float = 1000.0
"""One eV in meV."""

SODIUM_REFERENCE_PPM: float = 552.8
"""Default reference of 23Na shifts in ppm: shift = reference - shielding.

Shielding of Na⁺ in [Na(H2O)6]⁺, a model of the ion in water, the experimental standard; B3LYP/6-31G(d), Cartesian
functions, GIAO, closed shell, as for the labels of the sodium clusters (552.77 with their settings, 552.85 with a fine
grid and tight convergence). Geometry with the same functional and basis: symmetry T_h, Na-O 2.358 Å, O-H 0.9684 Å,
H-O-H 105.64°, each water in the plane through Na and the next axis (gradient of these three below 2e-6 hartree/Å).

Limits: no second shell, solvent, motion or relativity, and a small basis. The value increases by 1.4 ppm per 0.01 Å of
Na-O: 558.8 at 2.40 Å and 564.2 at 2.44 Å, the distance in water. The origin of the shifts is uncertain by some tens of
ppm; differences between shifts, shapes and widths do not depend on it."""

SHIFT_NAME: re.Pattern[str] = re.compile(r"shift|(?<![a-z])delta(?![a-z])", re.IGNORECASE)
"""Matches names of chemical shifts, which decrease where shieldings increase."""

SODIUM_ION_PPM: float = 622.7
"""Shielding of a bare Na⁺ ion in ppm at the same level (622.72), an alternative reference: core electrons only."""

BEFORE_UNIT: re.Pattern[str] = re.compile(r"[_ .(\[/-]|(?<=[a-z]{2})(?=[A-Z])")
"""Matches what may precede the unit at the end of a name, such as ``energy_Ha``, ``E(kcal/mol)`` or ``energyHa``; a
single letter before a capital may be a prefix, as in ``E_mRy``."""

PER_ATOM: re.Pattern[str] = re.compile(
    "|".join(
        (
            r"(?:.*[a-z)\]])?[_ -]?(?:per|/)[_ -]?(?:atom|at|site|ion|n|n_?atom)s?\.?[)\]]?",  # energy_per_atom, E/N
            r"per_?atom_.*",
            r"(?:.*[_ (\[-])?(?:m?ev|ha|hartree|ry|kcal_mol|kj_mol)[_ ]?(?:atom|at)[)\]]?",  # energy_eV_atom
            r"(?:.*[_ ])?e(?:nergy|tot)?_?pa",
        )
    ),
    re.IGNORECASE,
)
"""Matches names and units of energies per atom, see :func:`is_per_atom`."""

SPELLINGS: Mapping[str, str] = {
    **{name.lower(): name for name in ENERGY_UNITS},
    **dict.fromkeys(("eh", "au", "a.u.", "hartrees", "atomic", "atomic_unit", "atomic_units"), "Hartree"),
    **dict.fromkeys(("meh", "mhartree", "mhartrees", "millihartree", "millihartrees", "milli_hartree"), "mHa"),
    **dict.fromkeys(("kcal", "kcal_mol", "kcal-mol", "kcalmol", "kcal/mole", "kcal_per_mol"), "kcal/mol"),
    **dict.fromkeys(("kj", "kj_mol", "kj-mol", "kjmol", "kj/mole", "kj_per_mol"), "kJ/mol"),
    **dict.fromkeys(("electronvolt", "electronvolts"), "eV"),
    **dict.fromkeys(("ryd", "rydbergs"), "Rydberg"),
}
"""Names of units by their spellings in files, in lower case."""

ATOMIC: frozenset[str] = frozenset({"Ha", "Hartree", "mHa", "Ry", "Rydberg"})
"""Units of energy whose forces are per bohr."""

UNSUPPORTED: re.Pattern[str] = re.compile(
    r"(?:[uµ]|micro_?)(?:ha|eh|hartrees?)|(?:m|milli_?)(?:ryd?|rydbergs?)|kev|cm(?:\^?\(?-1\)?|⁻¹)|wave_?numbers?|kelvins?|[azfk]?joules?|[azf]j|ergs?",
    re.IGNORECASE,
)
"""Matches units of energy that cannot be converted."""

PER_MOL: re.Pattern[str] = re.compile(r"[\s._*·]*mol(?:\^?\(?-1\)?|⁻¹)|[\s_]*per[\s_]*mole?", re.IGNORECASE)
"""Matches ``mol-1``, ``per mol`` and the like, with the blank before it."""

PUNCTUATION: str = " ,;:()[]{}"
"""Characters around a unit that do not belong to it."""

SEPARATOR: re.Pattern[str] = re.compile(r"[\s_]+per[\s_]+|[\s_/·*]+")
"""Matches what separates the parts of a unit of forces."""

INVERSE: re.Pattern[str] = re.compile(r"\^?\(?-1\)?|⁻¹")  # matches the exponent of such a part

GRADIENT: re.Pattern[str] = re.compile(r"(?<!neg_)(?<!negative_)(?<!minus_)grad|(?<![a-z])d_?e_?d_?[xr]", re.IGNORECASE)
"""Matches names of gradients, whose sign is opposite to that of forces."""

OF_SEPARATION: re.Pattern[str] = re.compile(r"binding|cohesive|cohesion|atomi[sz]ation", re.IGNORECASE)
"""Matches names of energies relative to separated atoms, which some authors give with the opposite sign."""


def unit_in_name(name: str) -> str | None:
    """Unit at the end of the name of an energy, if any, in its own spelling if it is :data:`UNSUPPORTED`.

    Example:
        >>> [unit_in_name(name) for name in ("total_energy_Ha", "e_au", "E_Au", "energy", "E_mHa", "E_cm-1")]
        ['Ha', 'Hartree', None, None, 'mHa', 'cm-1']
    """
    return _name_and_unit(name)[1]


def is_per_atom(name: str) -> bool:
    """Whether a name of an energy, or a unit, is per atom.

    Example:
        >>> [is_per_atom(name) for name in ("E/N", "eV/atom", "energy_per_atom_eV", "energy_eV")]
        [True, True, True, False]
    """
    return any(PER_ATOM.fullmatch(text) is not None for text in (name, _name_and_unit(name)[0]))


def sign_problem(name: str, lowest: float) -> str | None:
    """Warning about energies that are relative to separated atoms by their name, and all positive.

    Example:
        >>> print(sign_problem("binding_energy", 2.5))
        'binding_energy' is positive for all clusters, like the energy that separates their atoms: give its negative, \
which is lowest for the most stable cluster
    """
    if not OF_SEPARATION.search(name) or not lowest > 0:
        return None
    return (
        f"{name!r} is positive for all clusters, like the energy that separates their atoms: give its negative, which "
        "is lowest for the most stable cluster"
    )


def _name_and_unit(name: str) -> tuple[str, str | None]:
    """Name of an energy without the unit at its end, and this unit."""
    name = PER_MOL.sub("/mol", name)
    for match in BEFORE_UNIT.finditer(name):
        end = name[match.end() :].strip(PUNCTUATION)
        unit = known_unit(end) or (end if UNSUPPORTED.fullmatch(end) else None)
        if unit and end != "Au" and end.lower() != "atomic":  # E_Au is that of gold
            return name[: match.start()], unit
    return name, None


def known_unit(name: str) -> str | None:
    """Name in :data:`ENERGY_UNITS` of a unit in any spelling; ``None`` if it is unknown.

    Example:
        >>> known_unit("kcal mol^-1"), known_unit("(a.u.)"), known_unit("Å")
        ('kcal/mol', 'Hartree', None)
    """
    name = PER_MOL.sub("/mol", name.strip(PUNCTUATION).lower())
    return SPELLINGS.get(name) or SPELLINGS.get(name.rstrip("."))


class ForceUnit(NamedTuple):
    """Unit of forces."""

    energy: str  #: Name of the unit of energy in :data:`ENERGY_UNITS`.
    length: float  #: Unit of length in Å.

    @property
    def value(self) -> float:
        """Value in eV/Å."""
        return ENERGY_UNITS[self.energy] / self.length


def force_unit(text: str) -> ForceUnit | None:
    """Unit of forces in any spelling; ``None`` if it is unknown.

    Example:
        >>> force_unit("kcal/mol/Å"), force_unit("eV_per_A"), force_unit("eV")
        (ForceUnit(energy='kcal/mol', length=1.0), ForceUnit(energy='eV', length=1.0), None)
    """
    text = text.strip(PUNCTUATION)
    energy, _, length = SEPARATOR.sub("/", INVERSE.sub("", text)).rpartition("/")
    for part, per in ((energy, length), (text, text)):  # atomic units have one name for both
        if (unit := known_unit(part)) and (value := LENGTH_NAMES.get(per.lower())):
            return ForceUnit(unit, value)
    return None


def force_unit_in_name(name: str) -> ForceUnit | None:
    """Unit at the end of the name of forces, if any.

    A unit of energy alone is per bohr if it is an atomic one (Hartree, Rydberg), and per Å otherwise.

    Example:
        >>> force_unit_in_name("forces_eV_per_A"), force_unit_in_name("forces_Au"), force_unit_in_name("forces_kcal")
        (ForceUnit(energy='eV', length=1.0), None, ForceUnit(energy='kcal/mol', length=1.0))
    """
    for match in BEFORE_UNIT.finditer(name):
        if (end := name[match.end() :]) != "Au" and (unit := force_unit(end)):
            return unit
    energy = unit_in_name(name)
    if energy is None or energy not in ENERGY_UNITS:
        return None
    return ForceUnit(energy, LENGTH_NAMES["bohr"] if energy in ATOMIC else 1.0)
