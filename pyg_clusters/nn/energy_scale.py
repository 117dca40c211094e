"""Offset and scale that turn a network's raw numbers into energies."""

import warnings
from collections.abc import Mapping

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

    @torch.no_grad()
    def fit(self, z: Tensor, ptr: Tensor, energy: Tensor):
        """Sets the offset of each element by least squares on cluster energies.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            ptr: Offsets of the clusters ``[num_graphs + 1]``.
            energy: Energies ``[num_graphs]`` in eV.
        """
        self.offset.zero_()
        for number, value in fit_references(z, ptr, energy).items():
            self.offset[number] = value
        coarse = float(energy.abs().max()) * torch.finfo(energy.dtype).eps
        if coarse > 1e-4:
            warnings.warn(
                f"energies as large as {float(energy.abs().max()):.6g} eV are known to {coarse:.1g} eV only in "
                f"{str(energy.dtype).removeprefix('torch.')}: subtract energies of the atoms first "
                "(references='fit', or their values, of ClusterDataset)",
                stacklevel=2,
            )

    def forward(self, raw: Tensor, z: Tensor | None) -> Tensor:
        if z is None:
            if self.offset.count_nonzero() > 1:
                raise InputError("atomic numbers z are needed: the model was trained on several elements")
            return self.scale * raw + self.offset.sum()
        return self.scale * raw + self.offset[z]

    def __repr__(self) -> str:
        fitted = {int(number): round(float(self.offset[number]), 6) for number in self.offset.nonzero().flatten()}
        return f"{self.__class__.__name__}(scale={float(self.scale):.6g} eV, offset={fitted} eV)"


def fit_references(z: Tensor, ptr: Tensor, energy: Tensor) -> dict[int, float]:
    """Energy per atom of each element, in eV, that fits cluster energies best (least squares in double precision).

    Elements whose shares cannot be told apart get the solution of the smallest norm.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        energy: Energies ``[num_graphs]`` in eV.
    """
    elements, column = torch.unique(z, return_inverse=True)
    row = torch.repeat_interleave(ptr.diff())
    flat = torch.bincount(row * elements.numel() + column, minlength=(ptr.numel() - 1) * elements.numel())
    composition = flat.view(-1, elements.numel()).double()
    solution = torch.linalg.lstsq(composition, energy.double().view(-1, 1), driver=_driver(composition)).solution
    return dict(zip(elements.tolist(), solution.flatten().tolist(), strict=True))


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


def _driver(matrix: Tensor) -> str:
    return "gelsd" if matrix.device.type == "cpu" else "gels"
