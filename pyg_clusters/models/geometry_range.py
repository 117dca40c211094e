"""Range of geometries, for which the energy of a model is reliable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from ase import Atoms
from ase.data import covalent_radii
from torch import Tensor

from pyg_clusters.geometry import batch_to_ptr, pad_clusters, squared_distance, squared_distances
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER
from pyg_clusters.pairs import is_large, near_pairs

PHYSICAL: float = 0.5  # smallest physical distance in sums of covalent radii; multiple bonds of metals reach 0.58
NEIGHBORS: float = 1.3  # maximum distance of neighbours in sums of covalent radii: the first shell of a metal
SLACK: float = 0.1  # relative tolerance of distances and coordination numbers beyond those of the training set

RADII = torch.from_numpy(covalent_radii)


@dataclass(frozen=True)
class GeometryRange:
    """Range of distances (in sums of covalent radii) and coordination numbers of clusters.

    Outside the range of its training set, the energies of a model are not reliable: trained on minima alone, it often
    predicts decreasing energies for atoms that are closer than in the training set.
    """

    shortest: float = 0.0  #: Smallest distance of two atoms.
    coordination: float = float("inf")  #: Largest number of atoms within :data:`NEIGHBORS` of an atom.
    farthest: float = float("inf")  #: Largest distance of an atom from its nearest neighbour.
    #: Smallest distance of two atoms of each pair of elements of an alloy, by atomic numbers, the smaller first.
    closest: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @property
    def limits(self) -> tuple[float, float, float]:
        """Limits of shortest distance, coordination and farthest distance, including the tolerance :data:`SLACK`."""
        return (
            self._least(self.shortest),
            max((1 + SLACK) * self.coordination, self.coordination + 1),
            (1 + SLACK) * self.farthest,
        )

    @staticmethod
    def _least(shortest: float) -> float:
        return max(PHYSICAL, (1 - SLACK) * shortest)

    @cached_property
    def scale(self) -> Tensor | None:
        """Limit of the shortest distance, divided by that of each pair of elements, for :func:`measures`.

        Square matrix over atomic numbers, 1 for pairs of elements without a limit of their own; ``None`` without any.
        """
        if not self.closest:
            return None
        scale = torch.ones(MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 1, dtype=torch.double)
        for (first, second), shortest in self.closest.items():
            scale[first, second] = scale[second, first] = self._least(self.shortest) / self._least(shortest)
        return scale

    def outside(self, measures: Tensor, start: Tensor | None = None) -> Tensor:
        """Whether clusters with the given :func:`measures` ``[num_graphs, 3]`` are outside, ``[num_graphs]`` (bool).

        If the measures at the start of a relaxation are given, a cluster that is already outside at the start counts
        only if it moves further out.
        """
        short, many, far = measures.unbind(1)
        least, most, farthest = (measures.new_full((), limit) for limit in self.limits)
        if start is not None:
            least = torch.minimum(least, (1 - SLACK / 2) * start[:, 0])
            most = torch.maximum(most, start[:, 1] + 1)
            farthest = torch.maximum(farthest, (1 + SLACK / 2) * start[:, 2])
        return (short < least) | (many > most) | (far > farthest)

    def reason(self, atoms: Atoms) -> str | None:
        """Reason why a cluster is outside, with atom, value and limit, or ``None`` if it is inside."""
        if len(atoms) < 2:
            return None
        z, pos = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.positions)
        close, nearest, neighbors = _of_atoms(z, pos, torch.zeros_like(z), self.scale)
        shortest, most, farthest = self.limits
        of = "what the model was trained on" if self.shortest else "what is physically possible"

        def from_nearest(i: int, limit: float, scale: Tensor | None = None) -> tuple[int, float, float]:
            distance, unit = squared_distance(pos, pos[i]).sqrt(), RADII[z] + RADII[z[i]]
            distance[i] = float("inf")
            unit = unit if scale is None else unit / scale[z, z[i]]
            j = int((distance / unit).argmin())
            return j, float(distance[j]), limit * float(unit[j])

        if float(close.min()) < shortest:
            i = int(close.argmin())
            j, distance, bound = from_nearest(i, shortest, self.scale)
            i, j = sorted((i, j))
            return f"atoms {i} and {j} are {distance:.2f} Å apart, below {of} ({bound:.2f} Å)"
        if int(neighbors.max()) > most:
            atom = int(neighbors.argmax())
            return f"atom {atom} has {int(neighbors[atom])} neighbours, above {of} ({int(most)})"
        if float(nearest.max()) > farthest:
            i = int(nearest.argmax())
            _, distance, bound = from_nearest(i, farthest)
            return f"atom {i} is {distance:.2f} Å from its nearest neighbour, above {of} ({bound:.2f} Å)"
        return None


@torch.no_grad()
def measures(z: Tensor, pos: Tensor, batch: Tensor, scale: Tensor | None = None) -> Tensor:
    """Shortest distance, largest coordination number, and largest distance of an atom from its nearest neighbour.

    With :attr:`GeometryRange.scale`, distances are multiplied by that of their elements to find the shortest.

    Returns:
        Tensor ``[num_graphs, 3]``, distances in sums of covalent radii; infinity, 0 and 0 for a single atom.

    Example:
        >>> dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.44]])
        >>> measures(torch.tensor([31, 31]), dimer, torch.tensor([0, 0]))
        tensor([[1., 1., 1.]])
    """
    close, nearest, neighbors = _of_atoms(z, pos.detach(), batch, scale)
    far = torch.where(nearest.isfinite(), nearest, 0.0)
    zeros = nearest.new_zeros(int(batch[-1]) + 1)
    shortest = zeros.scatter_reduce(0, batch, close, "amin", include_self=False)
    most, farthest = (zeros.scatter_reduce(0, batch, each, "amax") for each in (neighbors.to(pos.dtype), far))
    return torch.stack([shortest, most, farthest], dim=1)


def _of_atoms(z: Tensor, pos: Tensor, batch: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest scaled distance of each atom, distance from its nearest neighbour, and coordination number.

    All are ``[num_atoms]``, distances in sums of covalent radii; infinity, infinity and 0 for a single atom.
    """
    radii = RADII.to(pos.device, pos.dtype)[z]
    scale = None if scale is None else scale.to(pos.device, pos.dtype)
    if is_large(batch.numel()) and is_large(batch_to_ptr(batch)):
        return _of_atoms_of_large(z, radii, pos.nan_to_num(0.0, 0.0, 0.0), batch, scale)
    padded, place, _ = pad_clusters(pos, batch)
    num_graphs, largest, _ = padded.shape
    radii = radii.new_zeros(num_graphs * largest).index_copy(0, place, radii).view(num_graphs, largest)
    ratio = squared_distances(padded).sqrt_() / (radii[:, :, None] + radii[:, None])
    ratio.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    ratio = ratio.nan_to_num_(nan=float("inf"), posinf=float("inf"))  # padding
    nearest, neighbors = ratio.amin(2).flatten()[place], (ratio < NEIGHBORS).sum(2).flatten()[place]
    if scale is None:
        return nearest, nearest, neighbors
    z = z.new_zeros(num_graphs * largest).index_copy(0, place, z).view(num_graphs, largest)
    return (ratio * scale[z[:, :, None], z[:, None]]).amin(2).flatten()[place], nearest, neighbors


