"""The pretrained models."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.cluster import Icosahedron
from ase.io import read

from pyg_clusters.analysis.line_shapes import broaden, overlap, shift_axis, shifts
from pyg_clusters.cli import main
from pyg_clusters.datasets import CopperGoldClusters, GalliumClusters, SodiumShielding, group_split
from pyg_clusters.datasets.training_data import ClusterBatches, TrainingData
from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.run import Run
from pyg_clusters.metrics import energy_metrics, shielding_metrics
from pyg_clusters.models import load_model
from pyg_clusters.models.checkpoint import SHIPPED, available_models
from pyg_clusters.screening.scores import SizeFrames, isomers_by_energy, ranking
from pyg_clusters.structures import ClusterEMT, ModelCalculator, energy_and_forces, local_minimum
from pyg_clusters.testing import validate_model

SODIUM = ("sodium", "sodium-spectrum")


def test_every_model_is_small_has_a_card_and_keeps_its_promises():
    assert "gallium" in available_models()
    for name in available_models():
        folder = SHIPPED / name
        assert sum(file.stat().st_size for file in folder.rglob("*.*")) < 1_500_000
        card = (folder / "README.md").read_text()
        assert len(card.splitlines()[0]) <= 90  # a line of the list of models
        for word in ("Training data", "Split", "MAE", "Limits", "Cite"):
            assert word in card, f"{name}: the card says nothing of {word}"
        model = load_model(name)
        atomic_number, per_atom = model.domain.atomic_numbers[0], name in SODIUM
        for each in getattr(model, "members", [model]):
            validate_model(each, atomic_number=atomic_number, per_atom=per_atom, tolerance=1e-8)


def test_gallium_by_name(tmp_path, capsys):
    model = load_model("gallium")
    assert model.domain.atomic_numbers == [31] and model.domain.size_range == (31, 70)
    dataset = GalliumClusters()
    atoms = [_atoms(dataset[number]) for number in (0, 3000)]
    write_extxyz(tmp_path / "frames.xyz", atoms)
    assert main(["predict", "gallium", str(tmp_path / "frames.xyz"), "--out", str(tmp_path / "e.csv")]) == 0
    lines = (tmp_path / "e.csv").read_text().splitlines()[1:]
    for line, number in zip(lines, (0, 3000), strict=True):
        assert float(line.split(",")[3]) == pytest.approx(float(dataset[number].y), abs=1.5)
    assert main(["info", "gallium"]) == 0
    assert "test MAE (kcal/mol): 3.95" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"pretrained model \(copper-gold, gallium, "):
        load_model("gold")


@pytest.mark.slow
def test_errors_of_the_gallium_card():
    notes = json.loads((SHIPPED / "gallium" / "model.json").read_text())["notes"]
    dataset = GalliumClusters()
    split = group_split(dataset.groups, seed=notes["split_seed"])
    for part, prefix in ((split.val, "val"), (split.test, "test")):
        batch = ClusterBatches(dataset).stored(part.tolist())
        predicted = Predictor(load_model("gallium"))(batch.z, batch.pos, batch.ptr).energy
        metrics = energy_metrics(predicted.numpy(), batch.y.numpy(), batch.ptr.diff().numpy())
        assert metrics["mae_kcal_mol"] == pytest.approx(notes[f"{prefix}_mae_kcal_mol"], abs=0.01)
        assert metrics["rmse_kcal_mol"] == pytest.approx(notes[f"{prefix}_rmse_kcal_mol"], abs=0.01)
    card = (SHIPPED / "gallium" / "README.md").read_text()
    assert f"{notes['test_mae_kcal_mol']:.2f}" in card and f"{notes['test_rmse_kcal_mol']:.2f}" in card


@pytest.mark.parametrize("name", SODIUM)
def test_sodium_by_name(name, tmp_path, capsys):
    model = load_model(name)
    assert model.domain.atomic_numbers == [11] and model.domain.size_range == (14, 40)
    dataset = SodiumShielding()
    write_extxyz(tmp_path / "frames.xyz", [_atoms(dataset[number]) for number in (0, 30)])
    assert main(["predict", name, str(tmp_path / "frames.xyz"), "--out", str(tmp_path / "p.csv")]) == 0
    with open(tmp_path / "p.csv", newline="") as table:
        predicted = [float(row["pred_nmr_shielding"]) for row in csv.DictReader(table)]
    assert len(predicted) == sum(dataset[number].z.numel() for number in (0, 30))
    assert 400 < min(predicted) and max(predicted) < 680
    assert main(["info", name]) == 0
    assert "test RMSE (ppm)" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SODIUM)
def test_clusters_denser_than_the_training_set_are_flagged(name, tmp_path, capsys):
    """The relaxed Na40 is as dense as the training set; it is denser if all its distances are 4 % shorter."""
    dataset = SodiumShielding(subset="large")
    dense = _atoms(next(data for data in dataset if data.relaxed and data.z.numel() == 40))
    denser = Atoms(dense.numbers, 0.96 * dense.positions)
    write_extxyz(tmp_path / "frames.xyz", [denser, dense, _atoms(dataset[0]), _atoms(dataset[20])])
    frames, table, copies = (str(tmp_path / file) for file in ("frames.xyz", "p.csv", "p.extxyz"))
    assert main(["predict", name, frames, "--out", table]) == 0
    assert "1 of 4 frames is unlike the training set" in capsys.readouterr().out
    with open(table, newline="") as stream:
        flagged = {int(row["source_frame"]): row["pred_flag"] for row in csv.DictReader(stream)}
    assert flagged == {0: "14.9 neighbours within 6 Å on average, above 12.2", 1: "", 2: "", 3: ""}
    assert main(["predict", name, frames, "--out", copies]) == 0
    assert read(copies, 0).info["pred_flag"] == flagged[0]
    assert main(["spectrum", name, frames, "--out", str(tmp_path / "spectrum")]) == 0
    assert "1 of 4 frames is unlike the training set: predict writes the reasons" in capsys.readouterr().err


def names_of_clusters(dataset: SodiumShielding) -> list[str]:
    """Name of each cluster: its group, with #2 and so on for further clusters of the group, in their order."""
    names: list[str] = []
    members: Counter[str] = Counter()
    for number in dataset.groups:
        group = dataset.group_names[number]
        members[group] += 1
        names.append(group if members[group] == 1 else f"{group}#{members[group]}")
    return names


