"""Forces as the negative gradient of any energy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyg_clusters.errors import InputError

EnergyFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``energy(z, pos, batch)``: atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and the cluster of each
atom ``[num_atoms]`` to the energies ``[num_graphs]`` in eV, differentiable with respect to the positions."""


def energy_and_forces(energy: EnergyFunction, z: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å of clusters.

    Args:
        energy: A potential or a model, which computes in the precision of its weights.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å; energies and forces have their precision. (Energies of a model with
            reference energies are in double precision in any case.)
        batch: Cluster of each atom ``[num_atoms]``, sorted.

    Raises:
        InputError: If the energy is no differentiable function of the positions.
    """
    weight = next(energy.parameters(), pos) if isinstance(energy, nn.Module) else pos
    with torch.enable_grad():
        moved = pos.detach().requires_grad_()
        energies = energy(z, moved.to(weight.dtype), batch)
        energies = energies.to(torch.promote_types(energies.dtype, pos.dtype))
        (gradient,) = torch.autograd.grad(energies.sum(), moved, allow_unused=True)
    if gradient is None:
        name = type(energy).__name__
        raise InputError(f"{name} has no forces: its energy is no smooth function of the positions; SmoothDART has")
    energies = energies.detach()
    return energies, torch.where(energies.isnan()[batch, None], torch.nan, -gradient)
