"""Training: what a run leaves behind, going on after a kill, several processes, and single parts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pyg_clusters.cli.evaluate import read_columns
from pyg_clusters.cli.main import main
from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.frames import write_extxyz
from pyg_clusters.geometry import batch_to_ptr
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import ClusterDataModule, load_model
from pyg_clusters.training.data import ClusterBatches, EpochSampler
from pyg_clusters.transforms import ShellGraph

EPOCHS = 6


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """60 small clusters; their energy is that of the bonds, -0.3 eV for each pair closer than 3.49 Å."""
    from ase import Atoms

    generator = torch.Generator().manual_seed(5)
    sizes = tuple(torch.randint(5, 12, (60,), generator=generator).tolist())
    z, pos, ptr = random_clusters(sizes, 31, generator)
    clusters = []
    for number, (start, end) in enumerate(zip(ptr, ptr[1:], strict=False)):
        atoms = Atoms(z[start:end].numpy(), pos[start:end].numpy())
        bonds = (atoms.get_all_distances()[np.triu_indices(len(atoms), 1)] < 3.49).sum()
        atoms.info = {"binding": -0.3 * float(bonds), "segment": f"s{number // 5}"}
        clusters.append(atoms)
    path = tmp_path_factory.mktemp("frames") / "clusters.extxyz"
    write_extxyz(path, clusters)
    return path


@pytest.fixture(scope="module")
def dataset(frames, tmp_path_factory) -> ClusterDataset:
    return ClusterDataset(tmp_path_factory.mktemp("root"), frames, target="binding", group="segment")


@pytest.fixture(scope="module")
def recipe(frames, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    configuration = {
        "seed_everything": 3,
        "data": {
            "dataset": {
                "class_path": "pyg_clusters.datasets.ClusterDataset",
                "init_args": {
                    "root": str(folder),
                    "files": [str(frames)],
                    "target": "binding",
                    "group": "segment",
                },
            },
            "split": "group",
            "fractions": [0.6, 0.2, 0.2],
            "batch_size": 8,
        },
        "model": {
            "model": {"class_path": "pyg_clusters.models.DART", "init_args": {"hidden_channels": 16}},
            "scheduler": {
                "class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau",
                "init_args": {"factor": 0.5, "patience": 0},
            },
        },
        "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return path


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "--config", str(recipe), "--out", str(run)]) == 0
    return run


def in_own_process(arguments: list[str], log: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "pyg_clusters", *arguments]
    with log.open("w") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)


def test_run_folder_is_complete(finished):
    for name in (
        "config.yaml",
        "metrics.csv",
        "best/model.safetensors",
        "best/model.json",
        "checkpoints/last.ckpt",
        "splits/train.txt",
        "splits/val.txt",
        "splits/test.txt",
        "test_predictions.csv",
        "test_metrics.json",
        "figures/parity.png",
        "figures/learning_curve.png",
        "figures/error_by_size.png",
    ):
        assert (finished / name).stat().st_size > 0, name
    assert not list(finished.rglob(".partial*"))
    history = read_columns(finished / "metrics.csv")
    assert history["epoch"].tolist() == list(range(EPOCHS))
    # The schedule halves the rate after each epoch without a better validation error.
    rates = [1e-3]
    for epoch in range(1, EPOCHS):
        better = history["val_mae"][epoch - 1] < history["val_mae"][: epoch - 1].min(initial=np.inf)
        rates.append(rates[-1] * (1.0 if better else 0.5))
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-5)


def test_best_model_is_that_of_the_smallest_validation_error(finished, dataset):
    split = ClusterDataModule(dataset, finished / "splits").split
    data = ClusterBatches(dataset)[split.val.tolist()]
    with torch.no_grad():
        error = load_model(finished)(data.z, data.pos, data.batch) - data.y
    mae = float(error.abs().mean()) * 23.060548
    assert mae == pytest.approx(read_columns(finished / "metrics.csv")["val_mae"].min(), rel=1e-4)


def test_test_predictions_are_those_of_the_model(finished, dataset):
    table = read_columns(finished / "test_predictions.csv")
    data = ClusterBatches(dataset)[table["idx"].astype(int).tolist()]
    with torch.no_grad():
        predicted = load_model(finished)(data.z, data.pos, data.batch)
    np.testing.assert_allclose(table["pred_energy"], predicted.numpy(), rtol=1e-5)
    np.testing.assert_allclose(table["energy"], data.y.numpy(), rtol=1e-6)


def test_killed_and_resumed_equals_uninterrupted(recipe, finished, tmp_path):
    run = tmp_path / "killed"
    log = tmp_path / "log.txt"
    process = in_own_process(["train", "--config", str(recipe), "--out", str(run)], log)
    deadline = time.monotonic() + 120
    while not (run / "metrics.csv").exists() and time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    epochs_done = len(read_columns(run / "metrics.csv")["epoch"])
    assert 0 < epochs_done < EPOCHS, "killed too late to show anything"
    assert not (run / "test_metrics.json").exists()

    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()
    whole, resumed = (load_file(folder / "best" / "model.safetensors") for folder in (finished, run))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_finished_run_is_left_alone(finished, capsys):
    before = (finished / "metrics.csv").stat().st_mtime_ns
    assert main(["train", "--resume", str(finished)]) == 0
    assert "finished" in capsys.readouterr().out
    assert (finished / "metrics.csv").stat().st_mtime_ns == before


def test_run_is_not_overwritten(recipe, finished, capsys):
    assert main(["train", "--config", str(recipe), "--out", str(finished)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_two_processes_agree_with_one(recipe, finished, tmp_path):
    run = tmp_path / "two"
    arguments = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    log = tmp_path / "log.txt"
    process = in_own_process(["train", "--config", str(recipe), "--out", str(run), *arguments], log)
    assert process.wait(timeout=240) == 0, log.read_text()
    one, two = read_columns(finished / "metrics.csv"), read_columns(run / "metrics.csv")
    for column in ("train_mae", "val_mae", "val_rmse"):
        np.testing.assert_allclose(two[column], one[column], rtol=2e-3)


def test_training_ends_when_the_rate_falls_below_its_limit(recipe, tmp_path):
    arguments = ["--model.stop_below_rate", "0.5e-3"]
    arguments += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "1e-3"]
    arguments += ["--model.scheduler", "torch.optim.lr_scheduler.ExponentialLR"]
    arguments += ["--model.scheduler.init_args.gamma", "0.6"]
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run"), *arguments]) == 0
    # 1e-3, 0.6e-3, 0.36e-3: the third would be below the limit
    assert len(read_columns(tmp_path / "run" / "metrics.csv")["epoch"]) == 2


def test_batches_equal_those_of_pyg(dataset):
    from torch_geometric.data import Batch

    clusters = [7, 3, 41]
    ours = ClusterBatches(dataset)[clusters]
    theirs = Batch.from_data_list([dataset[cluster] for cluster in clusters])
    for key in ("z", "pos", "y", "batch", "ptr"):
        assert torch.equal(ours[key], theirs[key]), key
    assert torch.equal(batch_to_ptr(ours.batch), ours.ptr)


def test_batches_of_a_subset_are_those_of_the_whole(dataset):
    part = dataset[torch.tensor([40, 2, 9])]
    batch, whole = ClusterBatches(part)[[2, 0]], ClusterBatches(dataset)[[9, 40]]
    assert len(ClusterBatches(part)) == 3
    assert torch.equal(batch.pos, whole.pos) and torch.equal(batch.y, whole.y)
    assert torch.equal(ClusterDataModule(part, split="random", fractions=(0.4, 0.3, 0.3)).batches[[0]].y, dataset[40].y)


def test_batches_with_a_transform_have_its_graph(frames, tmp_path):
    dataset = ClusterDataset(tmp_path, frames, target="binding", transform=ShellGraph())
    data = ClusterBatches(dataset)[[0, 5]]
    sizes = data.ptr.diff()
    assert data.edge_index.size(1) == int((sizes * (sizes - 1)).sum())


def test_sampler_shares_out_every_batch():
    clusters = torch.arange(100, 121)
    whole = EpochSampler(clusters, batch_size=8, shuffle=True, seed=1)
    parts = [EpochSampler(clusters, batch_size=8, shuffle=True, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    orders = []
    for epoch in (0, 1):
        for sampler in (whole, *parts):
            sampler.set_epoch(epoch)
        together = [sorted(a + b) for a, b in zip(*parts, strict=True)]
        assert together == [sorted(batch) for batch in whole]
        orders.append([cluster for batch in whole for cluster in batch])
        assert sorted(orders[-1]) == clusters.tolist()
        assert len(whole) == len(together) == 3
    assert orders[0] != orders[1] != clusters.tolist()
