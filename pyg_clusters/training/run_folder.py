"""The folder of a training run, always fit to go on from or to predict with."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from pyg_clusters.files import atomic_write
from pyg_clusters.frames.writing import write_table
from pyg_clusters.models.checkpoint import save_model

FINISHED = "finished.json"
"""What a training leaves in its folder when there is nothing left to train."""

COLUMNS = ("epoch", "train_mae", "val_mae", "val_rmse", "learning_rate")


class RunFolder(Checkpoint):
    """Writes into the folder of a run, at the end of every epoch, each file whole or not at all:

    - ``metrics.csv``: a row per epoch (errors in the unit of the module: kcal/mol per cluster; forces meV/Å),
    - ``best/``: the model of the smallest validation MAE (or of what the module calls ``monitored``),
    - ``checkpoints/last.ckpt``: the state to resume from.

    Args:
        folder: Folder of the run.
        notes: Goes into the configuration of the best model.
    """

    def __init__(self, folder: str | Path, notes: dict[str, Any] | None = None):
        self.folder = Path(folder)
        self.notes = notes or {}
        self.rows: list[dict[str, float]] = []
        self.lowest = float("inf")  # of what chooses the best model
        self.best = float("inf")  # validation MAE of the best model

    @property
    def last_checkpoint(self) -> Path:
        """The state to resume from."""
        return self.folder / "checkpoints" / "last.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule):
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if "val_mae" not in metrics:
            return
        columns = [key for key in (*COLUMNS[1:], "val_loss", "val_force_mae") if key in metrics]
        self.rows.append({"epoch": trainer.current_epoch, **{key: metrics[key] for key in columns}})
        value = metrics[getattr(pl_module, "monitored", "val_mae")]
        improved = value < self.lowest
        if improved:
            self.lowest, self.best = value, metrics["val_mae"]
        if trainer.is_global_zero:
            if improved:
                unit = pl_module.unit.replace("/", "_")
                notes = {
                    **self.notes,
                    "epoch": trainer.current_epoch,
                    f"val_mae_{unit}": metrics["val_mae"],
                    f"val_rmse_{unit}": metrics["val_rmse"],
                }
                save_model(pl_module.evaluated_model, self.folder / "best", notes)
            history = {column: [row[column] for row in self.rows] for column in self.rows[0]}
            write_table(self.folder / "metrics.csv", history)
            with atomic_write(self.last_checkpoint) as path:
                trainer.save_checkpoint(path)
        else:  # every process takes part in gathering the state, the first one writes it
            trainer.save_checkpoint(self.last_checkpoint)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "lowest": self.lowest, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]):
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self.lowest = state_dict.get("lowest", self.best)
