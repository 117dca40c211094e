"""Parts of a training run for Lightning: loaders and their sampler, the run folder, progress, and optimisers."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, Sampler

from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.files import atomic_write
from pyg_clusters.frames.writing import write_table
from pyg_clusters.inference.run import CHECKPOINT, HISTORY
from pyg_clusters.models.checkpoint import BEST, save_model
from pyg_clusters.terminal import ItemProgress, duration

SECONDS: float = 10.0  # shortest time between two lines of progress where standard error is not a terminal

COLUMNS = ("train_mae", "val_mae", "val_rmse", "learning_rate", "val_loss", "val_force_mae")
"""Columns of ``metrics.csv`` after the epoch; those that the module does not log are omitted."""


class ClusterDataModule(TrainingData, pl.LightningDataModule):
    """Data set and split of a training run, and loaders that divide each batch over the processes.

    Arguments are those of :class:`~pyg_clusters.datasets.training_data.TrainingData`.
    """

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.split.val, 4 * self.batch_size, shuffle=False)

    def _loader(self, clusters: Tensor, batch_size: int, shuffle: bool) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sizes = None if self.max_pairs is None else self.dataset.sizes[clusters]
        sampler = EpochSampler(
            clusters, batch_size, shuffle, self.shuffle_seed, rank, world_size, sizes, self.max_pairs
        )
        return DataLoader(
            self.batches,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


class EpochSampler(Sampler[list[int]]):
    """Sampler of batches, in an order that depends only on the seed and the epoch.

    A resumed run therefore continues exactly as an uninterrupted one. In distributed training, each process takes its
    share of every batch; together they process the same batches as a single process. (A last batch with fewer clusters
    than processes is dropped.)

    Args:
        clusters: Indices of the clusters.
        batch_size: Number of clusters in a batch, over all processes.
        shuffle: Whether to shuffle the clusters in each epoch.
        seed: Seed of the shuffling.
        rank: Index of this process.
        world_size: Number of processes.
        sizes: Number of atoms of each of the clusters, for ``max_pairs``.
        max_pairs: Limit on the pairs of atoms in a batch, see :func:`bounded_batches`. The number of batches then
            depends on the order, and the sampler has no length.
    """

    def __init__(
        self,
        clusters: Tensor,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sizes: Tensor | None = None,
        max_pairs: int | None = None,
    ):
        self.clusters = clusters
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.sizes = sizes
        self.max_pairs = max_pairs
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Set the epoch; called by the trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.clusters.numel())
        if self.shuffle:
            generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
            order = torch.randperm(order.numel(), generator=generator)
        parts: Iterable[Tensor] = order.split(self.batch_size)
        if self.max_pairs is not None and self.sizes is not None:
            parts = bounded_batches(order, self.sizes, self.batch_size, self.max_pairs, self.world_size)
        for part in parts:
            if part.numel() >= self.world_size:
                yield self.clusters[part[self.rank :: self.world_size]].tolist()

    def __len__(self) -> int:
        if self.max_pairs is not None:
            raise TypeError("the number of batches depends on the order of the clusters")
        full, rest = divmod(self.clusters.numel(), self.batch_size)
        return full + (rest >= self.world_size)


def bounded_batches(
    order: Tensor, sizes: Tensor, max_clusters: int, max_pairs: int, min_clusters: int = 1
) -> Iterator[Tensor]:
    """Divide a sequence of clusters into batches with limits on the number of clusters and of pairs of atoms.

    The pairs are counted as for dense operations on padded clusters: the number of clusters in the batch times the
    square of the number of atoms of the largest one.

    Args:
        order: Indices of the clusters, in order.
        sizes: Number of atoms of each cluster.
        max_clusters: Maximum number of clusters in a batch.
        max_pairs: Maximum number of pairs of atoms in a batch.
        min_clusters: Minimum number of clusters in a batch, regardless of their pairs.

    Example:
        >>> parts = bounded_batches(torch.arange(5), torch.tensor([10, 10, 20, 10, 10]), 4, 800)
        >>> [part.tolist() for part in parts]
        [[0, 1], [2, 3], [4]]
    """
    start = largest = 0
    for end, size in enumerate(sizes[order].tolist()):
        widest = max(largest, size)
        num = end - start
        if num >= min_clusters and (num == max_clusters or (num + 1) * widest**2 > max_pairs):
            yield order[start:end]
            start, widest = end, size
        largest = widest
    if start < order.numel():
        yield order[start:]


class RunFolder(Checkpoint):
    """Writer of the run folder. At the end of every epoch it atomically writes

    - ``metrics.csv``: a row per epoch (errors in the unit of the module: kcal/mol per cluster; forces meV/Å),
    - ``best/``: the model with the smallest validation MAE (or metric named in ``monitored`` of the module),
    - ``checkpoints/last.ckpt``: the state to resume from.

    Args:
        folder: Folder of the run.
        notes: Notes in the configuration of the best model.
    """

    def __init__(self, folder: str | Path, notes: dict[str, Any] | None = None):
        self.folder = Path(folder)
        self.notes = notes or {}
        self.rows: list[dict[str, float]] = []
        self.lowest = float("inf")  # of the metric that chooses the best model
        self.best = float("inf")  # validation MAE of the best model

    @property
    def last_checkpoint(self) -> Path:
        """State to resume from."""
        return self.folder / CHECKPOINT

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if "val_mae" not in metrics:
            return
        columns = [key for key in COLUMNS if key in metrics]
        self.rows.append({"epoch": trainer.current_epoch, **{key: metrics[key] for key in columns}})
        value = metrics[getattr(pl_module, "monitored", "val_mae")]
        improved = value < self.lowest
        if improved:
            self.lowest, self.best = value, metrics["val_mae"]
        if trainer.is_global_zero:
            if improved:
                training: Any = pl_module
                unit = training.unit.replace("/", "_")
                notes = {
                    **self.notes,
                    "epoch": trainer.current_epoch,
                    f"val_mae_{unit}": metrics["val_mae"],
                    f"val_rmse_{unit}": metrics["val_rmse"],
                }
                if "val_force_mae" in metrics:
                    notes["val_force_mae_mev_per_angstrom"] = metrics["val_force_mae"]
                save_model(training.evaluated_model, self.folder / BEST, notes)
            history = {column: [row[column] for row in self.rows] for column in self.rows[0]}
            write_table(self.folder / HISTORY, history)
            with atomic_write(self.last_checkpoint) as path:
                trainer.save_checkpoint(path)
        else:  # all processes gather the state, the first one writes it
            trainer.save_checkpoint(self.last_checkpoint)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "lowest": self.lowest, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]):
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self.lowest = state_dict.get("lowest", self.best)


class TrainingProgress(Callback):
    """Epochs with the last validation error: a bar in a terminal, elsewhere lines, at most one per :data:`SECONDS`."""

    def __init__(self):
        self._progress: ItemProgress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        self._begin, self._first = time.monotonic(), trainer.current_epoch
        self._total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._progress = ItemProgress(self._total, self._first, SECONDS) if trainer.is_global_zero else None
        if self._progress is not None:
            self._progress.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        error, done = trainer.callback_metrics.get("val_mae"), trainer.current_epoch + 1 - self._first
        if self._progress is not None:
            texts = [] if error is None else [f"validation MAE {error:.2f} {pl_module.unit}"]
            texts.append(duration(passed := time.monotonic() - self._begin))
            if self._total is not None:
                texts.append(f"{duration(passed * ((self._total - self._first) / done - 1))} left")
            self._progress.advance(f"epochs, {', '.join(texts)}")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str):
        if self._progress is not None:
            self._progress.__exit__()


OptimizerCallable = Callable[..., Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]


def adam(parameters) -> Optimizer:
    """Optimiser of Modee et al. 2021, section 2.4: Adam with a learning rate of 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