def _of_atoms_of_large(
    z: Tensor, radii: Tensor, pos: Tensor, batch: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Variant of :func:`_of_atoms` from near pairs; only atoms without a neighbour are compared with all others."""
    pairs, ratio = near_ratios(radii, pos, batch)
    nearest = torch.full_like(radii, float("inf"))
    for row in pairs:
        nearest = nearest.scatter_reduce(0, row, ratio, "amin")
    neighbors = torch.bincount(pairs[:, ratio < NEIGHBORS].flatten(), minlength=batch.numel())
    for atom in (neighbors == 0).nonzero().flatten().tolist():
        others = batch == batch[atom]
        others[atom] = False
        apart = squared_distance(pos[others], pos[atom]).sqrt() / (radii[others] + radii[atom])
        nearest[atom] = apart.min() if apart.numel() else float("inf")
    if scale is None:
        return nearest, nearest, neighbors
    close, scaled = nearest.clone(), ratio * scale[z[pairs[0]], z[pairs[1]]]  # only neighbours have a scale below 1
    for row in pairs:
        close = close.scatter_reduce(0, row, scaled, "amin")
    return close, nearest, neighbors


def near_ratios(radii: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of at least all neighbours ``[2, num_pairs]``, and their distances in sums of covalent radii."""
    pairs = near_pairs(pos, batch, 2 * NEIGHBORS * float(radii.max()))
    first, second = pairs
    distance = squared_distance(pos.index_select(0, first), pos.index_select(0, second)).sqrt()
    return pairs, distance / (radii.index_select(0, first) + radii.index_select(0, second))
