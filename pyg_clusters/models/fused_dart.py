"""DART without gradients on clusters of one size: the fast path of large trajectory sets."""

import math

import torch
from torch import Tensor

from pyg_clusters.geometry import masks_to_counts, shell_masks, squared_distances
from pyg_clusters.models.dart import DART, distinct_counts
from pyg_clusters.positions import defect_of_clusters

CLUSTERS_AT_ONCE: int = 32
"""So many clusters of some tens of atoms stay in the cache of a processor core."""


class FusedDART:
    r"""Energies of a trained :class:`~pyg_clusters.models.DART`, rearranged for speed; the same numbers.

    - The sums over the shells are linear, so the first layer of the interaction network is applied before them, to
      the few distinct descriptor rows instead of to every atom.
    - In units of :math:`\alpha` the activation is ELU, :math:`\max(t, 0) + e^{\min(t, 0)} - 1`: the unit becomes part
      of the first and last layers, the constant part of the next bias, and what remains are four passes in place.
    - Results of one chunk are written over those of the one before: fresh memory costs more than the arithmetic.

    The weights are rearranged anew at each call, which costs little beside a batch: whatever changed them is followed.

    Args:
        model: Its weights, radii, offset and scale are taken.
    """

    def __init__(self, model: DART):
        self.model = model
        self.radii = model.radii
        self.conv = model.conv
        self.scale = model.scale
        self._buffers: dict[str, Tensor] = {}

    def _rearrange(self):
        """Takes the units of the activation into the weights and biases of the interaction network."""
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
        num_graphs, num_atoms, _ = pos.shape
        num_steps = len(self.radii)
        squared = squared_distances(pos)
        masks = shell_masks(squared, self.radii, self.first_bias.dtype)
        counts = masks_to_counts(masks, num_atoms - 1)

        rows, row_of_atom = distinct_counts(counts.flatten(0, 1))
        row_of_atom = row_of_atom.view(num_graphs, num_atoms)
        terms = self.conv.atom_terms(rows).transpose(0, 1) @ self.first_weight  # [num_terms, num_rows, 256]

        # Sums over shells, as ShellConv.combine_dense has them.
        t = self._gather("t", terms[0] + self.first_bias, row_of_atom)  # [num_graphs, num_atoms, 256]
        t += (_row_counts(row_of_atom, rows.size(0)).to(t.dtype) @ terms[1])[:, None]
        first_of_step = torch.arange(num_steps, device=pos.device)[:, None] * rows.size(0)
        steps = self._gather("steps", terms[2:].flatten(0, 1), row_of_atom[:, None] + first_of_step)
        t.baddbmm_(masks.view(num_graphs, num_atoms, -1), steps.flatten(1, 2))

        t = self._activate(t.flatten(0, 1))
        for number, (weight, bias) in enumerate(self.hidden):
            t = torch.addmm(bias, t, weight, out=self._buffer(f"hidden {number}", t.size(0), bias.numel()))
            t = self._activate(t)
        raw = torch.addmv(self.last_bias, t, self.last_weight)  # [num_graphs * num_atoms]
        energy = self.scale(raw.view(num_graphs, num_atoms), z).sum(dim=1)
        return energy + defect_of_clusters(pos, squared).to(energy.dtype)

    def _activate(self, t: Tensor) -> Tensor:
        """ELU plus one, in place."""
        tail = torch.clamp(t, min=-20.0, max=0.0, out=self._buffer("tail", *t.shape))
        return t.clamp_(min=0.0).add_(tail.exp_())

    def _gather(self, name: str, table: Tensor, rows: Tensor) -> Tensor:
        out = self._buffer(name, rows.numel(), table.size(1))
        return torch.index_select(table, 0, rows.flatten(), out=out).view(*rows.shape, -1)

    def _buffer(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        like = self.first_bias
        if buffer is None or buffer.numel() < size or (buffer.dtype, buffer.device) != (like.dtype, like.device):
            buffer = self._buffers[name] = like.new_empty(size)
        return buffer[:size].view(shape)


def _row_counts(row_of_atom: Tensor, num_rows: int) -> Tensor:
    """How often each descriptor row occurs in each cluster, ``[num_graphs, num_rows]``."""
    num_graphs = row_of_atom.size(0)
    first = torch.arange(num_graphs, device=row_of_atom.device)[:, None] * num_rows
    return torch.bincount((row_of_atom + first).flatten(), minlength=num_graphs * num_rows).view(num_graphs, num_rows)
