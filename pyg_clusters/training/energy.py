"""Training on energies."""

import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_geometric.data import Data
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.comparison import other_zero, zero_remarks
from pyg_clusters.models.checkpoint import difference, init_args
from pyg_clusters.models.contract import blind_problem, check_extra_arguments, evaluation_mode, extra_arguments
from pyg_clusters.models.ensemble import Ensemble
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn import EnergyScale, ShieldingScale
from pyg_clusters.training.trainer_parts import OptimizerCallable, SchedulerCallable, adam, plateau
from pyg_clusters.units import KCAL_PER_MOL


class EnergyTraining(pl.LightningModule):
    """Training of a model on cluster energies.

    The :class:`~pyg_clusters.nn.EnergyScale` ``scale`` and the :class:`~pyg_clusters.models.TrainingDomain` ``domain``
    of the model are fitted to the training set.

    Args:
        model: Called as ``model(z, pos, batch)``, with further arguments (``x``, ``edge_index``) taken from the data
            set by name; returns energies ``[num_graphs]`` in eV.
        optimizer: Creates the optimiser from the parameters.
        scheduler: Creates the schedule from the optimiser; stepped after every epoch, a plateau schedule with the
            validation MAE.
        loss: Loss of predictions and targets in eV, averaged over the clusters.
        stop_below_rate: Training ends when the learning rate falls below this.
        average_decay: Validate and save the exponential moving average of the weights over the steps, with this
            decay (0.99 for example), instead of the weights of the last step.
        position_noise: Standard deviation in Å of Gaussian noise added to the positions at every training step,
            against overfitting.
        compile: Run the model through :func:`torch.compile`. Names of weights and saved models are unaffected.
    """

    unit: str = "kcal/mol"  #: Unit of the errors.
    per_unit: float = KCAL_PER_MOL  #: Factor from the unit of the target to that of the errors.
    per_atom: bool = False  #: Whether the target is a value per atom.

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerCallable = adam,
        scheduler: SchedulerCallable | None = plateau,
        loss: nn.Module | None = None,
        stop_below_rate: float = 1e-8,
        average_decay: float | None = None,
        position_noise: float = 0.0,
        compile: bool = False,
    ):
        super().__init__()
        if average_decay is not None and not 0 < average_decay < 1:
            raise InputError(f"average_decay must be between 0 and 1, got {average_decay}")
        if not 0 <= position_noise < math.inf:
            raise InputError(f"position_noise must be finite and not negative (in Å), got {position_noise}")
        self.model = model
        self.average_decay = average_decay
        self.average: AveragedModel | None = None
        self.position_noise = position_noise
        self.compiled = compile
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.loss = nn.L1Loss() if loss is None else loss
        self.stop_below_rate = stop_below_rate
        self.train_mae = MeanAbsoluteError()
        self.val_mae = MeanAbsoluteError()
        self.val_rmse = MeanSquaredError(squared=False)
        self._extra_arguments = extra_arguments(model)
        self._targets_lack_references = False
        self._scheduler: LRScheduler | None = None
        self._scheduler_state: dict | None = None
        self.is_pretrained = False

    def start_from(self, trained: nn.Module):
        """Start from the weights of a trained model, with its offset and scale.

        Raises:
            InputError: If it is an ensemble, or its class or arguments are different.
        """
        if isinstance(trained, Ensemble):
            raise InputError("an ensemble has no weights to start from: give one of its members")
        if different := difference(self.model, trained):
            raise InputError(f"the recipe has {different}: use the recipe that this model was trained with")
        self.model.load_state_dict(trained.state_dict())
        self.is_pretrained = True

    def zero_remarks(self, data: TrainingData, start: str) -> list[str]:
        """Compare the zero of the labels with that of the trained model to start from, which keeps its offset.

        Returns:
            A warning if the zeros seem to differ.

        Raises:
            InputError: If they differ by more than the error of any model.
        """
        scale = getattr(self.model, "scale", None)
        if not isinstance(scale, EnergyScale):
            return []
        batch = data.batches[data.sample()]
        with torch.no_grad(), evaluation_mode(self):
            predicted = self(batch).double()
        if data.references:  # they replace those of the model
            predicted = predicted - scale.sums_of_references(batch.z, batch.batch, batch.y.numel())
        zero = other_zero(*(values.numpy() for values in (batch.z, batch.ptr, predicted, batch.y.double())))
        advice = (
            "Give their unit (energy_unit) or the energies of their isolated atoms (references) to the data set, or "
            "omit --init-from"
        )
        return zero_remarks(zero, start, advice)

    def setup(self, stage: str):
        """Fit offset, scale and domain to the training set; a resumed run then loads its own."""
        data = cast(TrainingData, self.trainer.datamodule)  # type: ignore[attr-defined]
        self.check(data)
        if not self.model.training:  # as after a prediction; Lightning does not set it
            self.model.train()
        self.fit_scales(data.batches.blocks(data.split.train), data.references, data.electronic_state)
        if self.average_decay is not None:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.average_decay))
            self.average.requires_grad_(False)
        if self.compiled:
            self.model.compile(dynamic=True)

    def check(self, data: TrainingData):
        """Check that the target is of the right kind, and that the model can be trained and saved.

        Raises:
            InputError: If they are not, or there is no C++ compiler for ``compile``.
        """
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if self.compiled and shutil.which(compiler) is None:
            raise InputError(
                f"compile: true needs a C++ compiler, and there is no {compiler}: install one, name yours (CXX=...), "
                "or leave compile out"
            )
        if getattr(data.dataset, "per_atom", self.per_atom) != self.per_atom:
            needed, actual = ("atom", "cluster") if self.per_atom else ("cluster", "atom")
            other = "leave out model.class_path to train energies"
            if not self.per_atom:
                other = "name pyg_clusters.training.ShieldingTraining as model.class_path to train shieldings"
            name = type(data.dataset).__name__
            raise InputError(f"{type(self).__name__} needs a target per {needed}, {name} has one per {actual}: {other}")
        try:
            init_args(self.model)
        except TypeError as error:
            raise InputError(str(error)) from error
        if data.references and not isinstance(getattr(self.model, "scale", None), EnergyScale):
            raise InputError(
                f"{type(self.model).__name__} cannot store the reference energies of the data set, so its predictions "
                "would not be on the scale of the labels: give it an EnergyScale called scale, or leave references out"
            )
        blocks = data.batches.blocks(data.split.train, positions=False)
        if problem := blind_problem(self.model, torch.cat([block.z.unique() for block in blocks]).tolist()):
            raise InputError(problem)
        self.check_example(data.batches[data.split.train[:4].tolist()])

    def check_example(self, example: Data):
        """Check that a few clusters have all values that the model needs, and that these agree with those that it
        computes to predict files.
        """
        check_extra_arguments(self.model, example, "add it to the data set by a transform or pre_transform")
        if self.position_noise:
            self._check_noise(example)
        given = [name for name in self._extra_arguments if name in example]
        if not given or any(self._extra_arguments.values()):  # predictions then use the transform of the data set
            return
        with torch.no_grad(), evaluation_mode(self):
            values = computed = self(example)
            with suppress(InputError, ValueError):  # it cannot compute them: predictions of files raise this, too
                computed = self.model(example.z, example.pos, example.batch)
        tolerance = 1e-3 * float(computed.abs().max())
        if not torch.allclose(values, computed, rtol=0.0, atol=tolerance, equal_nan=True):
            raise InputError(
                f"{type(self.model).__name__} predicts other values with {', '.join(given)} of the data set than from "
                "positions alone, as for files of frames: give the transform the parameters of the model (radii, "
                "cutoff), or leave it out"
            )

    def _check_noise(self, example: Data):
        """Check that the model computes its input from the positions, to which noise is added."""
        stretched = example.clone()
        if "pos" in example:
            stretched.pos = 1.5 * example.pos
        with torch.no_grad(), evaluation_mode(self):
            same = torch.equal(self(example), self(stretched))
        if same:
            given = ", ".join(name for name in self._extra_arguments if name in example) or "values"
            raise InputError(
                f"position_noise has no effect on {given} of the data set, which are computed before: leave out the "
                "transform or pre_transform that computes them, or position_noise"
            )

    def fit_scales(
        self,
        blocks: Iterable[Data],
        references: Mapping[str, float] | None = None,
        state: tuple[int, bool] = (0, False),
    ):
        """Fit offset, scale and domain of the model to the training set; only widen the domain of a pretrained one.

        Elements without a reference energy are removed from the domain if there are reference energies.

        Args:
            blocks: Training set in batches that can be iterated over more than once.
            references: Energy in eV of an atom by element symbol, subtracted from the targets; the model adds it again.
            state: Charge of the clusters in e, and whether one of them is of other spin than the lowest.
        """
        scale, domain = getattr(self.model, "scale", None), getattr(self.model, "domain", None)
        self._targets_lack_references = bool(references)
        if isinstance(scale, EnergyScale) and (references or not self.is_pretrained):
            scale.set_references(references or {})
        if isinstance(scale, EnergyScale | ShieldingScale) and not self.is_pretrained:
            scale.fit_blocks((block.z, block.ptr, block.y) for block in blocks)
        if isinstance(domain, TrainingDomain):
            if not self.is_pretrained:
                domain.reset_parameters()
            domain.set_electronic_state(*state)
            for block in blocks:
                (domain.widen if self.is_pretrained else domain.add)(block.z, block.ptr, block.get("pos"))
            if isinstance(scale, EnergyScale) and scale.references is not None:
                domain.elements &= scale.references.isfinite()  # a trained model may have had those of other elements

    def on_train_start(self):
        """Stop immediately if the run was killed after its last epoch."""
        if self.rate_is_low:
            self.trainer.should_stop = True

    @property
    def evaluated_model(self) -> nn.Module:
        """Model that is validated and saved, with averaged weights if ``average_decay`` is set."""
        return self.model if self.average is None else self.average.module

    def forward(self, data: Data) -> Tensor:
        kwargs = {key: data[key] for key in self._extra_arguments if key in data}
        model = self.model if self.training else self.evaluated_model
        predicted = model(data.z, data.pos, data.batch, **kwargs)
        if predicted.shape != data.y.shape:
            raise InputError(
                f"{type(self.model).__name__} returns {list(predicted.shape)} for targets of {list(data.y.shape)}: one "
                "value per cluster is needed for a target per cluster, one per atom for a target per atom"
            )
        return predicted

    def target(self, data: Data) -> Tensor:
        """Targets on the scale of the labels: the subtracted reference energies are added again."""
        if not self._targets_lack_references:
            return data.y
        return data.y + cast(EnergyScale, self.model.scale).sums_of_references(data.z, data.batch, data.y.numel())

    def training_step(self, data: Data, step: int) -> Tensor:
        self.add_noise(data)
        predicted, target = self(data), self.target(data)
        self.train_mae.update(predicted.detach() * self.per_unit, target * self.per_unit)
        return self.loss(predicted, target) * self._share(target)

    def add_noise(self, data: Data):
        """Add noise to the positions, identical in a resumed run."""
        if self.position_noise:
            noise = torch.randn(data.pos.shape, generator=self.generator(), device=self.device, dtype=data.pos.dtype)
            data.pos = data.pos + self.position_noise * noise

    def generator(self) -> torch.Generator:
        """Random number generator of a step, which depends on seed, step and process only."""
        seed = hash((torch.initial_seed(), self.trainer.global_step, self.trainer.global_rank)) % 2**63
        return torch.Generator(self.device).manual_seed(seed)

    def validation_step(self, data: Data, step: int):
        self.update_errors(self(data), self.target(data))

    def update_errors(self, predicted: Tensor, target: Tensor):
        """Add predictions of a batch to the validation errors."""
        for metric in (self.val_mae, self.val_rmse):
            metric.update(predicted.detach() * self.per_unit, target * self.per_unit)

    def on_validation_epoch_end(self):
        self.log("val_mae", self.val_mae.compute())
        self.log("val_rmse", self.val_rmse.compute())
        self.val_mae.reset()
        self.val_rmse.reset()

    def on_train_batch_end(self, *_):
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_epoch_end(self):
        self.log("train_mae", self.train_mae.compute())
        self.train_mae.reset()
        self.log("learning_rate", self.learning_rate)
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(self.trainer.callback_metrics["val_mae"])
        elif self._scheduler is not None:
            self._scheduler.step()
        if self.rate_is_low:
            self.trainer.should_stop = True

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first group of parameters."""
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    @property
    def rate_is_low(self) -> bool:
        """Whether the learning rate has fallen below ``stop_below_rate``, which ends the training."""
        return self.learning_rate < self.stop_below_rate * (1 - 1e-6)

    def _share(self, targets: Tensor) -> Tensor | float:
        """Number of targets of this process relative to the mean over all processes: the weight of its loss."""
        if self.trainer.world_size == 1:
            return 1.0
        own = torch.tensor(float(targets.numel()), device=self.device)
        return own / cast(Tensor, self.trainer.strategy.reduce(own, reduce_op="mean"))

    def configure_optimizers(self) -> Optimizer:
        # The trainer would step the schedule only after writing the checkpoint of the epoch, so a resumed run would
        # miss a step.
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
