"""Training domain of a model: elements, cluster sizes, and geometries for which an energy is reliable."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import batch_to_ptr, pad_clusters, ptr_to_batch, squared_distance, squared_distances
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

    @property
    def limits(self) -> tuple[float, float, float]:
        """Limits of shortest distance, coordination and farthest distance, including the tolerance :data:`SLACK`."""
        shortest = max(PHYSICAL, (1 - SLACK) * self.shortest)
        return shortest, max((1 + SLACK) * self.coordination, self.coordination + 1), (1 + SLACK) * self.farthest

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
        nearest, neighbors = _of_atoms(z, pos, torch.zeros_like(z))
        shortest, most, farthest = self.limits
        of = "what the model was trained on" if self.shortest else "what is physically possible"

        def from_nearest(i: int, limit: float) -> tuple[int, float, float]:
            distance, sums = squared_distance(pos, pos[i]).sqrt(), RADII[z] + RADII[z[i]]
            distance[i] = float("inf")
            j = int((distance / sums).argmin())
            return j, float(distance[j]), limit * float(sums[j])

        if float(nearest.min()) < shortest:
            i = int(nearest.argmin())
            j, distance, bound = from_nearest(i, shortest)
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
def measures(z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    """Shortest distance, largest coordination number, and largest distance of an atom from its nearest neighbour.

    Returns:
        Tensor ``[num_graphs, 3]``, distances in sums of covalent radii; infinity, 0 and 0 for a single atom.

    Example:
        >>> dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.44]])
        >>> measures(torch.tensor([31, 31]), dimer, torch.tensor([0, 0]))
        tensor([[1., 1., 1.]])
    """
    nearest, neighbors = _of_atoms(z, pos.detach(), batch)
    far = torch.where(nearest.isfinite(), nearest, 0.0)
    zeros = nearest.new_zeros(int(batch[-1]) + 1)
    shortest = zeros.scatter_reduce(0, batch, nearest, "amin", include_self=False)
    most, farthest = (zeros.scatter_reduce(0, batch, each, "amax") for each in (neighbors.to(pos.dtype), far))
    return torch.stack([shortest, most, farthest], dim=1)


def _of_atoms(z: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each atom from its nearest neighbour, in sums of covalent radii, and its coordination number.

    Both are ``[num_atoms]``; infinity and 0 for a single atom.
    """
    radii = RADII.to(pos.device, pos.dtype)[z]
    if is_large(batch.numel()) and is_large(batch_to_ptr(batch)):
        return _of_atoms_of_large(radii, pos.nan_to_num(0.0, 0.0, 0.0), batch)
    padded, place, _ = pad_clusters(pos, batch)
    num_graphs, largest, _ = padded.shape
    radii = radii.new_zeros(num_graphs * largest).index_copy(0, place, radii).view(num_graphs, largest)
    ratio = squared_distances(padded).sqrt_() / (radii[:, :, None] + radii[:, None])
    ratio.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    ratio = ratio.nan_to_num_(nan=float("inf"), posinf=float("inf"))  # padding
    return ratio.amin(2).flatten()[place], (ratio < NEIGHBORS).sum(2).flatten()[place]


