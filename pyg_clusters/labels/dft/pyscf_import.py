"""PySCF, where it is installed (extra ``dft``)."""

from importlib.util import find_spec

from pyg_clusters.errors import MissingExtra

try:
    from pyscf import df, dft, gto, lib, scf
except ImportError:  # the names are needed by annotations and at run time only: see need_pyscf
    df = dft = gto = lib = scf = None

HARTREE: float = 27.211386245988
"""One hartree in eV (CODATA 2018)."""

__all__ = ["HARTREE", "df", "dft", "gto", "lib", "need_pyscf", "scf"]


def need_pyscf(purpose: str):
    """Raises :class:`~pyg_clusters.errors.MissingExtra` if PySCF is not installed."""
    if gto is None or find_spec("pyscf") is None:
        raise MissingExtra("pyscf", "dft", purpose)
