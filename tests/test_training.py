"""Training: files of a run, resuming after a kill, several processes, and single parts."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from helpers import atoms_of, bonded_clusters, kill, status_of
from pytorch_lightning.callbacks import Timer
from safetensors.torch import load_file
from torch_geometric.data import Batch
from torch_geometric.utils import scatter

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, OnDiskClusters, Split
from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.errors import InputError
from pyg_clusters.files import output_lock
from pyg_clusters.frames import Frames, write_extxyz, write_store
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.geometry import batch_to_ptr
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.run import Run
from pyg_clusters.models.checkpoint import load_model, save_model
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import ClusterDataModule
from pyg_clusters.training.trainer_parts import EpochSampler, RunFolder
from pyg_clusters.transforms import ShellGraph, TopologicalDescriptor

EPOCHS = 4


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "clusters.extxyz"
    write_extxyz(path, bonded_clusters(per_segment=5))
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
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "--config", str(recipe), "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def short(recipe, tmp_path_factory) -> Path:
    """A run of two epochs."""
    run = tmp_path_factory.mktemp("runs") / "short"
    assert main(["train", "--config", str(recipe), "--out", str(run), "--trainer.max_epochs", "2"]) == 0
    return run


def after_epoch(number: int, action: Callable[[], None]) -> Callable:
    """Callback of the run folder that also performs an action once at the end of an epoch."""
    write = RunFolder.on_train_epoch_end

    def write_and_act(callback, trainer, module):
        write(callback, trainer, module)
        if trainer.current_epoch == number - 1:
            action()

    return write_and_act


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


def test_errors_of_other_weights_are_not_those_of_a_run(finished, tmp_path, capsys):
    """A training that is resumed and killed leaves the test errors of earlier weights in the folder."""
    run = shutil.copytree(finished, tmp_path / "run")
    error = Run(run).test_error
    assert error is not None and error == Run(finished).test_error
    model = load_model(run)
    with torch.no_grad():
        model.scale.offset += 1.0
    save_model(model, run / "best")
    assert Run(run).test_error is None
    assert main(["info", str(run)]) == 0 and "test MAE" not in capsys.readouterr().out
    assert main(["evaluate", str(run)]) == 0 and Run(run).test_error > error


def test_killed_and_resumed_equals_uninterrupted(recipe, finished, tmp_path):
    run = tmp_path / "killed"

    def work():
        RunFolder.on_train_epoch_end = after_epoch(2, kill)
        return main(["train", "--config", str(recipe), "--out", str(run)])

    assert os.WTERMSIG(status_of(work)) == signal.SIGKILL
    assert len(read_columns(run / "metrics.csv")["epoch"]) == 2
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


def test_evaluating_an_unfinished_run_leaves_it_unfinished(short, finished, tmp_path):
    run = shutil.copytree(short, tmp_path / "run")
    (run / "finished.json").unlink()  # as if it had been interrupted there
    configuration = run / "config.yaml"
    configuration.write_text(configuration.read_text().replace("max_epochs: 2", f"max_epochs: {EPOCHS}"))
    assert main(["evaluate", str(run)]) == 0
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()


def test_time_limit_stops_after_an_epoch_and_resumes(recipe, finished, tmp_path, capsys, monkeypatch):
    run = tmp_path / "limited"
    epochs = []

    def elapsed(self, stage="train"):  # each epoch takes 100 s
        return 100.0 * len(epochs)

    counted = Timer.on_train_epoch_end
    monkeypatch.setattr(Timer, "time_elapsed", elapsed)
    monkeypatch.setattr(
        Timer, "on_train_epoch_end", lambda self, *arguments: (epochs.append(1), counted(self, *arguments))
    )
    limit = ["--trainer.max_time", "00:00:04:00"]
    assert main(["train", "--config", str(recipe), "--out", str(run), *limit]) == 0
    assert "stopped by the time limit" in capsys.readouterr().out
    assert len(read_columns(run / "metrics.csv")["epoch"]) == 3
    assert main(["train", "--resume", str(run)]) == 0  # the limit is still reached: nothing is trained
    assert len(read_columns(run / "metrics.csv")["epoch"]) == 3
    assert main(["train", "--resume", str(run), "--trainer.max_time", "01:00:00:00"]) == 0
    assert (run / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()
    assert (run / "finished.json").exists()


def test_resume_takes_the_saved_split_and_refuses_other_data(recipe, frames, tmp_path, capsys):
    run, copy = tmp_path / "run", tmp_path / "clusters.extxyz"
    copy.write_text(frames.read_text())
    arguments = ["--data.dataset.init_args.files", f"[{copy}]", "--data.dataset.init_args.root", str(tmp_path)]
    arguments += ["--trainer.max_epochs", "1"]
    assert main(["train", "--config", str(recipe), "--out", str(run), *arguments]) == 0
    copy.write_text(copy.read_text().replace("binding=-", "binding=-1"))
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 2
    assert "data set has changed" in capsys.readouterr().err
    (run / "finished.json").unlink()
    assert main(["train", "--resume", str(run)]) == 2
    assert "data set has changed" in capsys.readouterr().err


def test_averaged_weights_are_validated_and_saved(recipe, dataset, tmp_path):
    run = tmp_path / "average"
    arguments = ["--model.average_decay", "0.9"]
    assert main(["train", "--config", str(recipe), "--out", str(run), *arguments]) == 0
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    weights, average = state["model.interaction.0.weight"], state["average.module.interaction.0.weight"]
    assert not torch.equal(weights, average)
    history = read_columns(run / "metrics.csv")
    if history["val_mae"].argmin() == EPOCHS - 1:
        assert torch.equal(load_file(run / "best" / "model.safetensors")["interaction.0.weight"], average)
    test_best_model_is_that_of_the_smallest_validation_error(run, dataset)


class GraphSum(torch.nn.Module):
    """A model that needs the graph: it counts the bonds of each cluster by the edges of shell 0."""

    def __init__(self):
        super().__init__()
        self.bond = torch.nn.Parameter(torch.tensor(-0.1))

    def forward(self, z, pos, batch, edge_index, edge_type):
        near = torch.bincount(edge_index[1][edge_type == 0], minlength=z.numel())
        return scatter(0.5 * self.bond * near, batch, reduce="sum")


class NoAttribute(torch.nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.bond = torch.nn.Parameter(torch.tensor(-0.1))

    def forward(self, z, pos, batch):
        return scatter(self.bond * z.float(), batch, reduce="sum")


def test_noise_is_that_of_the_step_whether_resumed_or_not(recipe, finished, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = ["--config", str(recipe), "--model.position_noise", "0.1"]
    assert main(["train", *arguments, "--out", str(whole), "--trainer.max_epochs", "3"]) == 0
    assert main(["train", *arguments, "--out", str(stopped), "--trainer.max_epochs", "1"]) == 0
    (stopped / "finished.json").unlink()
    assert main(["train", "--resume", str(stopped), "--trainer.max_epochs", "3"]) == 0
    assert (stopped / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    noisy, quiet = (read_columns(run / "metrics.csv")["train_mae"] for run in (whole, finished))
    assert noisy[0] != quiet[0]


def test_a_model_that_needs_a_graph_is_trained_evaluated_and_predicts(recipe, frames, tmp_path, capsys):
    run = tmp_path / "graph"
    arguments = ["--config", str(recipe), "--out", str(run), "--model.model", f"{__name__}.GraphSum"]
    assert main(["train", *arguments]) == 2
    assert "edge_index, edge_type" in capsys.readouterr().err
    assert not run.exists()
    arguments += ["--data.dataset.init_args.transform", "pyg_clusters.transforms.ShellGraph"]
    arguments += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "1e-4"]
    assert main(["train", *arguments]) == 0
    assert main(["evaluate", str(run), str(frames), "--target", "binding"]) == 2
    assert "GraphSum" in (error := capsys.readouterr().err) and "--trust" in error
    assert main(["evaluate", str(run), str(frames), "--target", "binding", "--trust"]) == 0
    assert main(["predict", str(run), str(frames), "--out", str(tmp_path / "p.csv"), "--trust"]) == 0
    bond = load_model(run, trust=True).bond.item()
    table = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    true = [atoms.info["binding"] for atoms in ase.io.read(frames, ":")]  # -0.3 eV for each bond
    np.testing.assert_allclose([float(row[3]) for row in table], np.array(true) * bond / -0.3, rtol=1e-5)
    assert main(["predict", str(run / "best"), str(frames), "--out", str(tmp_path / "q.csv"), "--trust"]) == 2
    assert "transform" in capsys.readouterr().err


def test_a_graph_that_the_model_would_not_compute_is_refused(recipe, tmp_path, capsys):
    """Predictions of files compute the shells of the model."""
    run = tmp_path / "graph"
    arguments = ["train", "--config", str(recipe), "--out", str(run), "--trainer.max_epochs", "1"]
    arguments += ["--data.dataset.init_args.transform", "pyg_clusters.transforms.ShellGraph"]
    assert main([*arguments, "--data.dataset.init_args.transform.radii", "[2.9, 4.0]"]) == 2
    error = capsys.readouterr().err
    assert "DART predicts other values with edge_index, edge_type of the data set than from positions alone" in error
    assert not run.exists()
    assert main(arguments) == 0


def test_noise_that_does_not_reach_the_model_is_refused(recipe, tmp_path, capsys):
    """The shells of a graph are computed from the positions without noise; the model computes its own shells of noisy
    positions.
    """
    arguments = ["train", "--config", str(recipe), "--out", str(tmp_path / "run"), "--trainer.max_epochs", "1"]
    arguments += ["--model.position_noise", "0.1"]
    graph = ["--data.dataset.init_args.transform", "pyg_clusters.transforms.ShellGraph"]
    assert main([*arguments, *graph]) == 2
    assert "position_noise has no effect on edge_index, edge_type of the data set" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(arguments) == 0


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_half_precision_of_positions_and_energies_is_refused(precision, recipe, tmp_path, capsys):
    arguments = ["train", "--config", str(recipe), "--out", str(tmp_path / "run"), "--trainer.precision", precision]
    assert main(arguments) == 2
    assert "use bf16-mixed" in capsys.readouterr().err


def test_a_model_that_cannot_be_saved_is_refused_before_training(recipe, tmp_path, capsys):
    arguments = ["--config", str(recipe), "--out", str(tmp_path / "run"), "--model.model", f"{__name__}.NoAttribute"]
    assert main(["train", *arguments]) == 2
    assert "'width'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_split_of_another_data_set_is_refused(dataset, tmp_path):
    Split(torch.arange(50), torch.arange(50, 60), torch.tensor([60])).save(tmp_path)
    with pytest.raises(InputError, match="names cluster 60, but the data set has only 60"):
        ClusterDataModule(dataset, tmp_path)


def test_one_process_trains_in_a_folder(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    with output_lock(run, folder=True):
        assert main(["train", "--config", str(recipe), "--out", str(run)]) == 2
        assert "is being written by process" in capsys.readouterr().err
    assert not (run / "config.yaml").exists()


def test_signals_end_a_training_that_can_be_resumed(recipe, finished, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    for epoch, number, code, start in (
        (2, signal.SIGINT, 130, ["--config", str(recipe), "--out"]),
        (3, signal.SIGTERM, 143, ["--resume"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "on_train_epoch_end", after_epoch(epoch, lambda n=number: os.kill(os.getpid(), n)))
            assert main(["train", *start, str(run)]) == code
        assert capsys.readouterr().err.splitlines()[-1] == f"pyg-clusters: stopped by {number.name}"
        assert not (run / "finished.json").exists() and not (run / ".lock").exists()
        assert len(read_columns(run / "metrics.csv")["epoch"]) == epoch
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()


def test_a_finished_run_resumes_for_more_epochs(recipe, short, finished, tmp_path, capsys):
    run = shutil.copytree(short, tmp_path / "run")
    epochs = len(read_columns(finished / "metrics.csv")["epoch"])
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert main(["train", "--config", str(recipe), "--out", str(run)]) == 2
    assert f"--resume {run} (if it is finished, with a larger --trainer.max_epochs)" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--trainer.max_epochs", str(epochs)]) == 0
    assert (run / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == epochs
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().out


def test_run_is_not_overwritten(recipe, finished, capsys):
    assert main(["train", "--config", str(recipe), "--out", str(finished)]) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_agree_with_one(recipe, finished, tmp_path):
    run = tmp_path / "two"
    arguments = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    command = [sys.executable, "-m", "pyg_clusters", "train", "--config", str(recipe), "--out", str(run), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    one, two = read_columns(finished / "metrics.csv"), read_columns(run / "metrics.csv")
    for column in ("train_mae", "val_mae", "val_rmse"):
        np.testing.assert_allclose(two[column], one[column], rtol=2e-3)


def test_training_ends_when_the_rate_falls_below_its_limit(recipe, tmp_path, capsys):
    arguments = ["--model.stop_below_rate", "0.5e-3"]
    arguments += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "1e-3"]
    arguments += ["--model.scheduler", "torch.optim.lr_scheduler.ExponentialLR"]
    arguments += ["--model.scheduler.init_args.gamma", "0.6"]
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run"), *arguments]) == 0
    # 1e-3, 0.6e-3, 0.36e-3: the third would be below the limit
    assert len(read_columns(tmp_path / "run" / "metrics.csv")["epoch"]) == 2
    ended = "trained for 2 epochs (until the learning rate of the schedule fell below 0.0005)"
    assert ended in capsys.readouterr().out


def test_batches_equal_those_of_pyg(dataset):
    clusters = [7, 3, 41]
    ours = ClusterBatches(dataset)[clusters]
    theirs = Batch.from_data_list([dataset[cluster] for cluster in clusters])
    for key in ("z", "pos", "y", "batch", "ptr"):
        assert torch.equal(ours[key], theirs[key]), key
    assert torch.equal(batch_to_ptr(ours.batch), ours.ptr)


def test_batches_hold_all_that_is_stored(frames, tmp_path):
    dataset = ClusterDataset(tmp_path, frames, target="binding", group="segment", pre_transform=TopologicalDescriptor())
    batches = ClusterBatches(dataset)
    assert not batches.collated
    ours, theirs = batches[[7, 3]], Batch.from_data_list([dataset[7], dataset[3]])
    for key in ("x", "group", "cluster_size", "idx"):
        assert torch.equal(ours[key], theirs[key]), key
    with_edges = ClusterBatches(ClusterDataset(tmp_path, frames, target="binding", pre_transform=ShellGraph()))
    assert with_edges.collated
    batch = with_edges[[7, 3]]
    sources, targets = batch.edge_index
    assert torch.equal(batch.batch[sources], batch.batch[targets])
    assert int(targets.max()) == batch.z.numel() - 1


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
    plain = ClusterDataset(tmp_path, frames, target="binding")
    batches = ClusterBatches(plain)
    plain.transform = TopologicalDescriptor()
    assert "x" in batches[[0, 5]]


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


def test_invalid_trainings_are_refused_before_a_folder_is_created(recipe, tmp_path, capsys):
    arguments = ["train", "--config", str(recipe), "--out", str(tmp_path / "run")]
    for extra, words in (
        (["--data.batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--data.max_train_clusters", "-5"], "max_train_clusters must be at least 1"),
        (["--trainer.check_val_every_n_epoch", "2"], "every epoch is validated"),
        (["--trainer.limit_val_batches", "0"], "every epoch is validated"),
    ):
        assert main([*arguments, *extra]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_training_without_a_model_reports_the_reason(recipe, tmp_path, capsys):
    arguments = ["train", "--config", str(recipe), "--out"]
    assert main([*arguments, str(tmp_path / "none"), "--trainer.max_epochs", "0"]) == 2
    assert "no epoch was trained" in capsys.readouterr().err
    diverges = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "1e30"]
    assert main([*arguments, str(tmp_path / "nan"), "--trainer.max_epochs", "2", *diverges]) == 2
    assert "smaller learning rate" in capsys.readouterr().err


def test_killed_with_nothing_left_to_train_is_not_trained_on(recipe, tmp_path):
    run = tmp_path / "run"
    arguments = ["--model.stop_below_rate", "0.5e-3", "--model.scheduler", "torch.optim.lr_scheduler.ExponentialLR"]
    arguments += ["--model.scheduler.init_args.gamma", "0.6"]
    assert main(["train", "--config", str(recipe), "--out", str(run), *arguments]) == 0
    metrics = (run / "metrics.csv").read_text()
    (run / "finished.json").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.csv").read_text() == metrics
    assert (run / "finished.json").exists()


def test_training_starts_from_a_trained_model(recipe, finished, frames, tmp_path, capsys):
    """Weights, offset and scale are those of the trained model, whatever the new labels; the domain is widened."""
    clusters = ase.io.read(frames, ":")
    for atoms in clusters:
        atoms.info["binding"] -= 10.0
    large = Atoms([31] * 14, np.random.default_rng(0).uniform(0, 9, (14, 3)), info={"binding": -20.0, "segment": "new"})
    write_extxyz(tmp_path / "new.extxyz", [*clusters, *[large] * 60])
    arguments = ["train", "--config", str(recipe), "--data.dataset.files", f"[{tmp_path / 'new.extxyz'}]"]
    arguments += ["--data.dataset.root", str(tmp_path / "data"), "--data.split", "random", "--trainer.max_epochs", "1"]
    arguments += ["--data.dataset.fragments", "keep"]
    still = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1e-30", "--model.stop_below_rate", "0"]
    run = tmp_path / "run"
    assert main([*arguments, *still, "--init-from", str(finished), "--out", str(run)]) == 0
    before, after = (load_file(folder / "best" / "model.safetensors") for folder in (finished, run))
    learned = [name for name in before if not name.startswith("domain")]
    assert all(torch.equal(before[name], after[name]) for name in learned)
    assert load_model(finished).domain.size_range[1] < load_model(run).domain.size_range[1] == 14
    capsys.readouterr()
    other = [*arguments, "--model.model.init_args.hidden_channels", "8", "--out", str(tmp_path / "other")]
    assert main([*other, "--init-from", str(finished)]) == 2
    error = capsys.readouterr().err  # it names only the arguments that differ
    assert "the recipe has hidden_channels=8, the model to start from hidden_channels=" in error
    assert main([*arguments, "--init-from", str(tmp_path), "--out", str(tmp_path / "none")]) == 2
    assert "is not the folder of a run or a model; did you mean" in capsys.readouterr().err
    assert not (tmp_path / "other").exists() and not (tmp_path / "none").exists()


def test_a_trained_model_starts_only_with_the_zero_of_its_labels(recipe, finished, frames, tmp_path, capsys):
    """It keeps its offset: total energies need the energies of the isolated atoms, which it then adds."""
    clusters = ase.io.read(frames, ":")
    for atoms in clusters:
        atoms.info["binding"] -= 52000.0 * len(atoms)
    write_extxyz(tmp_path / "total.extxyz", clusters)
    arguments = ["train", "--config", str(recipe), "--data.dataset.files", f"[{tmp_path / 'total.extxyz'}]"]
    arguments += ["--data.dataset.root", str(tmp_path / "data"), "--trainer.max_epochs", "1"]
    arguments += ["--init-from", str(finished), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "different zero from the model" in error and "Ga -5.2e+04 eV per atom" in error and "(references)" in error
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--data.dataset.references", "{Ga: -52000.0}"]) == 0
    before, after = Predictor(str(finished))(clusters[:5]), Predictor(str(tmp_path / "run"))(clusters[:5])
    shift = after.energy - before.energy
    assert shift.numpy() == pytest.approx([-52000.0 * len(atoms) for atoms in clusters[:5]], abs=5.0)


def test_domain_is_widened_by_known_elements_only():
    domain = TrainingDomain()
    domain.widen(torch.full((9,), 31), torch.tensor([0, 4, 9]))
    assert (domain.atomic_numbers, domain.size_range) == ([31], (4, 5))
    domain.widen(torch.full((11,), 31), torch.tensor([0, 3, 11]))
    assert domain.size_range == (3, 8)
    with pytest.raises(InputError, match=r"elements \[11\]"):
        domain.widen(torch.full((3,), 11), torch.tensor([0, 3]))


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """20 structures, each three times: rotated, reordered and displaced by 0.01 Å; a segment has one of each."""
    generator = torch.Generator().manual_seed(6)
    rng = np.random.default_rng(6)
    clusters = atoms_of(*random_clusters((9, 12) * 10, 31, generator))
    frames = []
    for number in range(3):
        for structure, cluster in enumerate(clusters):
            atoms = cluster[rng.permutation(len(cluster))]
            atoms.rotate(rng.uniform(0, 180), rng.normal(size=3))
            atoms.positions += rng.normal(0, 0.01, atoms.positions.shape) + 7.0 * number
            atoms.info = {"binding": -2.0 * len(atoms), "structure": structure, "pair": f"{number}-{structure // 2}"}
            frames.append(atoms)
    path = tmp_path_factory.mktemp("copied") / "copied.extxyz"
    write_extxyz(path, frames)
    return path


def structures_of_parts(data: ClusterDataModule) -> list[set[int]]:
    kept = data.batches.stored(list(range(len(data.batches))))["structure"]
    return [set(kept[part].tolist()) for part in (data.split.train, data.split.val, data.split.test)]


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("split", ["random", "group", "fold", "size"])
def test_copies_are_kept_together(copied, tmp_path, split, on_disk):
    """No structure is in two parts, and groups of the data set are not divided."""
    asked = {"target": "binding", "group": "pair", "keep": ["structure"]}
    if on_disk:
        names = ["binding", "pair", "structure"]
        write_store(tmp_path / "copied.h5", Frames.open(copied, properties=names), compressed=False)
        dataset = OnDiskClusters(tmp_path / "copied.h5", **asked)
    else:
        dataset = ClusterDataset(tmp_path, copied, **asked)
    options = {"split": split, "held_out_sizes": [9], "fractions": (0.6, 0.2, 0.2), "split_seed": 1}
    data = ClusterDataModule(dataset, copies_together=True, **options)
    parts = structures_of_parts(data)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    by_group = split in ("group", "fold")
    independent = {structure // 2 for structure in parts[1]} if by_group else parts[1]
    assert len(set(data.groups(data.split.val))) == len(independent) < len(data.split.val)
    if by_group:  # a group has one structure of each size
        assert {structure // 2 for structure in parts[0]}.isdisjoint(structure // 2 for structure in parts[2])
    if split == "random":
        parts = structures_of_parts(ClusterDataModule(dataset, **options))
        assert sum(map(len, parts)) > 20


def test_a_training_counts_copies_across_its_split(copied, tmp_path, capsys):
    arguments = [
        "train",
        "--data.dataset",
        "pyg_clusters.datasets.ClusterDataset",
        "--data.dataset.root",
        str(tmp_path),
    ]
    arguments += ["--data.dataset.files", str([str(copied)]), "--data.dataset.target", "binding"]
    arguments += ["--data.split", "random", "--model.model", "pyg_clusters.models.DART", "--trainer.max_epochs", "1"]
    assert main([*arguments, "--out", str(tmp_path / "random")]) == 0
    split = Split.load(tmp_path / "random" / "splits")
    parts = [{number % 20 for number in part.tolist()} for part in (split.train, split.val, split.test)]
    known = [sum(number % 20 in parts[0] for number in part.tolist()) for part in (split.val, split.test)]
    assert min(known) > 0
    said = capsys.readouterr().out
    assert f"warning: {known[0]} of 6 validation clusters and {known[1]} of 6 test clusters are copies" in said
    assert "--data.copies_together true" in said
    assert main([*arguments, "--data.copies_together", "true", "--out", str(tmp_path / "together")]) == 0
    assert "are copies" not in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "together")]) == 0
    assert main(["train", "--resume", str(tmp_path / "together"), "--trainer.max_epochs", "2"]) == 0


def test_the_split_of_a_paper_holds_no_copies_together(dataset):
    with pytest.raises(InputError, match="leave out copies_together"):
        ClusterDataModule(dataset, split="paper", copies_together=True)


def test_energies_per_atom_give_a_warning(recipe, frames, tmp_path, capsys):
    """Under a name that does not tell: -2.5 eV per atom in clusters of 5 to 11 atoms."""
    clusters = ase.io.read(frames, ":")
    for number, atoms in enumerate(clusters):
        atoms.info["binding"] = -2.5 - 0.001 * number
    write_extxyz(tmp_path / "per_atom.extxyz", clusters)
    arguments = ["train", "--config", str(recipe), "--data.dataset.root", str(tmp_path), "--trainer.max_epochs", "1"]
    files = ["--data.dataset.files", f"[{tmp_path / 'per_atom.extxyz'}]"]
    assert main([*arguments, *files, "--out", str(tmp_path / "a")]) == 0
    assert "the energies hardly change with the number of atoms" in "".join(capsys.readouterr())
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 0
    assert "hardly change" not in "".join(capsys.readouterr())
