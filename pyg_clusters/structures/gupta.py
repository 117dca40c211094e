"""The Gupta (second-moment tight-binding) potential of simple metals."""

import math
from typing import NamedTuple

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import one_cluster, pad_clusters, pair_distances, sum_over_clusters
from pyg_clusters.positions import usable_positions

LI = "Li, Blaisten-Barojas, Papaconstantopoulos, Phys. Rev. B 1998, 57, 15519"
CLERI_ROSATO = "Cleri, Rosato, Phys. Rev. B 1993, 48, 22"


class GuptaParameters(NamedTuple):
    """Parameters of the Gupta potential of an element."""

    a: float
    """Energy A of the repulsion in eV."""
    xi: float
    """Effective hopping integral ξ in eV."""
    p: float
    """Decay of the repulsion."""
    q: float
    """Decay of the hopping integral."""
    r0: float
    """Distance of reference in Å, near that of nearest neighbours in the crystal."""
    source: str
    """Where they were published."""


GUPTA_PARAMETERS: dict[str, GuptaParameters] = {
    "Na": GuptaParameters(0.015955, 0.291135, 10.13, 1.30, 3.6989, LI),
    "Ni": GuptaParameters(0.0376, 1.070, 16.999, 1.189, 3.523 / math.sqrt(2), CLERI_ROSATO),
    "Cu": GuptaParameters(0.0855, 1.224, 10.960, 2.278, 3.615 / math.sqrt(2), CLERI_ROSATO),
    "Pd": GuptaParameters(0.1746, 1.718, 10.867, 3.742, 3.887 / math.sqrt(2), CLERI_ROSATO),
    "Ag": GuptaParameters(0.1028, 1.178, 10.928, 3.139, 4.085 / math.sqrt(2), CLERI_ROSATO),
    "Pt": GuptaParameters(0.2975, 2.695, 10.612, 4.004, 3.924 / math.sqrt(2), CLERI_ROSATO),
    "Au": GuptaParameters(0.2061, 1.790, 10.229, 4.036, 4.079 / math.sqrt(2), CLERI_ROSATO),
}
"""Published parameters by element. For those of Cleri and Rosato the reference distance is the lattice constant (in Å)
over the square root of two."""


class Gupta(nn.Module):
    r"""The Gupta potential of clusters of one element.

    .. math::

        E = \sum_i \Bigl[ \sum_{j \ne i} A\, e^{-p (r_{ij} / r_0 - 1)}
            - \sqrt{\sum_{j \ne i} \xi^2 e^{-2q (r_{ij} / r_0 - 1)}} \Bigr]

    It is called like a model, ``Gupta("Na")(z, pos, batch)``, and returns the energies of the clusters
    ``[num_graphs]`` in eV, zero for atoms far apart. Forces are those of
    :func:`~pyg_clusters.structures.energy_and_forces`.

    All pairs of a cluster are summed, without a cut-off. (The parameters of Cleri and Rosato were fitted with the first
    five shells of neighbours in the crystal. Beyond these lies next to nothing in Ag, Au, Cu, Pd and Pt, but 6 % of the
    cohesive energy of Ni.) The parameters of sodium give its crystal the lattice constant of the local density
    approximation, 4.05 Å, where 4.23 Å are measured: relaxed distances are some 4 % short.

    Args:
        element: Symbol of the element, one of :data:`GUPTA_PARAMETERS`.
        constants: Parameters of your own, for any element.

    Example:
        >>> dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.75]])
        >>> print(Gupta("Au")(torch.tensor([79, 79]), dimer, torch.tensor([0, 0])))
        tensor([-3.6564])
    """

    def __init__(self, element: str, constants: GuptaParameters | None = None):
        super().__init__()
        if element not in atomic_numbers:
            raise InputError(f"{element!r} is no chemical element")
        if constants is None and element not in GUPTA_PARAMETERS:
            known = ", ".join(GUPTA_PARAMETERS)
            raise InputError(f"there are no Gupta parameters of {element}, only of {known}; give your own")
        self.element = element
        self.constants = GuptaParameters(*(constants or GUPTA_PARAMETERS[element]))

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        batch = one_cluster(pos) if batch is None else batch
        return sum_over_clusters(self.atomic_energies(z, pos, batch), batch)

    def atomic_energies(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """The terms i of the sum, ``[num_atoms]`` in eV.

        Args:
            z: Atomic numbers ``[num_atoms]``, all of the element of this potential.
            pos: Positions ``[num_atoms, 3]`` in Å.
            batch: Cluster of each atom ``[num_atoms]``, sorted; one cluster if not given.

        Raises:
            InputError: If there is another element.
        """
        self._check_elements(z)
        batch = one_cluster(pos) if batch is None else batch
        if not batch.numel():
            return pos.new_zeros(0)
        pos, defect = usable_positions(pos, batch)
        padded, place, sizes = pad_clusters(pos, batch)
        pairs, _, distance = pair_distances(padded, sizes)
        return self._terms(distance / self.constants.r0 - 1, pairs).flatten()[place] + defect

    def _terms(self, stretch: Tensor, pairs: Tensor) -> Tensor:
        """The terms i from ``r_ij / r0 - 1 [..., num_atoms, num_atoms]`` of the pairs that count."""
        of = self.constants
        repulsion = of.a * (torch.exp(-of.p * stretch) * pairs).sum(-1)
        density = of.xi**2 * (torch.exp(-2 * of.q * stretch) * pairs).sum(-1)
        bound = density > 0  # the root has no gradient at zero, where an atom is alone
        return repulsion - torch.where(bound, density, 1.0).sqrt() * bound

    def _check_elements(self, z: Tensor):
        other = z[z != atomic_numbers[self.element]]
        if other.numel():
            raise InputError(f"this is the Gupta potential of {self.element}, got {chemical_symbols[int(other[0])]}")

    def extra_repr(self) -> str:
        return self.element
