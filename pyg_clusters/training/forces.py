"""Training on energies and forces."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torchmetrics import MeanAbsoluteError

from pyg_clusters.datasets.data_module import ClusterDataModule
from pyg_clusters.errors import InputError
from pyg_clusters.training.energy import EnergyTraining, OptimizerCallable, SchedulerCallable, adam, plateau


class ForceTraining(EnergyTraining):
    """Training of a model on cluster energies and forces.

    The loss is that of the energies plus a weight times that of the forces, the negative gradient of the energy. Minima
    are useful too: their forces are zero. The best model is the one with the smallest validation MAE of the energies.

    Args:
        model: Called as ``model(z, pos, batch)``; returns energies ``[num_graphs]`` in eV, differentiable twice with
            respect to the positions (:class:`~pyg_clusters.models.SmoothDART`).
        optimizer: Creates the optimiser from the parameters.
        scheduler: Creates the schedule from the optimiser.
        loss: Loss of predictions and targets, of energies in eV and of forces in eV/Å.
        stop_below_rate: Training ends when the learning rate falls below this.
        average_decay: Validate and save the exponential moving average of the weights, with this decay.
        force_weight: Weight in Å of the loss of the forces.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerCallable = adam,
        scheduler: SchedulerCallable | None = plateau,
        loss: nn.Module | None = None,
        stop_below_rate: float = 1e-8,
        average_decay: float | None = None,
        force_weight: float = 1.0,
    ):
        super().__init__(model, optimizer, scheduler, loss, stop_below_rate, average_decay)
        if not force_weight > 0:
            raise InputError(f"force_weight must be positive (EnergyTraining has none), got {force_weight}")
        self.force_weight = force_weight
        self.val_force_mae = MeanAbsoluteError()

    def check(self, data: ClusterDataModule):
        """Check as for energies, and that there are forces."""
        super().check(data)
        if "force" not in data.batches[data.split.train[:1].tolist()]:
            raise InputError("there are no forces to train on: let the data set keep them (forces: true)")

    def energy_and_forces(self, data: Data) -> tuple[Tensor, Tensor]:
        """Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å, to be differentiated in training."""
        with torch.enable_grad():
            data.pos = data.pos.detach().requires_grad_()
            energy = self(data)
            (gradient,) = torch.autograd.grad(energy.sum(), data.pos, create_graph=self.training)
        return energy, -gradient

    def training_step(self, data: Data, step: int) -> Tensor:
        energy, forces = self.energy_and_forces(data)
        target = self.target(data)
        self.train_mae.update(energy.detach() * self.per_unit, target * self.per_unit)
        loss = self.loss(energy, target) * self._share(target)
        return loss + self.force_weight * self.loss(forces, data.force) * self._share(data.force)

    def validation_step(self, data: Data, step: int):
        energy, forces = self.energy_and_forces(data)
        target = self.target(data)
        self.val_mae.update(energy.detach() * self.per_unit, target * self.per_unit)
        self.val_rmse.update(energy.detach() * self.per_unit, target * self.per_unit)
        self.val_force_mae.update(forces.flatten() * 1000, data.force.flatten() * 1000)

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("val_force_mae", self.val_force_mae.compute())  # in meV/Å
        self.val_force_mae.reset()
