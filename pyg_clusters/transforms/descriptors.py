"""Descriptors of atoms: counts of neighbours per shell, and within each of many radii."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_clusters.geometry import GALLIUM_RADII, batch_to_ptr, check_radii, one_cluster
from pyg_clusters.pairs import MAX_PAIRS_AT_ONCE, radius_pairs, shell_counts
from pyg_clusters.positions import check_positions

SODIUM_RADII: tuple[float, ...] = tuple(round(0.1 * step, 1) for step in range(31, 121))
"""Radii of Kaneko et al. 2023, 3.1, 3.2, ..., 12.0 Å."""

STEP_WIDTHS: float = 9.0
"""Beyond this many standard deviations a Gaussian step is 0 or 1 to double precision."""


def checked_ptr(data: Data) -> Tensor:
    """Offsets of the clusters of a batch, or of the one cluster of a single graph, whose positions are checked.

    Raises:
        InputError: If a position is not finite, or two atoms of a cluster coincide.
    """
    ptr = data.get("ptr")
    if ptr is None:
        batch = data.get("batch")
        ptr = batch_to_ptr(one_cluster(data.pos) if batch is None else batch)
    check_positions(data.pos, ptr)
    return ptr


class TopologicalDescriptor(BaseTransform):
    """Adds ``x [num_atoms, num_shells]``, the number of neighbours of each atom in each shell.

    For the default radii this is the topological atomic descriptor (TAD) of Modee et al. 2021, section 2.2.

    Args:
        radii (sequence of float): Increasing shell radii in Å. Good ones are the minima of the pair-distance
            distribution of the element.

    Example:
        >>> dimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7]]))
        >>> TopologicalDescriptor()(dimer).x
        tensor([[1., 0., 0.],
                [1., 0., 0.]])
    """

    def __init__(self, radii: Sequence[float] = GALLIUM_RADII):
        self.radii = check_radii(radii)

    def forward(self, data: Data) -> Data:
        data.x = shell_counts(data.pos, checked_ptr(data), self.radii).to(data.pos.dtype)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(radii={list(self.radii)})"


class RunningCoordination(BaseTransform):
    r"""Adds ``running_coordination [num_atoms, num_radii]``, the number of neighbours of each atom within each radius
    (Kaneko et al. 2023, `doi 10.20517/jmi.2022.39 <https://doi.org/10.20517/jmi.2022.39>`_).

    .. math::
        n_i(r) = \sum_{j \neq i} \Phi\Big(\frac{r - d_{ij}}{w}\Big)

    Each neighbour is a Gaussian of standard deviation w in distance, so that the numbers are fractional near a step and
    differentiable in the positions. They need no electronic-structure calculation.

    Args:
        radii (sequence of float): Increasing radii in Å, by default those of the paper.
        width (float): Standard deviation w in Å.

    Example:
        >>> dimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.5]]))
        >>> RunningCoordination(radii=[3.4, 3.5, 3.6])(dimer).running_coordination
        tensor([[0.0000, 0.5000, 1.0000],
                [0.0000, 0.5000, 1.0000]])
    """

    def __init__(self, radii: Sequence[float] = SODIUM_RADII, width: float = 0.01):
        self.radii = check_radii(radii)
        if not 0 < width < float("inf"):
            raise ValueError(f"the width of a step must be positive and finite (in Å), got {width}")
        self.width = float(width)

    def forward(self, data: Data) -> Data:
        data.running_coordination = running_coordination(data.pos, checked_ptr(data), self.radii, self.width)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(radii={list(self.radii)}, width={self.width})"


def running_coordination(pos: Tensor, ptr: Tensor, radii: Sequence[float], width: float) -> Tensor:
    """Running coordination numbers ``[num_atoms, num_radii]`` of clusters between offsets; lengths are in Å."""
    edge_index, distance = radius_pairs(pos, ptr, radii[-1] + STEP_WIDTHS * width)
    radius = pos.new_tensor(radii)
    numbers = pos.new_zeros(pos.size(0), radius.numel())
    at_once = max(1, MAX_PAIRS_AT_ONCE // radius.numel())
    for target, d in zip(edge_index[1].split(at_once), distance.split(at_once), strict=True):
        steps = torch.special.ndtr((radius - d[:, None]) / width)  # [num_pairs, num_radii]
        numbers = numbers.index_add(0, target, steps)
    return numbers
