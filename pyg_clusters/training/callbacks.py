"""Callbacks of the trainer: the folder of a run, and progress."""

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pyg_clusters.files import atomic_write
from pyg_clusters.frames.writing import write_table
from pyg_clusters.inference.run import CHECKPOINT, HISTORY
from pyg_clusters.models.checkpoint import BEST, save_model
from pyg_clusters.progress import duration, progress_is_shown

SECONDS: float = 10.0
"""Shortest time between two lines of progress where standard error is not a terminal."""

COLUMNS = ("train_mae", "val_mae", "val_rmse", "learning_rate", "val_loss", "val_force_mae")
"""Columns of ``metrics.csv`` after the epoch; those that the module does not log are omitted."""


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
    """Epochs and batches with the last validation error: a bar in a terminal, elsewhere lines at the end of epochs, at
    most one per :data:`SECONDS`, and every minute within long ones.
    """

    def __init__(self):
        self._bar: Progress | None = None
        self._lines = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        self._lines = trainer.is_global_zero and progress_is_shown(terminal=False)
        self._begin = self._last = time.monotonic()
        self._first, self._error = trainer.current_epoch, ""
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        self._batches = int(batches) if batches != float("inf") else None
        self._epochs = epochs if epochs and epochs > 0 else None
        if not (trainer.is_global_zero and progress_is_shown(terminal=True)):
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[error]}"), console=Console(stderr=True))
        total = self._epochs * self._batches if self._epochs and self._batches else None
        self._task = self._bar.add_task("", total=total, error="")
        self._show(trainer, 0)
        self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int):
        self._show(trainer, batch_idx + 1)
        if time.monotonic() - self._last >= 6 * SECONDS:
            self._print(trainer, batch_idx + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        value = trainer.callback_metrics.get("val_mae")
        self._error = "" if value is None else f"validation MAE {value:.2f} {pl_module.unit}"
        self._show(trainer, self._batches or 0)
        if time.monotonic() - self._last >= SECONDS:
            self._print(trainer, self._batches or 0)

    def _show(self, trainer: pl.Trainer, batch: int):
        if self._bar is not None:
            completed = trainer.current_epoch * (self._batches or 0) + batch
            self._bar.update(
                self._task, completed=completed, description=self._place(trainer, batch), error=self._error
            )

    def _print(self, trainer: pl.Trainer, batch: int):
        if not self._lines:
            return
        self._last = time.monotonic()
        passed = self._last - self._begin
        done = trainer.current_epoch + (batch / self._batches if self._batches else 0) - self._first
        left = (
            f", {duration(passed * (self._epochs - self._first - done) / done)} left" if self._epochs and done else ""
        )
        texts = [self._place(trainer, batch), self._error, f"{duration(passed)}{left}"]
        print(", ".join(text for text in texts if text), file=sys.stderr, flush=True)

    def _place(self, trainer: pl.Trainer, batch: int) -> str:
        """Epoch, and batch within it, both counted from 1."""
        epoch = f"epoch {trainer.current_epoch + 1}" + (f" of {self._epochs:,}" if self._epochs else "")
        return epoch if not self._batches or batch == self._batches else f"{epoch}, batch {batch} of {self._batches}"

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str):
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
