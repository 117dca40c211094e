"""Transforms based on neighbours: graphs of pairs, and counts of neighbours by shell or radius."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import GALLIUM_RADII, batch_to_ptr, check_radii, one_cluster
from pyg_clusters.pairs import MAX_PAIRS_AT_ONCE, radius_pairs, shell_counts, shell_pairs
from pyg_clusters.positions import check_positions

SODIUM_RADII: tuple[float, ...] = tuple(round(0.1 * step, 1) for step in range(31, 121))
"""Radii of Kaneko et al. 2023, 3.1, 3.2, ..., 12.0 Å."""

STEP_WIDTHS: float = 9.0  # beyond this many standard deviations a Gaussian step is 0 or 1 to double precision


def checked_clusters(data: Data) -> tuple[Tensor, Tensor]:
    """Checked positions of a graph or batch ``[num_atoms, 3]`` in Å (floating-point), and offsets of its clusters.

    Raises:
        InputError: If there are no positions, one is not finite, or two atoms of a cluster coincide.
    """
    pos, ptr = data.pos, data.get("ptr")
    if pos is None:
        raise InputError("the graph has no positions: set pos [num_atoms, 3] in Å")
    pos = pos if pos.is_floating_point() else pos.to(torch.get_default_dtype())
    if ptr is None:
        batch = data.get("batch")
        ptr = batch_to_ptr(one_cluster(pos) if batch is None else batch)
    check_positions(pos, ptr)
    return pos, ptr


def set_edges(data: Data, edge_index: Tensor, **attributes: Tensor):
    """Set the edges of a graph and their attributes; those of other edges, whose names start with ``edge_``, are
    removed.
    """
    if data.edge_index is not None and not data.edge_index.equal(edge_index):
        for name in data.keys():
            if name.startswith("edge_"):
                del data[name]
    data.update({"edge_index": edge_index, **attributes})


class ShellGraph(BaseTransform):
    """Add ordered pairs of atoms ``edge_index [2, num_edges]`` (source j, target i) and their shells ``edge_type
    [num_edges]``: 0, 1, 2 for the shells J, K, L of atom i.

    All pairs (or all within a cutoff) are included, however many neighbours an atom has. Use this as a ``transform``
    rather than a ``pre_transform``, as each edge needs 24 bytes on disk. For a heterogeneous graph with one relation
    per shell, set ``node_type`` to zero and call ``data.to_heterogeneous(node_type_names=["atom"],
    edge_type_names=[("atom", s, "atom") for s in "JKL"])``.

    Args:
        radii (sequence of float): Increasing shell radii in Å.
        cutoff (float, optional): Maximum distance of a pair in Å, exclusive, for large clusters. The outermost shells
            are then incomplete: models that count or sum over all atoms (DART) need all pairs.

    Example:
        >>> trimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7], [0.0, 0.0, 6.4]]))
        >>> trimer = ShellGraph()(trimer)
        >>> trimer.edge_index.tolist(), trimer.edge_type.tolist()
        ([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]], [0, 2, 0, 1, 2, 1])
    """

    def __init__(self, radii: Sequence[float] = GALLIUM_RADII, cutoff: float | None = None):
        self.radii = check_radii(radii)
        self.cutoff = None if cutoff is None else check_radii([cutoff])[0]

    def forward(self, data: Data) -> Data:
        edge_index, edge_type = shell_pairs(*checked_clusters(data), self.radii, self.cutoff)
        set_edges(data, edge_index, edge_type=edge_type)
        return data

    def __repr__(self) -> str:
        cutoff = "" if self.cutoff is None else f", cutoff={self.cutoff}"
        return f"{self.__class__.__name__}(radii={list(self.radii)}{cutoff})"


class RadiusGraph(BaseTransform):
    """Add the ordered pairs of atoms closer than a radius, ``edge_index [2, num_edges]`` (source j, target i), and
    their distances ``edge_weight [num_edges]`` in Å (the name in PyG's ``SchNet``).

    Layers with edge features (``GATv2Conv``, ``CGConv``, ``GINEConv``, ...) take ``edge_attr``: apply
    ``T.Distance(norm=False)`` after this transform to set it to the distances ``[num_edges, 1]``. Layers such as
    ``GCNConv`` and ``GraphConv`` multiply messages by ``edge_weight``: pass a decreasing function of the distance, such
    as ``0.5 * (torch.cos(torch.pi * data.edge_weight / cutoff) + 1)``, which
    :class:`~pyg_clusters.models.LayeredModel` uses automatically. ``T.AddSelfLoops("edge_weight", fill_value=0.0)``
    adds self-loops.

    Unlike :class:`torch_geometric.transforms.RadiusGraph` it needs no extension package and drops no neighbour.

    Args:
        cutoff (float): Radius in Å, exclusive.

    Example:
        >>> dimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]]))
        >>> RadiusGraph(cutoff=6.0)(dimer).edge_weight
        tensor([2.5000, 2.5000])
    """

    def __init__(self, cutoff: float):
        (self.cutoff,) = check_radii([cutoff])

    def forward(self, data: Data) -> Data:
        edge_index, edge_weight = radius_pairs(*checked_clusters(data), self.cutoff)
        set_edges(data, edge_index, edge_weight=edge_weight)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(cutoff={self.cutoff})"


class TopologicalDescriptor(BaseTransform):
    """Add ``x [num_atoms, num_shells]``, the number of neighbours of each atom in each shell.

    For the default radii this is the topological atomic descriptor (TAD) of Modee et al. 2021, section 2.2.

    Args:
        radii (sequence of float): Increasing shell radii in Å. Use the minima of the pair-distance distribution of the
            element.

    Example:
        >>> dimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7]]))
        >>> TopologicalDescriptor()(dimer).x
        tensor([[1., 0., 0.],
                [1., 0., 0.]])
    """

    def __init__(self, radii: Sequence[float] = GALLIUM_RADII):
        self.radii = check_radii(radii)

    def forward(self, data: Data) -> Data:
        pos, ptr = checked_clusters(data)
        data.x = shell_counts(pos, ptr, self.radii).to(pos.dtype)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(radii={list(self.radii)})"


class RunningCoordination(BaseTransform):
    r"""Add ``running_coordination [num_atoms, num_radii]``, the number of neighbours of each atom within each radius
    (Kaneko et al. 2023, `doi 10.20517/jmi.2022.39 <https://doi.org/10.20517/jmi.2022.39>`_).

    .. math::
        n_i(r) = \sum_{j \neq i} \Phi\Big(\frac{r - d_{ij}}{w}\Big)

    Each neighbour is broadened by a Gaussian of standard deviation w in distance, so the numbers are differentiable
    with respect to the positions and fractional near a step. They need no electronic-structure calculation.

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
        data.running_coordination = running_coordination(*checked_clusters(data), self.radii, self.width)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(radii={list(self.radii)}, width={self.width})"


def running_coordination(pos: Tensor, ptr: Tensor, radii: Sequence[float], width: float) -> Tensor:
    """Running coordination numbers ``[num_atoms, num_radii]`` of clusters; see :class:`RunningCoordination`."""
    edge_index, distance = radius_pairs(pos, ptr, radii[-1] + STEP_WIDTHS * width)
    radius = pos.new_tensor(radii)
    numbers = pos.new_zeros(pos.size(0), radius.numel())
    at_once = max(1, MAX_PAIRS_AT_ONCE // radius.numel())
    for target, d in zip(edge_index[1].split(at_once), distance.split(at_once), strict=True):
        steps = torch.special.ndtr((radius - d[:, None]) / width)  # [num_pairs, num_radii]
        numbers = numbers.index_add(0, target, steps)
    return numbers
