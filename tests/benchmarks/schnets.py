"""NodeSchNet, PyG's SchNet and SchNetPack's with the same weights and pairs."""

import typing
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.utils.data.dataloader
from torch import Tensor, nn
from torch_geometric.nn import SchNet
from torch_geometric.utils import scatter

from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import NodeSchNet
from pyg_clusters.pairs import radius_pairs
from pyg_clusters.structures import sblda

GET_SCHNETPACK = "SchNetPack is not installed: see tests/benchmarks/README.md"
OWN = ("scale.", "domain.")
SCHNETPACK_NAMES = {
    "embedding.": "0.embedding.",
    "interactions.": "0.interactions.",
    "lin1.": "1.outnet.0.",
    "lin2.": "1.outnet.1.",
    "mlp.0.": "filter_network.0.",
    "mlp.2.": "filter_network.1.",
    "conv.lin1.": "in2f.",
    "conv.lin2.": "f2out.0.",
    "lin.": "f2out.1.",
}
"""Parts of the names of weights: PyG's, then SchNetPack's."""


class Clusters(typing.NamedTuple):
    """Sodium clusters and their pairs within 6 Å."""

    z: Tensor
    pos: Tensor
    ptr: Tensor
    batch: Tensor
    edge_index: Tensor
    edge_weight: Tensor


def sodium_clusters(sizes: np.ndarray, rng: np.random.Generator, cutoff: float = 6.0) -> Clusters:
    """S-BLDA clusters of the given sizes."""
    pos = torch.from_numpy(np.concatenate([sblda(int(size), rng=rng) for size in sizes])).float()
    ptr = torch.from_numpy(np.cumsum([0, *sizes]))
    return Clusters(torch.full((len(pos),), 11), pos, ptr, ptr_to_batch(ptr), *radius_pairs(pos, ptr, cutoff))


def node_schnet(model: NodeSchNet, clusters: Clusters) -> Callable[[], Tensor]:
    """Sums of the outputs over each cluster ``[num_graphs]``."""

    def sums() -> Tensor:
        edges = {"edge_index": clusters.edge_index, "edge_weight": clusters.edge_weight}
        return scatter(model(clusters.z, None, clusters.batch, **edges), clusters.batch)

    return sums


def pyg_schnet(ours: NodeSchNet, clusters: Clusters) -> tuple[SchNet, Callable[[], Tensor]]:
    """PyG's model with our weights, and its sums."""
    model = SchNet(
        ours.hidden_channels,
        ours.num_filters,
        ours.num_interactions,
        ours.num_gaussians,
        ours.cutoff,
        interaction_graph=lambda *_: (clusters.edge_index, clusters.edge_weight),
    )
    weights = {key: value for key, value in ours.state_dict().items() if not key.startswith(OWN)}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all(".conv.nn." in key for key in missing)  # the second name of the same weights
    return model, lambda: model(clusters.z, clusters.pos, clusters.batch).flatten()


def schnetpack_schnet(ours: NodeSchNet, clusters: Clusters) -> tuple[nn.Module, Callable[[], Tensor]] | None:
    """SchNetPack's model with our weights, and its sums; ``None`` if it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not hasattr(torch.utils.data.dataloader, "T_co"):  # SchNetPack 2.1 imports it; torch 2.13 no longer has it
            torch.utils.data.dataloader.T_co = typing.TypeVar("T_co", covariant=True)
        try:
            from schnetpack import atomistic, properties, representation
            from schnetpack.nn import CosineCutoff, GaussianRBF
            from schnetpack.nn.activations import shifted_softplus
        except ImportError:
            return None
    radial = GaussianRBF(ours.num_gaussians, ours.cutoff)
    sizes = ours.hidden_channels, ours.num_interactions, radial, CosineCutoff(ours.cutoff), ours.num_filters
    head = atomistic.Atomwise(ours.hidden_channels, activation=shifted_softplus)
    model = nn.Sequential(representation.SchNet(*sizes), head)
    weights = {schnetpack_name(name): value for name, value in ours.named_parameters()}
    assert weights.keys() == dict(model.named_parameters()).keys()
    model.load_state_dict(weights, strict=False)  # the cutoff and the Gaussians are unchanged
    source, target = clusters.edge_index
    inputs = {
        properties.Z: clusters.z,
        properties.Rij: clusters.pos[source] - clusters.pos[target],
        properties.idx_i: target,
        properties.idx_j: source,
        properties.idx_m: clusters.batch,
    }
    return model, lambda: model(dict(inputs))["y"]


def schnetpack_name(name: str) -> str:
    """Name of a weight in SchNetPack's representation and head."""
    start = next(part for part in SCHNETPACK_NAMES if name.startswith(part))
    name = name.removeprefix(start)
    if start != "interactions.":
        return SCHNETPACK_NAMES[start] + name
    number, name = name.split(".", 1)
    inner = next(part for part in SCHNETPACK_NAMES if name.startswith(part))
    return f"{SCHNETPACK_NAMES[start]}{number}.{SCHNETPACK_NAMES[inner]}{name.removeprefix(inner)}"