def fast_adam(parameters) -> Optimizer:
    """Optimiser of Kaneko et al. 2023: Adam with a learning rate of 0.01."""
    return torch.optim.Adam(parameters, lr=0.01)


def plateau(optimizer: Optimizer) -> LRScheduler:
    """Schedule of Modee et al. 2021: divide the rate by ten after 25 epochs without a better validation error."""
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=25, eps=1e-9)


class AdamWWithSGD(Optimizer):
    """AdamW for the weights (matrices) and stochastic gradient descent for the biases (vectors) of a model, the
    optimiser of the BPSF-HDNN of `Modee et al. 2021 <https://doi.org/10.1039/d1cp02956h>`_ (section 2.4).

    Schedules and checkpoints treat it as one optimiser with the parameter groups and states of both. A schedule changes
    both learning rates by the same factor.

    Args:
        params: Parameters of a model.
        lr: Learning rate of AdamW.
        bias_lr: Learning rate of SGD.
        weight_decay: Weight decay of AdamW. Biases are not decayed.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> [group["lr"] for group in AdamWWithSGD(layer.parameters(), lr=1e-3, bias_lr=1e-2).param_groups]
        [0.001, 0.01]
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1e-3, bias_lr: float = 1e-3, weight_decay: float = 0.01
    ):
        params = list(params)
        weights = [parameter for parameter in params if parameter.dim() > 1]
        biases = [parameter for parameter in params if parameter.dim() <= 1]
        if not weights or not biases:
            raise ValueError(f"the model must have weights and biases, got {len(weights)} and {len(biases)} of them")
        self.for_weights = AdamW(weights, lr=lr, weight_decay=weight_decay)
        self.for_biases = SGD(biases, lr=bias_lr)
        super().__init__([*self.for_weights.param_groups, *self.for_biases.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step both optimisers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Loading a state dict replaces the groups and the state that both optimisers share with this one.
        self.for_weights.param_groups, self.for_biases.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.for_weights.state = self.for_biases.state = self.state
        self.for_weights.step()
        self.for_biases.step()
        return loss
