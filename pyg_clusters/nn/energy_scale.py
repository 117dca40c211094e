"""Offset and scale that turn a network's raw numbers into energies."""

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.units import KCAL_PER_MOL

MAX_ATOMIC_NUMBER: int = 118


class EnergyScale(nn.Module):
    r"""Energy of an atom in eV from the raw output of a network, :math:`E_i = o(z_i) + s\, r_i`.

    Offset and scale are buffers, so that they are saved and moved with the model and targets stay as they are in the
    data set. Until :meth:`fit` sets them the offset is zero and the raw output is in kcal/mol.

    Shapes:
        - **input:** raw output ``[num_atoms]``, atomic numbers ``z [num_atoms]`` (or ``None``: no offset is looked up
          but that of the only element fitted)
        - **output:** ``[num_atoms]`` in eV
    """

    offset: Tensor
    scale: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.zeros(MAX_ATOMIC_NUMBER + 1))
        self.register_buffer("scale", torch.ones(()))
        self.reset_parameters()

    def reset_parameters(self):
        self.offset.zero_()
        self.scale.fill_(1 / KCAL_PER_MOL)

    def fit(self, z: Tensor, ptr: Tensor, energy: Tensor):
        """Sets the offset of each element by least squares on cluster energies.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            ptr: Offsets of the clusters ``[num_graphs + 1]``.
            energy: Energies ``[num_graphs]`` in eV.
        """
        self.fit_blocks([(z, ptr, energy)])

    @torch.no_grad()
    def fit_blocks(self, blocks: Iterable[tuple[Tensor, Tensor, Tensor]]):
        """As :meth:`fit`, on clusters of which no more than a block is held at a time.

        Args:
            blocks: ``z``, ``ptr`` and ``energy`` of each.
        """
        fit, largest, dtype = ReferenceFit(), 0.0, torch.double
        for z, ptr, energy in blocks:
            fit.add(z, ptr, energy)
            largest, dtype = max(largest, float(energy.abs().max())), energy.dtype
        self.offset.zero_()
        for number, value in fit.solution().items():
            self.offset[number] = value
        coarse = largest * torch.finfo(dtype).eps
        if coarse > 1e-4:
            warnings.warn(
                f"energies as large as {largest:.6g} eV are known to {coarse:.1g} eV only in "
                f"{str(dtype).removeprefix('torch.')}: subtract energies of the atoms first "
                "(references='fit', or their values, of ClusterDataset)",
                stacklevel=2,
            )

    def forward(self, raw: Tensor, z: Tensor | None) -> Tensor:
        raw = raw.to(self.scale.dtype)  # of mixed precision: a sum over atoms in bfloat16 would lose digits
        if z is None:
            if self.offset.count_nonzero() > 1:
                raise InputError("atomic numbers z are needed: the model was trained on several elements")
            return self.scale * raw + self.offset.sum()
        return self.scale * raw + self.offset[z]

    def __repr__(self) -> str:
        fitted = {int(number): round(float(self.offset[number]), 6) for number in self.offset.nonzero().flatten()}
        return f"{self.__class__.__name__}(scale={float(self.scale):.6g} eV, offset={fitted} eV)"


class ReferenceFit:
    """Energy per atom of each element that fits cluster energies best, of clusters that come in blocks.

    Least squares in double precision by the triangular factor of compositions and energies beside each other, which is
    all that is kept of a block: as accurate as with all clusters at once.

    Example:
        >>> fit = ReferenceFit()
        >>> for energy in (-2.0, -4.0):
        ...     fit.add(torch.tensor([31, 31]), torch.tensor([0, 2]), torch.tensor([energy]))
        >>> round(fit.solution()[31], 9)
        -1.5
    """

    clusters_at_once: int = 4096

    def __init__(self):
        self._factor = torch.zeros(0, MAX_ATOMIC_NUMBER + 2, dtype=torch.double)

    def add(self, z: Tensor, ptr: Tensor, energy: Tensor):
        """Adds clusters.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            ptr: Offsets of the clusters ``[num_graphs + 1]``.
            energy: Energies ``[num_graphs]`` in eV.
        """
        z, ptr, energy = z.cpu(), ptr.cpu(), energy.cpu()
        for first in range(0, energy.numel(), self.clusters_at_once):
            ends = ptr[first : first + self.clusters_at_once + 1]
            num, row = ends.numel() - 1, torch.repeat_interleave(ends.diff())
            key = row * (MAX_ATOMIC_NUMBER + 1) + z[int(ends[0]) : int(ends[-1])]
            composition = torch.bincount(key, minlength=num * (MAX_ATOMIC_NUMBER + 1)).view(num, -1)
            columns = torch.cat([composition.double(), energy[first : first + num].double().view(-1, 1)], dim=1)
            self._factor = torch.linalg.qr(torch.cat([self._factor, columns]), mode="r").R

    def solution(self) -> dict[int, float]:
        """Energy in eV by atomic number; elements whose shares cannot be told apart get that of the smallest norm."""
        elements = self._factor[:, :-1].any(dim=0).nonzero().flatten()
        found = torch.linalg.lstsq(self._factor[:, elements], self._factor[:, -1:], driver="gelsd").solution
        return dict(zip(elements.tolist(), found.flatten().tolist(), strict=True))


def fit_references(z: Tensor, ptr: Tensor, energy: Tensor) -> dict[int, float]:
    """Energy per atom of each element, in eV, that fits cluster energies best (:class:`ReferenceFit`).

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        energy: Energies ``[num_graphs]`` in eV.
    """
    fit = ReferenceFit()
    fit.add(z, ptr, energy)
    return fit.solution()


def shift_of_references(z: Tensor, ptr: Tensor, references: Mapping[int, float]) -> Tensor:
    """Sum of per-element reference energies over each cluster, ``[num_graphs]`` in eV, in double precision.

    Raises:
        ValueError: If an element has no reference.
    """
    table = torch.full((MAX_ATOMIC_NUMBER + 1,), float("nan"), dtype=torch.double)
    for number, value in references.items():
        table[number] = value
    values = table[z]
    if values.isnan().any():
        missing = sorted(set(z[values.isnan()].tolist()))
        raise ValueError(f"no reference energy for atomic numbers {missing}; given are {sorted(references)}")
    row = torch.repeat_interleave(ptr.diff())
    return torch.zeros(ptr.numel() - 1, dtype=torch.double).index_add_(0, row, values)
