"""Density functional theory with PySCF (extra ``dft``): shieldings, and stability of closed-shell solutions."""

from pyg_clusters.structures.pyscf_calculator import need_pyscf

try:
    from pyscf import df, dft, gto, lib, scf
except ImportError:  # need_pyscf raises the error when a calculation is requested
    df = dft = gto = lib = scf = None

__all__ = ["df", "dft", "gto", "lib", "need_pyscf", "scf"]
