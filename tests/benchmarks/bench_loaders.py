"""Training epochs on clusters of mixed sizes with different loaders."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import l1_loss
from torch_geometric.loader import DataLoader

from pyg_clusters.datasets import GalliumClusters, OnDiskClusters
from pyg_clusters.datasets.training_data import batches_of
from pyg_clusters.frames import FrameBlock, write_store
from pyg_clusters.models import DART
from pyg_clusters.training.trainer_parts import EpochSampler, bounded_batches

CLUSTERS = 512
BATCH = 32
MAX_PAIRS = BATCH * 70**2


@pytest.fixture(scope="module")
def stores(minima, tmp_path_factory) -> dict[str, OnDiskClusters]:
    """The minima in an uncompressed and in a compressed frame store."""
    folder = tmp_path_factory.mktemp("stores")
    return {name: on_disk(minima, folder / f"{name}.h5", name == "compressed") for name in ("plain", "compressed")}


def on_disk(minima: GalliumClusters, path: Path, compressed: bool) -> OnDiskClusters:
    batch = batches_of(minima)[list(range(len(minima)))]
    block = FrameBlock(
        file="minima",
        number=np.arange(len(minima)),
        z=batch.z.numpy(),
        pos=batch.pos.numpy(),
        ptr=batch.ptr.numpy(),
        cell=np.zeros((len(minima), 3, 3)),
        pbc=np.zeros((len(minima), 3), dtype=bool),
        properties={"energy": batch.y.double().numpy()},
    )
    write_store(path, [block], single=True, compressed=compressed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compressed stores are slow, which is measured here
        return OnDiskClusters(path)


def test_epoch_by_loader(minima, stores, capsys):
    chosen = torch.randperm(len(minima), generator=torch.Generator().manual_seed(0))[:CLUSTERS]
    in_memory, plain, compressed = (batches_of(data) for data in (minima, stores["plain"], stores["compressed"]))
    sampler = EpochSampler(chosen, BATCH, shuffle=False)
    bounded = EpochSampler(chosen, 1024, shuffle=False, sizes=minima.sizes[chosen], max_pairs=MAX_PAIRS)
    loaders = {
        "ours": lambda: (in_memory[clusters] for clusters in sampler),
        "pyg": lambda: iter(DataLoader(minima[chosen], batch_size=BATCH)),
        "pyg_disk": lambda: iter(DataLoader(stores["plain"][chosen], batch_size=BATCH)),
        "disk": lambda: (plain[clusters] for clusters in sampler),
        "compressed": lambda: (compressed[clusters] for clusters in sampler),
        "bounded": lambda: (plain[clusters] for clusters in bounded),
    }
    for name, loader in loaders.items():
        if name != "bounded":
            check_equal(loaders["ours"](), loader())
    models = {name: DART() for name in loaders}
    seconds = least_processor_seconds(
        {name: epoch(models[name], loader) for name, loader in loaders.items()}
        | {f"{name}_alone": alone(loader) for name, loader in loaders.items()}
    )
    parts = list(bounded_batches(torch.arange(CLUSTERS), minima.sizes[chosen], 1024, MAX_PAIRS))
    labels = {
        "pyg": "PyG's DataLoader, in memory (baseline)",
        "ours": "ClusterDataModule, in memory",
        "pyg_disk": "PyG's DataLoader, OnDiskClusters",
        "disk": "ClusterDataModule, OnDiskClusters",
        "compressed": "the same from a compressed store",
        "bounded": f"on disk, {len(parts)} batches of at most {MAX_PAIRS:,} pairs",
    }
    with capsys.disabled():
        print(f"\n\nEpoch of {CLUSTERS} clusters of 31 to 70 atoms, batches of {BATCH}, DART, processor time")
        print(f"  {'':<52}{'loader':>10}{'epoch':>10}{'clusters/s':>12}{'ratio':>8}")
        for name, label in labels.items():
            whole, loading = seconds[name], seconds[f"{name}_alone"]
            rate, ratio = CLUSTERS / whole, seconds["pyg"] / whole
            print(f"  {label:<52}{loading:8.3f} s{whole:8.3f} s{rate:12,.0f}{ratio:8.2f}")


def least_processor_seconds(functions: dict[str, Callable[[], None]], rounds: int = 4) -> dict[str, float]:
    """Shortest processor time of each function; they alternate, so that other work on the machine hardly matters."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            function()
            seconds[name].append(time.process_time() - start)
    return {name: min(values) for name, values in seconds.items()}


def check_equal(ours, theirs):
    for found, expected in zip(theirs, ours, strict=True):
        for key in ("z", "pos", "y", "batch"):
            torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-6)


def epoch(model, loader):
    """An epoch of training with Adam, from reading the batches to the last step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for data in loader():
            optimizer.zero_grad()
            l1_loss(model(data.z, data.pos, data.batch), data.y).backward()
            optimizer.step()

    return run


def alone(loader):
    """Load the batches of an epoch without using them."""

    def run():
        for _ in loader():
            pass

    return run
