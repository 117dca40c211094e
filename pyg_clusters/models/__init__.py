"""Models of cluster energies."""

from pyg_clusters.models.dart import DART, AtomicEnergies
from pyg_clusters.models.domain import Domain

__all__ = ["DART", "AtomicEnergies", "Domain"]
