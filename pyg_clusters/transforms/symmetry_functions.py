"""Behler-Parrinello symmetry functions in the form of ANI-1."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.geometry import check_radii, whole_clusters
from pyg_clusters.pairs import radius_pairs
from pyg_clusters.transforms.neighbors import checked_clusters

if TYPE_CHECKING:
    from torchani.aev import AEVComputer

ATOMS_AT_ONCE: int = 128
"""Approximate number of atoms evaluated at a time, so that the factors of their angular functions (about 10 MB) fit in
the cache of a CPU."""


class SymmetryFunctions(BaseTransform):
    r"""Add ``symmetry_functions [num_atoms, num_functions]``, the symmetry functions of `ANI-1
    <https://doi.org/10.1039/C6SC05720A>`_ (Smith, Isayev, Roitberg 2017, Eqs. 3 and 4) with the parameters of the
    BPSF-HDNN of `Modee et al. 2021 <https://doi.org/10.1039/d1cp02956h>`_ (section 3.1).

    .. math::
        G^R_i(s) &= \frac14 \sum_{j \neq i} e^{-\eta_r (d_{ij} - R_s)^2} f(d_{ij}, R_r)

        G^A_i(s, t) &= 2 \sum_{j < k} \Big(\frac{1 + \cos(\theta_{ijk} - \theta_t)}{2}\Big)^\zeta
        e^{-\eta_a \big(\frac{d_{ij} + d_{ik}}{2} - R_s\big)^2} f(d_{ij}, R_a) f(d_{ik}, R_a)

        f(d, R) &= \tfrac12 \cos(\pi d / R) + \tfrac12 \quad (d < R), \qquad 0 \quad (d \geq R)

    The terms, including the factor 1/4 and :math:`\theta_{ijk} = \arccos(0.95 \cos \angle_{jik})`, are those of the
    ``AEVComputer`` of `TorchANI <https://github.com/aiqm/torchani>`_ (extra ``hdnn``). The sums over neighbours are
    computed as matrix products of the radial and angular factors, which is several times faster and gives the same
    values up to rounding.

    The functions of an atom are the radial functions for each element, followed by the angular functions for each pair
    of elements. Shifts are evenly spaced from the start to the cutoff (excluded); angles are the midpoints of equal
    intervals between 0 and π. With one element there are 64 + 24 · 24 = 640 functions, 2.5 kB per atom in single
    precision: 780 MB for the 303,900 atoms of the shipped gallium minima. As they have no learned parameters, use this
    as a ``pre_transform`` of a data set to compute them only once.

    The paper does not give the first shift. The default of 2 Å is chosen because distances in gallium clusters start at
    about 2.5 Å and the functions are 0.2 Å wide.

    Args:
        elements (sequence of str): Symbols of all elements of the clusters.
        radial_cutoff (float): Cutoff :math:`R_r` in Å, exclusive.
        angular_cutoff (float): Cutoff :math:`R_a` in Å, exclusive, below the radial cutoff.
        radial_eta (float): :math:`\eta_r` in 1/Å².
        angular_eta (float): :math:`\eta_a` in 1/Å².
        zeta (float): :math:`\zeta`; 32 makes the angular functions about 0.25 rad wide.
        num_radial_shifts (int): Number of radial functions for each element.
        num_angular_shifts (int): Number of shifts of the angular functions.
        num_angles (int): Number of angles of the angular functions.
        radial_start (float): First radial shift in Å. Functions well below the smallest distance between atoms are
            always zero.
        angular_start (float): First shift of the angular functions in Å.

    Raises:
        MissingExtra: If TorchANI is not installed.

    Example:
        >>> dimer = Data(z=torch.tensor([31, 31]), pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7]]))
        >>> SymmetryFunctions()(dimer).symmetry_functions.shape  # doctest: +SKIP
        torch.Size([2, 640])
    """

    def __init__(
        self,
        elements: Sequence[str] = ("Ga",),
        radial_cutoff: float = 15.0,
        angular_cutoff: float = 6.5,
        radial_eta: float = 16.0,
        angular_eta: float = 8.0,
        zeta: float = 32.0,
        num_radial_shifts: int = 64,
        num_angular_shifts: int = 24,
        num_angles: int = 24,
        radial_start: float = 2.0,
        angular_start: float = 2.0,
    ):
        if find_spec("torchani") is None:
            raise MissingExtra("torchani", "hdnn", "SymmetryFunctions")
        self.elements = check_elements(elements)
        self.angular_cutoff, self.radial_cutoff = check_radii([angular_cutoff, radial_cutoff])
        self.radial_eta = radial_eta
        self.angular_eta = angular_eta
        self.zeta = zeta
        self.num_radial_shifts = num_radial_shifts
        self.num_angular_shifts = num_angular_shifts
        self.num_angles = num_angles
        self.radial_start = radial_start
        self.angular_start = angular_start

    @property
    def num_functions(self) -> int:
        """Number of symmetry functions of an atom."""
        num_elements = len(self.elements)
        num_pairs = num_elements * (num_elements + 1) // 2
        return num_elements * self.num_radial_shifts + num_pairs * self.num_angular_shifts * self.num_angles

    def forward(self, data: Data) -> Data:
        data.symmetry_functions = self.compute(data.z, *checked_clusters(data))
        return data

    def compute(self, z: Tensor, pos: Tensor, ptr: Tensor) -> Tensor:
        """Symmetry functions ``[num_atoms, num_functions]`` of the clusters with offsets ``ptr [num_graphs + 1]``.

        Raises:
            InputError: If an atom has an element that is not among :attr:`elements`.
        """
        element = element_numbers(z, self.elements)
        computer = self.computer().to(pos.device, pos.dtype)
        parts = [pos.new_zeros(0, self.num_functions)]
        for atoms, own_ptr in whole_clusters(ptr, ATOMS_AT_ONCE):
            cluster = computer, element[atoms], pos[atoms], own_ptr
            parts.append(torch.cat([_radial(*cluster), _angular(*cluster)], dim=1))
        return torch.cat(parts)

    def computer(self) -> "AEVComputer":
        """TorchANI's ``AEVComputer`` of these functions."""
        with warnings.catch_warnings():  # TorchANI warns that its CUDA extensions are not compiled
            warnings.simplefilter("ignore")
            from torchani.aev import AEVComputer, ANIAngular, ANIRadial
        radial = ANIRadial.cover_linearly(
            self.radial_start, self.radial_cutoff, self.radial_eta, self.num_radial_shifts
        )
        angular = ANIAngular.cover_linearly(
            self.angular_start,
            self.angular_cutoff,
            self.angular_eta,
            self.zeta,
            self.num_angular_shifts,
            self.num_angles,
        )
        return AEVComputer(radial, angular, num_species=len(self.elements), neighborlist="all_pairs")

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{self.__class__.__name__}({arguments})"


