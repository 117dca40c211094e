"""What happens in a step and an epoch of training."""

import inspect
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch_geometric.data import Data
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from pyg_clusters.errors import InputError
from pyg_clusters.units import KCAL_PER_MOL

OptimizerCallable = Callable[..., Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]

GRAPH_KEYS = ("x", "edge_index", "edge_type", "edge_weight")


def adam(parameters) -> Optimizer:
    """The optimiser of Modee et al. 2021, section 2.4: Adam with a rate of 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


def plateau(optimizer: Optimizer) -> LRScheduler:
    """Their schedule: a tenth of the rate after 25 epochs without a better validation error."""
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=25, eps=1e-9)


class EnergyTraining(pl.LightningModule):
    """Trains a model of cluster energies; knows nothing of the model but how it is called.

    Args:
        model: Called as ``model(z, pos, batch)``, with the graph of the data set as keyword arguments if it takes
            them; returns energies ``[num_graphs]`` in eV.
        optimizer: Makes the optimiser of parameters.
        scheduler: Makes the schedule of an optimiser; stepped after every epoch, a plateau schedule with the
            validation MAE.
        loss: Of predictions and targets in eV, averaged over the clusters.
        stop_below_rate: Training ends when the learning rate falls below this.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerCallable = adam,
        scheduler: SchedulerCallable | None = plateau,
        loss: nn.Module | None = None,
        stop_below_rate: float = 1e-8,
    ):
        super().__init__()
        self.model = model
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.loss = nn.L1Loss() if loss is None else loss
        self.stop_below_rate = stop_below_rate
        self.train_mae = MeanAbsoluteError()
        self.val_mae = MeanAbsoluteError()
        self.val_rmse = MeanSquaredError(squared=False)
        accepted = inspect.signature(model.forward).parameters
        self._graph_keys = [key for key in GRAPH_KEYS if key in accepted]
        self._scheduler: LRScheduler | None = None
        self._scheduler_state: dict | None = None

    def setup(self, stage: str):
        """Lets the model learn offset and domain from the training set; a resumed run reads them back instead."""
        data = self.trainer.datamodule.training_set()  # type: ignore[attr-defined]
        if hasattr(self.model, "scale"):
            self.model.scale.fit(data.z, data.ptr, data.y)
        if hasattr(self.model, "domain"):
            self.model.domain.fit(data.z, data.ptr)

    def forward(self, data: Data) -> Tensor:
        graph = {key: data[key] for key in self._graph_keys if key in data}
        predicted = self.model(data.z, data.pos, data.batch, **graph)
        if predicted.shape != data.y.shape:
            raise InputError(
                f"{type(self.model).__name__} returns {list(predicted.shape)} for targets of {list(data.y.shape)}: one "
                "value per cluster is needed for a target per cluster, one per atom for a target per atom"
            )
        return predicted

    def training_step(self, data: Data, step: int) -> Tensor:
        predicted = self(data)
        self.train_mae.update(predicted.detach() * KCAL_PER_MOL, data.y * KCAL_PER_MOL)
        return self.loss(predicted, data.y) * self._share(data.y)

    def validation_step(self, data: Data, step: int):
        predicted = self(data)
        self.val_mae.update(predicted * KCAL_PER_MOL, data.y * KCAL_PER_MOL)
        self.val_rmse.update(predicted * KCAL_PER_MOL, data.y * KCAL_PER_MOL)

    def on_validation_epoch_end(self):
        self.log("val_mae", self.val_mae.compute())
        self.log("val_rmse", self.val_rmse.compute())
        self.val_mae.reset()
        self.val_rmse.reset()

    def on_train_epoch_end(self):
        self.log("train_mae", self.train_mae.compute())
        self.train_mae.reset()
        self.log("learning_rate", self.learning_rate)
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(self.trainer.callback_metrics["val_mae"])
        elif self._scheduler is not None:
            self._scheduler.step()
        if self.learning_rate < self.stop_below_rate * (1 - 1e-6):
            self.trainer.should_stop = True

    @property
    def learning_rate(self) -> float:
        """Rate of the first group of parameters."""
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    def _share(self, targets: Tensor) -> Tensor | float:
        """Weight of this process's mean in the mean over the whole batch, times the number of processes."""
        if self.trainer.world_size == 1:
            return 1.0
        mine = torch.tensor(float(targets.numel()), device=self.device)
        return mine / self.trainer.strategy.reduce(mine, reduce_op="mean")

    def configure_optimizers(self) -> Optimizer:
        # The schedule is not handed to the trainer, which would step it only after the checkpoint of the epoch is
        # written: a resumed run would then lack a step.
        optimizer = self.make_optimizer(self.model.parameters())
        if self.make_scheduler is not None:
            self._scheduler = self.make_scheduler(optimizer)
            if self._scheduler_state is not None:
                self._scheduler.load_state_dict(self._scheduler_state)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict):
        if self._scheduler is not None:
            checkpoint["scheduler"] = self._scheduler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict):
        self._scheduler_state = checkpoint.get("scheduler")
