"""Predicted energies have the zero of the labels that the model was trained on."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.cluster import Icosahedron
from torch_geometric.data import Data

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, OnDiskClusters
from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.comparison import Compared, TrainingSet, energy_context
from pyg_clusters.frames import Frames, write_extxyz, write_store
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.metrics import mixed_zeros
from pyg_clusters.models import DART, AlloyDART, Ensemble, LastLayerPosterior, LayeredModel, SmoothDART, load_model
from pyg_clusters.models.checkpoint import save_model
from pyg_clusters.models.fast_dart import TabulatedDART
from pyg_clusters.structures import energy_and_forces, relax
from pyg_clusters.structures.potentials import ModelCalculator
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import EnergyTraining
from pyg_clusters.units import KCAL_PER_MOL

GA = -52826.0867
"""An energy of all electrons of an atom in eV."""

MODELS = {
    "DART": DART,
    "SmoothDART": lambda: SmoothDART(degree=2),
    "AlloyDART": lambda: AlloyDART(elements=(29, 31)),
    "LayeredModel": lambda: LayeredModel("torch_geometric.nn.GATv2Conv", hidden_channels=16, num_layers=1),
}


def clusters() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z, pos, ptr = random_clusters((13, 20, 7), 31, torch.Generator().manual_seed(1))
    return z, pos.float(), ptr


@pytest.mark.parametrize("name", MODELS)
def test_references_are_added_in_double_precision(name):
    z, pos, ptr = clusters()
    model = MODELS[name]().eval()
    without = model(z, pos, ptr_to_batch(ptr)).detach()
    plain = Predictor(model)(z, pos, ptr).energy
    model.scale.set_references({"Ga": GA})
    sums = GA * ptr.diff().double()
    found = model(z, pos, ptr_to_batch(ptr)).detach()
    assert found.dtype == torch.double
    np.testing.assert_allclose(found - sums, without, atol=2e-5)
    energy = Predictor(model)(z, pos, ptr).energy
    assert energy.dtype == torch.double
    np.testing.assert_allclose(energy - sums, plain, atol=2e-5)


def test_references_are_added_wherever_energies_are_returned(tmp_path):
    z, pos, ptr = clusters()
    model = SmoothDART(degree=2).eval()
    energy, forces = energy_and_forces(model, z, pos, ptr_to_batch(ptr))
    atoms = Atoms(z[:13].numpy(), pos[:13].numpy(), calculator=ModelCalculator(model))
    low = atoms.get_potential_energy()
    relaxed = relax(model, z, pos, ptr_to_batch(ptr), max_steps=3)
    model.scale.set_references({"Ga": GA})
    save_model(model, tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert next(model.parameters()).dtype == torch.float32
    total, same_forces = energy_and_forces(model, z, pos, ptr_to_batch(ptr))
    np.testing.assert_allclose(total - GA * ptr.diff().double(), energy, atol=2e-5)
    np.testing.assert_allclose(same_forces, forces, atol=1e-5)
    atoms.calc = ModelCalculator(model)
    assert atoms.get_potential_energy() - 13 * GA == pytest.approx(low, abs=2e-5)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    again = relax(model, z, pos, ptr_to_batch(ptr), max_steps=3)
    np.testing.assert_allclose(again.energy - GA * ptr.diff().double(), relaxed.energy, atol=1e-4)


def test_references_of_ensembles_posteriors_and_tables():
    z, pos, ptr = clusters()
    torch.manual_seed(0)
    members = [DART().eval() for _ in range(3)]
    ensemble = Ensemble(members)
    plain = Predictor(ensemble)(z, pos, ptr)
    for member in members[:2]:
        member.scale.set_references({"Ga": GA})
    members[2].scale.set_references({"Ga": GA - 3.0})
    found = Predictor(ensemble)(z, pos, ptr)
    np.testing.assert_allclose(found.energy - (GA - 1.0) * ptr.diff().double(), plain.energy, atol=2e-5)
    assert found.spread.dtype == torch.double and (found.spread > plain.spread).all()
    posterior = LastLayerPosterior(members[0], np.eye(33).tolist())
    same = Predictor(posterior)(z, pos, ptr).energy
    np.testing.assert_allclose(same, Predictor(members[0])(z, pos, ptr).energy, atol=2e-5)
    one = TabulatedDART(members[0], compiled=False)(z[:13].view(1, 13), pos[:13].view(1, 13, 3))
    np.testing.assert_allclose(one, same[:1], atol=2e-5)


def write_totals(path, per_atom: float = GA, number: int = 40) -> list[float]:
    """Distorted Ga13, whose energies differ by fractions of an eV above 13 atoms; returns the energies."""
    generator = np.random.default_rng(0)
    frames, energies = [], []
    for _ in range(number):
        atoms = Icosahedron("Ga", 2, latticeconstant=4.0)
        atoms.rattle(0.2, rng=generator)
        stretch = float(np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1).std())
        energies.append(13 * per_atom - 30 + 4 * stretch)
        atoms.info["dft_total"] = energies[-1]
        frames.append(atoms)
    write_extxyz(path, frames)
    return energies


def test_totals_that_single_precision_would_round_are_distinguished(tmp_path):
    given = [-2430000.0123, -2430000.1234, -2430000.2345, -2430000.3456]
    frames = [Atoms("Ga46", np.random.default_rng(number).random((46, 3)) * 20) for number in range(4)]
    spread = 3.0 * np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)[:46]
    for atoms, energy in zip(frames, given, strict=True):
        atoms.positions = spread + 0.01 * atoms.positions
        atoms.info["energy"] = energy
    write_extxyz(tmp_path / "totals.extxyz", frames)
    data = ClusterDataset(tmp_path, tmp_path / "totals.extxyz")
    assert [float(cluster.y) for cluster in data] == given
    write_store(tmp_path / "t.h5", Frames.open(tmp_path / "totals.extxyz", properties=["energy"]), compressed=False)
    stored = OnDiskClusters(tmp_path / "t.h5")
    assert [float(cluster.y) for cluster in stored] == given
    for fitted in (
        ClusterDataset(tmp_path, tmp_path / "totals.extxyz", references="fit"),
        OnDiskClusters(tmp_path / "t.h5", references="fit"),
    ):
        assert fitted[0].y.dtype == torch.float32
        back = [float(cluster.y) + 46 * fitted.references["Ga"] for cluster in fitted]
        assert back == pytest.approx(given, abs=1e-6)


def test_energies_of_two_zeros_give_a_warning(tmp_path):
    """Binding energies mixed with total energies, which a fit of references would refuse."""
    for name, zero in (("a", 0.0), ("b", -52000.0)):
        frames = [Icosahedron("Ga", 2, latticeconstant=4.0) for _ in range(3)]
        for number, frame in enumerate(frames):
            frame.info["energy"] = 13 * zero - 30.0 - number
        write_extxyz(tmp_path / f"{name}.extxyz", frames)
    ClusterDataset(tmp_path, tmp_path / "b.extxyz")
    with pytest.warns(
        UserWarning, match="targets differ by up to 26000.1 eV per atom .* have different zeros or units"
    ):
        ClusterDataset(tmp_path, [tmp_path / "a.extxyz", tmp_path / "b.extxyz"])
    both = Frames.open([tmp_path / "a.extxyz", tmp_path / "b.extxyz"], properties=["energy"])
    write_store(tmp_path / "both.h5", both, compressed=False)
    with pytest.warns(UserWarning, match=r"both.h5: energies of Ga13 differ by up to 5.2e\+04 eV per atom"):
        OnDiskClusters(tmp_path / "both.h5")


@pytest.mark.parametrize("factor", [1 / 27.2114, 1 / 13, 23.06, -1.0], ids=["hartree", "per atom", "kcal/mol", "sign"])
@pytest.mark.parametrize("references", [None, "fit"])
def test_energies_in_two_units_give_a_warning(tmp_path, factor, references):
    for name, unit in (("a", 1.0), ("b", factor)):
        frames = [Icosahedron("Ga", 2, latticeconstant=4.0) for _ in range(3)]
        for number, frame in enumerate(frames):
            frame.info["energy"] = (-30.0 + number) * unit
        write_extxyz(tmp_path / f"{name}.extxyz", frames)
    files = [tmp_path / "a.extxyz", tmp_path / "b.extxyz"]
    ClusterDataset(tmp_path, files[1], references=references)
    with pytest.warns(UserWarning, match="energies of Ga13 differ by up to .* have different zeros or units"):
        ClusterDataset(tmp_path, files, references=references)
    write_store(tmp_path / "both.h5", Frames.open(files, properties=["energy"]), compressed=False)
    with pytest.warns(UserWarning, match="both.h5: energies of Ga13 differ"):
        OnDiskClusters(tmp_path / "both.h5", references=references)


def test_energies_of_one_zero_give_no_warning():
    """Minima and hot frames, relative energies, and a bound and a separated dimer."""
    sizes = np.full(4, 13)
    for energies in ([-30.0, -29.9, -19.0, -16.0], [0.0, 1.0, 5.0, 6.0], [2.0, 30.0, 60.0, 95.0]):
        assert mixed_zeros(energies, sizes, sizes) is None
    assert mixed_zeros([-2.0, -0.01], [2, 2], [2, 2]) is None


def test_references_of_another_unit_are_refused(tmp_path):
    write_totals(tmp_path / "totals.extxyz", number=3)
    with pytest.raises(InputError, match="have different zeros or units"):
        ClusterDataset(tmp_path, tmp_path / "totals.extxyz", "dft_total", references={"Ga": GA / 27.2})


@pytest.mark.parametrize("references", ["fit", {"Ga": GA}, None])
def test_a_run_predicts_and_is_evaluated_on_the_scale_of_its_labels(tmp_path, capsys, references, monkeypatch):
    given = write_totals(tmp_path / "totals.extxyz")
    dataset = {"root": str(tmp_path), "files": [str(tmp_path / "totals.extxyz")], "target": "dft_total"}
    recipe = {
        "data": {
            "dataset": {
                "class_path": "pyg_clusters.datasets.ClusterDataset",
                "init_args": {**dataset, "references": references},
            },
            "split": "random",
            "batch_size": 8,
        },
        "model": {"model": {"class_path": "pyg_clusters.models.DART", "init_args": {"hidden_channels": 8}}},
        "trainer": {"max_epochs": 2},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    run = tmp_path / "run"
    assert main(["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(run)]) == 0
    assert json.loads((run / "test_metrics.json").read_text())["overall"]["mae_kcal_mol"] < 200
    out = tmp_path / "predicted.csv"
    assert main(["predict", str(run), str(tmp_path / "totals.extxyz"), "--out", str(out)]) == 0
    with out.open() as stream:
        energies = [float(row["pred_energy"]) for row in csv.DictReader(stream)]
    np.testing.assert_allclose(energies, given, atol=8.0)  # of 686,739 eV
    assert len({round(energy, 3) for energy in energies}) > 5
    capsys.readouterr()
    errors, training_set = tmp_path / "errors.json", TrainingSet.of

    def with_warning(data):
        warnings.warn("a frame of the training data is left out", stacklevel=1)
        return training_set(data)

    monkeypatch.setattr(TrainingSet, "of", with_warning)  # which does not concern the frames to evaluate
    assert main(["evaluate", str(run), str(tmp_path / "totals.extxyz"), "--out", str(errors)]) == 0
    printed = capsys.readouterr()
    said = " ".join(printed.out.split())
    assert "of the training data" not in printed.err
    assert "32 of these 40 clusters are copies of structures that the model was trained on" in said
    result = json.loads(errors.read_text())
    assert result["overall"]["mae_kcal_mol"] < 200
    assert result["new_structures"]["num_clusters"] == 8
    labels = np.array(given)
    train = [int(line) for line in (run / "splits" / "train.txt").read_text().split()]
    expected = np.abs(labels - labels[train].mean()).mean() * 23.060548
    assert result["baseline"]["mae_kcal_mol"] == pytest.approx(expected, abs=1e-3)
    assert main(["info", str(run)]) == 0
    assert "reference energies: Ga -528" in capsys.readouterr().out
    if references == "fit":
        write_totals(tmp_path / "binding.extxyz", per_atom=0.0)
        assert main(["evaluate", str(run), str(tmp_path / "binding.extxyz")]) == 0
        assert "the labels have a different zero from the model: they differ from its energies by Ga +5.28" in (
            " ".join(capsys.readouterr().out.split())
        )


def test_fine_tuning_with_references_of_some_elements_keeps_those_only():
    """An element without a reference energy would have an infinite energy, and finite forces."""
    torch.manual_seed(0)
    model = AlloyDART(elements=(29, 79))
    z, pos, ptr = clusters()
    alloy, copper = z.clone().fill_(29), z.clone().fill_(29)
    alloy[::2] = 79
    training = EnergyTraining(model)
    energy = torch.tensor([-30.0, -50.0, -15.0])
    training.fit_scales([Data(z=alloy, pos=pos, ptr=ptr, y=energy)], {"Cu": -45000.0, "Au": -500000.0})
    assert model.domain.atomic_numbers == [29, 79]
    tuned = EnergyTraining(AlloyDART(elements=(29, 79)))
    tuned.start_from(model)
    tuned.fit_scales([Data(z=copper, pos=pos, ptr=ptr, y=energy)], {"Cu": -45000.0})
    assert Predictor(tuned.model)(copper, pos, ptr).energy.isfinite().all()
    with pytest.raises(InputError, match="trained on Cu and not on Au"):
        Predictor(tuned.model)(alloy, pos, ptr)
    with pytest.raises(InputError, match="trained on Cu and not on Au"):
        tuned.model(alloy, pos, ptr_to_batch(ptr))


def test_the_baseline_of_the_labels_predicts_each_from_the_others():
    """A mean that includes the label itself is exact for the only cluster of a composition."""
    sizes, labels = np.array([2, 2, 2, 3]), np.array([-1.0, -3.0, -2.0, -4.0])
    z, ptr = np.full(9, 31), np.concatenate([[0], np.cumsum(sizes)])

    def baseline(frames: slice) -> dict | None:
        atoms = slice(ptr[frames.start], ptr[frames.stop])
        part = ptr[frames.start : frames.stop + 1] - ptr[frames.start]
        energy = labels[frames]
        compared = Compared(energy, energy, None, z[atoms], None, part, np.arange(len(energy)), False)
        return energy_context(compared, None)[0].get("baseline_of_these_labels")

    row = baseline(slice(0, 4))
    assert row["num_clusters"] == 3 and np.isnan(row["spearman_within_size"])
    assert row["mae_kcal_mol"] == pytest.approx((1.5 + 1.5 + 0.0) / 3 * KCAL_PER_MOL)
    assert baseline(slice(2, 4)) is None
