"""Units: energies in eV, lengths in Å, shieldings in ppm everywhere; kcal/mol only where people read errors."""

KCAL_PER_MOL: float = 23.060548
"""One eV in kcal/mol."""

MEV: float = 1000.0
"""One eV in meV."""

SODIUM_REFERENCE_PPM: float = 552.8
"""Shielding of 23Na in ppm to which shifts refer by default: shift = reference - shielding.

Na⁺ in [Na(H2O)6]⁺, which stands for the ion in water, the experimental standard; B3LYP/6-31G(d), cartesian functions,
GIAO, closed shell, as the labels of the sodium clusters are (552.77 with their settings, 552.85 with a fine grid and
tight convergence). Geometry by the same functional and basis: symmetry T_h, Na-O 2.358 Å, O-H 0.9684 Å, H-O-H 105.64°,
each water's plane through Na and the next axis (gradient below 2e-6 hartree/Å in these three).

Limits: no second shell, no solvent, no motion, no relativity, and a small basis. The shift scale is uncertain by some
tens of ppm, as a whole: differences between shifts, shapes and widths do not depend on it."""

SODIUM_ION_PPM: float = 622.7
"""Shielding of a bare Na⁺ ion in ppm at the same level (622.72): the core alone, the other choice of a reference."""
