"""Graphs of clusters: pairs with the shell of each as its edge type, and the pairs within a radius."""

from collections.abc import Sequence

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_clusters.geometry import GALLIUM_RADII, check_radii
from pyg_clusters.pairs import radius_pairs, shell_pairs
from pyg_clusters.transforms.descriptors import checked_ptr


class ShellGraph(BaseTransform):
    """Adds ordered pairs of atoms, ``edge_index [2, num_edges]`` (source j, target i), and ``edge_type
    [num_edges]``, the shell of j around i: 0, 1, 2 for J, K, L.

    Every pair is there (or every one within a cut-off), however many neighbours an atom has. The edges of a large data
    set fill a disk (24 bytes each): use this as a ``transform``, not as a ``pre_transform``. The heterogeneous view
    with a relation per shell is ``data.to_heterogeneous(node_type_names=["atom"], edge_type_names=[("atom", s, "atom")
    for s in "JKL"])`` with ``node_type`` all zero.

    Args:
        radii (sequence of float): Increasing shell radii in Å.
        cutoff (float, optional): Leave out pairs at this distance in Å and beyond, for large clusters. The shell that
            it lies in is then incomplete: models that count or sum over all atoms (DART) need every pair.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> trimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7], [0.0, 0.0, 6.4]]))
        >>> trimer = ShellGraph()(trimer)
        >>> trimer.edge_index.tolist(), trimer.edge_type.tolist()
        ([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]], [0, 2, 0, 1, 2, 1])
    """

    def __init__(self, radii: Sequence[float] = GALLIUM_RADII, cutoff: float | None = None):
        self.radii = check_radii(radii)
        self.cutoff = None if cutoff is None else check_radii([cutoff])[0]

    def forward(self, data: Data) -> Data:
        data.edge_index, data.edge_type = shell_pairs(data.pos, checked_ptr(data), self.radii, self.cutoff)
        return data

    def __repr__(self) -> str:
        cutoff = "" if self.cutoff is None else f", cutoff={self.cutoff}"
        return f"{self.__class__.__name__}(radii={list(self.radii)}{cutoff})"


class RadiusGraph(BaseTransform):
    """Adds the ordered pairs of atoms closer than a radius, ``edge_index [2, num_edges]`` (source j, target i), and
    their distances ``edge_weight [num_edges]`` in Å, as PyG's ``SchNet`` calls them.

    Layers with edge features (``GATv2Conv``, ``CGConv``, ``GINEConv``, ...) take ``edge_attr``:
    ``T.Distance(norm=False)`` after this transform makes distances ``[num_edges, 1]`` of it. In ``GCNConv``,
    ``GraphConv`` and the like ``edge_weight`` is how much a neighbour counts: give them a function that falls with
    the distance, such as ``0.5 * (torch.cos(torch.pi * data.edge_weight / cutoff) + 1)``, as
    :class:`~pyg_clusters.models.LayeredModel` does of itself. ``T.AddSelfLoops("edge_weight", fill_value=0.0)`` makes
    each atom its own neighbour.

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
