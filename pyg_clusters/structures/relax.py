"""Relaxing many clusters at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_clusters.geometry import batch_to_ptr, ptr_to_batch
from pyg_clusters.models.geometry_range import GeometryRange, measures
from pyg_clusters.models.training_domain import geometry_range_of
from pyg_clusters.structures.forces import EnergyFunction, energy_and_forces

FIRST_STEP, LONGEST_STEP = 0.1, 1.0
WAIT, FASTER, SLOWER = 5, 1.1, 0.5
MIXING, LESS_MIXING = 0.1, 0.99


@dataclass
class Relaxation:
    """Relaxed clusters, in the order of the input."""

    pos: Tensor
    """Positions ``[num_atoms, 3]`` in Å."""
    energy: Tensor
    """Energies ``[num_graphs]`` in eV at these positions."""
    fmax: Tensor
    """Largest force on an atom of the cluster ``[num_graphs]`` in eV/Å at these positions."""
    steps: Tensor
    """Steps that were made, ``[num_graphs]``."""
    converged: Tensor
    """Whether the largest force is below the limit, and the cluster inside the range, ``[num_graphs]``."""
    left_range: Tensor
    """Whether the cluster is outside the range where it stopped, ``[num_graphs]``."""


@torch.no_grad()
def relax(
    energy: EnergyFunction,
    z: Tensor,
    pos: Tensor,
    batch: Tensor,
    *,
    fmax: float = 0.02,
    max_steps: int = 500,
    max_move: float = 0.2,
    trained: GeometryRange | None = None,
    progress: Callable[[int], None] | None = None,
) -> Relaxation:
    """Moves the atoms of many clusters to local minima of the energy.

    The fast inertial relaxation engine (FIRE; Bitzek et al., Phys. Rev. Lett. 2006, 97, 170201) with its published
    constants and a velocity, time step and mixing of its own for each cluster: a cluster goes the way that it would go
    alone, and leaves the batch when it has converged. So does one whose energy or forces are no longer finite, and one
    that leaves the range of geometries in which the energy is to be trusted; these are not converged. (A cluster may
    start outside, from a hot run, as long as it does not go further out.)

    Args:
        energy: A potential or a model, called as ``energy(z, pos, batch)``, that gives ``[num_graphs]`` in eV.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å, preferably in double precision.
        batch: Cluster of each atom ``[num_atoms]``, sorted, with no cluster empty.
        fmax: A cluster is relaxed when no force on an atom is larger, in eV/Å.
        max_steps: Most steps for a cluster.
        max_move: Most that an atom moves in a step, in Å.
        trained: Where the energy is to be trusted; by default what the model was trained on
            (:func:`~pyg_clusters.models.training_domain.geometry_range_of`), or what is physically possible.
        progress: Called after each step with the number of clusters that left the batch.

    Example:
        >>> from pyg_clusters.structures import Gupta
        >>> trimer = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [1.5, 3.0, 0.0]], dtype=torch.double)
        >>> relaxed = relax(Gupta("Na"), torch.tensor([11, 11, 11]), trimer, torch.tensor([0, 0, 0]), fmax=1e-3)
        >>> torch.pdist(relaxed.pos).round(decimals=2)
        tensor([3.4900, 3.4900, 3.4900], dtype=torch.float64)
    """
    sizes = batch_to_ptr(batch).diff()
    result = Relaxation(
        pos=pos.clone(),
        energy=pos.new_zeros(sizes.numel()),
        fmax=pos.new_zeros(sizes.numel()),
        steps=torch.zeros_like(sizes),
        converged=torch.zeros_like(sizes, dtype=torch.bool),
        left_range=torch.zeros_like(sizes, dtype=torch.bool),
    )
    if not sizes.numel():
        return result
    active = torch.arange(sizes.numel(), device=pos.device)  # clusters that still move
    engine = _Fire(z, pos.clone(), batch, max_move)
    trained = geometry_range_of(energy) if trained is None else trained
    start = measures(z, pos, batch)
    for step in range(max_steps + 1):
        energies, forces = energy_and_forces(energy, engine.z, engine.pos, engine.batch)
        result.energy = result.energy.to(energies.dtype)
        largest = _largest_norm(forces, engine.batch)
        geometry = measures(engine.z, engine.pos, engine.batch)
        outside = trained.outside(geometry)
        converged = (largest <= fmax) & ~outside
        result.energy[active], result.fmax[active], result.steps[active] = energies, largest, step
        result.converged[active], result.left_range[active] = converged, outside
        further_out = trained.outside(geometry, start[active])
        done = (largest <= fmax) | further_out | ~largest.isfinite() | ~energies.isfinite()
        if step == max_steps:
            done = torch.ones_like(done)
        if done.any():
            moving = ~done[engine.batch]
            result.pos[torch.isin(batch, active)] = engine.pos
            if progress:
                progress(int(done.sum()))
            active, forces = active[~done], forces[moving]
            engine.keep(~done, moving)
        if not active.numel():
            break
        engine.move(forces)
    return result


class _Fire:
    """State of the clusters that move: per atom z, pos, velocity; per cluster time step, mixing, downhill steps."""

    def __init__(self, z: Tensor, pos: Tensor, batch: Tensor, max_move: float):
        self.z, self.pos, self.batch = z, pos, batch
        self.max_move = max_move
        self.velocity = torch.zeros_like(pos)
        self.step = pos.new_full((int(batch[-1]) + 1,), FIRST_STEP)
        self.mixing = torch.full_like(self.step, MIXING)
        self.downhill = torch.zeros_like(self.step)

    def keep(self, clusters: Tensor, atoms: Tensor):
        """Leaves out the clusters and atoms that are not marked."""
        sizes = torch.bincount(self.batch)[clusters]
        self.batch = ptr_to_batch(torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]))
        self.z, self.pos, self.velocity = self.z[atoms], self.pos[atoms], self.velocity[atoms]
        self.step, self.mixing, self.downhill = self.step[clusters], self.mixing[clusters], self.downhill[clusters]

    def move(self, forces: Tensor):
        """One step along forces ``[num_atoms, 3]`` in eV/Å."""
        speed = self._sum(self.velocity.square().sum(1)).sqrt()
        downhill = self._sum((forces * self.velocity).sum(1)) > 0
        uphill = ~downhill & (speed > 0)
        faster = downhill & (self.downhill > WAIT)

        along = self.mixing * speed / self._sum(forces.square().sum(1)).sqrt()
        mixed = (1 - self.mixing)[self.batch, None] * self.velocity + along[self.batch, None] * forces
        self.velocity = torch.where(downhill[self.batch, None], mixed, 0.0)
        self.downhill = torch.where(downhill, self.downhill + 1, 0.0)
        self.step = torch.where(faster, (self.step * FASTER).clamp(max=LONGEST_STEP), self.step)
        self.step = torch.where(uphill, self.step * SLOWER, self.step)
        self.mixing = torch.where(faster, self.mixing * LESS_MIXING, self.mixing)
        self.mixing = torch.where(uphill, MIXING, self.mixing)

        self.velocity = self.velocity + self.step[self.batch, None] * forces
        moves = self.step[self.batch, None] * self.velocity
        shrink = (self.max_move / _largest_norm(moves, self.batch)).clamp(max=1.0)
        self.pos = self.pos + shrink[self.batch, None] * moves

    def _sum(self, values: Tensor) -> Tensor:
        """Sums over the atoms of each cluster."""
        return values.new_zeros(self.step.numel()).index_add(0, self.batch, values)


def _largest_norm(vectors: Tensor, batch: Tensor) -> Tensor:
    """Length of the longest of the vectors ``[num_atoms, 3]`` of each cluster, not-a-number if one is."""
    length = vectors.square().sum(1).sqrt()
    return length.new_zeros(int(batch[-1]) + 1).scatter_reduce(0, batch, length, "amax")
