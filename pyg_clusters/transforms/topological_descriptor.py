"""Topological atomic descriptor as a transform."""

from collections.abc import Sequence

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_clusters.geometry import GALLIUM_RADII, batch_to_ptr, check_radii
from pyg_clusters.pairs import shell_counts
from pyg_clusters.positions import check_positions


class TopologicalDescriptor(BaseTransform):
    """Adds ``x [num_atoms, num_shells]``, the number of neighbours of each atom in each shell.

    For the default radii this is the topological atomic descriptor (TAD) of Modee et al. 2021, section 2.2.

    Args:
        radii (sequence of float): Increasing shell radii in Å. Good ones are the minima of the pair-distance
            distribution of the element.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
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


def checked_ptr(data: Data) -> torch.Tensor:
    """Offsets of the clusters of a batch, or of the one cluster of a single graph, whose positions are checked.

    Raises:
        InputError: If a position is not finite, or two atoms of a cluster coincide.
    """
    ptr = ptr_of(data)
    check_positions(data.pos, ptr)
    return ptr


def ptr_of(data: Data) -> torch.Tensor:
    """Offsets of the clusters of a batch, or of the one cluster of a single graph."""
    ptr = data.get("ptr")
    if ptr is not None:
        return ptr
    batch = data.get("batch")
    if batch is not None:
        return batch_to_ptr(batch)
    return torch.tensor([0, data.pos.size(0)], device=data.pos.device)
