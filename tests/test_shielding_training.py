"""Training on shieldings per atom: the loss, the selected model, and a complete run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from ase.io import read
from helpers import atoms_of, refused
from safetensors.torch import load_file
from torch_geometric.data import Batch

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.evaluation.comparison import Compared, evaluation_of
from pyg_clusters.frames import write_extxyz
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference import Predictor
from pyg_clusters.losses import SortedPenaltyLoss
from pyg_clusters.models import DART, NodeSchNet
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import ClusterDataModule, ShieldingTraining
from pyg_clusters.transforms.neighbors import running_coordination

EPOCHS = 5
RECIPE = Path(__file__).parents[1] / "train" / "sodium_node_schnet.yaml"


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """40 clusters of 5 to 9 atoms; the shielding falls with the square of the coordination number."""
    generator = torch.Generator().manual_seed(7)
    sizes = tuple(torch.randint(5, 10, (40,), generator=generator).tolist())
    z, pos, ptr = random_clusters(sizes, 11, generator)
    y = 630 - 2 * running_coordination(pos, ptr, [3.6], 0.2).squeeze(-1) ** 2
    clusters = atoms_of(z, pos, ptr)
    for number, (atoms, sigma) in enumerate(zip(clusters, y.split(ptr.diff().tolist()), strict=True)):
        atoms.info = {"segment": f"s{number}", "total": -1.0 * number}
        atoms.arrays["sigma"] = sigma.numpy()
    path = tmp_path_factory.mktemp("frames") / "shieldings.extxyz"
    write_extxyz(path, clusters)
    return path


@pytest.fixture(scope="module")
def dataset(frames, tmp_path_factory) -> ClusterDataset:
    return ClusterDataset(tmp_path_factory.mktemp("root"), frames, target="sigma", per_atom=True, group="segment")


@pytest.fixture(scope="module")
def recipe(frames, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    data = {"root": str(folder), "files": [str(frames)], "target": "sigma", "per_atom": True, "group": "segment"}
    network = {"hidden_channels": 16, "num_filters": 16, "num_gaussians": 10}
    configuration = {
        "seed_everything": 3,
        "data": {
            "dataset": {"class_path": "pyg_clusters.datasets.ClusterDataset", "init_args": data},
            "split": "fold",
            "fold": 1,
            "batch_size": 8,
        },
        "model": {
            "class_path": "pyg_clusters.training.ShieldingTraining",
            "init_args": {
                "model": {"class_path": "pyg_clusters.models.NodeSchNet", "init_args": network},
                "loss": {"class_path": "pyg_clusters.losses.SortedPenaltyLoss", "init_args": {"a": 3.0}},
            },
        },
        "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return path


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "--config", str(recipe), "--out", str(run)]) == 0
    return run


def some(dataset, clusters=(0, 1, 2, 3)) -> Batch:
    return ClusterBatches(dataset)[list(clusters)]


@pytest.mark.parametrize("transform", [False, True])
def test_loss_is_that_of_standardised_values(dataset, transform):
    data = some(dataset, range(10))
    model = NodeSchNet(16, 16, transform=transform)
    module = ShieldingTraining(model, loss=SortedPenaltyLoss(3.0))
    module.fit_scales([data])
    predicted = module(data)
    raw = model.raw(data.z, data.pos, data.batch)
    expected = SortedPenaltyLoss(3.0)(raw, model.scale.standardize(data.y))
    torch.testing.assert_close(module.loss_of(predicted, data), expected, rtol=1e-4, atol=1e-4)
    if not transform:  # the loss in ppm, except for a factor
        in_ppm = SortedPenaltyLoss(3.0)(predicted, data.y)
        torch.testing.assert_close(model.scale.scale**2 * module.loss_of(predicted, data), in_ppm, rtol=1e-4, atol=0)
    assert model.domain.atomic_numbers == [11]
    gradient = torch.autograd.grad(module.loss_of(predicted, data), model.lin2.bias)[0]
    assert gradient.isfinite().all() and gradient.abs() > 0


def test_losses_that_take_clusters_get_them(dataset):
    data = some(dataset)
    module = ShieldingTraining(NodeSchNet(16, 16), loss=SortedPenaltyLoss(3.0, "graph"))
    module.fit_scales([data])
    predicted, scale = module(data), module.model.scale
    expected = SortedPenaltyLoss(3.0, "graph")(scale.standardize(predicted), scale.standardize(data.y), data.batch)
    torch.testing.assert_close(module.loss_of(predicted, data), expected)


def test_model_without_a_scale_is_compared_in_ppm(dataset):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(600.0))

        def forward(self, z, pos, batch):
            return self.value.expand(z.numel())

    data = some(dataset)
    module = ShieldingTraining(Constant())
    torch.testing.assert_close(module.loss_of(module(data), data), (600 - data.y).square().mean())


def test_run_keeps_the_model_of_the_smallest_validation_loss(finished, dataset):
    history = read_columns(finished / "metrics.csv")
    assert history["epoch"].tolist() == list(range(EPOCHS))
    best = history["val_loss"].argmin()
    notes = json.loads((finished / "best" / "model.json").read_text())["notes"]
    assert notes["epoch"] == best and notes["val_rmse_ppm"] == pytest.approx(history["val_rmse"][best], rel=1e-5)
    module = ClusterDataModule(dataset, finished / "splits")
    data = module.batches[module.split.val.tolist()]
    model = load_model(finished)
    with torch.no_grad():
        error = model(data.z, data.pos, data.batch) - data.y
    assert float(error.square().mean().sqrt()) == pytest.approx(history["val_rmse"][best], rel=1e-4)
    assert float(error.abs().mean()) == pytest.approx(history["val_mae"][best], rel=1e-4)
    loss = ShieldingTraining(model, loss=SortedPenaltyLoss(3.0)).loss_of(error + data.y, data)
    assert float(loss) == pytest.approx(history["val_loss"][best], rel=1e-3)
    assert model.domain.atomic_numbers == [11]


def test_errors_of_the_test_set_are_in_ppm_per_atom(finished, dataset, capsys):
    table = read_columns(finished / "test_predictions.csv")
    clusters = dict.fromkeys(table["idx"].astype(int).tolist())
    data = ClusterBatches(dataset)[list(clusters)]
    np.testing.assert_allclose(table["nmr_shielding"], data.y, rtol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(
            table["pred_nmr_shielding"], load_model(finished)(data.z, data.pos, data.batch), rtol=1e-5
        )
    metrics = json.loads((finished / "test_metrics.json").read_text())
    error = table["pred_nmr_shielding"] - table["nmr_shielding"]
    assert metrics["overall"]["mae_ppm"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert sum(row["num_atoms"] for row in metrics["by_size"]) == len(error) == metrics["overall"]["num_atoms"]
    assert main(["evaluate", str(finished)]) == 0
    assert "RMSE (ppm)" in capsys.readouterr().out


def test_resumed_equals_uninterrupted(recipe, finished, tmp_path):
    run = tmp_path / "stopped"
    assert main(["train", "--config", str(recipe), "--out", str(run), "--trainer.max_epochs", "3"]) == 0
    for name in ("finished.json", "test_metrics.json"):
        (run / name).unlink(missing_ok=True)
    assert main(["train", "--resume", str(run), "--trainer.max_epochs", str(EPOCHS)]) == 0
    assert (run / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()
    whole, resumed = (load_file(folder / "best" / "model.safetensors") for folder in (finished, run))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_noise_on_the_positions_is_that_of_the_step(recipe, finished, tmp_path):
    perturbed, again = tmp_path / "perturbed", tmp_path / "again"
    for run in (perturbed, again):
        arguments = ["--out", str(run), "--model.position_noise", "0.1", "--trainer.max_epochs", "2"]
        assert main(["train", "--config", str(recipe), *arguments]) == 0
    losses = [read_columns(run / "metrics.csv")["train_mae"].tolist() for run in (perturbed, again, finished)]
    assert losses[0] == losses[1] and losses[0][0] != losses[2][0]


def test_options_reach_into_the_named_class(recipe, tmp_path):
    run = tmp_path / "run"
    options = ["--model.init_args.loss.init_args.a", "0", "--model.init_args.model.init_args.transform", "true"]
    options += ["--trainer.max_epochs", "1"]
    assert main(["train", "--config", str(recipe), "--out", str(run), *options]) == 0
    saved = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert saved["init_args"]["loss"]["init_args"]["a"] == 0
    assert load_model(run).scale.transform is not None


def test_energies_are_refused(recipe, tmp_path, capsys):
    options = ["--data.dataset.init_args.per_atom", "false", "--data.dataset.init_args.target", "total"]
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run"), *options]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "needs a target per atom" in error
    assert not (tmp_path / "run").exists()


def test_shieldings_are_not_energies(finished, frames, tmp_path, capsys):
    assert main(["screen", str(finished), str(frames), "--out", str(tmp_path / "screening")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "it is not an energy model" in error


def test_predict_has_a_row_per_atom(finished, frames, dataset, tmp_path):
    out = tmp_path / "p.parquet"
    assert main(["predict", str(finished), str(frames), "--out", str(out)]) == 0
    table = pyarrow.parquet.read_table(out).to_pydict()
    data = some(dataset, range(len(dataset)))
    expected = Predictor(load_model(finished))(data.z, data.pos, data.ptr).shielding
    np.testing.assert_allclose(table["pred_nmr_shielding"], expected, rtol=1e-5)
    assert table["source_frame"] == data.batch.tolist() and set(table["source_file"]) == {str(frames)}
    assert table["size"] == data.ptr.diff()[data.batch].tolist()
    assert table["atom"] == (torch.arange(data.z.numel()) - data.ptr[data.batch]).tolist()


def test_predict_adds_an_array_to_frames(finished, frames, dataset, tmp_path):
    out = tmp_path / "p.extxyz"
    assert main(["predict", str(finished), str(frames), "--out", str(out)]) == 0
    written = read(out, ":")
    data = some(dataset, range(len(dataset)))
    expected = Predictor(load_model(finished))(data.z, data.pos, data.ptr).shielding
    found = np.concatenate([atoms.arrays["pred_nmr_shielding"] for atoms in written])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(np.concatenate([atoms.arrays["sigma"] for atoms in written]), data.y, atol=1e-3)
    assert [atoms.info["source_frame"] for atoms in written] == list(range(40)) and "pred_energy" not in written[0].info


def test_evaluate_on_labelled_frames(finished, frames, dataset, tmp_path, capsys):
    out = tmp_path / "errors.json"
    command = ["evaluate", str(finished), str(frames), "--target", "sigma", "--device", "cpu"]
    assert main([*command, "--out", str(out)]) == 0
    data = some(dataset, range(len(dataset)))
    error = Predictor(load_model(finished))(data.z, data.pos, data.ptr).shielding - data.y
    overall = json.loads(out.read_text())["overall"]
    assert overall["rmse_ppm"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)
    assert "RMSE (ppm)" in capsys.readouterr().out
    assert main(["evaluate", str(finished), str(frames)]) == 0  # by the key of its own run
    assert f"{overall['rmse_ppm']:.1f}"[:4] in capsys.readouterr().out
    assert main(["evaluate", str(finished), str(frames), "--target", "nmr_shielding"]) == 2
    assert "no property 'nmr_shielding' per atom" in capsys.readouterr().err


def test_evaluate_names_the_atom_without_a_number(finished, frames, tmp_path, capsys):
    clusters = read(frames, ":3")
    clusters[1].arrays["sigma"][4] = np.nan
    write_extxyz(tmp_path / "some.extxyz", clusters)
    assert main(["evaluate", str(finished), str(tmp_path / "some.extxyz"), "--target", "sigma"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "some.extxyz, frame 1: 'sigma' of atom 4 must be a number, got nan" in error
    assert main(["evaluate", str(finished), str(tmp_path / "some.extxyz"), "--on-bad", "skip"]) == 0
    captured = capsys.readouterr()
    assert "some.extxyz, frame 1: 'sigma' of atom 4 is nan" in captured.err
    used = len(clusters[0]) + len(clusters[2])
    assert re.search(rf"atoms\W+{used}\W", captured.out)


def test_evaluate_counts_copies_of_training_clusters(finished, frames, tmp_path, capsys):
    clusters, errors = read(frames, ":"), tmp_path / "errors.json"
    train = [int(line) for line in (finished / "splits" / "train.txt").read_text().split()]
    assert main(["evaluate", str(finished), str(frames), "--target", "sigma", "--out", str(errors)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"warning: {len(train)} of these {len(clusters)} clusters are copies of structures" in said
    new = np.concatenate([np.full(len(atoms), number not in train) for number, atoms in enumerate(clusters)])
    difference = Predictor(str(finished))(clusters).shielding.numpy() - np.concatenate(
        [c.arrays["sigma"] for c in clusters]
    )
    found = json.loads(errors.read_text())["new_structures"]
    assert found["num_atoms"] == new.sum() and found["mae_ppm"] == pytest.approx(
        np.abs(difference[new]).mean(), rel=1e-5
    )
    assert main(["evaluate", str(finished / "best"), str(frames), "--target", "sigma"]) == 0
    assert "the training set of the model is not available" in capsys.readouterr().out


def test_shifts_are_not_shieldings(finished, recipe, frames, tmp_path, capsys):
    """A shift is the shielding of a standard minus that of the atom: its sign is the other."""
    clusters = read(frames, ":")
    for atoms in clusters:
        atoms.arrays["Na_shift"] = 552.8 - atoms.arrays["sigma"]
    write_extxyz(tmp_path / "shifts.extxyz", clusters)
    files = ["--data.dataset.files", f"[{tmp_path / 'shifts.extxyz'}]", "--data.dataset.root", str(tmp_path)]
    train = [
        "train",
        "--config",
        str(recipe),
        *files,
        "--data.dataset.target",
        "Na_shift",
        "--out",
        str(tmp_path / "r"),
    ]
    assert "the target 'Na_shift' is a chemical shift by its name" in refused(train, capsys)
    spectrum = ["spectrum", finished, tmp_path / "shifts.extxyz", "--target", "Na_shift", "--out", tmp_path / "s"]
    assert "--target is 'Na_shift', a chemical shift by its name; give the shielding" in refused(spectrum, capsys)
    assert main(["evaluate", str(finished), str(tmp_path / "shifts.extxyz"), "--target", "Na_shift"]) == 0
    assert "warning: the labels decrease where the predicted shieldings increase" in "".join(capsys.readouterr())
    assert main(["evaluate", str(finished), str(tmp_path / "shifts.extxyz"), "--target", "sigma"]) == 0
    assert "the labels decrease" not in "".join(capsys.readouterr())


def test_evaluate_uses_the_device(finished, frames, capsys):
    for arguments in ([], [str(frames), "--target", "sigma"]):
        assert main(["evaluate", str(finished), *arguments, "--device", "warp"]) == 2
        assert "device warp cannot be used" in capsys.readouterr().err


def test_unknown_options_are_one_line(recipe, tmp_path, capsys):
    code = main(["train", "--config", str(recipe), "--out", str(tmp_path / "run"), "--model.init_args.los", "x"])
    error = capsys.readouterr().err
    assert code == 2 and len(error.strip().splitlines()) == 1 and "los" in error


def test_recipe_trains(tmp_path):
    run = tmp_path / "run"
    options = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--data.fold", "3"]
    assert main(["train", "--config", str(RECIPE), "--out", str(run), *options]) == 0
    metrics = json.loads((run / "test_metrics.json").read_text())["overall"]
    assert 550 < metrics["target_peak_ppm"] < 640 and metrics["num_atoms"] > 100


@pytest.mark.slow
def test_two_processes_agree_with_one(recipe, finished, tmp_path):
    run = tmp_path / "two"
    arguments = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    command = [sys.executable, "-m", "pyg_clusters", "train", "--config", str(recipe), "--out", str(run), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    one, two = read_columns(finished / "metrics.csv"), read_columns(run / "metrics.csv")
    for column in ("train_mae", "val_mae", "val_rmse", "val_loss"):
        np.testing.assert_allclose(two[column], one[column], rtol=5e-3)


@pytest.mark.parametrize("transform", [False, True])
def test_predictor_equals_the_model(dataset, transform):
    data = some(dataset, range(12))
    model = NodeSchNet(16, 16, transform=transform)
    model.scale.fit(data.z, data.ptr, data.y)
    predictor = Predictor(model, max_atoms=20)
    with torch.no_grad():
        expected = model(data.z, data.pos, data.batch)
    torch.testing.assert_close(predictor(data.z, data.pos, data.ptr).shielding, expected, rtol=1e-5, atol=1e-3)
    far = data.pos.double() + 1e4
    torch.testing.assert_close(predictor(data.z, far, data.ptr).shielding, expected, rtol=1e-5, atol=1e-3)


def test_model_of_energies_is_refused(dataset):
    data = some(dataset)
    prediction = Predictor(DART())(data.z, data.pos, data.ptr)
    assert not prediction.per_atom and prediction.energy.shape == (4,)
    with pytest.raises(ValueError, match="DART gives a value per cluster: it is not a model of shieldings"):
        _ = prediction.shielding


def test_frames_of_one_atom_do_not_hide_what_a_model_gives(generator):
    z, pos, ptr = random_clusters((1, 3, 1, 1), 11, generator)
    prediction = Predictor(NodeSchNet(16, 16))(z, pos, ptr)
    assert prediction.per_atom and prediction.shielding.shape == (6,)
    alone = Predictor(NodeSchNet(16, 16))(z[:1], pos[:1], ptr[:2])
    assert alone.shielding.equal(alone.energy)


def test_further_arrays_of_a_model(dataset):
    class Charged(torch.nn.Module):
        def forward(self, z, pos, batch, *, charge=None):
            return pos.norm(dim=1) * 0 + (0 if charge is None else charge)

    data = some(dataset, range(12))
    charge = torch.arange(data.z.numel(), dtype=torch.float)
    found = Predictor(Charged(), max_atoms=20)(data.z, data.pos, data.ptr, {"charge": charge})
    assert found.shielding.equal(charge)


def test_a_model_that_gives_neither_is_refused(dataset):
    class Odd(torch.nn.Module):
        def forward(self, z, pos, batch):
            return pos

    data = some(dataset)
    with pytest.raises(ValueError, match=r"Odd returns .* neither a value per frame nor one per atom"):
        Predictor(Odd())(data.z, data.pos, data.ptr)


def test_shieldings_are_not_trained_as_energies(tmp_path, capsys):
    arguments = ["--data.dataset", "pyg_clusters.datasets.SodiumShielding", "--model.model", "pyg_clusters.models.DART"]
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "needs a target per cluster" in error and "ShieldingTraining" in error
    assert not (tmp_path / "run").exists()


def test_nuclei_of_several_elements_have_their_own_distributions(capsys):
    """Sodium at 600 and potassium at 1300 ppm: the errors of both are 10 ppm, and no peak lies between them."""
    z = np.array([11, 19] * 6)
    target = np.where(z == 11, 600.0, 1300.0) + np.arange(12) // 2
    sizes = np.array([0, 4, 12])
    compared = Compared(target + 10.0, target, None, z, None, sizes, np.arange(2), True)
    evaluation = evaluation_of("t", compared)
    assert [evaluation.further[symbol]["num_atoms"] for symbol in ("Na", "K")] == [6, 6]
    assert evaluation.further["K"]["target_peak_ppm"] == pytest.approx(1302.5, abs=2)
    evaluation.print()
    assert re.search(r"all .* Na .* K .* 4 atoms .* 8 atoms", capsys.readouterr().out)
    compared.z = np.full(12, 11)
    assert not evaluation_of("t", compared).further
