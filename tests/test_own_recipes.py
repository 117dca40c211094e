"""Recipes for own files, from the output of programs to a trained model, and one epoch of every recipe."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.io import write

from pyg_clusters.cli import main
from pyg_clusters.inference.run import Run
from pyg_clusters.shipped import shipped_frames, shipped_recipes

RECIPES = Path(__file__).parents[1] / "train"
SMALL = ["--trainer.max_epochs", "1", "--model.model.hidden_channels", "8", "--model.model.degree", "1"]


def rattled(num: int) -> list[Atoms]:
    rng = np.random.default_rng(0)
    frames = [Icosahedron("Au", 2) for _ in range(num)]
    for atoms in frames:
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_forces()
    return frames


def train(recipe: str, files: Path, out: Path, *options: str) -> dict:
    root = ["--data.dataset.root", str(out) + "_processed"]
    arguments = ["--data.dataset.files", str(files), *root, *SMALL, *options, "--out", str(out)]
    assert main(["train", "--config", str(RECIPES / recipe), *arguments]) == 0
    return json.loads((out / "test_metrics.json").read_text())


def test_energies_of_a_folder_with_lone_numbers_in_the_comment_lines(tmp_path):
    (tmp_path / "structures").mkdir()
    energies = []
    for number, atoms in enumerate(rattled(20)):
        energies.append(atoms.get_potential_energy() - 1550)
        path = tmp_path / "structures" / f"{number}.xyz"
        write(path, Atoms(atoms.symbols, atoms.positions), format="xyz", comment=f"{energies[-1]:.6f}")
    train("own_energies.yaml", tmp_path / "structures", tmp_path / "run", "--data.dataset.target", "comment")
    rows = np.genfromtxt(tmp_path / "run" / "test_predictions.csv", delimiter=",", names=True)
    assert rows["energy"] == pytest.approx(np.array(energies)[rows["idx"].astype(int)], abs=1e-6)
    assert np.abs(rows["pred_energy"] - rows["energy"]).max() < 100  # with the zero of the labels


def test_minima_alone_train_with_forces_of_zero(tmp_path, capsys):
    write(tmp_path / "minima.extxyz", [Atoms(atoms.symbols, atoms.positions) for atoms in rattled(20)])
    table = "\n".join(f"minima.extxyz,{frame},{-40.0 - frame},eV" for frame in range(20))
    (tmp_path / "energies.csv").write_text(f"file,frame,energy,unit\n{table}\n")
    small = ["--model.init_args.model.init_args." + option for option in ("hidden_channels=8", "degree=1")]
    files = [
        "--data.dataset.files",
        str(tmp_path / "minima.extxyz"),
        "--data.dataset.labels",
        str(tmp_path / "energies.csv"),
    ]
    options = [*files, "--data.dataset.root", str(tmp_path / "processed"), *small, "--trainer.max_epochs", "2"]
    assert main(["train", "own-minima", *options, "--out", str(tmp_path / "run")]) == 0
    data = Run(tmp_path / "run").data.batches.stored(list(range(20)))
    assert data.force.shape == data.pos.shape and not data.force.any()
    assert "forces" in json.loads((tmp_path / "run" / "test_metrics.json").read_text())


@pytest.mark.filterwarnings("default:joined")
def test_frames_that_a_box_cuts_train_as_whole_clusters_do(tmp_path, capsys):
    frames = rattled(20)
    write(tmp_path / "whole.extxyz", frames)
    for atoms in frames:
        atoms.set_cell([20.0, 20.0, 20.0])
        atoms.pbc = True
        atoms.positions -= atoms.positions.mean(axis=0)
        results = atoms.calc.results
        atoms.wrap()
        atoms.calc.atoms = atoms.copy()  # results of the wrapped atoms are kept
        atoms.calc.results = results
    write(tmp_path / "box.extxyz", frames)
    whole = train("own_forces.yaml", tmp_path / "whole.extxyz", tmp_path / "whole")
    assert "joined" not in capsys.readouterr().err
    assert Run(tmp_path / "whole").notes["val_force_mae_mev_per_angstrom"] > 0  # export: the forces were trained
    box = train("own_forces.yaml", tmp_path / "box.extxyz", tmp_path / "box")
    assert "joined 20 of 20 frames" in capsys.readouterr().err
    for part, error in (("overall", "mae_kcal_mol"), ("forces", "mae_mev_per_angstrom")):
        assert box[part][error] == pytest.approx(whole[part][error], rel=1e-3)


def logged(logs: Path, logger: str, name: str) -> list[float]:
    """Values that a logger wrote, one per epoch."""
    if logger == "CSVLogger":
        rows = csv.DictReader((logs / "metrics.csv").read_text().splitlines())
        return [float(row[name]) for row in rows if row[name]]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


@pytest.mark.parametrize("logger", ["CSVLogger", "TensorBoardLogger"])
def test_a_logger_by_name_writes_the_errors_of_every_epoch(logger, tmp_path):
    if logger == "TensorBoardLogger":
        pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    write(tmp_path / "frames.extxyz", rattled(20))
    options = ["--trainer.logger", logger, "--trainer.logger.save_dir", str(tmp_path / "run")]
    options += ["--trainer.logger.name", "logs", "--trainer.logger.version", "0", "--trainer.max_epochs", "2"]
    train("own_energies.yaml", tmp_path / "frames.extxyz", tmp_path / "run", *options)
    rows = csv.DictReader((tmp_path / "run/metrics.csv").read_text().splitlines())
    expected = [float(row["val_mae"]) for row in rows]
    assert len(expected) == 2
    assert logged(tmp_path / "run/logs/version_0", logger, "val_mae") == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Frame store of the gallium minima, for the recipe that trains from disk."""
    path = tmp_path_factory.mktemp("store") / "minima.h5"
    properties = ["--properties", "binding_energy", "group"]
    assert main(["convert", "gallium_minima", "--out", str(path), "--uncompressed", *properties]) == 0
    return path


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(shipped_recipes()))
def test_an_epoch_of_every_recipe(recipe, store, tmp_path):
    """Train on 256 clusters, and evaluate the whole test set."""
    frames = {
        "own-energies": "gallium_md_46_quenched",
        "own-minima": "gallium_md_46_quenched",
        "own-forces": "gallium_forces",
        "nanoparticles": "gallium_forces",
    }
    options = []
    if recipe in frames:
        own = ["--data.dataset.files", str(shipped_frames()[frames[recipe]]), "--data.dataset.target", "binding_energy"]
        options = [*own, "--data.dataset.root", str(tmp_path / "processed")]
    if recipe == "dart-on-disk":
        options = ["--data.dataset.file", str(store)]
    short = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "3", "--data.max_train_clusters", "256"]
    out = tmp_path / "run"
    assert main(["train", recipe, *short, *options, "--out", str(out)]) == 0
    overall = json.loads((out / "test_metrics.json").read_text())["overall"]
    assert np.isfinite(overall.get("mae_kcal_mol", overall.get("mae_ppm")))
