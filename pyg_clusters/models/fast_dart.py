"""Fast paths of DART on CPU and GPU, without gradients, for clusters of one size."""

import math
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._triton import has_triton

from pyg_clusters.geometry import masks_to_counts, shell_masks, squared_distances
from pyg_clusters.nn.shell_conv import combine_near
from pyg_clusters.pairs import distinct_counts, is_large, near_shells
from pyg_clusters.positions import defect_of_clusters, usable_positions

ATOMS_AT_ONCE: int = 1024
"""Number of atoms of a large cluster evaluated at a time, so that intermediate values fit in the cache."""

MOST_ROWS: int = 1 << 16
"""Maximum number of rows of a table; larger clusters (more than 256 atoms with three shells) use :class:`FusedDART`."""


class FusedDART:
    r"""Energies of a trained :class:`~pyg_clusters.models.DART`, with its operations rearranged for speed.

    The energies equal those of the model up to rounding.

    - The sums over the shells are linear. Therefore the first layer of the interaction network is applied before them,
      to the few distinct descriptor rows instead of to every atom.
    - In units of :math:`\alpha` the activation is ELU, :math:`\max(t, 0) + e^{\min(t, 0)} - 1`. The unit is merged
      into the first and last layers and the constant into the next bias, which leaves four in-place operations.
    - Buffers are reused between calls of a thread, as allocating memory costs more than the arithmetic.

    The weights are rearranged at each call, which is cheap compared with a batch, so that changes take effect.

    Args:
        model: The DART.
    """

    def __init__(self, model: Any):
        self.model, self.radii, self.conv, self.scale = model, model.radii, model.conv, model.scale
        self._buffers: dict[tuple[str, int], Tensor] = {}

    def _rearrange(self):
        """Merge the unit of the activation into the weights and biases of the interaction network."""
        alpha = self.model.act.alpha
        first, *hidden, last = self.model.interaction
        with torch.no_grad():
            self.first_weight = first.weight.T / alpha
            self.first_bias = first.bias / alpha
            self.hidden = [(layer.weight.T, layer.bias / alpha - layer.weight.sum(1)) for layer in hidden]
            self.last_weight = last.weight.flatten() * alpha
            self.last_bias = last.bias - self.last_weight.sum()

    @torch.no_grad()
    def __call__(self, z: Tensor, pos: Tensor) -> Tensor:
        """Energies of clusters of one size.

        Args:
            z: Atomic numbers ``[num_graphs, num_atoms]``.
            pos: Positions ``[num_graphs, num_atoms, 3]`` in Å.

        Returns:
            ``[num_graphs]`` in eV.
        """
        self._rearrange()
        if is_large(pos.size(1)):
            return torch.cat([self._of_large(*cluster) for cluster in zip(z, pos, strict=True)])
        num_graphs, num_atoms, _ = pos.shape
        num_steps = len(self.radii)
        squared = squared_distances(pos)
        masks = shell_masks(squared, self.radii, self.first_bias.dtype)
        counts = masks_to_counts(masks, num_atoms - 1)

        rows, row_of_atom = distinct_counts(counts.flatten(0, 1))
        row_of_atom = row_of_atom.view(num_graphs, num_atoms)
        terms = self.conv.atom_terms(rows).transpose(0, 1) @ self.first_weight  # [num_terms, num_rows, 256]

        # Sums over the shells as in ShellConv.combine_dense.
        t = self._gather("t", terms[0] + self.first_bias, row_of_atom)  # [num_graphs, num_atoms, 256]
        row_of_graph = row_of_atom + torch.arange(num_graphs, device=pos.device)[:, None] * rows.size(0)
        row_counts = torch.bincount(row_of_graph.flatten(), minlength=num_graphs * rows.size(0)).view(num_graphs, -1)
        t += (row_counts.to(t.dtype) @ terms[1])[:, None]
        first_of_step = torch.arange(num_steps, device=pos.device)[:, None] * rows.size(0)
        steps = self._gather("steps", terms[2:].flatten(0, 1), row_of_atom[:, None] + first_of_step)
        t.baddbmm_(masks.view(num_graphs, num_atoms, -1), steps.flatten(1, 2))

        energy = self.scale(self._layers(t.flatten(0, 1)).view(num_graphs, num_atoms), z).sum(dim=1)
        return energy + defect_of_clusters(pos, squared).to(energy.dtype)

    def _of_large(self, z: Tensor, pos: Tensor) -> Tensor:
        """Energy ``[1]`` of one large cluster, ``z [num_atoms]`` and ``pos [num_atoms, 3]``."""
        batch = torch.zeros_like(z)
        pos, defect = usable_positions(pos, batch)
        near = near_shells(pos, torch.tensor([0, z.numel()], device=z.device), self.radii)
        rows, row_of_atom = distinct_counts(near.counts)
        terms = self.conv.near_terms(rows.to(self.first_bias.dtype)) @ self.first_weight
        t = combine_near(terms, row_of_atom, batch, near.edge_index, near.edge_type).add_(self.first_bias)
        raw = torch.cat([self._layers(block) for block in t.split(ATOMS_AT_ONCE)])
        energy = self.scale(raw, z)
        return (energy + defect.to(energy.dtype)).sum(dim=0, keepdim=True)

    def _layers(self, t: Tensor) -> Tensor:
        """Output of the interaction network ``[num_atoms]`` from that of its first layer, which is overwritten."""
        t = self._activate(t)
        for number, (weight, bias) in enumerate(self.hidden):
            t = torch.addmm(bias, t, weight, out=self._buffer(f"hidden {number}", t.size(0), bias.numel()))
            t = self._activate(t)
        return torch.addmv(self.last_bias, t, self.last_weight)

    def _activate(self, t: Tensor) -> Tensor:
        """ELU plus one, in place."""
        tail = torch.clamp(t, min=-20.0, max=0.0, out=self._buffer("tail", *t.shape))
        return t.clamp_(min=0.0).add_(tail.exp_())

    def _gather(self, name: str, table: Tensor, rows: Tensor) -> Tensor:
        out = self._buffer(name, rows.numel(), table.size(1))
        return torch.index_select(table, 0, rows.flatten(), out=out).view(*rows.shape, -1)

    def _buffer(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        key, like = (name, get_ident()), self.first_bias
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < size or (buffer.dtype, buffer.device) != (like.dtype, like.device):
            buffer = self._buffers[key] = like.new_empty(size)
        return buffer[:size].view(shape)


class TabulatedDART:
    """Energies of a trained :class:`~pyg_clusters.models.DART` by table look-up, without synchronisation with the CPU.

    The counts in all shells but the last determine the descriptor of an atom. The contribution of each atom is looked
    up in a table of all descriptors that are possible for the size of the cluster. No shape depends on the data, so
    ``torch.compile`` fuses the operations into a few GPU kernels. The table has the entries that :class:`FusedDART`
    computes for the distinct rows. It is recomputed at each call, which is cheap compared with a batch.

    Args:
        model: The DART.
        half: Whether to use half precision for the table and the subsequent products. Positions, distances, counts,
            the sum over atoms, offset and scale keep their precision. The energies of ``gallium`` for hot frames of
            Ga57 change by 0.001 kcal/mol per atom on average and by 0.006 at most.
        compiled: Whether to compile; by default on a GPU if Triton is installed.
    """

    def __init__(self, model: Any, half: bool = False, compiled: bool | None = None):
        self.model = model
        self.half = half
        self.compiled = compiled
        self.distinct = FusedDART(model)
        self._raw: Callable[..., Tensor] = _raw_energies

    @torch.no_grad()
    def __call__(self, z: Tensor, pos: Tensor) -> Tensor:
        """Energies of clusters of one size, as :meth:`FusedDART.__call__`."""
        num_atoms, radii = z.size(1), tuple(self.model.radii)
        if is_large(num_atoms) or num_atoms ** len(radii) > MOST_ROWS:
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
        """Contributions to the first hidden layer for all possible descriptors, ``[num_terms, num_rows, channels]``."""
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