def check_elements(elements: Sequence[str]) -> tuple[str, ...]:
    """Check element symbols and return them as a tuple.

    Raises:
        InputError: If there are none, or they are unknown or repeated.
    """
    checked = tuple(elements)
    unknown = [symbol for symbol in checked if symbol not in atomic_numbers]
    if not checked or unknown or isinstance(elements, str) or len(set(checked)) < len(checked):
        raise InputError(f"elements must be different symbols such as ['Ga'], got {elements!r}")
    return checked


def element_numbers(z: Tensor, elements: Sequence[str]) -> Tensor:
    """Index of the element of each atom among ``elements``, ``[num_atoms]`` (long)."""
    element = z.new_full((len(chemical_symbols),), -1, dtype=torch.long)
    element[[atomic_numbers[symbol] for symbol in elements]] = torch.arange(len(elements), device=z.device)
    numbers = element[z]
    if bool((numbers < 0).any()):
        unknown = ", ".join(chemical_symbols[number] for number in torch.unique(z[numbers < 0]).tolist())
        raise InputError(
            f"there are symmetry functions for {', '.join(elements)} but not for {unknown}; add it to the elements and "
            "train with clusters that contain it"
        )
    return numbers


def _radial(computer: "AEVComputer", element: Tensor, pos: Tensor, ptr: Tensor) -> Tensor:
    edge_index, _ = radius_pairs(pos, ptr, computer.radial.cutoff)
    source, target = edge_index[:, edge_index[0] < edge_index[1]]
    terms = computer.radial((pos[source] - pos[target]).norm(dim=-1))  # [num_pairs, num_shifts], both ways the same
    num_elements = computer.num_species
    sums = pos.new_zeros(element.numel() * num_elements, terms.size(1))
    sums = sums.index_add(0, target * num_elements + element[source], terms)
    sums = sums.index_add(0, source * num_elements + element[target], terms)
    return sums.view(element.numel(), -1)


def _angular(computer: "AEVComputer", element: Tensor, pos: Tensor, ptr: Tensor) -> Tensor:
    from torchani.neighbors import Neighbors, neighbors_to_triples

    term, num_pairs = computer.angular, computer.num_species_pairs
    edge_index, _ = radius_pairs(pos, ptr, term.cutoff)
    pairs = edge_index[:, edge_index[0] < edge_index[1]]
    vector = pos[pairs[0]] - pos[pairs[1]]
    triples = neighbors_to_triples(Neighbors(pairs, vector.norm(dim=-1), vector))

    sides = element[pairs][:, triples.side_idxs]  # [2 ends, 2 neighbours, num_triples]
    first, second = torch.where(triples.diff_signs == 1, sides[1], sides[0])
    place = triples.central_idxs * num_pairs + computer.triu_index[first, second]  # atom and pair of elements
    if num_pairs > 1:
        order = place.argsort(stable=True)
        place, vectors, distances = place[order], triples.diff_vectors[:, order], triples.distances[:, order]
    else:
        vectors, distances = triples.diff_vectors, triples.distances

    cosine = (vectors[0] * vectors[1]).sum(-1) / distances.prod(0)
    envelope = term.cutoff_fn(distances, term.cutoff).prod(0)
    radial = term.compute_radial(*distances[..., None]) * envelope[:, None]  # [num_triples, num_shifts]
    angular = term.compute_cos_angles(cosine[:, None])  # [num_triples, num_angles]
    counts = torch.bincount(place, minlength=element.numel() * num_pairs).tolist()
    sums = [r.T @ a for r, a in zip(radial.split(counts), angular.split(counts), strict=True)]
    return torch.stack(sums).view(element.numel(), -1)
