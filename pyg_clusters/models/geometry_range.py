"""The range of geometries that an energy is to be trusted in."""

from dataclasses import dataclass

import torch
from ase import Atoms
from ase.data import covalent_radii
from torch import Tensor

from pyg_clusters.geometry import pad_clusters, squared_distances

PHYSICAL: float = 0.5
"""No two atoms are closer than this share of the sum of their covalent radii; multiple bonds of metals reach 0.58."""

NEIGHBORS: float = 1.3
"""Atoms closer than this many sums of covalent radii are neighbours: the first shell of a metal."""

SLACK: float = 0.1
"""Share by which a distance or a coordination number may lie beyond what was trained on."""

RADII = torch.from_numpy(covalent_radii)


@dataclass(frozen=True)
class GeometryRange:
    """Shortest and farthest distances, in sums of covalent radii, and coordination numbers of clusters.

    An energy that is known for such clusters only says nothing of others: one learned from minima alone often falls
    where atoms come closer than they ever were in training.

    Attributes:
        shortest: Smallest distance of two atoms.
        coordination: Largest number of atoms within :data:`NEIGHBORS` of an atom.
        farthest: Largest distance of an atom from its nearest neighbour.
    """

    shortest: float = 0.0
    coordination: float = float("inf")
    farthest: float = float("inf")

    @property
    def limits(self) -> tuple[float, float, float]:
        """Shortest distance, coordination and farthest distance that are still taken for inside, with some slack."""
        shortest = max(PHYSICAL, (1 - SLACK) * self.shortest)
        return shortest, max((1 + SLACK) * self.coordination, self.coordination + 1), (1 + SLACK) * self.farthest

    def outside(self, measures: Tensor, start: Tensor | None = None) -> Tensor:
        """Whether clusters are outside, ``[num_graphs]`` (bool).

        Args:
            measures: What :func:`measures` gives, ``[num_graphs, 3]``.
            start: Those of the clusters that a relaxation started from: it may come from outside, and counts as outside
                only where it goes further out.
        """
        short, many, far = measures.unbind(1)
        least, most, farthest = (measures.new_full((), limit) for limit in self.limits)
        if start is not None:
            least = torch.minimum(least, (1 - SLACK / 2) * start[:, 0])
            most = torch.maximum(most, start[:, 1] + 1)
            farthest = torch.maximum(farthest, (1 + SLACK / 2) * start[:, 2])
        return (short < least) | (many > most) | (far > farthest)

    def reason(self, atoms: Atoms) -> str | None:
        """Description of how a cluster is outside, naming atom, value and limit; none if it is inside."""
        if len(atoms) < 2:
            return None
        distance = atoms.get_all_distances()
        sums = covalent_radii[atoms.numbers][:, None] + covalent_radii[atoms.numbers]
        ratio = torch.from_numpy(distance / sums).fill_diagonal_(float("inf"))
        shortest, most, farthest = self.limits
        of = "what the model was trained on" if self.shortest else "what is physically possible"
        if float(ratio.min()) < shortest:
            i, j = divmod(int(ratio.argmin()), len(atoms))
            bound = shortest * sums[i, j]
            return f"atoms {i} and {j} are {distance[i, j]:.2f} Å apart, below {of} ({bound:.2f} Å)"
        neighbors = (ratio < NEIGHBORS).sum(1)
        if int(neighbors.max()) > most:
            atom = int(neighbors.argmax())
            return f"atom {atom} has {int(neighbors[atom])} neighbours, above {of} ({int(most)})"
        nearest = ratio.min(1)
        if float(nearest.values.max()) > farthest:
            i = int(nearest.values.argmax())
            j = int(nearest.indices[i])
            bound = farthest * sums[i, j]
            return f"atom {i} is {distance[i, j]:.2f} Å from its nearest neighbour, above {of} ({bound:.2f} Å)"
        return None


@torch.no_grad()
def measures(z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    """Shortest distance, largest coordination number, and largest distance of an atom from its nearest neighbour.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        batch: Cluster of each atom ``[num_atoms]``, sorted.

    Returns:
        ``[num_graphs, 3]``, distances in sums of covalent radii; infinite, 0 and 0 for a single atom.

    Example:
        >>> dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.44]])
        >>> measures(torch.tensor([31, 31]), dimer, torch.tensor([0, 0]))
        tensor([[1., 1., 1.]])
    """
    padded, place, _ = pad_clusters(pos.detach(), batch)
    num_graphs, largest, _ = padded.shape
    radii = pos.new_zeros(num_graphs * largest).index_copy(0, place, RADII.to(pos.device, pos.dtype)[z])
    radii = radii.view(num_graphs, largest)
    ratio = squared_distances(padded).sqrt_() / (radii[:, :, None] + radii[:, None])
    ratio.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    ratio = ratio.nan_to_num_(nan=float("inf"), posinf=float("inf"))  # padding
    nearest = ratio.amin(2)  # [num_graphs, largest]
    neighbors = (ratio < NEIGHBORS).sum(2).amax(1)
    far = torch.where(nearest.isfinite(), nearest, 0.0).amax(1)
    return torch.stack([nearest.amin(1), neighbors.to(pos.dtype), far], dim=1)