@pytest.mark.slow
@pytest.mark.parametrize("name", SODIUM)
def test_errors_of_the_sodium_cards(name):
    """The clusters of the split are stored by name, so that errors do not change when the data set grows."""
    notes, card = Run(name).notes, Run(name).card.read_text()
    dataset = SodiumShielding(subset="all_sizes")
    names = names_of_clusters(dataset)
    for part in ("val", "test"):
        batch = ClusterBatches(dataset).stored([names.index(name) for name in notes[f"{part}_clusters"]])
        predicted = Predictor(load_model(name))(batch.z, batch.pos, batch.ptr).shielding.numpy()
        metrics = shielding_metrics(predicted, batch.y.numpy())
        ours, dft = shifts(predicted), shifts(batch.y.numpy())
        axis = shift_axis([*ours, *dft], 10.0)
        metrics["overlap_10_ppm"] = overlap(broaden(ours, 10.0, axis=axis), broaden(dft, 10.0, axis=axis))
        for key, value in metrics.items():
            assert value == pytest.approx(notes[f"{part}_{key}"], abs=0.01), f"{part} {key}"
        assert f"{metrics['rmse_ppm']:.1f}" in card and f"{metrics['wasserstein_ppm']:.1f}" in card


def test_copper_gold_orders_homotops_as_emt_does():
    """Icosahedral Cu13Au42 has the lowest energy with copper in the core and the highest with copper in the shell."""
    shape = Icosahedron("Au", 3, latticeconstant=4.0)
    outwards = np.linalg.norm(shape.positions - shape.positions.mean(axis=0), axis=1).argsort()
    at_random = np.random.default_rng(0).permutation(55)
    energies = []
    for copper in (outwards[:13], at_random[:13], outwards[-13:]):
        shape.numbers[:] = 79
        shape.numbers[copper] = 29
        found = local_minimum(shape, ClusterEMT(), fmax=0.05)
        found.atoms.calc = ModelCalculator(load_model("copper-gold"))
        isolated = 13 * 3.51 + 42 * 3.8
        energies.append((found.energy - isolated, found.atoms.get_potential_energy()))
    emt, model = zip(*energies, strict=True)
    assert emt[0] < emt[1] - 1 < emt[2] - 1 and model[0] < model[1] - 1 < model[2] - 1
    assert np.allclose(model, emt, atol=1.2)  # 20 meV per atom: the training set has no such ordered structures


