"""DART without gradients on clusters of one size: the fast path of a graphics processor."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._triton import has_triton

from pyg_clusters.geometry import masks_to_counts, shell_masks, squared_distances
from pyg_clusters.models.dart import DART
from pyg_clusters.models.fused_dart import FusedDART
from pyg_clusters.positions import defect_of_clusters

MOST_ROWS: int = 1 << 16
"""Largest table; beyond it (clusters of more than 256 atoms with three shells) the distinct rows are sought instead."""


class TabulatedDART:
    """Energies of a trained :class:`~pyg_clusters.models.DART` in one graph of operations that no result holds up.

    The counts of an atom in all shells but the last tell its descriptor, so what an atom contributes is looked up in a
    table of all that clusters of a size can have. No shape depends on the data: on a GPU ``torch.compile`` makes a few
    kernels of it, and nothing waits for the processor. What is looked up is what :class:`FusedDART` computes for the
    distinct rows, with the first layer of the interaction network applied before the sums; the table is made anew at
    each call, which costs little beside a batch.

    Args:
        model: Its weights, radii, offset and scale are taken.
        half: Half precision for the table and the products after it. Positions, distances, counts, the sum over atoms,
            offset and scale stay as they are. The energies of
            ``gallium`` for hot frames of Ga57 change by 0.001 kcal/mol per atom on average, 0.006 at most.
        compiled: Whether to compile; by default on a GPU where Triton is installed.
    """

    def __init__(self, model: DART, half: bool = False, compiled: bool | None = None):
        self.model = model
        self.half = half
        self.compiled = compiled
        self.distinct = FusedDART(model)
        self._raw: Callable[..., Tensor] = _raw_energies

    @torch.no_grad()
    def __call__(self, z: Tensor, pos: Tensor) -> Tensor:
        """Energies of clusters of one size.

        Args:
            z: Atomic numbers ``[num_graphs, num_atoms]``.
            pos: Positions ``[num_graphs, num_atoms, 3]`` in Å.

        Returns:
            ``[num_graphs]`` in eV.
        """
        num_atoms, radii = z.size(1), tuple(self.model.radii)
        if num_atoms ** len(radii) > MOST_ROWS:
            return self.distinct(z, pos)
        if self._raw is _raw_energies and (pos.is_cuda and has_triton() if self.compiled is None else self.compiled):
            self._raw = torch.compile(_raw_energies)
        dtype = torch.float16 if self.half else self.model.interaction[0].weight.dtype
        table = self._table(num_atoms, pos.device)
        first, *others = self.model.interaction
        weights = [(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in others]
        raw = self._raw(pos, radii, table[:2], table[2:].to(dtype), first.bias, weights, self.model.act.alpha)
        return self.model.scale(raw.to(first.weight.dtype), z).sum(dim=1)

    def _table(self, num_atoms: int, device: torch.device) -> Tensor:
        """What an atom of any descriptor adds to the first hidden layer, ``[num_terms, num_rows, channels]``."""
        num_inner = len(self.model.radii)
        inner = torch.cartesian_prod(*[torch.arange(num_atoms, device=device)] * num_inner).view(-1, num_inner)
        counts = torch.cat([inner, (num_atoms - 1 - inner.sum(dim=1, keepdim=True)).clamp_(min=0)], dim=1)
        first = self.model.interaction[0]
        terms = self.model.conv.atom_terms(counts.to(first.weight.dtype))
        return terms.transpose(0, 1) @ first.weight.T


def _raw_energies(
    pos: Tensor,
    radii: Sequence[float],
    own: Tensor,
    steps: Tensor,
    bias: Tensor,
    weights: Sequence[tuple[Tensor, Tensor]],
    alpha: float,
) -> Tensor:
    """Outputs of the interaction network, ``[num_graphs, num_atoms]`` in single precision."""
    num_graphs, num_atoms, _ = pos.shape
    squared = squared_distances(pos)
    masks = shell_masks(squared, radii, steps.dtype)
    counts = masks_to_counts(masks, num_atoms - 1)[..., :-1].long()
    row = counts[..., 0]
    for shell in range(1, len(radii)):
        row = row * num_atoms + counts[..., shell]
    of_neighbors = torch.cat([step[row] for step in steps], dim=1)
    t = own[0][row] + bias + own[1][row].sum(dim=1, keepdim=True)
    t = t + masks.view(num_graphs, num_atoms, -1) @ of_neighbors
    for weight, offset in weights:
        t = functional.linear(functional.celu(t, alpha).to(weight.dtype), weight, offset).to(own.dtype)
    return t.squeeze(-1) + defect_of_clusters(pos, squared)[:, None]
