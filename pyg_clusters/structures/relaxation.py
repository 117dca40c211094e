"""Batched relaxation of clusters with the Gupta potential or a model."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from pyg_clusters.frames.join import pieces_far_apart
from pyg_clusters.frames.provenance import at_new_positions
from pyg_clusters.geometry import batch_to_ptr, ptr_to_batch, sizes_to_ptr
from pyg_clusters.models import load_model
from pyg_clusters.models.checkpoint import available_models
from pyg_clusters.models.training_domain import GeometryRange, geometry_range_of
from pyg_clusters.pairs import bond_measures
from pyg_clusters.structures.calculators import calculator_problem
from pyg_clusters.structures.potentials import EnergyFunction, Gupta, energy_and_forces, model_problem

FIRST_STEP, LONGEST_STEP = 0.1, 1.0
WAIT, FASTER, SLOWER = 5, 1.1, 0.5
MIXING, LESS_MIXING = 0.1, 0.99
MAX_MOVE: float = 0.2  # maximum displacement of an atom per step in Å


@dataclass
class Relaxation:
    """Relaxed clusters in input order."""

    pos: Tensor  #: Positions ``[num_atoms, 3]`` in Å.
    energy: Tensor  #: Energies ``[num_graphs]`` in eV at these positions.
    fmax: Tensor  #: Maximum norm of the atomic forces of each cluster ``[num_graphs]`` in eV/Å at these positions.
    steps: Tensor  #: Number of steps ``[num_graphs]``.
    #: Whether the largest force is below the limit and the geometry within the valid range, ``[num_graphs]``.
    converged: Tensor
    left_range: Tensor  #: Whether the final geometry is outside the valid range, ``[num_graphs]``.


@torch.no_grad()
def relax(
    energy: EnergyFunction,
    z: Tensor,
    pos: Tensor,
    batch: Tensor,
    *,
    fmax: float = 0.02,
    max_steps: int = 500,
    trained: GeometryRange | None = None,
    progress: Callable[[int], None] | None = None,
) -> Relaxation:
    """Relax many clusters to local minima of the energy.

    Uses the fast inertial relaxation engine (FIRE; Bitzek et al., Phys. Rev. Lett. 2006, 97, 170201) with its published
    constants. Velocity, time step and mixing are separate for each cluster: its trajectory does not depend on the rest
    of the batch. Converged clusters are removed from the batch. Clusters whose energy or forces are not finite, or
    whose geometry leaves the range in which the energy is reliable, are removed as unconverged. A cluster may start
    outside this range, for instance from a hot simulation, as long as it does not move further away from it.

    Args:
        energy: Potential or model, called as ``energy(z, pos, batch)``; returns ``[num_graphs]`` in eV.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å, preferably in double precision.
        batch: Cluster of each atom ``[num_atoms]``, sorted, without empty clusters.
        fmax: Convergence criterion: maximum norm of the force on an atom, in eV/Å.
        max_steps: Maximum number of steps.
        trained: Range of geometries in which the energy is reliable. By default that of the training set of the model
            (:func:`~pyg_clusters.models.training_domain.geometry_range_of`), or of physically possible geometries.
        progress: Called with the number of clusters removed from the batch, after each step that removes some.

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
    active = torch.arange(sizes.numel(), device=pos.device)  # clusters still being relaxed
    engine = _Fire(z, pos.clone(), batch)
    trained = geometry_range_of(energy) if trained is None else trained
    start = bond_measures(z, pos, batch, trained.scale)
    for step in range(max_steps + 1):
        energies, forces = energy_and_forces(energy, engine.z, engine.pos, engine.batch)
        result.energy = result.energy.to(energies.dtype)
        largest = _largest_norm(forces, engine.batch)
        geometry = bond_measures(engine.z, engine.pos, engine.batch, trained.scale)
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
    """FIRE state: z, pos and velocity of each atom; time step, mixing and downhill steps of each cluster."""

    def __init__(self, z: Tensor, pos: Tensor, batch: Tensor):
        self.z, self.pos, self.batch = z, pos, batch
        self.velocity = torch.zeros_like(pos)
        self.step = pos.new_full((int(batch[-1]) + 1,), FIRST_STEP)
        self.mixing = torch.full_like(self.step, MIXING)
        self.downhill = torch.zeros_like(self.step)

    def keep(self, clusters: Tensor, atoms: Tensor):
        """Keep only the marked clusters and atoms."""
        sizes = torch.bincount(self.batch)[clusters]
        self.batch = ptr_to_batch(sizes_to_ptr(sizes))
        self.z, self.pos, self.velocity = self.z[atoms], self.pos[atoms], self.velocity[atoms]
        self.step, self.mixing, self.downhill = self.step[clusters], self.mixing[clusters], self.downhill[clusters]

    def move(self, forces: Tensor):
        """Take one step with the forces ``[num_atoms, 3]`` in eV/Å."""
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
        shrink = (MAX_MOVE / _largest_norm(moves, self.batch)).clamp(max=1.0)
        self.pos = self.pos + shrink[self.batch, None] * moves

    def _sum(self, values: Tensor) -> Tensor:
        """Sum over the atoms of each cluster."""
        return values.new_zeros(self.step.numel()).index_add(0, self.batch, values)


def _largest_norm(vectors: Tensor, batch: Tensor) -> Tensor:
    """Maximum norm of the vectors ``[num_atoms, 3]`` of each cluster; NaN if one of them is NaN."""
    length = vectors.square().sum(1).sqrt()
    return length.new_zeros(int(batch[-1]) + 1).scatter_reduce(0, batch, length, "amax")


