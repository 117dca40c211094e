"""Recipes and shipped data by name, and recipes written for a user's files."""

from itertools import islice

import numpy as np
import pytest
import yaml
from ase import Atoms

from pyg_clusters.analysis.pair_distribution import PairDistribution
from pyg_clusters.cli import main
from pyg_clusters.frames import read_atoms, write_extxyz
from pyg_clusters.shipped import shipped_frames, shipped_recipes
from pyg_clusters.training.new_recipe import smooth_dart_arguments
from pyg_clusters.training.recipes import with_recipe

FEW = "trainer: {max_epochs: 1, limit_train_batches: 2}\ndata: {batch_size: 4}\n"
CASES = {
    "gallium_forces": ("ForceTraining", "SmoothDART", "forces     forces", "by group"),
    "copper_gold_minima": ("EnergyTraining", "AlloyDART", "elements   Cu, Au", "by group"),
    "gallium_md_57": ("EnergyTraining", "SmoothDART", "of 57 atoms", "random"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Every 50th of the first frames of some shipped files."""
    folder = tmp_path_factory.mktemp("own")
    for name in CASES:
        frames = [frame.atoms for frame in islice(read_atoms([name]), 0, 1000, 20 if name == "gallium_md_57" else 12)]
        write_extxyz(folder / f"{name}.extxyz", frames)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_for_own_files_trains(name, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new-recipe", str(files / f"{name}.extxyz"), "--out", "recipe.yaml"]) == 0
    training, model, *facts = CASES[name]
    text, said = (tmp_path / "recipe.yaml").read_text(), capsys.readouterr().out
    assert all(fact in text and fact in said for fact in facts) and len(text.splitlines()) <= 32
    recipe = yaml.safe_load(text)
    assert recipe["model"]["class_path"].endswith(training)
    assert recipe["model"]["init_args"]["model"]["class_path"].endswith(model)
    (tmp_path / "few.yaml").write_text(FEW)
    assert main(["train", "recipe.yaml", "--config", "few.yaml", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "best validation MAE" in said and "next: pyg-clusters predict" in said
    assert main(["new-recipe", str(files / f"{name}.extxyz"), "--out", "recipe.yaml"]) == 2  # it exists


def test_shieldings_of_an_alloy_train_the_most_accurate_model(files, tmp_path, capsys, monkeypatch):
    """A ShieldingDART that distinguishes the elements."""
    monkeypatch.chdir(tmp_path)
    frames = [
        Atoms(frame.atoms.numbers, frame.atoms.positions) for frame in read_atoms([files / "gallium_forces.extxyz"])
    ]
    for atoms in frames:
        atoms.numbers[::2] = 49
        atoms.set_array("nmr_shielding", 3000.0 + 10 * (atoms.get_all_distances() < 3.2).sum(1))
    write_extxyz("shieldings.extxyz", frames)
    assert main(["new-recipe", "shieldings.extxyz", "--out", "recipe.yaml"]) == 0
    assert "NodeSchNet" in (tmp_path / "recipe.yaml").read_text()
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())["model"]
    assert recipe["class_path"].endswith("ShieldingTraining")
    model = recipe["init_args"]["model"]
    assert model["class_path"].endswith("ShieldingDART") and model["init_args"]["elements"] == [31, 49]
    (tmp_path / "few.yaml").write_text(FEW)
    assert main(["train", "recipe.yaml", "--config", "few.yaml", "--out", "run"]) == 0
    assert "best validation MAE" in capsys.readouterr().out


def test_shieldings_of_sodium_train_with_extended_huckel_features(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["new-recipe", "sodium_shielding", "--target", "nmr_shielding", "--out", "recipe.yaml"]
    assert main(arguments) == 0
    model = yaml.safe_load((tmp_path / "recipe.yaml").read_text())["model"]["init_args"]["model"]
    assert model["class_path"].endswith("NodeSchNet") and model["init_args"]["extended_huckel"]
    (tmp_path / "few.yaml").write_text(FEW)
    assert main(["train", "recipe.yaml", "--config", "few.yaml", "--out", "run"]) == 0
    assert "best validation MAE" in capsys.readouterr().out


def test_radii_follow_the_bond_length(files, tmp_path):
    """Cluster scaled by 1.3: the radii too."""
    frames = [frame.atoms for frame in read_atoms([files / "gallium_md_57.extxyz"])]
    for atoms in frames:
        atoms.positions *= 1.3
        atoms.calc = None
    write_extxyz(tmp_path / "wide.extxyz", frames)
    radii, widths = [], []
    for file in (files / "gallium_md_57.extxyz", tmp_path / "wide.extxyz"):
        assert main(["new-recipe", str(file), "--out", str(tmp_path / "r.yaml"), "--overwrite"]) == 0
        recipe = yaml.safe_load((tmp_path / "r.yaml").read_text())
        arguments = recipe["model"]["init_args"]["model"]["init_args"]
        radii.append(arguments["radii"] + arguments["descriptor_radii"])
        widths.append(arguments["width"])
        assert arguments["degree"] == 4  # there are no forces
    assert radii[1] == pytest.approx([1.3 * radius for radius in radii[0]], rel=0.02)
    assert widths == pytest.approx([1.2, 1.3 * 1.2], rel=0.05)  # of gallium


def test_no_radius_lies_where_no_pair_of_the_data_is():
    """Bonds of 3.0 Å, 2.9 Å at the least: the boundaries of 0.56 and 0.74 bonds end at 2.3 and 2.88 Å."""
    r = np.arange(0.025, 12, 0.05)
    distribution = PairDistribution(r, np.where(abs(r - 3.0) < 0.1, 1.0, 0.0), 2.9)
    arguments = smooth_dart_arguments(distribution, forces=True)
    assert arguments["radii"] == pytest.approx([3.99, 6.66], abs=0.08) and arguments["degree"] == 5
    width, inner = arguments["width"], arguments["descriptor_radii"][0]
    assert inner + width / 2 > 2.9 > 0.74 * 3.0 + width / 2


def test_a_folder_of_files_with_an_energy_each(files, tmp_path, capsys):
    """The comment is the label, and copies of a structure, which lie in different files, stay together."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for index, frame in enumerate(read_atoms([files / "gallium_md_57.extxyz"])):
        atoms = frame.atoms
        rows = "".join(f"Ga {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in atoms.positions)
        (folder / f"{index}.xyz").write_text(f"{len(atoms)}\n{-130.0 - index}\n{rows}")
    assert main(["new-recipe", str(folder), "--out", str(tmp_path / "r.yaml")]) == 0
    said = capsys.readouterr().out
    assert "label      comment, -3." in said and "split      random, copies kept together (50 files)" in said
    recipe = yaml.safe_load((tmp_path / "r.yaml").read_text())
    assert recipe["data"]["dataset"]["init_args"]["target"] == "comment"
    assert recipe["data"]["split"] == "random" and recipe["data"]["copies_together"] is True

    for index in (3, 7):
        (folder / f"{index}.xyz").write_text("3\n-9.0\nGa 0 0 0\nGa 0 0 2.6\nGa 0 0 22.6\n")  # in pieces
    skipping = ["new-recipe", str(folder), "--out", str(tmp_path / "s.yaml"), "--on-bad", "skip"]
    assert main(skipping) == 0
    assert "2 frames were left out:" in capsys.readouterr().err
    skipping_recipe = yaml.safe_load((tmp_path / "s.yaml").read_text())
    assert skipping_recipe["data"]["dataset"]["init_args"]["on_bad"] == "skip"  # training leaves them out, too


def test_a_label_that_is_not_clear_is_asked_for(files, tmp_path, capsys):
    frames = [frame.atoms for frame in read_atoms([files / "gallium_md_57.extxyz"])]
    for atoms in frames:
        atoms.calc = None
        atoms.info = {"dft_energy": -1.0, "xtb_energy": -2.0}
    write_extxyz(tmp_path / "two.extxyz", frames)
    command = ["new-recipe", str(tmp_path / "two.extxyz"), "--out", str(tmp_path / "r.yaml")]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "dft_energy, xtb_energy" in message and "--target" in message
    assert main([*command, "--target", "xtb_energy"]) == 0
    assert "target: xtb_energy" in (tmp_path / "r.yaml").read_text()
    for atoms in frames:
        atoms.arrays |= {"dft_forces": atoms.positions, "forces": atoms.positions, "xtb_force": atoms.positions}
    write_extxyz(tmp_path / "two.extxyz", frames)
    assert main([*command, "--target", "xtb_energy", "--overwrite"]) == 0
    assert "forces: xtb_force}" in (tmp_path / "r.yaml").read_text()  # not those of another level of theory
    write_extxyz(tmp_path / "none.extxyz", [Atoms(frame.numbers, frame.positions) for frame in frames])
    assert main(["new-recipe", str(tmp_path / "none.extxyz"), "--out", str(tmp_path / "n.yaml")]) == 2
    assert "no energy or shielding to train on; they have no numbers" in capsys.readouterr().err


def test_labels_that_are_not_finite_numbers_are_counted_as_missing(files, tmp_path, capsys):
    frames = [frame.atoms for frame in read_atoms([files / "gallium_md_57.extxyz"])]
    for number, atoms in enumerate(frames):
        atoms.calc = None
        atoms.info = {"energy": {3: np.nan, len(frames) - 1: "failed"}.get(number, -57.0 - 0.57 * (number == 5))}
    write_extxyz(tmp_path / "some.extxyz", frames)
    assert main(["new-recipe", str(tmp_path / "some.extxyz"), "--out", str(tmp_path / "r.yaml")]) == 0
    said = capsys.readouterr().out
    assert "label      energy, -1.01 to -1 eV per atom; missing in 2 frames (on_missing: skip" in said
    write_extxyz(tmp_path / "none.extxyz", frames[3:4])
    assert main(["new-recipe", str(tmp_path / "none.extxyz"), "--out", str(tmp_path / "n.yaml")]) == 2
    assert "none.extxyz: 'energy' is not a finite number in any frame" in capsys.readouterr().err


def test_predictions_and_other_geometries_are_not_labels(files, tmp_path, capsys):
    frames = [frame.atoms for frame in read_atoms([files / "gallium_md_57.extxyz"])]
    for atoms in frames:
        atoms.calc, atoms.info = None, {"pred_energy": -1.0, "initial_energy": -2.0, "earlier_pred_energy": -3.0}
        atoms.set_array("initial_forces", atoms.positions)
    write_extxyz(tmp_path / "a.extxyz", frames)
    command = ["new-recipe", str(tmp_path / "a.extxyz"), "--out", str(tmp_path / "r.yaml")]
    assert main(command) == 2
    assert "no energy or shielding to train on" in capsys.readouterr().err
    for atoms in frames:
        atoms.info["xtb_energy"] = -2.0
    write_extxyz(tmp_path / "a.extxyz", frames)
    assert main(command) == 0
    assert "forces     none" in capsys.readouterr().out and "xtb_energy" in (tmp_path / "r.yaml").read_text()
    for atoms in frames:
        atoms.set_array("nmr_shielding", atoms.positions[:, 0])
    write_extxyz(tmp_path / "a.extxyz", frames)
    assert main([*command, "--overwrite"]) == 2
    assert "ambiguous: there are xtb_energy, nmr_shielding" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--target", "nmr_shielding"]) == 0


def test_shipped_files_are_used_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes"]) == 0 and main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*shipped_recipes(), "gallium-forces"))
    assert main(["recipes", "dart-gallium"]) == 0
    assert capsys.readouterr().out == shipped_recipes()["dart-gallium"].read_text()
    assert main(["info", "gallium_md_57"]) == 0
    assert "1,000 frames" in capsys.readouterr().out
    assert main(["train", "dart-galium", "--out", "run"]) == 2
    assert "no recipe of that name" in capsys.readouterr().err
    file = str(shipped_recipes()["dart-gallium"])
    for words in (["dart-gallium"], ["--config", "dart-gallium"], ["-c", "dart_gallium"]):
        assert with_recipe([*words, "--out", "run"])[1:] == [file, "--out", "run"]
    assert with_recipe(["--out=run", "--config=dart-gallium"]) == ["--out=run", f"--config={file}"]
    (tmp_path / "gallium_md_57").write_text("1\n\nGa 0 0 0\n")  # a file of that name comes first
    assert main(["info", "gallium_md_57"]) == 0
    assert "1,000" not in capsys.readouterr().out
    assert set(CASES) <= shipped_frames().keys()


def test_minima_without_forces_count_as_such_and_other_frames_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quench = ["generate", "quench", "--elements", "Cu", "Au", "--sizes", "6:7", "--calculator", "emt", "--count", "9"]
    assert main([*quench, "--per-segment", "1", "--out", "cuau.extxyz"]) == 0
    hot = ["generate", "hot", "cuau.extxyz", "--calculator", "emt", "--count", "7", "--out", "hot.extxyz"]
    assert main(hot) == 0
    recipe = ["new-recipe", "cuau.extxyz", "hot.extxyz", "--out", "recipe.yaml", "--overwrite"]
    assert main(recipe) == 0
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert content["data"]["dataset"]["init_args"]["minima"] == ["cuau.extxyz"]
    assert content["model"]["init_args"]["model"]["init_args"]["elements"] == [29, 79]
    (tmp_path / "few.yaml").write_text(FEW)
    assert main(["train", "recipe.yaml", "--config", "few.yaml", "--out", "run"]) == 0
    frames = [frame.atoms for frame in read_atoms(["cuau.extxyz"])]
    frames[3].info["fmax"] = 0.3
    write_extxyz("cuau.extxyz", frames)
    assert main(recipe) == 2
    assert "cuau.extxyz: has frames without the forces that others have" in capsys.readouterr().err
