"""Mixed precision and ``torch.compile``: ``python tests/benchmarks/training_options.py``.

The script trains DART on energies, and SmoothDART on energies and forces, with each option. It prints the processor
time of an epoch (median without the first, which compiles), that of the first, and the errors on the validation set.
"""

import argparse
import logging
import resource
import statistics
import tempfile

import pytorch_lightning as pl
import torch

from pyg_clusters.datasets import GalliumClusters
from pyg_clusters.models import DART, SmoothDART
from pyg_clusters.training import ClusterDataModule, EnergyTraining, ForceTraining

OPTIONS = {
    "single precision": {},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "compiled": {"compile": True},
    "bf16-mixed, compiled": {"precision": "bf16-mixed", "compile": True},
}
RADII = (2.3, 2.45, 2.6, 2.75, 2.9, 3.05, 3.2, 3.35)


class Seconds(pl.Callback):
    """Processor time of each epoch, validation included."""

    def __init__(self):
        self.marks = [processor_time()]

    def on_train_epoch_end(self, *_):
        self.marks.append(processor_time())

    @property
    def epochs(self) -> list[float]:
        return [end - start for start, end in zip(self.marks, self.marks[1:], strict=False)]


def processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def train(module: EnergyTraining, data: ClusterDataModule, epochs: int, precision: str) -> tuple[list[float], dict]:
    seconds = Seconds()
    trainer = pl.Trainer(
        max_epochs=epochs,
        precision=precision,
        callbacks=[seconds],
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )
    trainer.fit(module, data)
    return seconds.epochs, {key: float(value) for key, value in trainer.callback_metrics.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--models", nargs="+", default=["DART", "SmoothDART", "SmoothDART, forces"])
    parser.add_argument("--options", nargs="+", default=list(OPTIONS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    print(f"{options.epochs} epochs on {options.clusters} clusters, one thread, {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            forces = name.endswith("forces")
            dataset = GalliumClusters(folder, subset="forces" if forces else "minima")
            for option in options.options:
                chosen = OPTIONS[option]
                data = ClusterDataModule(dataset, batch_size=32, max_train_clusters=options.clusters)
                torch.manual_seed(0)
                model = DART() if name == "DART" else SmoothDART(descriptor_radii=RADII, degree=7, hidden_channels=96)
                if forces and "compile" in chosen:  # does not support second derivatives
                    continue
                module = ForceTraining(model) if forces else EnergyTraining(model, compile="compile" in chosen)
                seconds, metrics = train(module, data, options.epochs, chosen.get("precision", "32-true"))
                force = f", forces {metrics['val_force_mae']:.1f} meV/Å" if forces else ""
                print(
                    f"{name:<20} {option:<22} {statistics.median(seconds[1:]):7.2f} s an epoch, the first "
                    f"{seconds[0]:7.2f} s, validation MAE {metrics['val_mae']:.2f} kcal/mol{force}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
