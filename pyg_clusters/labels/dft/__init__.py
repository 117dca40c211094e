"""Density functional theory with PySCF (extra ``dft``): shieldings, and stability of closed-shell solutions."""

from pyg_clusters.structures.pyscf_calculator import need_pyscf

try:
    from pyscf import df, dft, gto, lib, scf
except ImportError:  # need_pyscf raises the error when a calculation is requested
    df = dft = gto = lib = scf = None

HARTREE: float = 27.211386245988
"""Hartree energy in eV (CODATA 2018)."""

__all__ = ["HARTREE", "df", "dft", "gto", "lib", "need_pyscf", "scf"]
