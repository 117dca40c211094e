"""Parts of a training for Lightning: loaders, the folder of a run, and progress."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch import Tensor
from torch.utils.data import DataLoader

from pyg_clusters.datasets.batches import EpochSampler
from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.files import atomic_write
from pyg_clusters.frames.writing import write_table
from pyg_clusters.inference.run import CHECKPOINT, HISTORY
from pyg_clusters.models.checkpoint import BEST, save_model
from pyg_clusters.progress import ItemProgress, duration

SECONDS: float = 10.0  # shortest time between two lines of progress where standard error is not a terminal

COLUMNS = ("train_mae", "val_mae", "val_rmse", "learning_rate", "val_loss", "val_force_mae")
"""Columns of ``metrics.csv`` after the epoch; those that the module does not log are omitted."""


class ClusterDataModule(TrainingData, pl.LightningDataModule):
    """Data set and split of a training, and loaders that divide each batch over the processes.

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


class RunFolder(Checkpoint):
    """Writer of the folder of a run. At the end of every epoch it atomically writes

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
