"""Callbacks of the trainer: the folder of a run, and a progress bar."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pyg_clusters.files import atomic_write
from pyg_clusters.frames.writing import write_table
from pyg_clusters.inference.run import CHECKPOINT, HISTORY
from pyg_clusters.models.checkpoint import BEST, save_model

COLUMNS = ("train_mae", "val_mae", "val_rmse", "learning_rate", "val_loss", "val_force_mae")
"""Columns of ``metrics.csv`` after the epoch, as far as the module has them."""


class RunFolder(Checkpoint):
    """Writer of the folder of a run. At the end of every epoch it writes, each file atomically:

    - ``metrics.csv``: a row per epoch (errors in the unit of the module: kcal/mol per cluster; forces meV/Å),
    - ``best/``: the model with the smallest validation MAE (or the metric that the module names as ``monitored``),
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
        else:  # every process takes part in gathering the state; the first one writes it
            trainer.save_checkpoint(self.last_checkpoint)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "lowest": self.lowest, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]):
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self.lowest = state_dict.get("lowest", self.best)


class TrainingProgress(Callback):
    """Progress bar of the epochs with the last validation error, if standard error is a terminal."""

    def __init__(self):
        self._bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        console = Console(stderr=True)
        if not (trainer.is_global_zero and console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[errors]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._task = self._bar.add_task("training", total=epochs, completed=trainer.current_epoch, errors="")
        self._bar.start()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        if self._bar is None:
            return
        value = trainer.callback_metrics.get("val_mae")
        errors = "" if value is None else f"validation MAE {value:.2f} {pl_module.unit}"
        self._bar.update(self._task, completed=trainer.current_epoch + 1, errors=errors)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str):
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
