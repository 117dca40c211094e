"""Units: energies in eV, lengths in Å, shieldings in ppm everywhere; kcal/mol only where people read errors."""

import re
from collections.abc import Mapping

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
