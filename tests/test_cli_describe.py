"""``describe`` and ``analyse core-surface``: their results, and one clear line on invalid input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.cluster import Icosahedron
from helpers import atoms_of, refused, rows_of, save_dart

from pyg_clusters.analysis.core_surface import linear_probe, regions, separate_regions
from pyg_clusters.analysis.frame_set import read_set
from pyg_clusters.cli import main
from pyg_clusters.frames import read_atoms, write_extxyz
from pyg_clusters.inference import Predictor
from pyg_clusters.models import AlloyDART, NodeSchNet
from pyg_clusters.models.checkpoint import load_model, save_model
from pyg_clusters.testing import random_clusters

SIZES = (60, 60, 62, 60)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory) -> Path:
    z, pos, ptr = random_clusters(SIZES, 31, torch.Generator().manual_seed(1))
    frames = atoms_of(z, pos, ptr)
    frames.append(frames[0][::-1])  # the first one again, with its atoms in another order
    for number, atoms in enumerate(frames):
        atoms.info["binding_energy"] = -2.4 * len(atoms) - 0.1 * (number % 4)
        atoms.info["segment"] = number % 2
    path = tmp_path_factory.mktemp("clusters") / "set.extxyz"
    write_extxyz(path, frames)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_dart(tmp_path_factory.mktemp("model"), 31, 70, hidden_channels=16)


def test_describe_does_not_compare_ions_with_neutral_clusters(tmp_path, capsys):
    """Two neutral clusters of one shell count are 0.1 eV apart; the cation of one of them is 4 eV above."""
    short, long = ([[0.0, 0, 0], [0, 0, length], [0, length, 0]] for length in (3.0, 3.2))
    frames = [Atoms("Na3", pos, info={"energy": energy}) for pos, energy in ((short, -3.0), (long, -3.1), (short, 1.0))]
    frames[2].info["charge"] = 1
    write_extxyz(tmp_path / "set.extxyz", frames)
    assert main(["describe", str(tmp_path / "set.extxyz"), "--target", "energy", "--radii", "3.5"]) == 0
    printed = capsys.readouterr().out
    assert "distinct isomers: 3 of 3" in printed and "2.31 kcal/mol apart on average, 2.31 at most" in printed
    frames[2].info["multiplicity"] = 2
    write_extxyz(tmp_path / "odd.extxyz", frames)
    command = ["describe", tmp_path / "odd.extxyz", "--target", "energy", "--radii", "3.5"]
    assert "odd.extxyz, frame 2: multiplicity means 1 unpaired" in refused(command, capsys)


@pytest.mark.figures
def test_describe_writes_what_it_prints(clusters, tmp_path, capsys):
    out = tmp_path / "description"
    assert main(["describe", str(clusters), "--target", "binding_energy", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "distinct isomers: 4 of 5 structures" in printed
    summary = json.loads((out / "summary.json").read_text())
    assert summary["clusters_per_size"] == {"60": 4, "62": 1}
    assert summary["radii"] == [3.49, 6.3] and "gallium" in summary["radii_from"]
    assert summary["collisions"]["num_isomers"] == 4
    assert summary["collisions"]["collision_rate"] == 0.0
    assert summary["collisions"]["mean_spread_kcal_mol"] is None
    table = rows_of(out / "pair_distribution.csv")
    mean_neighbors = (4 * 60 * 59 + 62 * 61) / (4 * 60 + 62)
    assert float(table[-1]["neighbors_within"]) == pytest.approx(mean_neighbors)
    shells = rows_of(out / "shells.csv")
    assert [row["size"] for row in shells] == ["60", "62"]
    assert sum(float(shells[1][f"mean_{shell}"]) for shell in "JKL") == pytest.approx(61)
    assert sorted(path.stem for path in (out / "figures").iterdir()) == [
        "clusters_per_size",
        "pair_distribution",
        "shell_counts",
    ]
    page = (out / "report.html").read_text()
    assert "data:image" in page and f"Written by <code>pyg-clusters describe {clusters} --target" in page
    assert all(f'<a href="{name}.csv">' in page for name in ("pair_distribution", "shells", "collisions"))
    assert rows_of(out / "collisions.csv") == []


def test_collisions_of_two_isomers_are_listed(tmp_path, capsys):
    straight = np.array([[0.0, 0.0, 0.0], [2.5, 0.0, 0.0], [5.0, 0.0, 0.0], [7.5, 0.0, 0.0]])
    bent = np.array([[-0.8, 2.3685, 0.0], [0.0, 0.0, 0.0], [2.5, 0.0, 0.0], [3.3, -2.3685, 0.0]])
    frames = [Atoms("Ga4", straight, info={"e": -5.0}), Atoms("Ga4", bent, info={"e": -5.1})]
    write_extxyz(tmp_path / "two.extxyz", frames)
    arguments = ["describe", str(tmp_path / "two.extxyz"), "--radii", "3.5,6.0", "--target", "e"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "2.31 kcal/mol apart on average" in capsys.readouterr().out  # 0.1 eV
    (row,) = rows_of(tmp_path / "out/collisions.csv")
    assert (row["size"], row["isomers"], row["frames"]) == ("4", "2", "1 0")  # the lowest first


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("per_atom", [True, False])
def test_energies_per_atom_are_named(per_atom, tmp_path, capsys):
    frames = [Icosahedron("Ga", layers, latticeconstant=4.0) for layers in (2, 3, 4)]
    for number, atoms in enumerate(frames):
        atoms.info["e"] = (-2.4 - 0.1 * number) * (1 if per_atom else len(atoms))
    write_extxyz(tmp_path / "ga.extxyz", frames)
    assert main(["describe", str(tmp_path / "ga.extxyz"), "--target", "e"]) == 0
    assert ("as energies per atom do: multiply them" in capsys.readouterr().err) == per_atom


def test_other_elements_get_suggested_radii(tmp_path, capsys):
    write_extxyz(tmp_path / "cu.extxyz", [Icosahedron("Cu", 4)])
    assert main(["describe", str(tmp_path / "cu.extxyz")]) == 0
    printed = capsys.readouterr().out
    assert "suggested from g(r)" in printed and "--target" in printed


def test_clusters_too_small_for_suggested_radii_are_described_with_multiples_of_the_bond_length(tmp_path, capsys):
    write_extxyz(tmp_path / "dimer.extxyz", [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]])])
    assert main(["describe", str(tmp_path / "dimer.extxyz"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "suggested shell radii: none" in printed and "fallback of 1.25 and 2.2 bond lengths" in printed
    assert "mean counts per atom: J 1.00, K 0.00, L 0.00" in printed
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["radii"] == pytest.approx([2.75, 4.84], abs=0.1)


COPPER = {
    "three atoms": [Atoms("Cu3", [[0, 0, 0], [2.5, 0, 0], [1.25, 2.165, 0]])],
    "one frame": [Icosahedron("Cu", 2, latticeconstant=3.7)],
    "hot": [Icosahedron("Cu", 2, latticeconstant=3.7) for _ in range(30)],
}
for seed, atoms in enumerate(COPPER["hot"]):
    atoms.rattle(0.5, seed=seed)


@pytest.mark.parametrize("kind", COPPER)
def test_small_and_hot_sets_get_all_tables(kind, tmp_path, capsys):
    write_extxyz(tmp_path / "cu.extxyz", COPPER[kind])
    assert main(["describe", str(tmp_path / "cu.extxyz"), "--out", str(tmp_path / "out")]) == 0
    assert "fallback of 1.25 and 2.2 bond lengths" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert 2.0 < summary["bond_length"] < 3.2 and len(summary["radii"]) == 2
    tables = {"pair_distribution.csv", "shells.csv", "collisions.csv"}
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == tables
    (row,) = rows_of(tmp_path / "out/shells.csv")
    size = len(COPPER[kind][0])
    assert sum(float(row[f"mean_{shell}"]) for shell in "JKL") == pytest.approx(size - 1)


def test_small_gallium_keeps_its_radii(tmp_path, capsys):
    write_extxyz(tmp_path / "ga3.extxyz", [Atoms("Ga3", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.2, 0]])])
    assert main(["describe", str(tmp_path / "ga3.extxyz")]) == 0
    assert "mean counts per atom: J 2.00, K 0.00, L 0.00" in capsys.readouterr().out


def test_describe_leaves_single_atoms_out(tmp_path, capsys):
    write_extxyz(tmp_path / "atom.extxyz", [Atoms("Cu"), Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])])
    line = refused(["describe", tmp_path / "atom.extxyz"], capsys)
    assert "a cluster has at least two" in line and "--on-bad skip" in line
    assert main(["describe", str(tmp_path / "atom.extxyz"), "--on-bad", "skip"]) == 0
    assert "1 frame was left out" in capsys.readouterr().err


def test_describe_refuses(clusters, tmp_path, capsys):
    assert "increasing" in refused(["describe", clusters, "--radii", "6.3,3.49"], capsys)
    assert "not a list of numbers" in refused(["describe", clusters, "--radii", "3.49;6.3"], capsys)
    line = refused(["describe", clusters, "--radii", "3.49,90"], capsys)
    assert "neighbour in shell L: beyond 90 Å" in line and "Å across" in line
    line = refused(["describe", clusters, "--radii", "0.4,3.49"], capsys)
    assert "neighbour in shell J: below 0.4 Å" in line
    assert "found per frame: binding_energy" in refused(["describe", clusters, "--target", "enrgy"], capsys)
    assert "no such file" in refused(["describe", tmp_path / "none.extxyz"], capsys)
    write_extxyz(tmp_path / "dimer.extxyz", [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]], info={"e": float("nan")})])
    line = refused(["describe", tmp_path / "dimer.extxyz", "--target", "e"], capsys)
    assert "frame 0: 'e' must be a number, got nan" in line


def test_a_set_knows_where_its_frames_were_first_read(clusters, tmp_path):
    """Copies of frames 3 and 1 in another file, as predict and convert write them."""
    copies = [frame.atoms for frame in read_atoms([clusters])]
    for number, atoms in enumerate(copies):
        atoms.info |= {"source_file": "md.xyz", "source_frame": 10 * number}
    write_extxyz(tmp_path / "copies.extxyz", [copies[3], copies[1]])
    files, numbers = read_set([str(clusters), str(tmp_path / "copies.extxyz")], sizes=(60,)).origins
    assert numbers.tolist() == [0, 1, 3, 4, 30, 10]
    assert files.tolist() == [str(clusters)] * 4 + ["md.xyz"] * 2


def test_equal_counts_of_files_of_one_name(tmp_path):
    """Frames are named by the whole path where the names of the files are equal, as those of OUTCARs."""
    for name, length in (("a", 3.0), ("b", 3.2)):
        (tmp_path / name).mkdir()
        write_extxyz(tmp_path / name / "end.xyz", [Atoms("Na3", [[0.0, 0, 0], [0, 0, length], [0, length, 0]])])
    out = tmp_path / "out"
    assert main(["describe", str(tmp_path / "a"), str(tmp_path / "b"), "--radii", "3.5", "--out", str(out)]) == 0
    assert rows_of(out / "collisions.csv")[0]["frames"] == f"{tmp_path}/a/end.xyz:0 {tmp_path}/b/end.xyz:0"


@pytest.mark.figures
def test_core_surface_writes_every_atom(clusters, model, tmp_path, capsys):
    out = tmp_path / "core_surface"
    arguments = ["analyse", "core-surface", str(model), str(clusters), "--radii", "3.49,5.5", "--perplexity", "5"]
    assert main([*arguments, "--group", "segment", "--sizes", "60", "--out", str(out)]) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    table = rows_of(out / "atoms.csv")
    assert len(table) == 240 and [row["source_frame"] for row in table[::60]] == ["0", "1", "3", "4"]
    assert [int(row["atom"]) for row in table[:60]] == list(range(60))
    for row in table:
        distance = float(row["distance"])
        assert row["region"] == ("core" if distance < 3.49 else "surface" if distance > 5.5 else "between")
        assert sum(int(row[f"count_{shell}"]) for shell in "JKL") == 59
    energy = np.array([float(row["pred_atom_energy"]) for row in table]).reshape(4, 60).sum(axis=1)
    z, pos, ptr = random_clusters(SIZES, 31, torch.Generator().manual_seed(1))
    expected = Predictor(load_model(model))(z, pos, ptr).energy[[0, 1, 3, 0]]
    np.testing.assert_allclose(energy, expected, rtol=1e-4)
    result = json.loads((out / "core_surface.json").read_text())
    assert result["num_groups"] == 2 and result["perplexity"] == 5.0 and result["trained_on_sizes"] == [31, 70]
    assert set(result["linear_probe"]) == {"features", "counts", "features and counts"}
    assert sum(row["atoms"] for row in result["regions"]) == 240
    assert {path.stem for path in (out / "figures").iterdir()} == {"tsne"}
    page = (out / "report.html").read_text()
    assert page.count("<figure>") == 1 and '<a href="atoms.csv">' in page
    assert f"Written by <code>pyg-clusters analyse core-surface {model} {clusters} " in page


@pytest.fixture(scope="module")
def alloys(tmp_path_factory) -> Path:
    """Clusters of copper in the centre and gold outside."""
    z, pos, ptr = random_clusters((40, 40, 42, 41), 29, torch.Generator().manual_seed(2))
    frames = atoms_of(z, pos, ptr)
    for atoms in frames:
        distance = np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1)
        atoms.numbers[distance > np.median(distance)] = 79
    path = tmp_path_factory.mktemp("alloys") / "cuau.extxyz"
    write_extxyz(path, frames)
    return path


@pytest.mark.figures
def test_core_surface_keeps_elements_apart(alloys, tmp_path):
    torch.manual_seed(0)
    dart = AlloyDART((29, 79), (3.4, 5.8), hidden_channels=16)
    dart.scale.offset[[29, 79]] = torch.tensor([-3.0, -7000.0], dtype=dart.scale.offset.dtype)
    save_model(dart, tmp_path / "model")
    arguments = ["analyse", "core-surface", str(tmp_path / "model"), str(alloys), "--perplexity", "5", "--radii"]
    assert main([*arguments, "3.4,4.5", "--out", str(tmp_path / "out")]) == 0
    table = rows_of(tmp_path / "out/atoms.csv")
    energy = {
        symbol: [float(r["pred_atom_energy"]) for r in table if r["element"] == symbol] for symbol in ("Cu", "Au")
    }
    assert {len(values) for values in energy.values()} == {81, 82}
    regions = json.loads((tmp_path / "out/core_surface.json").read_text())["regions"]
    assert sum(row["atoms"] for row in regions) == len(table) and {row["element"] for row in regions} == {"Cu", "Au"}
    for row in regions:  # a mean over both elements would lie thousands of eV from both
        assert min(energy[row["element"]]) <= row["mean_energy_ev"] <= max(energy[row["element"]])
        assert row["std_energy_ev"] < 10
    page = (tmp_path / "out/report.html").read_text()
    assert "energy of the atom above the mean of its element" in page and "include the element" in page


def test_the_elements_of_atoms_are_part_of_their_counts(clusters):
    """Elements that tell the regions apart must not look like a merit of the network."""
    torch.manual_seed(0)
    frames, radii = read_set([str(clusters)]), (3.49, 5.5)
    z, pos, ptr = map(torch.from_numpy, (frames.z, frames.pos, frames.ptr))
    frames.z[:] = np.array([29, 28, 27])[regions(z, pos, ptr, radii)[0]]  # of similar masses
    result = separate_regions(AlloyDART((27, 28, 29), radii, hidden_channels=16), frames, radii, 5.0)
    without = linear_probe(result.atoms.counts, result.region, np.repeat(np.arange(len(frames)), frames.sizes))
    assert result.probes["counts"].balanced_accuracy > 0.98 > without.balanced_accuracy


def test_core_surface_refuses_a_charge_that_the_model_does_not_know(model, tmp_path, capsys):
    z, pos, ptr = random_clusters(SIZES, 31, torch.Generator().manual_seed(1))
    frames = atoms_of(z, pos, ptr)
    frames[2].info["charge"] = 1
    write_extxyz(tmp_path / "ion.extxyz", frames)
    line = refused(["analyse", "core-surface", model, tmp_path / "ion.extxyz", "--out", tmp_path / "out"], capsys)
    assert "ion.extxyz, frame 2: its charge is 1, but the model was trained on clusters of charge 0" in line


@pytest.mark.parametrize("more", [[], ["--on-bad", "skip"]])
def test_single_atoms_alone_end_in_one_line(more, tmp_path, capsys):
    file = tmp_path / "atoms.xyz"
    file.write_text("1\n\nNa 0 0 0\n1\n\nNa 1 0 0\n")
    assert main(["describe", str(file), *more]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"{file}, frame 0: number of atoms is 1, a cluster has at least two" in lines[0]


def test_core_surface_refuses(clusters, model, tmp_path, capsys):
    start = ["analyse", "core-surface", model, clusters, "--out", tmp_path / "out"]
    assert "region 'surface'" in refused([*start, "--radii", "3.49,60"], capsys)
    assert "need two radii" in refused([*start, "--radii", "3.49"], capsys)
    assert "there are 60, 62" in refused([*start, "--sizes", "70"], capsys)
    assert "perplexity" in refused([*start, "--radii", "3.49,5.5", "--perplexity", "1000"], capsys)
    assert "at least two clusters" in refused([*start, "--radii", "3.49,5.5", "--sizes", "62"], capsys)
    assert "no property 'origin'" in refused([*start, "--group", "origin"], capsys)
    (atoms,) = atoms_of(*random_clusters((60,), 31, torch.Generator().manual_seed(1)))
    atoms.info["charge"] = 1
    write_extxyz(tmp_path / "cation.extxyz", [atoms])
    line = refused(["analyse", "core-surface", model, tmp_path / "cation.extxyz", "--out", tmp_path / "out"], capsys)
    assert "frame 0: its charge is 1, but the model was trained on clusters of charge 0" in line
    assert "analyse: there is no analysis 'surface'; did you mean 'core-surface'" in refused(
        ["analyse", "surface", model, clusters], capsys
    )
    torch.manual_seed(0)
    save_model(NodeSchNet(), tmp_path / "schnet")
    assert "NodeSchNet has no atomic energies and features of atoms; give a DART" in refused(
        ["analyse", "core-surface", tmp_path / "schnet", clusters, "--out", "o"], capsys
    )
    assert not (tmp_path / "out").exists()
