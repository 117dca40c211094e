"""DART for clusters of several elements."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import GALLIUM_RADII, beyond_masks, check_shells, pad_clusters, pad_values
from pyg_clusters.models.dart import DART
from pyg_clusters.nn.inputs import ElementIndex
from pyg_clusters.nn.shell_conv import ShellConv
from pyg_clusters.pairs import check_complete, edge_shell_counts


class AlloyDART(DART):
    r""":class:`DART` for alloys: neighbours are counted by shell and element.

    .. math::
        E = \sum_i \mathrm{MLP}_{int}\Big(\mathrm{MLP}_f(\mathbf{x}_i) + \sum_s \sum_{j \in \mathcal{N}_s(i)}
        \mathrm{MLP}_{s, z_j}(\mathbf{x}_j)\Big)

    The descriptor :math:`\mathbf{x}_i` holds the number of neighbours of each element in each shell and, with several
    elements, the one-hot encoded element of atom i. With a single element the model is identical to DART, and their
    state dicts are interchangeable.

    Args:
        elements (sequence of int): Atomic numbers of the elements, in the order of their counts in the descriptor.
        radii (sequence of float): Shell radii in Å, the same for all pairs of elements.
        element_networks (str): ``"shared"``: one network per shell, with the element of the neighbour as an input;
            ``"separate"``: one network per shell and element of the neighbour.
        **kwargs: Further arguments of :class:`DART`.

    Example:
        >>> import torch
        >>> model = AlloyDART(elements=(29, 79), radii=(3.4, 5.8))
        >>> z, batch = torch.tensor([29, 79, 79]), torch.tensor([0, 0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.6], [0.0, 0.0, 5.4]])
        >>> model.descriptor(z, pos, batch)[1].tolist()  # a gold atom with one copper and one gold neighbour
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        >>> model(z, pos, batch).shape
        torch.Size([1])
    """

    def __init__(
        self,
        elements: Sequence[int],
        radii: Sequence[float] = GALLIUM_RADII,
        element_networks: Literal["shared", "separate"] = "shared",
        **kwargs: Any,
    ):
        super().__init__(radii, **kwargs)
        self.elements = tuple(int(number) for number in elements)
        self.index = ElementIndex(self.elements)
        if element_networks not in ("shared", "separate"):
            raise InputError(f"element_networks must be 'shared' or 'separate', got {element_networks!r}")
        self.element_networks = element_networks
        num_shells, num_elements = len(self.radii) + 1, len(self.elements)
        if num_elements > 1:
            in_channels = num_shells * num_elements + num_elements
            others = num_elements - 1 if element_networks == "separate" else 0
            sizes = (in_channels, self.hidden_channels, num_shells)
            self.conv = ShellConv(*sizes, active_shells=self.active_shells)
            self.other_convs = nn.ModuleList(
                ShellConv(*sizes, active_shells=self.active_shells, root_weight=False) for _ in range(others)
            )
        else:
            self.other_convs = nn.ModuleList()
        self.reset_parameters()

    def _check_elements(self, z: Tensor | None):
        if z is None:
            raise ValueError("atomic numbers z are needed: neighbours are counted by element")
        self.index(z)  # raises an error for any other element
        super()._check_elements(z)

    def fast_path(self, device: torch.device, half: bool) -> None:
        """Return ``None``: the fast path of :class:`DART` does not distinguish elements."""

    def descriptor(self, z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        """Counts of neighbours by shell and element, and the one-hot encoded element of the atom.

        Returns:
            ``[num_atoms, num_shells * num_elements + num_elements]``; the shell is the slower index of the counts.
        """
        place, masks, numbers = self._padded(z, pos, batch)
        return self._padded_descriptor(masks, numbers).flatten(0, 1)[place]

    def _padded(self, z: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the atoms in the padded arrays, shell masks, and one-hot encoded elements.

        The elements are ``[num_graphs, num_atoms, num_elements]``, zero in the padding.
        """
        padded, place, _ = pad_clusters(pos.detach(), batch)
        masks = beyond_masks(padded, self.radii, next(self.interaction.parameters()).dtype)
        return place, masks, pad_values(self.index.one_hot(z).to(masks.dtype), place, padded.shape[:2])

    def _padded_descriptor(self, masks: Tensor, elements: Tensor) -> Tensor:
        """Descriptor ``[num_graphs, num_atoms, in_channels]``."""
        counts = []
        for number in range(elements.size(-1)):
            of_element = elements[:, :, number]
            others = of_element.sum(dim=1, keepdim=True) - of_element  # [num_graphs, num_atoms]
            further = (masks * of_element[:, None, None]).sum(-1)  # [num_graphs, num_atoms, num_shells - 1]
            outer = torch.cat([others[..., None], further], dim=-1)
            counts.append(outer - torch.cat([further, torch.zeros_like(others)[..., None]], dim=-1))
        return torch.cat([torch.stack(counts, dim=-1).flatten(2), elements], dim=-1)

    def _sums_of_positions(self, z: Tensor | None, pos: Tensor, batch: Tensor) -> Tensor:
        if z is None or len(self.elements) == 1:
            return super()._sums_of_positions(z, pos, batch)
        place, masks, elements = self._padded(z, pos, batch)
        x = self._padded_descriptor(masks, elements)
        if self.element_networks == "shared":
            y = self.conv.forward_dense(x, masks, elements.sum(-1))
            return y.flatten(0, 1)[place]
        y = x.new_zeros(*x.shape[:2], self.hidden_channels)
        for number, conv in enumerate((self.conv, *self.other_convs)):
            terms = conv.atom_terms(x)  # terms[:, :, 0] is the root term minus h_0, not summed over neighbours
            of_element = elements[:, :, number, None]
            h_0 = terms[:, :, 1]
            own = terms[:, :, 0] + h_0  # root term of the first convolution, zero for the others
            summed = [own - of_element * h_0, *(of_element * terms[:, :, k] for k in range(1, terms.size(2)))]
            y = y + conv.combine_dense(torch.stack(summed, dim=2), masks)
        return y.flatten(0, 1)[place]

    def _sums_of_edges(
        self, z: Tensor | None, batch: Tensor, x: Tensor | None, edge_index: Tensor, edge_type: Tensor | None
    ) -> Tensor:
        """Sums on a shell graph; with several elements ``x`` is ignored, as it does not distinguish them."""
        num_shells, num_elements = len(self.radii) + 1, len(self.elements)
        if z is None or num_elements == 1:
            return super()._sums_of_edges(z, batch, x, edge_index, edge_type)
        check_complete(edge_index, batch)
        check_shells(edge_type, num_shells)
        assert edge_type is not None
        numbers = self.index(z)
        kind = edge_type * num_elements + numbers[edge_index[0]]
        counts = edge_shell_counts(edge_index, kind, z.numel(), num_shells * num_elements)
        x = torch.cat([counts, self.index.one_hot(z)], dim=1).to(next(self.interaction.parameters()).dtype)
        if self.element_networks == "shared":
            return self.conv(x, edge_index, edge_type)
        y = x.new_zeros(z.numel(), self.hidden_channels)
        for number, conv in enumerate((self.conv, *self.other_convs)):
            chosen = numbers[edge_index[0]] == number
            y = y + conv(x, edge_index[:, chosen], edge_type[chosen])
        return y
