"""Units: energies in eV, lengths in Å, shieldings in ppm everywhere; kcal/mol only where people read errors."""

KCAL_PER_MOL: float = 23.060548
"""One eV in kcal/mol."""

MEV: float = 1000.0
"""One eV in meV."""
