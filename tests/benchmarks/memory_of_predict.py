"""Resident memory of ``predict`` on very many frames: ``python tests/benchmarks/memory_of_predict.py``.

The script writes a store of frames of 50 atoms, predicts their energies in a separate process, and prints its peak
resident memory. It takes a few minutes for a million frames on an idle core.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pyg_clusters.frames import FrameBlock, write_store

SIZE = 50
BLOCK = 1000


def blocks(num_frames: int) -> Iterator[FrameBlock]:
    """Frames that do not differ from block to block."""
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)[:SIZE] * 2.8
    pos = (grid + generator.normal(scale=0.1, size=(BLOCK, SIZE, 3))).round(5).reshape(-1, 3)
    block = FrameBlock(
        file="made",
        number=np.arange(BLOCK),
        z=np.full(BLOCK * SIZE, 31),
        pos=pos,
        ptr=np.arange(BLOCK + 1) * SIZE,
        cell=np.zeros((BLOCK, 3, 3)),
        pbc=np.zeros((BLOCK, 3), dtype=bool),
    )
    for first in range(0, num_frames, BLOCK):
        yield replace(block, number=np.arange(first, first + BLOCK))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--model", default="gallium")
    parser.add_argument("--out", default="predictions.parquet", help="its ending chooses the format")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "frames.h5"
        number = write_store(store, blocks(options.frames), single=True)
        start = time.perf_counter()
        command = ["-m", "pyg_clusters", "predict", options.model, str(store), "--out", f"{folder}/{options.out}"]
        subprocess.run([sys.executable, *command], check=True)
        seconds = time.perf_counter() - start
        resident = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
        print(
            f"{number:,} frames of {SIZE} atoms, {store.stat().st_size / 1e6:,.0f} MB: largest resident memory "
            f"{resident:.2f} GB, {number / seconds:,.0f} frames/s with start"
        )


if __name__ == "__main__":
    main()
