"""Density functional theory by PySCF (extra ``dft``): shieldings, and the stability of closed shells."""

from pyg_clusters.structures.calculators import need_pyscf

try:
    from pyscf import df, dft, gto, lib, scf
except ImportError:  # the names are needed by annotations and at run time only: see need_pyscf
    df = dft = gto = lib = scf = None

HARTREE: float = 27.211386245988
"""One hartree in eV (CODATA 2018)."""

__all__ = ["HARTREE", "df", "dft", "gto", "lib", "need_pyscf", "scf"]