PAIRS_AT_ONCE = 1_000_000

LEFT_RANGE = "left_range"
"""Key in ``info`` of the reason why a geometry is outside the range in which its energy is reliable, or in pieces."""


@dataclass
class Minimum:
    """Result of a relaxation."""

    atoms: Atoms  #: Relaxed cluster, without a calculator.
    energy: float  #: Energy in eV.
    fmax: float  #: Maximum norm of the atomic forces in eV/Å.
    steps: int  #: Number of steps, or of evaluations of energy and forces.
    #: Whether the largest force is below the limit and the geometry within the valid range and in one piece.
    converged: bool
    #: Reason why the final geometry is outside the valid range, or in pieces; ``None`` if it is not.
    left_range: str | None = None


def relaxed_frame(atoms: Atoms, minimum: Minimum, name: str) -> Atoms:
    """Copy of a frame at its relaxed positions, with the results in ``info`` under names that start with ``name``."""
    relaxed = at_new_positions(atoms, minimum.atoms.positions)
    relaxed.info |= {f"{name}_{key}": getattr(minimum, key) for key in ("energy", "fmax", "steps")}
    relaxed.info["converged"] = minimum.converged
    if minimum.left_range is not None:
        relaxed.info[LEFT_RANGE] = minimum.left_range
    return relaxed


class BatchedEnergy:
    """Energy for batched relaxation: a model, or by default the Gupta potential of the element of each frame.

    Args:
        model: Trained model.
    """

    def __init__(self, model: nn.Module | None = None):
        self.model, self.name = model, "gupta" if model is None else "model"
        weight = torch.zeros((), dtype=torch.double) if model is None else next(model.parameters())
        self.dtype, self.device = weight.dtype, weight.device

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why a frame cannot be used, if any."""
        return calculator_problem("gupta", atoms) if self.model is None else model_problem(self.model, atoms)

    def relax(
        self, frames: Iterable[Atoms], fmax: float, steps: int, progress: Callable[[int], None]
    ) -> Iterator[Atoms]:
        """Yield relaxed copies of frames, in input order; the other arguments are those of :func:`relax`.

        Frames are relaxed in chunks of at most about a million pairs of atoms.
        """
        chunk: list[Atoms] = []
        largest = 0
        for atoms in frames:
            largest = max(largest, len(atoms))
            if chunk and (len(chunk) + 1) * largest**2 > PAIRS_AT_ONCE:
                yield from self._relaxed(chunk, fmax, steps, progress)
                chunk, largest = [], len(atoms)
            chunk.append(atoms)
        yield from self._relaxed(chunk, fmax, steps, progress)

    def _relaxed(
        self, frames: Sequence[Atoms], fmax: float, steps: int, progress: Callable[[int], None]
    ) -> list[Atoms]:
        """Relaxed copies of the frames of a chunk, in input order."""
        of_element: dict[str, list[int]] = defaultdict(list)
        for place, atoms in enumerate(frames):
            of_element[atoms.get_chemical_symbols()[0]].append(place)
        result: dict[int, Atoms] = {}
        for element, places in of_element.items():
            chosen = [frames[place] for place in places]
            ptr = torch.tensor([0, *map(len, chosen)]).cumsum(0)
            z = torch.cat([torch.from_numpy(atoms.numbers).long() for atoms in chosen]).to(self.device)
            centres = [atoms.positions.mean(axis=0) for atoms in chosen]
            pos = torch.cat([torch.from_numpy(atoms.positions - c) for atoms, c in zip(chosen, centres, strict=True)])
            energy = Gupta(element) if self.model is None else self.model
            start, batch = pos.to(self.device, self.dtype), ptr_to_batch(ptr).to(self.device)
            found = relax(energy, z, start, batch, fmax=fmax, max_steps=steps, progress=progress)
            trained = geometry_range_of(energy)
            values = zip(found.energy.tolist(), found.fmax.tolist(), found.steps.tolist(), strict=True)
            for number, (place, atoms, results) in enumerate(zip(places, chosen, values, strict=True)):
                positions = found.pos[ptr[number] : ptr[number + 1]].double().cpu().numpy() + centres[number]
                moved = Atoms(atoms.numbers, positions)
                reason = broken(atoms, moved)
                if found.left_range[number]:
                    reason = trained.reason(moved) or "outside what the model was trained on"
                minimum = Minimum(moved, *results, bool(found.converged[number]) and reason is None, reason)
                result[place] = relaxed_frame(atoms, minimum, self.name)
        return [result[place] for place in range(len(frames))]


def batched_energy(name: str) -> BatchedEnergy | None:
    """Return the batched energy of ``gupta``, a run, a saved or a pretrained model; ``None`` for other names."""
    if name == "gupta":
        return BatchedEnergy()
    return BatchedEnergy(load_model(name)) if Path(name).is_dir() or name in available_models() else None


def broken(before: Atoms, after: Atoms) -> str | None:
    """Reason why a relaxed structure is not a minimum of its cluster: the cluster has broken into pieces far apart."""
    if len(after) < 3 or not np.isfinite(after.positions).all():
        return None
    pieces = pieces_far_apart(after.numbers, after.positions)
    if pieces is None or pieces_far_apart(before.numbers, before.positions) is not None:
        return None
    return f"it broke into {pieces}"
