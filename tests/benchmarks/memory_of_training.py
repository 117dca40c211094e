"""Resident memory of training from disk: ``python tests/benchmarks/memory_of_training.py``.

The script writes frame stores of several sizes by repeating the same frames, trains on each for one epoch in a
separate process, from disk and in memory, and prints the peak resident memory of each process.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from memory_of_predict import SIZE, blocks

from pyg_clusters.frames import FrameBlock, write_store

TRAINING = """
import sys, resource, warnings
warnings.simplefilter("ignore")
import pytorch_lightning as pl
from pyg_clusters.datasets import ClusterDataset, OnDiskClusters
from pyg_clusters.models import DART
from pyg_clusters.training import ClusterDataModule, EnergyTraining
kind, store, workers = sys.argv[1:]
dataset = OnDiskClusters(store) if kind == "disk" else ClusterDataset(store + ".processed", store)
data = ClusterDataModule(dataset, "random", (0.98, 0.01, 0.01), batch_size=256, num_workers=int(workers))
trainer = pl.Trainer(
    max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
    enable_model_summary=False, num_sanity_val_steps=0,
)
trainer.fit(EnergyTraining(DART(hidden_channels=8, interaction_channels=(8,))), data)
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{own:.0f} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f}")
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--workers", type=int, default=0, help="of the data loader")
    parser.add_argument("--kinds", nargs="+", default=["disk", "memory"])
    options = parser.parse_args()
    for number in options.frames:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "frames.h5"
            write_store(store, map(labelled, blocks(number)), single=True, compressed=False)
            size = store.stat().st_size / 1e6
            for kind in options.kinds:
                command = [sys.executable, "-c", TRAINING, kind, str(store), str(options.workers)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                own, workers = done.stdout.split()[-2:]
                frames = f"{number:>9,} frames of {SIZE} atoms ({size:,.0f} MB)"
                more = f", of a worker {workers} MB" if options.workers else ""
                print(f"{frames}, {kind}: largest resident memory {own} MB{more}", flush=True)


def labelled(block: FrameBlock) -> FrameBlock:
    block.properties["energy"] = -2.0 * block.sizes.astype(float)
    return block


if __name__ == "__main__":
    main()
