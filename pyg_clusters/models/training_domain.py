"""Training domain of a model: elements, cluster sizes, and geometries for which an energy is reliable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import check_ptr, ptr_to_batch, squared_distance, whole_clusters
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER, element_counts
from pyg_clusters.pairs import COVALENT_RADII, NEIGHBORS, bond_measures, bonds_of_atoms, near_ratios

PHYSICAL: float = 0.5  # smallest physical distance in sums of covalent radii; multiple bonds of metals reach 0.58
SLACK: float = 0.1  # relative tolerance of distances and coordination numbers beyond those of the training set
PAIRS_AT_ONCE: int = 1 << 20  # maximum number of distances in memory at a time
CLUSTERS_AT_ONCE: int = 10_000  # maximum number of clusters whose elements are counted at a time


@dataclass(frozen=True)
class GeometryRange:
    """Range of distances (in sums of covalent radii) and coordination numbers of clusters.

    Outside the range of its training set, the energies of a model are not reliable: trained on minima alone, it often
    predicts decreasing energies for atoms that are closer than in the training set. A cluster is compared by its
    :func:`~pyg_clusters.pairs.bond_measures`.
    """

    shortest: float = 0.0  #: Smallest distance of two atoms.
    coordination: float = float("inf")  #: Largest number of neighbours of an atom.
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
        """Limit of the shortest distance, divided by that of each pair of elements, for ``bond_measures``.

        Square matrix over atomic numbers, 1 for pairs of elements without a limit of their own; ``None`` without any.
        """
        if not self.closest:
            return None
        scale = torch.ones(MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 1, dtype=torch.double)
        for (first, second), shortest in self.closest.items():
            scale[first, second] = scale[second, first] = self._least(self.shortest) / self._least(shortest)
        return scale

    def outside(self, measures: Tensor, start: Tensor | None = None) -> Tensor:
        """Whether clusters are outside, ``[num_graphs]`` (bool), by their ``bond_measures`` ``[num_graphs, 3]``.

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
        close, nearest, neighbors = bonds_of_atoms(z, pos, torch.zeros_like(z), self.scale)
        shortest, most, farthest = self.limits
        of = "what the model was trained on" if self.shortest else "what is physically possible"

        def from_nearest(i: int, limit: float, scale: Tensor | None = None) -> tuple[int, float, float]:
            distance, unit = squared_distance(pos, pos[i]).sqrt(), COVALENT_RADII[z] + COVALENT_RADII[z[i]]
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


class TrainingDomain(nn.Module):
    """Elements, sizes, compositions, charge and geometries of the clusters of a training set, as buffers of a model.

    ``closest`` holds the smallest distance of each pair of elements, in sums of covalent radii, as a square matrix over
    atomic numbers; it is 0 for elements that were never neighbours, and in models saved by earlier versions.

    Before :meth:`fit` the domain is unknown, and no cluster is outside.
    """

    elements: Tensor
    sizes: Tensor
    fractions: Tensor
    geometry: Tensor
    closest: Tensor
    state: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("elements", torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.bool))
        self.register_buffer("sizes", torch.zeros(2, dtype=torch.long))
        self.register_buffer("fractions", torch.zeros(2, MAX_ATOMIC_NUMBER + 1))
        self.register_buffer("geometry", torch.zeros(3))
        self.register_buffer("closest", torch.zeros(MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 1))
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
        check_ptr(ptr, z.numel())
        if pos is not None:
            self._add_geometry(z, ptr, pos)
        self._add_fractions(z, ptr)
        sizes = torch.cat([ptr.diff(), self.sizes.to(ptr.device)]) if self.known else ptr.diff()
        self.elements[z] = True
        self.sizes.copy_(torch.stack([sizes.min(), sizes.max()]))

    def _add_fractions(self, z: Tensor, ptr: Tensor):
        limits = []
        for atoms, part in whole_clusters(ptr, CLUSTERS_AT_ONCE, power=0):
            counts = element_counts(z[atoms], part)
            limits.append(torch.aminmax((counts / part.diff()[:, None]).to(self.fractions), dim=0))
        low = torch.stack([limit.min for limit in limits]).amin(0)
        high = torch.stack([limit.max for limit in limits]).amax(0)
        if not self.known:
            self.fractions.copy_(torch.stack([low, high]))
        elif self.fraction_ranges:  # else they are unknown, as in state dicts of earlier versions
            smallest, largest = self.fractions
            self.fractions.copy_(torch.stack([torch.minimum(smallest, low), torch.maximum(largest, high)]))

    @torch.no_grad()
    def _add_geometry(self, z: Tensor, ptr: Tensor, pos: Tensor):
        by_pair = not self.geometry[0] > 0 or bool(self.closest.any())  # else they are unknown, as the fractions
        at_once = max(1, PAIRS_AT_ONCE // int(ptr.diff().max()) ** 2)
        for atoms, part in whole_clusters(ptr, at_once, power=0):
            chunk = z[atoms], pos[atoms], ptr_to_batch(part)
            found = bond_measures(*chunk).to(self.geometry)
            shortest, most, farthest = found[:, 0].amin(), found[:, 1].amax(), found[:, 2].amax()
            if bool(farthest > 0):  # not only single atoms
                known = self.geometry if self.geometry[0] > 0 else self.geometry.new_tensor([float("inf"), 0.0, 0.0])
                found = torch.stack([shortest, most, farthest])
                self.geometry.copy_(torch.cat([torch.minimum(known, found)[:1], torch.maximum(known, found)[1:]]))
            if by_pair:
                self._add_closest(*chunk)

    def _add_closest(self, z: Tensor, pos: Tensor, batch: Tensor):
        pairs, ratio = near_ratios(COVALENT_RADII.to(pos.device, pos.dtype)[z], pos, batch)
        pairs, ratio = z[pairs[:, ratio < NEIGHBORS]], ratio[ratio < NEIGHBORS].to(self.closest)
        key = pairs.amin(0) * (MAX_ATOMIC_NUMBER + 1) + pairs.amax(0)
        closest = torch.where(self.closest > 0, self.closest, float("inf")).flatten()
        closest = closest.scatter_reduce(0, key, ratio, "amin").view_as(self.closest)
        self.closest.copy_(torch.where(closest.isfinite(), closest, 0.0))

    @property
    def geometry_range(self) -> GeometryRange:
        """Distances and coordination numbers of the training set; if unknown, all that are physically possible."""
        if not self.geometry[0] > 0:
            return GeometryRange()
        closest = {}
        if int(self.elements.sum()) > 1:  # else it is the shortest distance
            closest = {(i, j): float(self.closest[i, j]) for i, j in self.closest.nonzero().tolist()}
        shortest, coordination, farthest = self.geometry.tolist()
        return GeometryRange(shortest, coordination, farthest, closest)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        if f"{prefix}elements" in state_dict:  # a state dict of other modules leaves the domain unchanged
            for name in ("fractions", "geometry", "closest", "state"):  # missing in state dicts of earlier versions
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
