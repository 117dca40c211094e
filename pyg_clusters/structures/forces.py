"""Forces as the negative gradient of any energy."""

from collections.abc import Callable

import torch
from torch import Tensor

EnergyFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``energy(z, pos, batch)``: atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and the cluster of each
atom ``[num_atoms]`` to the energies ``[num_graphs]`` in eV, differentiable with respect to the positions."""


def energy_and_forces(energy: EnergyFunction, z: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å of clusters.

    Args:
        energy: A potential or a model.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        batch: Cluster of each atom ``[num_atoms]``, sorted.
    """
    with torch.enable_grad():
        moved = pos.detach().requires_grad_()
        energies = energy(z, moved, batch)
        (gradient,) = torch.autograd.grad(energies.sum(), moved)
    return energies.detach(), -gradient
