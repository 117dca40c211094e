"""SmoothDART, a differentiable DART with soft shells and directions, and its variant for shieldings."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.resolver import activation_resolver

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import (
    GALLIUM_RADII,
    batch_to_ptr,
    check_radii,
    is_traced,
    one_cluster,
    pad_clusters,
    pad_values,
    pair_distances,
    soft_beyond_masks,
    sum_over_clusters,
)
from pyg_clusters.models.smooth_dart_parts import large_atomic_energies, repulsion
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn.inputs import ElementChannels, InputScale, reset_parameters
from pyg_clusters.nn.neighbor_sums import MAX_DEGREE, harmonics_of_neighbors
from pyg_clusters.nn.output_scale import EnergyScale, OutputScale
from pyg_clusters.nn.shell_conv import ShellConv
from pyg_clusters.nn.shielding_scale import ShieldingScale
from pyg_clusters.pairs import is_large
from pyg_clusters.positions import usable_positions

SODIUM_SHELLS: tuple[float, float] = (4.5, 7.7)
"""Shell radii of sodium in Å, from the minima of the pair-distance distribution of random clusters."""

ATOMS_AT_ONCE: int = 1536
"""Number of atoms (of whole clusters) evaluated at a time on a CPU, so that intermediate values fit in its cache."""


class SmoothDART(nn.Module):
    r"""Variant of :class:`DART` with an energy that is a smooth function of the positions and therefore has forces.

    .. math::
        E = \sum_i \mathrm{MLP}_{int}\Big(\mathrm{MLP}_f(\mathbf{x}_i) + \sum_s \sum_{j \ne i} w_s(d_{ij})\,
        \mathrm{MLP}_s(\mathbf{x}_j)\Big)

    It differs from DART (Modee et al. 2021, Eqs. 1-7) in three features, each of which can be switched off:

    - *Soft shells.* An atom belongs to shell s with a weight :math:`w_s(d)`, which rises from 0 to 1 and falls again
      over the given width around the radii. The weights sum to one at every distance; for zero width they are DART's.
    - *A finer descriptor.* The descriptor contains soft counts, and may have more radii than the sums.
    - *Directions.* For each shell of the descriptor except the outermost, the spherical harmonics of the neighbours are
      summed. Products that are invariant to rotation and reflection, :math:`\sum_m A_{slm} A_{s'lm}`, are appended to
      the counts. They contain angles between pairs of neighbours at the cost of a sum over neighbours.

    Without ``elements`` the model ignores the elements. With several elements, the sums of the descriptor are repeated
    for each of a few learned channels c, :math:`A^c_{slm} = \sum_j w_s(d_{ij})\, Y_{lm}\, a_c(z_j)`, weighted by
    :math:`a_c` of the neighbour's element (:class:`~pyg_clusters.nn.ElementChannels`). Their counts and, within each
    shell, :math:`\sum_m A_{slm} A^c_{slm}` and :math:`\sum_m (A^c_{slm})^2` are appended to the descriptor, as is the
    element of the atom itself. With one element the model is identical to the model without ``elements``.

    Args:
        radii (sequence of float): Radii in Å of the shells that are summed over.
        width (float): Width in Å over which the weight of a shell changes from 0 to 1.
        descriptor_radii (sequence of float, optional): Radii in Å of the descriptor; by default those of the sums.
        degree (int): Maximum degree of the spherical harmonics, 0 to 8; 0 for a model without directions.
        hidden_channels (int): Width of the shell networks.
        interaction_channels (sequence of int): Widths of the hidden layers of the interaction network.
        rounds (int): Number of shell-wise convolutions, each applied to the features of the previous one.
        act (str): Activation function; it must be smooth to train on forces.
        elements (sequence of int, optional): Atomic numbers of the elements to distinguish.
        element_channels (int): Maximum number of element channels; the number of elements minus one is sufficient.
        outermost_shell (bool): Whether to include atoms beyond the last radius in the sums and in the descriptor.
            Without them, an atom depends only on its surroundings within a fixed distance: energies of distant clusters
            are additive, and a model trained on small clusters can be applied to nanoparticles.
        repulsion (bool): Whether to add a repulsion of nuclei that are closer than in the training set
            (:func:`~pyg_clusters.models.smooth_dart_parts.repulsion`).

    Example:
        >>> import torch
        >>> from pyg_clusters.structures import energy_and_forces
        >>> model = SmoothDART(degree=2)
        >>> z, batch = torch.tensor([31, 31, 31]), torch.tensor([0, 0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7], [0.0, 2.0, 1.4]])
        >>> energy, forces = energy_and_forces(model, z, pos, batch)
        >>> energy.shape, forces.shape
        (torch.Size([1]), torch.Size([3, 3]))
    """

    def __init__(
        self,
        radii: Sequence[float] = GALLIUM_RADII,
        width: float = 1.2,
        descriptor_radii: Sequence[float] | None = None,
        degree: int = 3,
        hidden_channels: int = 128,
        interaction_channels: Sequence[int] = (256, 128, 32),
        rounds: int = 1,
        act: str = "silu",
        elements: Sequence[int] | None = None,
        element_channels: int = 2,
        outermost_shell: bool = True,
        repulsion: bool = False,
    ):
        super().__init__()
        self.radii = check_radii(radii)
        self.descriptor_radii = self.radii if descriptor_radii is None else check_radii(descriptor_radii)
        if not 0 < width < float("inf"):
            raise InputError(f"the width of a shell boundary must be positive (in Å), got {width}")
        if degree not in range(MAX_DEGREE + 1) or rounds < 1:
            raise InputError(f"degree must be 0 to {MAX_DEGREE} and rounds at least 1, got {degree} and {rounds}")
        self.width, self.degree, self.rounds, self.act = width, degree, rounds, act
        self.hidden_channels = hidden_channels
        self.interaction_channels = tuple(interaction_channels)

        inner = len(self.descriptor_radii)
        first, second = torch.triu_indices(inner, inner)
        self.register_buffer("upper_triangle", inner * first + second, persistent=False)
        self.outermost_shell, self.repulsion = outermost_shell, repulsion
        num_counts = inner + outermost_shell
        in_channels = num_counts + degree * first.numel()
        self.elements = None if elements is None else tuple(int(number) for number in elements)
        self.element_channels = element_channels
        self.channels = None if elements is None else ElementChannels(elements, element_channels)
        if self.elements is not None and self.channels is not None and self.channels.num_channels:
            in_channels += self.channels.num_channels * (num_counts + 2 * degree * inner) + len(self.elements)
        num_shells = len(self.radii) + 1
        shells = range(num_shells if outermost_shell else num_shells - 1)
        self.inputs = InputScale(in_channels, floor=1e-4)
        self.conv = ShellConv(in_channels, hidden_channels, num_shells, active_shells=shells, act=act)
        self.further_convs = nn.ModuleList(
            ShellConv(hidden_channels, hidden_channels, num_shells, active_shells=shells, act=act)
            for _ in range(rounds - 1)
        )
        widths = [hidden_channels, *self.interaction_channels, 1]
        self.interaction = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation_resolver(act, **self.conv.act_kwargs or {})
        self.scale: OutputScale = EnergyScale()
        self.domain = TrainingDomain()
        self.reset_parameters()

    upper_triangle: Tensor

    def reset_parameters(self):
        reset_parameters(self)

    def forward(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Energies of the clusters, ``[num_graphs]`` in eV, differentiable with respect to the positions.

        Args:
            z: Atomic numbers ``[num_atoms]``; may be ``None`` for a model of one element.
            pos: Positions ``[num_atoms, 3]`` in Å.
            batch: Cluster index of each atom ``[num_atoms]``, sorted; one cluster if not given.
        """
        batch = one_cluster(pos) if batch is None else batch
        return sum_over_clusters(self.atomic_energies(z, pos, batch), batch)

    def atomic_energies(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Contributions of the atoms ``[num_atoms]`` in eV; the arguments are those of :meth:`forward`."""
        return self.atomic_values(z, pos, batch)

    def atomic_values(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Scaled outputs of the network ``[num_atoms]``; the arguments are those of :meth:`forward`."""
        self.domain.check(z)
        if z is None and self.repulsion:
            raise InputError("atomic numbers z are needed for the repulsion of the nuclei")
        batch = one_cluster(pos) if batch is None else batch
        if batch.numel() == 0:
            return pos.sum(dim=-1)
        if is_large(batch.numel()) and is_large(batch_to_ptr(batch)):
            pos, defect = usable_positions(pos, batch)
            energy = large_atomic_energies(self, z, pos, batch)
            return energy + defect.to(energy.dtype)
        fitting = self.training and not self.inputs.fitted  # needs the whole first batch
        if fitting or is_traced() or batch.numel() <= ATOMS_AT_ONCE or pos.device.type != "cpu":
            return self._of_block(z, pos, batch)
        ptr = batch_to_ptr(batch)
        first = ptr[torch.searchsorted(ptr, torch.arange(0, batch.numel(), ATOMS_AT_ONCE))]
        blocks = torch.cat([first, ptr[-1:]]).unique().diff().tolist()
        numbers = [None] * len(blocks) if z is None else z.split(blocks)
        parts = zip(numbers, pos.split(blocks), batch.split(blocks), strict=True)
        return torch.cat([self._of_block(z, pos, batch - batch[0]) for z, pos, batch in parts])

    def _of_block(self, z: Tensor | None, pos: Tensor, batch: Tensor) -> Tensor:
        pos, defect = usable_positions(pos, batch)
        padded, place, sizes = pad_clusters(pos, batch)
        shape = padded.shape[:2]
        elements = [pad_values(values, place, shape) for values in self.element_values(z, pos.dtype)]
        x, masks = (values.to(self.inputs.mean.dtype) for values in self._descriptor(padded, sizes, *elements))
        if self.training and not self.inputs.fitted:
            self.inputs.fit(x.detach().flatten(0, 1)[place])
        x = self.inputs(x)
        valid = pad_values(torch.ones_like(place, dtype=x.dtype), place, shape)
        for conv in (self.conv, *self.further_convs):
            x = conv.forward_dense(x, masks, valid)
        energy = self.read_out(x.flatten(0, 1).index_select(0, place), z)
        if self.repulsion and z is not None:
            pairs, _, distance = pair_distances(padded, sizes)
            numbers = pad_values(z, place, shape)
            repelled = repulsion(distance, numbers[:, :, None], numbers[:, None], self.domain.geometry[0])
            repelled = repelled.where(pairs, 0.0).sum(-1).flatten().index_select(0, place)
            energy = energy + 0.5 * repelled.to(energy.dtype)
        return energy + defect.to(energy.dtype)

    def read_out(self, x: Tensor, z: Tensor | None) -> Tensor:
        """Values of the atoms ``[num_atoms]`` from their features ``[num_atoms, hidden_channels]``."""
        for layer in self.interaction[:-1]:
            x = self.activation(layer(x))
        raw = self.interaction[-1](x).squeeze(-1)
        return self.scale(raw, z)

    def element_values(self, z: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Element channels ``[num_atoms, num_channels]`` and one-hot elements; empty for one element."""
        if self.channels is None or (z is None and not self.channels.num_channels):
            return ()
        if z is None:
            raise InputError("atomic numbers z are needed: the model has several elements")
        values = self.channels(z).to(dtype), self.channels.index.one_hot(z).to(dtype)
        return values if self.channels.num_channels else ()

    def _descriptor(self, pos: Tensor, sizes: Tensor, *elements: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptor ``[num_graphs, num_atoms, in_channels]``, and soft masks of the shells of the sums."""
        pairs, difference, distance = pair_distances(pos, sizes)
        masks = soft_beyond_masks(distance, pairs, self.radii, self.width)
        num_others = pairs.sum(dim=-1, keepdim=True)
        if not elements:
            return self.near_descriptor(*self._near(pairs, difference, distance), num_others), masks
        channels, kinds = elements
        others = channels.sum(dim=1, keepdim=True) - channels
        of_neighbors = channels[:, None].expand(-1, pos.size(1), -1, -1)
        *near, of_neighbors = self._near(pairs, difference, distance, of_neighbors)
        return self.near_descriptor(*near, num_others, of_neighbors, others, kinds), masks

    def near_descriptor(
        self, pairs: Tensor, difference: Tensor, distance: Tensor, num_others: Tensor, *elements: Tensor
    ) -> Tensor:
        """Descriptor ``[num_graphs, num_atoms, in_channels]`` from the neighbours in the inner shells.

        Args:
            pairs: Mask of neighbours, ``[num_graphs, num_atoms, num_neighbors]`` (bool); ``False`` in the padding.
            difference: Vectors to the neighbours in Å, ``[num_graphs, num_atoms, num_neighbors, 3]``.
            distance: Distances in Å, of the shape of the mask; 1 in the padding.
            num_others: Number of other atoms of the cluster, ``[num_graphs, num_atoms, 1]``.
            elements: With several elements, channels of the neighbours ``[num_graphs, num_atoms, num_neighbors,
                num_channels]``, their sum over all other atoms, and the one-hot elements of the atoms.
        """
        everywhere = (-self.width, *self.descriptor_radii)  # the first mask contains all neighbours
        beyond = soft_beyond_masks(distance, pairs, everywhere, self.width)
        members = beyond[:, :, :-1] - beyond[:, :, 1:]
        direction = torch.where(pairs[..., None], difference, 0.0) / distance[..., None]
        harmonics = harmonics_of_neighbors(direction, self.degree).mT
        if not elements:
            return self._invariants(members @ harmonics, num_others)
        of_neighbors, others, kinds = elements
        weighted = members[:, :, None] * of_neighbors.mT[:, :, :, None]  # [..., channels, shells, neighbours]
        rows = torch.cat([members, weighted.flatten(2, 3)], dim=2)
        sums, *by_channel = (rows @ harmonics).split(members.size(2), dim=2)
        parts = [self._channel_invariants(sums, own, others[..., c, None]) for c, own in enumerate(by_channel)]
        return torch.cat([self._invariants(sums, num_others), *parts, kinds], dim=-1)

    def _near(self, pairs: Tensor, difference: Tensor, distance: Tensor, *of_neighbors: Tensor) -> list[Tensor]:
        """Nearest neighbours of each atom, at least those in all but the outermost shell of the descriptor."""
        if is_traced():
            return [pairs, difference, distance, *of_neighbors]
        reach = self.descriptor_radii[-1] + self.width / 2
        most = int((pairs & (distance < reach)).sum(dim=-1).max())
        if most > 0.8 * distance.size(-1):  # sorting would cost more than it saves
            return [pairs, difference, distance, *of_neighbors]
        near = torch.where(pairs, distance.detach(), float("inf")).topk(most, largest=False, sorted=False).indices
        difference, *of_near = (
            each.gather(2, near[..., None].expand(-1, -1, -1, each.size(-1))) for each in (difference, *of_neighbors)
        )
        return [pairs.gather(2, near), difference, distance.gather(2, near), *of_near]

    def _invariants(self, sums: Tensor, num_others: Tensor) -> Tensor:
        """Counts and products of sums over neighbours ``[num_graphs, num_atoms, num_shells - 1, orders]``."""
        counts = self._counts(sums, num_others)
        if not self.degree:
            return counts
        products = torch.stack([part @ part.mT for part in self._by_degree(sums)], dim=2)
        return torch.cat([counts, products.flatten(3).index_select(-1, self.upper_triangle).flatten(2)], dim=-1)

    def _channel_invariants(self, sums: Tensor, own: Tensor, others: Tensor) -> Tensor:
        """Counts of a channel, and products of its sums with the unweighted sums and with themselves, by shell."""
        products = [part.sum(dim=-1) for each in (sums, own) for part in self._by_degree(each * own)]
        return torch.cat([self._counts(own, others), *products], dim=-1)

    def _counts(self, sums: Tensor, all_shells: Tensor) -> Tensor:
        """Counts of the shells; that of the outermost shell is the total minus those of the inner shells."""
        inner = sums[..., 0]
        if not self.outermost_shell:
            return inner
        return torch.cat([inner, all_shells - inner.sum(dim=-1, keepdim=True)], dim=-1)

    def _by_degree(self, of_orders: Tensor) -> tuple[Tensor, ...]:
        return of_orders.split([2 * degree + 1 for degree in range(self.degree + 1)], dim=-1)[1:]


class ShieldingDART(SmoothDART):
    r"""Variant of :class:`SmoothDART` that predicts the shielding of each atom.

    The outputs are scaled to ppm by :class:`~pyg_clusters.nn.ShieldingScale`. Unlike :class:`NodeSchNet` the model
    depends on directions and on all atoms of the cluster. It is more accurate than NodeSchNet at cluster sizes of its
    training set, and less accurate at other sizes.

    Args:
        transform (bool): See :class:`~pyg_clusters.nn.ShieldingScale`.
        **kwargs: Arguments of :class:`SmoothDART` except ``repulsion``, which has no meaning for shieldings.

    Example:
        >>> import torch
        >>> model = ShieldingDART()
        >>> z, batch = torch.tensor([11, 11, 11]), torch.tensor([0, 0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.5], [0.0, 3.0, 1.7]])
        >>> model.scale.fit(z, torch.tensor([0, 3]), torch.tensor([590.0, 600.0, 620.0]))
        >>> model(z, pos, batch).shape
        torch.Size([3])
    """

    atomic_energies = None  # type: ignore[assignment]  # not an energy model

    def __init__(
        self,
        radii: Sequence[float] = SODIUM_SHELLS,
        degree: int = 2,
        hidden_channels: int = 64,
        interaction_channels: Sequence[int] = (64, 32),
        transform: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            radii, degree=degree, hidden_channels=hidden_channels, interaction_channels=interaction_channels, **kwargs
        )
        if self.repulsion:
            raise InputError("a ShieldingDART has no energy that repulsion could be added to: leave repulsion out")
        self.transform = transform
        self.scale = ShieldingScale(transform)

    def forward(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Shieldings of the atoms, ``[num_atoms]`` in ppm; the arguments are those of :meth:`SmoothDART.forward`."""
        return self.atomic_values(z, pos, batch)
