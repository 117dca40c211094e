"""The recipes for a user's own files: one command from what programs write to a trained model."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.io import write

from pyg_clusters.cli.main import main

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
    assert np.abs(rows["pred_energy"] - rows["energy"]).max() < 100  # on the scale of the labels


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
        atoms.calc.atoms = atoms.copy()  # what was calculated is that of the wrapped atoms, too
        atoms.calc.results = results
    write(tmp_path / "box.extxyz", frames)
    whole = train("own_forces.yaml", tmp_path / "whole.extxyz", tmp_path / "whole")
    assert "joined" not in capsys.readouterr().err
    box = train("own_forces.yaml", tmp_path / "box.extxyz", tmp_path / "box")
    assert "joined 20 of 20 frames" in capsys.readouterr().err
    for part, error in (("overall", "mae_kcal_mol"), ("forces", "mae_mev_per_angstrom")):
        assert box[part][error] == pytest.approx(whole[part][error], rel=1e-3)
