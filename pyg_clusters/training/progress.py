"""One progress bar for a whole training."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress(Callback):
    """Shows the epochs done, the errors of the last one and the learning rate on standard error.

    Where standard error is no terminal nothing is shown.
    """

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
