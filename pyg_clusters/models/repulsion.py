"""Repulsion of nuclei below the shortest distances of the training set."""

import torch
from ase.units import Bohr, Hartree
from torch import Tensor

from pyg_clusters.geometry import soft_beyond
from pyg_clusters.models.training_domain import RADII

COULOMB: float = Hartree * Bohr  # Coulomb energy of two unit charges times their distance, in eV Å

SCREENING: tuple[tuple[float, float], ...] = (
    (0.18175, 3.19980),
    (0.50986, 0.94229),
    (0.28022, 0.40290),
    (0.02817, 0.20162),
)
"""Weights and exponents of the universal screening function."""

FULL: float = 0.8  # the repulsion is fully switched on below this fraction of the shortest training distance


def screened_repulsion(distance: Tensor, first: Tensor, second: Tensor) -> Tensor:
    r"""Ziegler-Biersack-Littmark repulsion of two atoms in eV (*The Stopping and Range of Ions in Solids*, 1985).

    .. math::
        E(d) = \frac{Z_1 Z_2 e^2}{d} \sum_k c_k \exp\Big(-b_k \frac{d}{a}\Big), \qquad
        a = \frac{0.8854\, a_0}{Z_1^{0.23} + Z_2^{0.23}}

    Args:
        distance: Distances in Å, of any shape.
        first: Atomic numbers of the first atoms, of the same shape.
        second: Atomic numbers of the second atoms, of the same shape.

    Example:
        >>> gold = torch.tensor(79)
        >>> screened_repulsion(torch.tensor([1.5, 2.5]), gold, gold).round(decimals=1)
        tensor([64.2000,  2.9000])
    """
    first, second = first.to(distance.dtype), second.to(distance.dtype)
    reduced = distance * (first**0.23 + second**0.23) / (0.8854 * Bohr)
    screening = sum(weight * torch.exp(-exponent * reduced) for weight, exponent in SCREENING)
    return COULOMB * first * second / distance * screening


def repulsion(distance: Tensor, first: Tensor, second: Tensor, shortest: Tensor) -> Tensor:
    """Repulsion of two atoms in eV below the shortest distance of a training set.

    :func:`screened_repulsion` is switched off smoothly between the fraction :data:`FULL` of the shortest distance and
    the shortest distance itself, so that it does not contribute to the energies of the training set.

    Args:
        distance: Distances in Å, of any shape.
        first: Atomic numbers of the first atoms, of the same shape.
        second: Atomic numbers of the second atoms, of the same shape.
        shortest: Shortest distance in units of the sum of covalent radii; 0 for no repulsion.
    """
    radii = RADII.to(distance.device, distance.dtype)
    end = shortest.to(distance.dtype) * (radii[first] + radii[second])
    off = soft_beyond(distance / end.clamp(min=1e-3), (1 + FULL) / 2, 1 - FULL)
    return torch.where(distance < end, (1 - off) * screened_repulsion(distance, first, second), 0.0)
