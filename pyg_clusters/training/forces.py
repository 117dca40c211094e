"""Training on energies and forces."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torchmetrics import MeanAbsoluteError

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import pad_clusters, pad_values, pair_distances
from pyg_clusters.models.contract import evaluation_mode
from pyg_clusters.pairs import COVALENT_RADII
from pyg_clusters.training.energy import EnergyTraining


class ForceTraining(EnergyTraining):
    """Training of a model on cluster energies and forces.

    The loss is the loss of the energies plus a weight times the loss of the forces, the negative gradient of the
    energy. Minima can be included, as their forces are zero. The best model is the one with the smallest validation MAE
    of the energies.

    Args:
        model: Called as ``model(z, pos, batch)``; returns energies ``[num_graphs]`` in eV, differentiable twice with
            respect to the positions (:class:`~pyg_clusters.models.SmoothDART`).
        force_weight: Weight in Å of the loss of the forces.
        perturbation: Largest standard deviation in Å of the Gaussian noise that is added to the positions of minima
            (clusters without forces) in half of the training steps; the deviation of each cluster is drawn between 0
            and this value. Energies and forces of a perturbed cluster are assumed to be those of :func:`springs`, so
            that the energy rises on all sides of a minimum where no other data are available.
        stiffness: Force constant in eV/Å² of a spring of bond length, about the bulk modulus times the bond length: 0.2
            for sodium, 1 for gallium, 2 for silver and copper, 3 for gold.
        **kwargs: Arguments of :class:`EnergyTraining`; the loss is that of energies in eV and of forces in eV/Å.
    """

    def __init__(
        self,
        model: nn.Module,
        force_weight: float = 1.0,
        perturbation: float = 0.0,
        stiffness: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(model, position_noise=0.0, compile=False, **kwargs)
        if not force_weight > 0:
            raise InputError(f"force_weight must be positive, got {force_weight}; use EnergyTraining without forces")
        if not (0 <= perturbation < math.inf and 0 < stiffness < math.inf):
            raise InputError(
                f"perturbation must not be negative and stiffness must be positive, got {perturbation} and {stiffness}"
            )
        self.force_weight = force_weight
        self.perturbation, self.stiffness = perturbation, stiffness
        self.val_force_mae = MeanAbsoluteError()

    def check_example(self, example: Data):
        """Check that data and model have forces, in addition to the checks of :class:`EnergyTraining`."""
        super().check_example(example)
        if "force" not in example:
            raise InputError("there are no forces to train on: set forces: true in the arguments of the data set")
        with evaluation_mode(self):
            self.energy_and_forces(example)

    def energy_and_forces(self, data: Data) -> tuple[Tensor, Tensor]:
        """Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å, differentiable in training."""
        with torch.enable_grad():
            data.pos = data.pos.detach().requires_grad_()
            energy = self(data)
            (gradient,) = torch.autograd.grad(energy.sum(), data.pos, create_graph=self.training, allow_unused=True)
        if gradient is None and data.pos.size(0) > energy.numel():  # not only single atoms
            raise InputError(
                f"{type(self.model).__name__} has no forces: its energy is not a smooth function of the positions; "
                "train SmoothDART, or energies only (EnergyTraining)"
            )
        return energy, torch.zeros_like(data.pos) if gradient is None else -gradient

    def training_step(self, data: Data, step: int) -> Tensor:
        target = self.target(data) + self.perturb_minima(data)
        energy, forces = self.energy_and_forces(data)
        self.train_mae.update(energy.detach() * self.per_unit, target * self.per_unit)
        loss = self.loss(energy, target) * self._share(target)
        return loss + self.force_weight * self.loss(forces, data.force) * self._share(data.force)

    def perturb_minima(self, data: Data) -> Tensor | float:
        """Perturb half of the minima of a batch, add the forces of :func:`springs`, and return their energies."""
        if not self.perturbation:
            return 0.0
        generator = self.generator()
        largest = torch.zeros_like(data.y).scatter_reduce(0, data.batch, data.force.abs().amax(1).to(data.y), "amax")
        draw = torch.rand(2, largest.numel(), generator=generator, device=self.device)
        deviation = self.perturbation * draw[0] * (draw[1] < 0.5) * (largest == 0)
        noise = torch.randn(data.pos.shape, generator=generator, device=self.device, dtype=data.pos.dtype)
        minimum, data.pos = data.pos, data.pos + deviation.to(noise)[data.batch, None] * noise
        energy, forces = springs(data.z, minimum, data.pos, data.batch, self.stiffness)
        data.force = data.force + forces
        return energy

    def validation_step(self, data: Data, step: int):
        energy, forces = self.energy_and_forces(data)
        self.update_errors(energy, self.target(data))
        self.val_force_mae.update(forces.flatten() * 1000, data.force.flatten() * 1000)

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("val_force_mae", self.val_force_mae.compute())  # in meV/Å
        self.val_force_mae.reset()


def springs(z: Tensor, minimum: Tensor, pos: Tensor, batch: Tensor, stiffness: float) -> tuple[Tensor, Tensor]:
    r"""Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å of an elastic network around minima.

    Each pair of atoms is connected by a spring, which is relaxed in the minimum; longer springs are weaker (Hinsen,
    Proteins 1998, 33, 417),

    .. math::
        E = \tfrac{1}{2} \sum_{i<j} k \Big(\frac{R_i + R_j}{d^0_{ij}}\Big)^6 (d_{ij} - d^0_{ij})^2,

    with the covalent radii R. Energy and forces are zero in the minimum, also after rotation and translation.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        minimum: Positions of the minima ``[num_atoms, 3]`` in Å.
        pos: Positions ``[num_atoms, 3]`` in Å.
        batch: Cluster index of each atom ``[num_atoms]``, sorted.
        stiffness: Force constant k of two atoms at the sum of their covalent radii, in eV/Å².
    """
    padded, index, sizes = pad_clusters(pos, batch)
    pairs, apart, distance = pair_distances(padded, sizes)
    length = pair_distances(pad_clusters(minimum, batch)[0], sizes)[2]
    radii = pad_values(COVALENT_RADII.to(pos)[z], index, padded.shape[:2])
    constant = torch.where(pairs, stiffness * ((radii[:, :, None] + radii[:, None]) / length) ** 6, 0.0)
    stretch = distance - length
    forces = ((constant * stretch / distance)[..., None] * apart).sum(2)
    return 0.25 * (constant * stretch**2).sum((1, 2)), forces.flatten(0, 1)[index]
