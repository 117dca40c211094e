"""Graph of the pairs within a radius."""

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_clusters.geometry import check_radii
from pyg_clusters.pairs import radius_pairs
from pyg_clusters.transforms.topological_descriptor import checked_ptr


class RadiusGraph(BaseTransform):
    """Adds the ordered pairs of atoms closer than a radius, ``edge_index [2, num_edges]`` (source j, target i), and
    their distances ``edge_weight [num_edges]`` in Å.

    Unlike :class:`torch_geometric.transforms.RadiusGraph` it needs no extension package and drops no neighbour.

    Args:
        cutoff (float): Radius in Å, exclusive.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> dimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]]))
        >>> RadiusGraph(cutoff=6.0)(dimer).edge_weight
        tensor([2.5000, 2.5000])
    """

    def __init__(self, cutoff: float):
        (self.cutoff,) = check_radii([cutoff])

    def forward(self, data: Data) -> Data:
        data.edge_index, data.edge_weight = radius_pairs(data.pos, checked_ptr(data), self.cutoff)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(cutoff={self.cutoff})"
