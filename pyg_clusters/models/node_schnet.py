"""SchNet with one value per atom."""

import math

import torch
from torch import Tensor, nn
from torch_geometric.nn.models.schnet import GaussianSmearing, InteractionBlock, ShiftedSoftplus

from pyg_clusters.geometry import batch_to_ptr, check_radii, is_traced, one_cluster
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn.extended_huckel import ExtendedHuckel
from pyg_clusters.nn.inputs import InputScale
from pyg_clusters.nn.neighbor_sums import Interpolation, filtered_sum
from pyg_clusters.nn.shielding_scale import ShieldingScale
from pyg_clusters.pairs import radius_pairs, radius_slots
from pyg_clusters.positions import usable_positions

NODES_PER_GAUSSIAN: int = 8  # number of distances per spacing of the Gaussians at which filters are evaluated


class NodeSchNet(nn.Module):
    r"""`SchNet <https://arxiv.org/abs/1706.08566>`_ without pooling: the shielding of each atom, as in `Kaneko et al.
    2023 <https://doi.org/10.20517/jmi.2022.39>`_.

    .. math::
        \mathbf{h}_i \leftarrow \mathbf{h}_i + \mathrm{MLP}\Big(\sum_{j:\, d_{ij} < r_c} W\mathbf{h}_j \odot
        \mathrm{MLP}_f(\mathbf{g}(d_{ij}))\, \tfrac{1}{2}\big(\cos(\pi d_{ij} / r_c) + 1\big)\Big)

    The model consists of PyG's interaction blocks and has the parameter names of :class:`torch_geometric.nn.SchNet`:
    with the weights of a SchNet, the raw outputs sum to its output. The defaults are those of the paper, which trains
    with Adam at a learning rate of 0.01 and batches of 100 clusters.

    As the filters depend only on the distance, each call evaluates the filter network at about a hundred distances and
    interpolates to those of the pairs (:class:`~pyg_clusters.nn.Interpolation`), in training too; the envelope is
    exact. The cost of the filter network does not grow with the number of pairs, and the results agree with PyG's to a
    relative 1e-6, close to the rounding of single precision.

    No neighbour is dropped, however many there are. Pairs at or beyond the cutoff are left out, also those of a given
    graph, because the envelope of PyG's convolution rises again beyond the cutoff (to 0.5 at 1.5 times the cutoff).

    With ``extended_huckel``, which is not in the paper, a linear map of the standardised features of
    :class:`~pyg_clusters.nn.ExtendedHuckel` is added to the embedding of each atom. They describe the electronic
    structure of the whole cluster (with the charge of the training set), on which shieldings depend, and roughly halve
    the errors. Sodium only.

    Args:
        hidden_channels (int): Number of features of an atom.
        num_filters (int): Number of channels of the convolution.
        num_interactions (int): Number of interaction blocks.
        num_gaussians (int): Number of Gaussians in the expansion of a distance, at least two.
        cutoff (float): Cutoff radius in Å, exclusive.
        transform (bool): Whether the network predicts standard normal values, which the inverse transform of a
            generalised logistic distribution converts to shieldings; see :class:`~pyg_clusters.nn.ShieldingScale`.
        extended_huckel (bool): Whether the features of an extended Hückel calculation are inputs.

    Example:
        >>> import torch
        >>> model = NodeSchNet()
        >>> z, batch = torch.tensor([11, 11]), torch.tensor([0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.1]])
        >>> model.scale.fit(z, torch.tensor([0, 2]), torch.tensor([600.0, 620.0]))
        >>> model(z, pos, batch).shape
        torch.Size([2])
    """

    def __init__(
        self,
        hidden_channels: int = 128,
        num_filters: int = 128,
        num_interactions: int = 2,
        num_gaussians: int = 25,
        cutoff: float = 6.0,
        transform: bool = False,
        extended_huckel: bool = False,
    ):
        super().__init__()
        if num_gaussians < 2:
            raise ValueError(f"num_gaussians must be at least 2, got {num_gaussians}")
        self.hidden_channels = hidden_channels
        self.num_filters = num_filters
        self.num_interactions = num_interactions
        self.num_gaussians = num_gaussians
        (self.cutoff,) = check_radii([cutoff])
        self.transform = transform
        self.embedding = nn.Embedding(100, hidden_channels, padding_idx=0)
        self.distance_expansion = GaussianSmearing(0.0, self.cutoff, num_gaussians)
        self.interactions = nn.ModuleList(
            InteractionBlock(hidden_channels, num_gaussians, num_filters, self.cutoff) for _ in range(num_interactions)
        )
        self.lin1 = nn.Linear(hidden_channels, hidden_channels // 2)
        self.act = ShiftedSoftplus()
        self.lin2 = nn.Linear(hidden_channels // 2, 1)
        self.extended_huckel = extended_huckel
        if extended_huckel:
            self.huckel = ExtendedHuckel()
            self.huckel_scale = InputScale(self.huckel.num_features, floor=1e-4)
            self.huckel_embedding = nn.Linear(self.huckel.num_features, hidden_channels)
        self.scale = ShieldingScale(transform)
        self.domain = TrainingDomain()
        self.reset_parameters()

    def _blocks(self) -> list[InteractionBlock]:
        return list(self.interactions)

    def reset_parameters(self):
        """Reset to normal embeddings, Xavier uniform weights and zero biases, as in PyG."""
        self.embedding.reset_parameters()
        for block in self._blocks():
            block.reset_parameters()
        linears = [self.lin1, self.lin2]
        if self.extended_huckel:
            self.huckel_scale.reset_parameters()
            linears.append(self.huckel_embedding)
        for linear in linears:
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.scale.reset_parameters()

    def forward(
        self,
        z: Tensor,
        pos: Tensor | None,
        batch: Tensor | None = None,
        *,
        edge_index: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        """Shieldings of the atoms, ``[num_atoms]`` in ppm.

        Args:
            z: Atomic numbers ``[num_atoms]``, below 100.
            pos: Positions ``[num_atoms, 3]`` in Å; may be ``None`` if edges and distances are given, except with
                ``extended_huckel``.
            batch: Cluster index of each atom ``[num_atoms]``, sorted; one cluster if not given.
            edge_index: Pairs ``[2, num_edges]`` (source j, target i), if already computed.
            edge_weight: Distances of the pairs ``[num_edges]`` in Å; computed from the positions if not given.
        """
        return self.scale(self.raw(z, pos, batch, edge_index=edge_index, edge_weight=edge_weight), z)

    def raw(self, z: Tensor, pos: Tensor | None, batch: Tensor | None = None, **graph: Tensor | None) -> Tensor:
        """Output of the network before scaling to ppm, ``[num_atoms]``; the arguments are those of :meth:`forward`.

        To train on transformed values, compare it with ``model.scale.standardize(y, z)``.
        """
        self.domain.check(z)
        batch = one_cluster(z) if batch is None else batch
        pos, defect = (None, 0.0) if pos is None else usable_positions(pos, batch)
        edge_index, edge_weight = self._edges(pos, batch, **graph)
        edge_weight = edge_weight.to(self.lin1.weight.dtype)
        envelope = 0.5 * (torch.cos(edge_weight * (math.pi / self.cutoff)) + 1)
        intervals = NODES_PER_GAUSSIAN * (self.num_gaussians - 1)
        between = Interpolation(edge_weight, self.cutoff, intervals, envelope)
        gaussians = self.distance_expansion(between.nodes)  # [num_nodes, num_gaussians]
        h = self.embedding(z)  # [num_atoms, hidden_channels]
        if self.extended_huckel:
            if pos is None:
                raise ValueError("NodeSchNet with extended_huckel needs positions")
            x = self.huckel(z, pos, batch, charge=self.domain.state[0]).to(h.dtype)  # [num_atoms, 12]
            h = h + self.huckel_embedding(self.huckel_scale(x))
        for block in self._blocks():
            x = filtered_sum(block.conv.lin1(h), block.mlp(gaussians), edge_index, between)  # [num_atoms, num_filters]
            h = h + block.lin(block.act(block.conv.lin2(x)))
        return self.lin2(self.act(self.lin1(h))).squeeze(-1) + defect  # [num_atoms]

    def _edges(
        self, pos: Tensor | None, batch: Tensor, edge_index: Tensor | None = None, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pairs within the cutoff and their distances in Å."""
        if edge_index is None or edge_weight is None:
            if pos is None:
                raise ValueError("NodeSchNet needs positions, or pairs and their distances (edge_index, edge_weight)")
            if edge_index is None:
                if is_traced():
                    return radius_slots(pos, batch, self.cutoff)
                return radius_pairs(pos, batch_to_ptr(batch), self.cutoff)
            edge_weight = (pos[edge_index[0]] - pos[edge_index[1]]).norm(dim=-1)
        if is_traced():
            return edge_index, edge_weight.clamp(max=self.cutoff)  # the envelope is zero at the cutoff
        inside = edge_weight < self.cutoff
        return edge_index[:, inside], edge_weight[inside]
