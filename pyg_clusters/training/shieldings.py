"""Training on shieldings."""

import inspect
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Data
from torchmetrics import MeanMetric

from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.errors import InputError
from pyg_clusters.nn import ShieldingScale
from pyg_clusters.training.energy import EnergyTraining
from pyg_clusters.training.trainer_parts import OptimizerCallable, SchedulerCallable, fast_adam
from pyg_clusters.units import SHIFT_NAME


class ShieldingTraining(EnergyTraining):
    """Training of a model on the shieldings of atoms.

    The loss is computed on values standardised by the :class:`~pyg_clusters.nn.ShieldingScale` ``scale`` of the model.
    Without a transform it is the loss in ppm divided by a power of the standard deviation of the training set, which
    does not affect Adam's steps; with a transform it is the loss of the transformed values (Kaneko et al. 2023, `doi
    10.20517/jmi.2022.39 <https://doi.org/10.20517/jmi.2022.39>`_). For models without such a scale it is the loss in
    ppm. The best model is the one with the smallest ``val_loss``, as in the paper; errors are in ppm per atom.

    Args:
        model: Called as ``model(z, pos, batch)``, with further arguments taken from the data set by name; returns
            shieldings ``[num_atoms]`` in ppm.
        optimizer: Creates the optimiser from the parameters; that of the paper by default.
        scheduler: Creates the schedule from the optimiser; the paper has none.
        loss: Loss of predictions and targets ``[num_atoms]`` (and ``batch``, if its ``forward`` takes it): the mean
            squared error by default, or a :class:`~pyg_clusters.losses.SortedPenaltyLoss`.
        **kwargs: Further arguments of :class:`EnergyTraining`.
    """

    unit = "ppm"
    per_unit = 1.0
    monitored = "val_loss"
    per_atom = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerCallable = fast_adam,
        scheduler: SchedulerCallable | None = None,
        loss: nn.Module | None = None,
        **kwargs: Any,
    ):
        loss = nn.MSELoss() if loss is None else loss
        super().__init__(model, optimizer, scheduler, loss, **kwargs)
        self.val_loss = MeanMetric()
        self._loss_takes_batch = "batch" in inspect.signature(loss.forward).parameters

    def check(self, data: TrainingData):
        """Check that the target is not a chemical shift by its name, in addition to the checks of
        :class:`EnergyTraining`.
        """
        target = getattr(data.dataset, "target", None)
        if isinstance(target, str) and SHIFT_NAME.search(target):
            raise InputError(
                f"the target {target!r} is a chemical shift by its name, which predictions and spectra would take for "
                "a shielding: subtract it from the shielding of the standard, and name the result nmr_shielding"
            )
        super().check(data)

    def loss_of(self, predicted: Tensor, data: Data) -> Tensor:
        """Loss of predictions in ppm ``[num_atoms]``, on standardised values."""
        target = data.y
        scale = getattr(self.model, "scale", None)
        if isinstance(scale, ShieldingScale):
            predicted, target = (scale.standardize(values, data.z) for values in (predicted, target))
        return self.loss(predicted, target, data.batch) if self._loss_takes_batch else self.loss(predicted, target)

    def training_step(self, data: Data, step: int) -> Tensor:
        self.add_noise(data)
        predicted = self(data)
        self.train_mae.update(predicted.detach(), data.y)
        loss = self.loss_of(predicted, data)
        return loss if getattr(self.loss, "gathers_processes", False) else loss * self._share(data.y)

    def validation_step(self, data: Data, step: int):
        predicted = self(data)
        self.update_errors(predicted, data.y)
        self.val_loss.update(self.loss_of(predicted, data), weight=data.y.numel())

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("val_loss", self.val_loss.compute())
        self.val_loss.reset()
