"""Complete PyG models on exact pair lists, with one value per atom."""

import inspect
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import DimeNet, SchNet, ViSNet

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import batch_to_ptr
from pyg_clusters.nn.layer_adapter import filled, make, reset_copy
from pyg_clusters.pairs import radius_pairs


class WholeModel(nn.Module):
    r"""A :class:`~torch_geometric.nn.SchNet`, :class:`~torch_geometric.nn.DimeNet`,
    :class:`~torch_geometric.nn.DimeNetPlusPlus` or :class:`~torch_geometric.nn.ViSNet` with one value per atom.

    PyG's models need an extension package to find neighbours, and drop neighbours beyond ``max_num_neighbors``. Here
    all pairs are found by :func:`pyg_clusters.pairs.radius_pairs`, without the package. The final sum over the cluster
    is skipped, so that an offset per element can be added and values of atoms can be predicted.

    Args:
        model: The model. SchNet and ViSNet are modified in place to use the exact pairs.

    Shapes:
        - **input:** atomic numbers ``z [num_atoms]``, positions ``pos [num_atoms, 3]`` in Å, cluster indices ``batch
          [num_atoms]`` (sorted)
        - **output:** ``[num_atoms]``

    Raises:
        InputError: If the model is of another class, or does not return one value per atom.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import SchNet
        >>> model = WholeModel(SchNet(hidden_channels=16, num_filters=16, num_interactions=1))
        >>> model(torch.tensor([31, 31]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7]]), torch.tensor([0, 0])).shape
        torch.Size([2])
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        name = type(model).__name__
        if isinstance(model, SchNet):
            if model.dipole:
                raise InputError("a SchNet of dipole moments has no value per atom: leave dipole out")
            model.interaction_graph = ExactInteractionGraph(model.cutoff)
            model.readout = KeepAtoms()
        elif isinstance(model, ViSNet):
            if model.derivative:
                raise InputError("the derivative of ViSNet is not supported here: leave derivative out")
            distance = model.representation_model.distance
            model.representation_model.distance = ExactDistance(distance.cutoff, distance.add_self_loops)
        elif not isinstance(model, DimeNet):
            raise InputError(
                f"{name} takes (z, pos, batch), but its pairs cannot be replaced: SchNet, DimeNet, DimeNetPlusPlus and "
                "ViSNet are supported; give any other model directly as the model of the recipe"
            )
        self.model = model

    def reset_parameters(self):
        self.model.reset_parameters()

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        pos = pos.to(next(self.model.parameters()).dtype)
        if isinstance(self.model, SchNet):
            out = self.model(z, pos, batch)
        else:
            out = exact_forward(type(self.model).forward)(self.model, z, pos, batch)
        out = out[0] if isinstance(out, tuple) else out
        if out.shape != (z.numel(), 1):
            raise InputError(f"{type(self.model).__name__} has {out.size(-1)} values per atom: set out_channels: 1")
        return out.squeeze(-1)


def is_whole(layer: type[nn.Module] | nn.Module) -> bool:
    """Whether a layer is a complete model, which takes ``(z, pos, batch)`` instead of features."""
    forward = layer.forward if isinstance(layer, type) else type(layer).forward
    return list(inspect.signature(forward).parameters)[1:4] == ["z", "pos", "batch"]


def whole_model(
    layer: type[nn.Module] | nn.Module,
    arguments: Mapping[str, Any],
    channels: int,
    num_blocks: int,
    num_gaussians: int,
    cutoff: float | None,
) -> WholeModel:
    """Create a :class:`WholeModel`.

    Sizes and the cutoff in Å are used for arguments of the constructor that are not given. An instance is copied.
    """
    if isinstance(layer, nn.Module):
        return WholeModel(reset_copy(layer))
    if cutoff is None:
        raise InputError(f"{layer.__name__} needs a cutoff: give the model one, for example 6.0 (Å)")
    known: dict[str, Any] = dict.fromkeys(("hidden_channels", "num_filters", "out_emb_channels"), channels)
    known |= dict.fromkeys(("num_interactions", "num_layers", "num_blocks"), num_blocks)
    known |= dict.fromkeys(("num_gaussians", "num_rbf"), num_gaussians)
    known |= {"cutoff": cutoff, "out_channels": 1, "int_emb_size": channels // 2, "basis_emb_size": 8}
    known |= {"num_spherical": 3, "num_radial": 6}  # deriving the 7 harmonics of the paper takes PyG ten seconds
    return WholeModel(make(layer, filled(layer, arguments, known)))


class KeepAtoms(nn.Module):
    """Identity in place of a readout or of :func:`torch_geometric.utils.scatter` over clusters."""

    def forward(self, x: Tensor, *_, **__) -> Tensor:
        return x


class ExactInteractionGraph(nn.Module):
    """Replacement for SchNet's ``interaction_graph``: all pairs within a cutoff and their distances."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        return radius_pairs(pos, batch_to_ptr(batch), self.cutoff)


class ExactDistance(nn.Module):
    """Replacement for ViSNet's ``distance``: all pairs within a cutoff, distances, vectors from target to source."""

    def __init__(self, cutoff: float, add_self_loops: bool = True):
        super().__init__()
        self.cutoff = cutoff
        self.add_self_loops = add_self_loops

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        edge_index, edge_weight = radius_pairs(pos, batch_to_ptr(batch), self.cutoff)
        if self.add_self_loops:
            atoms = torch.arange(pos.size(0), device=pos.device)
            edge_index = torch.cat([edge_index, atoms.expand(2, -1)], dim=1)
            edge_weight = torch.cat([edge_weight, edge_weight.new_zeros(atoms.numel())])
        return edge_index, edge_weight, pos[edge_index[0]] - pos[edge_index[1]]


def exact_radius_graph(pos: Tensor, r: float, batch: Tensor, max_num_neighbors: int = 0) -> Tensor:
    """All pairs within ``r``; replaces :func:`torch_geometric.nn.radius_graph` and ignores ``max_num_neighbors``."""
    return radius_pairs(pos, batch_to_ptr(batch), r)[0]


def triplets(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """Pairs of edges k→j and j→i with k ≠ i, for DimeNet.

    The edges ``[2, num_edges]`` (source j, target i) are ordered by target.

    Returns:
        Target i and source j of each edge ``[num_edges]``; atoms i, j, k and edges k→j and j→i of each triplet
        ``[num_triplets]``.
    """
    j, i = edge_index
    degree = torch.bincount(i, minlength=num_nodes)
    start = degree.cumsum(0) - degree
    count = degree[j]  # number of edges k→j
    edge_ji = torch.repeat_interleave(count)
    within = torch.arange(edge_ji.numel(), device=j.device) - (count.cumsum(0) - count)[edge_ji]
    edge_kj = start[j[edge_ji]] + within
    different = j[edge_kj] != i[edge_ji]
    edge_kj, edge_ji = edge_kj[different], edge_ji[different]
    return i, j, i[edge_ji], j[edge_ji], j[edge_kj], edge_kj, edge_ji


@cache
def exact_forward(forward: Callable) -> Callable:
    """Version of a ``forward`` with exact pairs and without a readout.

    DimeNet and ViSNet have no argument for the graph or the readout, but call global functions. The returned function
    has the same code with these functions replaced; PyG itself is not modified.
    """
    functions = {"radius_graph": exact_radius_graph, "triplets": triplets, "scatter": KeepAtoms()}
    names = forward.__globals__ | functions
    return types.FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