FORCES = {
    "gallium-forces": (GalliumClusters, lambda dataset: dataset.file_of_cluster == 0),
    "copper-gold": (CopperGoldClusters, lambda dataset: torch.arange(len(dataset)) >= dataset.num_minima),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORCES)
def test_errors_of_the_cards_of_forces(name):
    data, is_hot = FORCES[name]
    notes = json.loads((SHIPPED / name / "model.json").read_text())["notes"]
    model, dataset = load_model(name), data(subset="forces_minima")
    test = dataset.group_split(seed=notes["split_seed"]).test
    hot = is_hot(dataset)[test]
    for part, prefix in ((test[~hot], "test_"), (test[hot], "test_hot_")):
        batch = ClusterBatches(dataset).stored(part.tolist())
        predicted = Predictor(model)(batch.z, batch.pos, batch.ptr).energy
        metrics = energy_metrics(predicted.numpy(), batch.y.numpy(), batch.ptr.diff().numpy())
        assert metrics["mae_kcal_mol"] == pytest.approx(notes[f"{prefix}mae_kcal_mol"], abs=0.01)
        error = 1000 * (_forces(model, batch) - batch.force).abs().mean()
        assert float(error) == pytest.approx(notes[f"{prefix}force_mae_mev_per_angstrom"], abs=0.05)


def _forces(model, batch, at_once=100):
    """Forces of the clusters of a batch, which takes less memory than those of all at once."""
    forces = []
    for first in range(0, len(batch.ptr) - 1, at_once):
        ptr = batch.ptr[first : first + at_once + 1]
        atoms = slice(int(ptr[0]), int(ptr[-1]))
        forces.append(energy_and_forces(model, batch.z[atoms], batch.pos[atoms], ptr_to_batch(ptr - ptr[0]))[1])
    return torch.cat(forces)


def test_gallium_screening_by_name():
    assert load_model("gallium-screening").domain.atomic_numbers == [31]


@pytest.mark.slow
def test_errors_of_the_gallium_screening_card():
    folder = SHIPPED / "gallium-screening"
    notes = json.loads((folder / "model.json").read_text())["notes"]
    model, quenched = load_model("gallium-screening"), "quench_binding_energy"
    dataset = GalliumClusters(subset="md_quench", target=quenched)
    split = TrainingData(dataset, fractions=(0.85, 0.1, 0.05), left_out_sizes=(46, 57, 60)).split
    for part, prefix in ((split.val, "val"), (split.test, "test")):
        batch = ClusterBatches(dataset).stored(part.tolist())
        predicted = Predictor(model)(batch.z, batch.pos, batch.ptr).energy
        metrics = energy_metrics(predicted.numpy(), batch.y.numpy(), batch.ptr.diff().numpy())
        assert metrics["mae_kcal_mol"] == pytest.approx(notes[f"{prefix}_mae_kcal_mol"], abs=0.01)
        assert metrics["rmse_kcal_mol"] == pytest.approx(notes[f"{prefix}_rmse_kcal_mol"], abs=0.01)
    for size in (46, 57):
        dataset = GalliumClusters(subset=f"md_{size}", target=quenched)
        batch = ClusterBatches(dataset).stored(range(len(dataset)))
        truth = batch.y.double().numpy()
        isomer = isomers_by_energy(truth)
        z, pos = batch.z.view(-1, size).numpy(), batch.pos.view(-1, size, 3).numpy()
        predicted, by_gallium = (
            Predictor(each)(batch.z, batch.pos, batch.ptr).energy.numpy() for each in (model, load_model("gallium"))
        )
        found = ranking(SizeFrames(size, z, pos, predicted, truth, isomer))
        assert found.spearman == pytest.approx(notes[f"ga{size}_spearman"], abs=0.002)
        assert found.recall_of_four == pytest.approx(notes[f"ga{size}_recall_of_four"], abs=0.021)
        assert found.rank_of_lowest == pytest.approx(notes[f"ga{size}_rank_of_lowest"], abs=5)
        poor = ranking(SizeFrames(size, z, pos, by_gallium, truth, isomer))
        assert found.spearman > poor.spearman + 0.05


def _atoms(data):
    return Atoms(data.z.numpy(), data.pos.numpy())
