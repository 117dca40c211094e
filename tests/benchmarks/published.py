"""The published algorithm of DART, rewritten: the baseline of the benchmarks."""

import torch
from torch import Tensor, nn

from pyg_clusters.models import DART


class PublishedDART(nn.Module):
    """Energies of padded batches of clusters, each neighbour evaluated for each atom.

    For every atom and shell, the descriptors of its neighbours are listed and padded to the longest list of that shell
    in the batch; the network of the shell is evaluated on all entries, and the results of the neighbours are summed
    (Modee et al. 2021, Eqs. 1-7). Only the weights come from this package.

    Args:
        model: Its weights are shared, not copied. Two radii and all shells.
    """

    def __init__(self, model: DART):
        super().__init__()
        self.inner, self.outer = model.radii
        self.networks = nn.ModuleList([model.conv.root, *model.conv.shells.values()])
        self.interaction = model.interaction
        self.act = nn.CELU(alpha=0.1)
        self.scale = model.scale

    def forward(self, z: Tensor, pos: Tensor, valid: Tensor) -> Tensor:
        """Energies ``[num_graphs]`` in eV.

        Args:
            z: Atomic numbers ``[num_graphs, num_atoms]``, of any value at padded atoms.
            pos: Positions ``[num_graphs, num_atoms, 3]`` in Å, of any value at padded atoms.
            valid: Mask of atoms that are not padding, ``[num_graphs, num_atoms]``.
        """
        shells = self.shells(pos, valid)  # three times [num_graphs, num_atoms, num_atoms]
        descriptors = torch.stack([shell.sum(-1) for shell in shells], dim=-1).to(pos.dtype)
        x = self.evaluate(self.networks[0], descriptors)  # [num_graphs, num_atoms, 128]
        for network, shell in zip(self.networks[1:], shells, strict=True):
            neighbors, filled = neighbor_lists(descriptors, shell)
            terms = self.evaluate(network, neighbors)  # [num_graphs, num_atoms, longest, 128]
            x = x + (terms * filled[..., None]).sum(dim=2)
        for layer in self.interaction[:-1]:
            x = self.act(layer(x))
        of_atoms = self.scale(self.interaction[-1](x).squeeze(-1), z)
        return (of_atoms * valid).sum(dim=1)

    def shells(self, pos: Tensor, valid: Tensor) -> list[Tensor]:
        """Masks of atoms j in shell J, K, L of atom i: three times ``[num_graphs, num_atoms, num_atoms]``."""
        distance = (pos[:, :, None] - pos[:, None]).norm(dim=-1)
        others = valid[:, :, None] & valid[:, None] & ~torch.eye(pos.size(1), dtype=torch.bool)
        in_j, in_l = distance < self.inner, distance > self.outer
        return [others & in_j, others & ~in_j & ~in_l, others & in_l]

    def evaluate(self, network: nn.Module, x: Tensor) -> Tensor:
        for layer in network.lins:
            x = self.act(layer(x))
        return x


def neighbor_lists(descriptors: Tensor, shell: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors of the neighbours of each atom in a shell, padded with zeros at the end of the list.

    Returns:
        ``[num_graphs, num_atoms, longest, 3]`` and a mask of the neighbours ``[num_graphs, num_atoms, longest]``.
    """
    longest = int(shell.sum(-1).max())
    filled, order = shell.sort(dim=-1, descending=True, stable=True)
    filled, order = filled[..., :longest], order[..., :longest]
    graph = torch.arange(shell.size(0))[:, None, None]
    return descriptors[graph, order] * filled[..., None], filled


def pad(values: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """Flat values per atom ``[num_atoms, ...]`` as ``[num_graphs, largest, ...]``, and a mask of the atoms."""
    padded = nn.utils.rnn.pad_sequence(values.split(ptr.diff().tolist()), batch_first=True)
    return padded, torch.arange(padded.size(1)) < ptr.diff()[:, None]


def published_energies(model: PublishedDART, z: Tensor, pos: Tensor, ptr: Tensor) -> Tensor:
    """Energies ``[num_graphs]`` in eV of one batch of clusters given as flat tensors."""
    (z, valid), (pos, _) = pad(z, ptr), pad(pos, ptr)
    return model(z, pos, valid)