def _of_atoms_of_large(radii: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Variant of :func:`_of_atoms` from near pairs; only atoms without a neighbour are compared with all others."""
    pairs = near_pairs(pos, batch, 2 * NEIGHBORS * float(radii.max()))
    first, second = pairs
    distance = squared_distance(pos.index_select(0, first), pos.index_select(0, second)).sqrt()
    ratio = distance / (radii.index_select(0, first) + radii.index_select(0, second))
    nearest = torch.full_like(radii, float("inf"))
    for row in pairs:
        nearest = nearest.scatter_reduce(0, row, ratio, "amin")
    neighbors = torch.bincount(pairs[:, ratio < NEIGHBORS].flatten(), minlength=batch.numel())
    for atom in (neighbors == 0).nonzero().flatten().tolist():
        others = batch == batch[atom]
        others[atom] = False
        apart = squared_distance(pos[others], pos[atom]).sqrt() / (radii[others] + radii[atom])
        nearest[atom] = apart.min() if apart.numel() else float("inf")
    return nearest, neighbors


def element_counts(z: Tensor, ptr: Tensor) -> Tensor:
    """Number of atoms of each element in each cluster, ``[num_graphs, MAX_ATOMIC_NUMBER + 1]``."""
    num_graphs, width = ptr.numel() - 1, MAX_ATOMIC_NUMBER + 1
    return torch.bincount(ptr_to_batch(ptr) * width + z, minlength=num_graphs * width).view(num_graphs, width)


PAIRS_AT_ONCE: int = 1 << 20  # maximum number of distances in memory at a time


class TrainingDomain(nn.Module):
    """Elements, sizes, compositions, charge and geometries of the clusters of a training set, as buffers of a model.

    Before :meth:`fit` the domain is unknown, and no cluster is outside.
    """

    elements: Tensor
    sizes: Tensor
    fractions: Tensor
    geometry: Tensor
    state: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("elements", torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.bool))
        self.register_buffer("sizes", torch.zeros(2, dtype=torch.long))
        self.register_buffer("fractions", torch.zeros(2, MAX_ATOMIC_NUMBER + 1))
        self.register_buffer("geometry", torch.zeros(3))
        self.register_buffer("state", torch.zeros(2, dtype=torch.long))

    def reset_parameters(self):
        """Reset to an unknown domain."""
        for buffer in self.buffers():
            buffer.zero_()

    def fit(self, z: Tensor, ptr: Tensor, pos: Tensor | None = None):
        """Record the elements, the smallest and largest size, and the range of geometries of a training set.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            ptr: Offsets of the clusters ``[num_graphs + 1]``.
            pos: Positions ``[num_atoms, 3]`` in Å.
        """
        self.reset_parameters()
        self.add(z, ptr, pos)

    def add(self, z: Tensor, ptr: Tensor, pos: Tensor | None = None):
        """Add further clusters, of any elements; the arguments are those of :meth:`fit`."""
        if pos is not None:
            self._add_geometry(z, ptr, pos)
        self._add_fractions(z, ptr)
        sizes = torch.cat([ptr.diff(), self.sizes.to(ptr.device)]) if self.known else ptr.diff()
        self.elements[z] = True
        self.sizes.copy_(torch.stack([sizes.min(), sizes.max()]))

    def _add_fractions(self, z: Tensor, ptr: Tensor):
        low, high = torch.aminmax((element_counts(z, ptr) / ptr.diff()[:, None]).to(self.fractions), dim=0)
        if not self.known:
            self.fractions.copy_(torch.stack([low, high]))
        elif self.fraction_ranges:  # else they are unknown, as in state dicts of earlier versions
            smallest, largest = self.fractions
            self.fractions.copy_(torch.stack([torch.minimum(smallest, low), torch.maximum(largest, high)]))

    @torch.no_grad()
    def _add_geometry(self, z: Tensor, ptr: Tensor, pos: Tensor):
        at_once = max(1, PAIRS_AT_ONCE // int(ptr.diff().max()) ** 2)
        for first in range(0, ptr.numel() - 1, at_once):
            ends = ptr[first : first + at_once + 1]
            atoms = slice(int(ends[0]), int(ends[-1]))
            found = measures(z[atoms], pos[atoms], ptr_to_batch(ends - ends[0])).to(self.geometry)
            shortest, most, farthest = found[:, 0].amin(), found[:, 1].amax(), found[:, 2].amax()
            if bool(farthest > 0):  # not only single atoms
                known = self.geometry if self.geometry[0] > 0 else self.geometry.new_tensor([float("inf"), 0.0, 0.0])
                found = torch.stack([shortest, most, farthest])
                self.geometry.copy_(torch.cat([torch.minimum(known, found)[:1], torch.maximum(known, found)[1:]]))

    @property
    def geometry_range(self) -> GeometryRange:
        """Distances and coordination numbers of the training set; if unknown, all that are physically possible."""
        return GeometryRange(*self.geometry.tolist()) if self.geometry[0] > 0 else GeometryRange()

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        for name in ("fractions", "geometry", "state"):  # missing in state dicts of earlier versions
            state_dict.setdefault(f"{prefix}{name}", torch.zeros_like(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def widen(self, z: Tensor, ptr: Tensor, pos: Tensor | None = None):
        """Add a further training set of the same elements; the arguments are those of :meth:`fit`.

        Raises:
            InputError: If the model was not trained on an element.
        """
        unknown = sorted(set(z.unique().tolist()) - set(self.atomic_numbers)) if self.known else []
        if unknown:
            raise InputError(f"the model was not trained on the elements {unknown} (atomic numbers) of these data")
        self.add(z, ptr, pos)

    @property
    def known(self) -> bool:
        """Whether the domain has been recorded."""
        return bool(self.elements.any())

    @property
    def atomic_numbers(self) -> list[int]:
        """Atomic numbers of the elements of the training set."""
        return self.elements.nonzero().flatten().tolist()

    @property
    def fraction_ranges(self) -> list[list[float]]:
        """Smallest and largest fraction of the atoms of a cluster, of each element; empty if unknown."""
        return self.fractions[:, self.elements].T.tolist() if bool(self.fractions.any()) else []

    @property
    def symbols(self) -> str:
        """Symbols of the elements of the training set, separated by commas."""
        return _symbols(self.atomic_numbers)

    def problem(self, numbers: Iterable[int]) -> str | None:
        """Reason why a model cannot be applied to clusters of these elements (atomic numbers), or ``None``."""
        unknown = sorted(set(numbers) - set(self.atomic_numbers))
        if not unknown:
            return None
        return (
            f"the model was trained on {self.symbols} and not on {_symbols(unknown)}; train a model for these elements "
            "(pyg-clusters new-recipe writes its recipe)"
        )

    def set_electronic_state(self, charge: int, any_spin: bool):
        """Record the charge in e of all clusters of a training set, and whether any has more than the lowest spin.

        Raises:
            InputError: If the model was trained on clusters of another charge.
        """
        if self.known and charge != self.electronic_state[0]:
            raise InputError(
                f"the model was trained on clusters of charge {self.electronic_state[0]}, but these have charge "
                f"{charge}; train a new model on them"
            )
        self.state.copy_(torch.tensor([charge, any_spin or self.electronic_state[1]]))

    @property
    def electronic_state(self) -> tuple[int, bool]:
        """Charge in e of the clusters of the training set, and whether any had more than the lowest spin."""
        return int(self.state[0]), bool(self.state[1])

    def check(self, z: Tensor | None):
        """Check that a model was trained on the elements ``z [num_atoms]``, if its domain is known.

        There is no check during tracing and compilation.

        Raises:
            InputError: If the model was not trained on an element.
        """
        if z is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        if not bool(self.elements[z].all()) and self.known:
            raise InputError(self.problem(z.unique().tolist()) or "")

    @property
    def size_range(self) -> tuple[int, int]:
        """Numbers of atoms of the smallest and of the largest cluster of the training set."""
        return int(self.sizes[0]), int(self.sizes[1])

    def __repr__(self) -> str:
        if not self.known:
            return f"{self.__class__.__name__}()"
        return f"{self.__class__.__name__}(atomic_numbers={self.atomic_numbers}, sizes={self.size_range})"


def domain_of(model: object) -> TrainingDomain | None:
    """Training domain of a model, or ``None`` if unknown."""
    domain = getattr(model, "domain", None)
    return domain if isinstance(domain, TrainingDomain) and domain.known else None


def state_of_training(model: object) -> tuple[int, bool]:
    """Electronic state of the training set, see :attr:`TrainingDomain.electronic_state`; neutral if unknown."""
    return domain.electronic_state if (domain := domain_of(model)) else (0, False)


def geometry_range_of(model: object) -> GeometryRange:
    """Range of geometries of the training set of a model; for other energies all that are physically possible."""
    return domain.geometry_range if (domain := domain_of(model)) else GeometryRange()


def _symbols(atomic_numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in atomic_numbers)
