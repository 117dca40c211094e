"""Ensembles, coverage of intervals, and predictions outside the training set."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
import yaml
from ase import Atoms
from ase.cluster import Icosahedron
from helpers import bonded_clusters
from safetensors.torch import load_file

from pyg_clusters.cli import main
from pyg_clusters.datasets import GalliumClusters
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, write_extxyz, write_store
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Calibration, OutOfRangeFlagger, Predictor
from pyg_clusters.inference.calibration import conformal_quantile, expected_error, noise_of
from pyg_clusters.models import (
    DART,
    AlloyDART,
    Ensemble,
    LastLayerPosterior,
    NodeSchNet,
    SmoothDART,
    load_model,
    save_ensemble,
    save_model,
)
from pyg_clusters.structures.potentials import ModelCalculator
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import EnergyTraining, launcher


def darts(number: int = 3, element: int = 31) -> list[DART]:
    """Untrained members with different weights, whose domain is 31 to 70 atoms."""
    members = []
    for seed in range(number):
        torch.manual_seed(seed)
        members.append(DART(hidden_channels=16))
        members[-1].domain.fit(torch.full((101,), element), torch.tensor([0, 31, 101]))
    return members


# Ensembles


def test_ensemble_is_mean_and_spread_of_its_members(generator):
    members = darts()
    z, pos, ptr = random_clusters((31, 40, 40, 52), 31, generator)
    each = np.stack([Predictor(member)(z, pos, ptr).energy.numpy() for member in members])
    by_hand = np.sqrt(((each - each.mean(0)) ** 2).sum(0) / 2)
    found = Predictor(Ensemble(members))(z, pos, ptr)
    np.testing.assert_allclose(found.energy, each.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.spread, by_hand, rtol=1e-4)
    assert Predictor(members[0])(z, pos, ptr).spread is None
    alone = Predictor(Ensemble(members))(z[31:71], pos[31:71], [0, 40])
    np.testing.assert_allclose(alone.spread, found.spread[1:2], rtol=1e-5)
    atoms = Ensemble(members).atomic_energies(z, pos, batch=ptr_to_batch(ptr))
    np.testing.assert_allclose(atoms.detach().sum(), each.mean(0).sum(), rtol=1e-6)


def test_ensemble_without_a_fast_path_is_the_same(generator):
    z, pos, ptr = random_clusters((5, 8), 31, generator)
    smooth = [SmoothDART(degree=1, hidden_channels=8, interaction_channels=(8,)) for _ in range(2)]
    each = np.stack([Predictor(member)(z, pos, ptr).energy.numpy() for member in smooth])
    found = Predictor(Ensemble(smooth))(z, pos, ptr)
    np.testing.assert_allclose(found.energy, each.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.spread, np.abs(each[0] - each[1]) / np.sqrt(2), rtol=1e-4, atol=1e-7)


def test_ensemble_in_files(tmp_path, generator):
    for number, member in enumerate(darts()):
        save_model(member, tmp_path / "runs" / f"m{number}" / "best")
    folders = [tmp_path / "runs" / f"m{number}" for number in range(3)]
    save_ensemble(tmp_path / "ensemble", folders)
    (tmp_path / "elsewhere").mkdir()
    for name in ("runs", "ensemble"):  # members are found relative to the ensemble
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    ensemble = load_model(tmp_path / "elsewhere" / "ensemble")
    z, pos, ptr = random_clusters((31, 40), 31, generator)
    expected = Predictor(Ensemble(darts()))(z, pos, ptr)
    found = Predictor(ensemble)(z, pos, ptr)
    assert torch.equal(found.energy, expected.energy) and torch.equal(found.spread, expected.spread)
    assert ensemble.domain.size_range == (31, 70) and not ensemble.training


def test_calculator_of_an_ensemble_has_mean_forces_and_spread():
    torch.manual_seed(0)
    members = [SmoothDART(degree=1, hidden_channels=8, interaction_channels=(8,)).double() for _ in range(3)]
    cluster = Icosahedron("Ga", 2, latticeconstant=4.0)
    cluster.rattle(0.1, seed=1)
    results = []
    for model in (*members, Ensemble(members)):
        cluster.calc = ModelCalculator(model)
        cluster.get_potential_energies()
        cluster.get_forces()
        results.append(cluster.calc.results)
    energies = [result["energy"] for result in results[:3]]
    assert results[3]["energy"] == pytest.approx(np.mean(energies))
    assert results[3]["energy_spread"] == pytest.approx(np.std(energies, ddof=1))
    np.testing.assert_allclose(results[3]["forces"], np.mean([r["forces"] for r in results[:3]], axis=0), atol=1e-10)
    np.testing.assert_allclose(results[3]["energies"].sum(), results[3]["energy"])
    assert "energy_spread" not in results[0]


def test_members_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"trained on different elements: Ga and Na"):
        Ensemble([*darts(1), *darts(1, element=11)])
    members = darts(2)
    members[1].scale.set_references({"Ga": -52000.0})
    with pytest.raises(InputError, match=r"different zeros of energy: Ga differs by -5.2e\+04 eV per atom"):
        Ensemble(members)
    with pytest.raises(InputError, match="targets must agree"):
        Ensemble([DART(), NodeSchNet()])
    with pytest.raises(InputError, match="at least two members, got 1"):
        Ensemble(darts(1))
    with pytest.raises(InputError, match="give one of its members"):
        EnergyTraining(DART()).start_from(Ensemble(darts()))
    for number, target in enumerate(("energy", "binding_energy")):
        save_model(darts(1)[0], tmp_path / f"m{number}", {"target": target})
    save_ensemble(tmp_path, [tmp_path / "m0", tmp_path / "m1"])
    with pytest.raises(InputError, match=r"m0 was trained on energy, .*m1 on binding_energy"):
        load_model(tmp_path)
    save_ensemble(tmp_path, [tmp_path / "m0", tmp_path / "m2"])
    with pytest.raises(InputError, match="m2 does not exist"):
        load_model(tmp_path)
    (tmp_path / "ensemble.json").write_text('{"member')
    with pytest.raises(InputError, match=r"ensemble\.json: corrupted"):
        load_model(tmp_path)


# Conformal intervals


@pytest.mark.parametrize("num", [19, 100])
def test_coverage_is_at_least_the_requested_one_on_exchangeable_data(num):
    """Coverage of a new score over many draws is ceil((n + 1) c) / (n + 1), whatever the distribution."""
    rng = np.random.default_rng(0)
    repeats, coverage = 4000, 0.9
    draws = rng.standard_t(2, (repeats, num + 1)) ** 2
    inside = [draw[-1] <= conformal_quantile(draw[:-1], coverage) for draw in draws]
    expected = np.ceil((num + 1) * coverage - 1e-9) / (num + 1)
    assert np.mean(inside) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / repeats))


def test_coverage_holds_for_a_new_group_where_clusters_alone_are_too_few():
    """Groups of unequal sizes with a common error scale are covered by group, but not by cluster."""
    rng = np.random.default_rng(1)
    by_group, by_cluster = [], []
    for _ in range(1500):
        sizes = rng.choice([1, 40], 21, p=[0.8, 0.2])
        scale = np.where(sizes == 1, 3.0, 1.0)
        groups = np.repeat(np.arange(21), sizes)
        scores = np.abs(rng.normal(size=len(groups))) * scale[groups]
        known = groups < 20
        by_group.append(scores[-1] <= conformal_quantile(scores[known], 0.8, groups[known]))
        by_cluster.append(scores[-1] <= conformal_quantile(scores[known], 0.8))
    assert np.mean(by_cluster) < 0.6
    assert 0.8 - 4 * np.sqrt(0.8 * 0.2 / 1500) < np.mean(by_group) < 0.8 + 2 / 21


def test_quantile_by_hand():
    scores = [0.5, 3.0, 1.0, 2.0]
    assert conformal_quantile(scores, 0.6) == 2.0  # rank ceil(5 * 0.6) = 3
    assert conformal_quantile(scores, 0.61) == 3.0
    # Two groups, weight 1/3 each: 1/12 a score of the first, 1/3 the only one of the second.
    assert conformal_quantile([1, 2, 3, 5, 4], 0.25, ["a", "a", "a", "a", "b"]) == 3
    assert conformal_quantile([1, 2, 3, 5, 4], 0.30, ["a", "a", "a", "a", "b"]) == 4
    for coverage in (0.0, 1.0, -0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"between 0 and 1"):
            conformal_quantile(scores, coverage)
    with pytest.raises(InputError, match=r"coverage 0.9 needs 9 independent groups .*, there are 4; .* at most 0.800"):
        conformal_quantile(scores, 0.9)


def test_expected_error_adds_spread_and_noise_of_the_atoms():
    assert expected_error(0.3, [4, 16], [0.8, 0.5]).tolist() == pytest.approx([1.0, 1.3])
    assert noise_of([0.2, -0.4], [4, 16]) == pytest.approx(0.1)


def test_posterior_of_the_last_layer_is_that_of_linear_regression(generator):
    z, pos, ptr = random_clusters((31,) * 30 + (40,) * 30, 31, generator)
    torch.manual_seed(1)  # no feature is constant over the atoms
    model = DART(hidden_channels=16, interaction_channels=(8, 3)).double()
    pos = pos.double()
    posterior = LastLayerPosterior.fit_blocks(model, [(z, pos, ptr)], noise=0.05)
    batch = torch.repeat_interleave(ptr.diff())
    features = model.features(z, pos, batch).detach().numpy()
    phi = np.stack([np.append(features[a:b].sum(0), float(b - a)) for a, b in zip(ptr[:-1], ptr[1:], strict=True)])
    rows = phi / np.sqrt(ptr.diff().numpy())[:, None]
    covariance = 0.05**2 * np.linalg.inv(rows.T @ rows)
    expected = np.sqrt(np.einsum("ki,ij,kj->k", phi, covariance, phi))
    found = Predictor(posterior)(z, pos, ptr)
    np.testing.assert_allclose(found.spread, expected, rtol=1e-5)
    np.testing.assert_allclose(found.energy, Predictor(model)(z, pos, ptr).energy, rtol=1e-9)
    stretched = Predictor(posterior)(z, 2 * pos, ptr)
    assert stretched.spread.mean() > 2 * found.spread.mean()
    with pytest.raises(InputError, match="needs a DART, not SmoothDART"):
        LastLayerPosterior(SmoothDART(), posterior.covariance)


# Outside the training set


def test_flags_list_what_the_training_set_lacks():
    cluster = Icosahedron("Ga", 2, latticeconstant=4.2)
    seen = [cluster.copy() for _ in range(20)]
    for number, atoms in enumerate(seen):
        atoms.rattle(0.02, seed=number)
    z, pos, ptr = flat(seen)
    known = OutOfRangeFlagger.fit_blocks([(z, pos, ptr)], (3.49,))
    known.allow_blocks([(z, pos, ptr)])
    assert (known.flags(z, pos, ptr) == "").all()

    larger = Icosahedron("Ga", 3, latticeconstant=4.2)
    short, far, alien, shuffled = (cluster.copy() for _ in range(4))
    short.positions[1] = short.positions[0] + [0.0, 0.0, 1.5]
    far.positions[5] *= 3
    alien.numbers[3] = 11
    shuffled.positions *= [1.0, 1.0, 1.4]
    flags = known.flags(*flat([larger, short, far, alien, cluster, shuffled]))
    assert flags[0].startswith("size 55 outside 13 to 13") and "counts of 100 %" in flags[0]
    assert "distance 1.50 Å below" in flags[1]
    assert "from its nearest neighbour, above" in flags[2]
    assert flags[3] == "Na not seen" and flags[4] == ""
    assert "counts of" in flags[5]
    again = OutOfRangeFlagger(**json.loads(json.dumps(asdict(known))))
    assert (again.flags(*flat([larger, short, far, alien])) == flags[:4]).all()


def test_the_range_of_a_chain_and_a_triangle():
    chain, triangle = np.array([[0.0, 0, 0], [3, 0, 0], [6.2, 0, 0]]), np.array([[0.0, 0, 0], [3, 0, 0], [1.5, 2.7, 0]])
    known = OutOfRangeFlagger.fit_blocks([flat([Atoms("Ga3", chain), Atoms("Ga3", triangle)])], (3.49, 6.3))
    assert known.rows == [2, 1 + (1 << 15)]  # two J neighbours; one J and one K, in digits of 15 bits
    np.testing.assert_allclose([known.shortest, known.farthest], [3.0, 3.2], rtol=1e-6)


def test_distances_are_flagged_by_their_elements():
    """Cu-Cu of 2.2 Å, Au-Au of 2.6 Å: 2.4 Å is too short between gold atoms, and far for copper; they never touched."""
    apart = np.array([[0.0, 0, 0], [2.2, 0, 0], [8.2, 0, 0], [10.8, 0, 0]])
    known = OutOfRangeFlagger.fit_blocks([flat([Atoms("Cu2Au2", apart)])])
    assert known.closest == pytest.approx({"Cu-Cu": 2.2, "Cu-Au": 1.3 * (1.32 + 1.36), "Au-Au": 2.6})
    gold, both, copper = apart - [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0.2, 0, 0]], apart.copy(), apart.copy()
    both[1, 0], copper[1, 0], copper[3, 0] = 2.0, 2.3, 10.9
    mixed = np.array([[0.0, 0, 0], [2.2, 0, 0], [4.8, 0, 0], [7.4, 0, 0]])
    assert known.farthest_of == pytest.approx({"Cu": 2.2, "Au": 2.6})
    loose = Atoms("Cu2Au2", apart - [[0.2, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert known.flags(*flat([loose])) == ["Cu atom 2.40 Å from its nearest neighbour, above 2.20"]
    known.farthest_of = dict.fromkeys(("Cu", "Au"), float("inf"))
    flags = known.flags(*flat([Atoms("Cu2Au2", pos) for pos in (gold, both, copper, mixed)]))
    expected = ["Au-Au distance 2.40 Å below 2.60", "Cu-Cu distance 2.00 Å below 2.20", ""]
    assert flags.tolist() == [*expected, "Cu-Au distance 2.60 Å below 3.48"]
    again = OutOfRangeFlagger(**json.loads(json.dumps(asdict(known))))
    assert (again.flags(*flat([Atoms("Cu2Au2", gold)])) == expected[:1]).all()
    older = {name: value for name, value in asdict(known).items() if name not in ("closest", "farthest_of")}
    assert OutOfRangeFlagger(**older).flags(*flat([Atoms("Cu2Au2", both)])) == ["distance 2.00 Å below 2.20"]


def test_a_model_alone_knows_its_elements_and_the_ends_of_its_sizes():
    known = OutOfRangeFlagger.of_domain(darts(1)[0].domain)
    frames = [Icosahedron(element, shells, 4.2) for element, shells in (("Ga", 2), ("Ga", 3), ("Na", 3))]
    assert known.flags(*flat(frames)).tolist() == ["size 13 outside 31 to 70", "", "Na not seen"]


def test_flags_of_compositions():
    """Trained on 10 and 20 % of gold: more or fewer atoms of an element are flagged, one atom of rounding is not."""
    cluster = Icosahedron("Cu", 3, latticeconstant=3.8)[:20]

    def with_gold(count: int) -> Atoms:
        atoms = cluster.copy()
        atoms.numbers[:count] = 79
        return atoms

    known = OutOfRangeFlagger.fit_blocks([flat([with_gold(2)]), flat([with_gold(4)])])
    np.testing.assert_allclose(known.fractions, [[0.8, 0.9], [0.1, 0.2]])
    frames = flat([with_gold(count) for count in (0, 1, 3, 5, 6, 20)])
    flags = ["Cu 100 % of the atoms, above 90 %", "", "", "", "Au 30 % of the atoms, above 20 %"]
    flags.append("Au 100 % of the atoms, above 20 %")
    assert known.flags(*frames).tolist() == flags
    model = AlloyDART([29, 79], hidden_channels=8)
    for count in (2, 4):
        model.domain.add(*(flat([with_gold(count)])[part] for part in (0, 2)))
    assert OutOfRangeFlagger.of_domain(Ensemble([model, model]).domain).flags(*frames).tolist() == flags
    saved = {name: value for name, value in model.state_dict().items() if name != "domain.fractions"}
    model.load_state_dict(saved)  # of an earlier version, in which fractions are unknown
    model.domain.add(*(flat([with_gold(6)])[part] for part in (0, 2)))
    assert OutOfRangeFlagger.of_domain(model.domain).flags(*frames).tolist() == [""] * 6


def flat(frames: list[Atoms]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z = torch.cat([torch.from_numpy(atoms.numbers).long() for atoms in frames])
    pos = torch.cat([torch.from_numpy(atoms.positions) for atoms in frames])
    return z, pos, torch.tensor([0, *map(len, frames)]).cumsum(0)


# On the command line


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    """Two members trained for two epochs on clusters with an energy of -0.3 eV per bond."""
    folder = tmp_path_factory.mktemp("ensemble")
    write_extxyz(folder / "clusters.extxyz", bonded_clusters(per_segment=3))
    files = {"root": str(folder), "files": [str(folder / "clusters.extxyz")], "target": "binding", "group": "segment"}
    recipe = {
        "data": {
            "dataset": {"class_path": "pyg_clusters.datasets.ClusterDataset", "init_args": files},
            "fractions": [0.4, 0.3, 0.3],
            "batch_size": 8,
        },
        "model": {"model": {"class_path": "pyg_clusters.models.DART", "init_args": {"hidden_channels": 8}}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with in_this_process():
        assert main(train_command(folder, folder / "run")) == 0
    return folder


def train_command(folder: Path, out: Path) -> list[str]:
    return ["train", "--config", str(folder / "recipe.yaml"), "--ensemble", "2", "--out", str(out)]


@contextmanager
def in_this_process() -> Iterator[list[list[str]]]:
    """Train members in this process, as new processes take seconds to start."""
    begun: list[list[str]] = []

    def begin(training, folder):
        begun.append(training.arguments(folder))
        return SimpleNamespace(is_alive=lambda: False, exitcode=main(begun[-1]), join=lambda: None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "_begin", begin)
        patch.setattr(launcher, "POLL_SECONDS", 0.0)
        yield begun


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "best" / "model.safetensors")


def test_members_are_of_one_split_and_other_seeds(ensemble):
    members = [ensemble / "run" / f"member_{seed}" for seed in (0, 1)]
    splits, firsts = [], []
    for seed, member in enumerate(members):
        configuration = yaml.safe_load((member / "config.yaml").read_text())
        assert configuration["seed_everything"] == configuration["data"]["shuffle_seed"] == seed
        splits.append([(member / "splits" / f"{part}.txt").read_text() for part in ("train", "val", "test")])
        firsts.append(weights(member)["interaction.0.weight"])
    assert splits[0] == splits[1] and not torch.equal(*firsts)
    metrics = json.loads((ensemble / "run" / "test_metrics.json").read_text())
    assert metrics["overall"]["num_clusters"] > 10
    assert "pred_energy_spread" in read_columns(ensemble / "run" / "test_predictions.csv")


def test_members_of_the_same_weights_give_a_warning(ensemble, tmp_path, capsys, monkeypatch):
    for name in ("train_ensemble", "_evaluate_ensemble"):
        monkeypatch.setattr(sys.modules["pyg_clusters.training.train"], name, lambda *_: None)
    assert main(train_command(ensemble, tmp_path / "out")) == 0
    assert "warning" not in capsys.readouterr().out
    assert main([*train_command(ensemble, tmp_path / "out"), "--init-from", "gallium"]) == 0
    assert "all members start from the same weights, so their spread is too small" in capsys.readouterr().out


def test_stopped_and_resumed_ensemble_equals_an_uninterrupted_one(ensemble, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(ensemble / "run", run)
    shutil.rmtree(run / "member_1")
    (run / "test_metrics.json").unlink()
    with pytest.raises(InputError, match="member_1 does not exist"):
        load_model(run)
    with in_this_process() as begun:
        assert main(["train", "--resume", str(run)]) == 0
    assert [arguments[1] for arguments in begun] == ["--config"]  # the finished member is unchanged
    for member in ("member_0", "member_1"):
        whole, resumed = weights(ensemble / "run" / member), weights(run / member)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (run / "test_metrics.json").read_text() == (ensemble / "run" / "test_metrics.json").read_text()
    assert main([*train_command(ensemble, run), "--trainer.max_epochs", "9"]) == 2
    assert "was started with a different recipe or other options" in capsys.readouterr().err


def test_the_shipped_model_is_calibrated(tmp_path):
    dataset = GalliumClusters()
    frames = [Atoms(dataset[number].z.numpy(), dataset[number].pos.numpy()) for number in (0, 3000)]
    frames.append(frames[0].copy())
    frames[2].rattle(0.3, seed=0)
    write_extxyz(tmp_path / "frames.xyz", frames)
    out = tmp_path / "p.parquet"
    arguments = ["predict", "gallium", str(tmp_path / "frames.xyz"), "--coverage", "0.9", "--out", str(out)]
    assert main(arguments) == 0
    table = pyarrow.parquet.read_table(out).to_pydict()
    for place, number in enumerate((0, 3000)):
        half = (table["pred_energy_high"][place] - table["pred_energy_low"][place]) / 2
        assert 0.2 < half < 0.5 and abs(table["pred_energy"][place] - float(dataset[number].y)) < 2 * half
    assert table["pred_flag"][:2] == ["", ""] and "distance" in table["pred_flag"][2]


@pytest.mark.slow
def test_members_are_trained_in_processes_of_their_own(ensemble, tmp_path):
    assert main([*train_command(ensemble, tmp_path / "run"), "--workers", "2"]) == 0
    for member in ("member_0", "member_1"):
        whole, other = weights(ensemble / "run" / member), weights(tmp_path / "run" / member)
        assert all(torch.equal(whole[name], other[name]) for name in whole)


@pytest.mark.figures
def test_intervals_of_predict_and_evaluate(ensemble, tmp_path, capsys):
    run, frames, out = str(ensemble / "run"), str(ensemble / "clusters.extxyz"), tmp_path / "p.parquet"
    assert main(["predict", run, frames, "--coverage", "0.5", "--out", str(out)]) == 2
    assert "is not calibrated: run pyg-clusters calibrate" in capsys.readouterr().err
    assert main(["calibrate", run]) == 0
    assert main(["predict", run, frames, "--coverage", "0.5", "--out", str(out)]) == 0
    table = {name: np.array(values) for name, values in pyarrow.parquet.read_table(out).to_pydict().items()}
    calibration = Calibration.load(Path(run) / "calibration.json")
    assert len(set(calibration.groups)) < len(calibration.scores)
    half = calibration.quantile(0.5) * np.sqrt(table["pred_energy_spread"] ** 2 + calibration.noise**2 * table["size"])
    np.testing.assert_allclose(table["pred_energy_high"] - table["pred_energy"], half, rtol=1e-4)
    np.testing.assert_allclose(table["pred_energy"] - table["pred_energy_low"], half, rtol=1e-4)
    train = [int(line) for line in (Path(run) / "member_0/splits/train.txt").read_text().split()]
    assert set(table["pred_flag"][train]) == {""}
    assert main(["predict", run, frames, "--coverage", "0.5", "--out", str(tmp_path / "p.extxyz")]) == 0
    first = ase.io.read(tmp_path / "p.extxyz", 0).info
    assert first["pred_energy_low"] == pytest.approx(table["pred_energy_low"][0]) and "pred_flag" in first

    assert main(["evaluate", run, "--coverage", "0.5"]) == 0
    found = json.loads((Path(run) / "test_metrics.json").read_text())["intervals"]
    tested = read_columns(Path(run) / "test_predictions.csv")
    width = calibration.half_width(0.5, tested["size"], tested["pred_energy_spread"])
    assert found["coverage_reached"] == pytest.approx(np.mean(abs(tested["pred_energy"] - tested["energy"]) <= width))
    assert found["mean_width_kcal_mol"] == pytest.approx(2 * width.mean() * 23.060548, rel=1e-5)
    assert (Path(run) / "figures" / "reliability.png").stat().st_size > 5000
    assert main(["info", run]) == 0
    assert "Ensemble(2 x DART)" in capsys.readouterr().out


def test_intervals_of_a_single_model(ensemble, tmp_path):
    run, frames = tmp_path / "run", str(ensemble / "clusters.extxyz")
    shutil.copytree(ensemble / "run" / "member_0", run)
    for kind in ("none", "last_layer"):
        assert main(["calibrate", str(run), "--spread", kind]) == 0
        arguments = [
            "predict",
            str(run),
            frames,
            "--coverage",
            "0.5",
            "--overwrite",
            "--out",
            str(tmp_path / "p.parquet"),
        ]
        assert main(arguments) == 0
        names = pyarrow.parquet.read_table(tmp_path / "p.parquet").column_names
        assert ("pred_energy_spread" in names) == (kind == "last_layer")


def test_intervals_of_shieldings(ensemble, tmp_path, capsys, monkeypatch):
    frames = ase.io.read(ensemble / "clusters.extxyz", ":")
    for atoms in frames:
        atoms.arrays["nmr"] = 500.0 + 10.0 * (atoms.get_all_distances() < 3.49).sum(1)
    write_extxyz(tmp_path / "nmr.extxyz", frames)
    files = {"root": str(tmp_path), "files": [str(tmp_path / "nmr.extxyz")], "target": "nmr", "per_atom": True}
    model = {"class_path": "pyg_clusters.models.NodeSchNet", "init_args": {"hidden_channels": 8, "num_filters": 8}}
    recipe = {
        "data": {
            "dataset": {"class_path": "pyg_clusters.datasets.ClusterDataset", "init_args": files},
            "split": "random",
            "fractions": [0.4, 0.3, 0.3],
        },
        "model": {"class_path": "pyg_clusters.training.ShieldingTraining", "init_args": {"model": model}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    assert main(["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(run)]) == 0
    assert main(["calibrate", str(run)]) == 0
    assert "in 18 groups" in (said := capsys.readouterr().out) and "--coverage X --out FILE (X up to 0.947)" in said
    assert main(["evaluate", str(run), "--coverage", "0.6"]) == 0
    found = json.loads((run / "test_metrics.json").read_text())["intervals"]
    table = read_columns(run / "test_predictions.csv")
    half = found["mean_width_ppm"] / 2
    inside = np.abs(table["pred_nmr_shielding"] - table["nmr_shielding"]) <= half * (1 + 1e-6)
    assert found["coverage_reached"] == pytest.approx(inside.mean()) and found["num_groups"] == 18

    labelled = [str(tmp_path / "nmr.extxyz"), "--target", "nmr", "--out", str(tmp_path / "errors.json")]
    assert main(["evaluate", str(run), *labelled, "--coverage", "0.6"]) == 0
    found = json.loads((tmp_path / "errors.json").read_text())["intervals"]
    assert found["num_groups"] == len(frames) and found["mean_width_ppm"] == pytest.approx(2 * half, rel=1e-5)
    write_extxyz(tmp_path / "halves_0.extxyz", frames[::2])
    write_extxyz(tmp_path / "halves_1.extxyz", frames[1::2])
    for number, atoms in enumerate(frames):
        atoms.info["group"] = number % 3
    write_extxyz(tmp_path / "groups.extxyz", frames)
    write_store(tmp_path / "alone.h5", Frames.open(tmp_path / "nmr.extxyz", atom_properties=["nmr"]))
    reads, blocks = [], Frames.blocks
    monkeypatch.setattr(Frames, "blocks", lambda self, **kwargs: reads.append(self) or blocks(self, **kwargs))
    for names, count in (("halves_*.extxyz", 2), ("groups.extxyz", 3), ("alone.h5", len(frames))):
        labelled[0] = str(tmp_path / names)
        assert main(["evaluate", str(run), *labelled, "--coverage", "0.6", "--overwrite"]) == 0
        assert json.loads((tmp_path / "errors.json").read_text())["intervals"]["num_groups"] == count
        assert len(reads) == (1 if names == "groups.extxyz" else 2)  # groups are read together with the frames
        reads.clear()
    monkeypatch.undo()
    predicted = tmp_path / "p.csv"
    arguments = ["predict", str(run), str(tmp_path / "nmr.extxyz"), "--out", str(predicted), "--coverage", "0.6"]
    assert main(arguments) == 0
    table = {name: np.array(values) for name, values in pyarrow.csv.read_csv(predicted).to_pydict().items()}
    shielding = np.concatenate([atoms.arrays["nmr"] for atoms in frames])
    inside = (table["pred_nmr_shielding_low"] <= shielding) & (shielding <= table["pred_nmr_shielding_high"])
    assert found["coverage_reached"] == pytest.approx(inside.mean())
    np.testing.assert_allclose(table["pred_nmr_shielding_high"] - table["pred_nmr_shielding_low"], 2 * half, rtol=1e-5)


def test_bad_input_is_one_line(ensemble, tmp_path, capsys):
    run, frames = tmp_path / "run", str(ensemble / "clusters.extxyz")
    shutil.copytree(ensemble / "run" / "member_0", run)
    out = str(tmp_path / "p.csv")
    recipe = ["train", "--config", str(ensemble / "recipe.yaml")]
    assert main(["calibrate", str(run)]) == 0
    save_model(darts(1)[0], tmp_path / "other")
    shutil.copytree(ensemble / "run" / "member_1", tmp_path / "moved")
    (tmp_path / "moved" / "splits" / "val.txt").write_text("0\n")
    save_ensemble(tmp_path / "mixed", [run, tmp_path / "moved"])
    for arguments, message in (
        (["predict", run, frames, "--coverage", "1.2", "--out", out], "between 0 and 1 (0.9 for example), got 1.2"),
        (["evaluate", run, "--coverage", "0"], "between 0 and 1"),
        (["predict", run, frames, "--coverage", "0.99", "--out", out], "coverage 0.99 needs 99 independent groups"),
        (["ensemble", run, tmp_path / "nosuch", "--out", tmp_path / "e"], "nosuch does not exist"),
        (["ensemble", run, "--out", tmp_path / "e"], "at least two members"),
        (["calibrate", tmp_path / "other"], "is not the folder of a run"),
        (["calibrate", tmp_path / "mixed"], "uses a different split from"),
        (["calibrate", ensemble / "run", "--spread", "last_layer"], "has its own spread"),
        ([*recipe, "--ensemble", "one", "--out", tmp_path / "e"], "--ensemble needs a whole number, got 'one'"),
        ([*recipe, "--ensemble", "1", "--out", tmp_path / "e"], "at least two members"),
        ([*recipe, "--ensemble", "2", "--out", run], "already contains a run"),
    ):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2, arguments
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], lines
    assert not (tmp_path / "e").exists() and not Path(out).exists()
    shutil.copy(ensemble / "run/member_1/best/model.safetensors", run / "best/model.safetensors")
    assert main(["predict", str(run), frames, "--coverage", "0.5", "--out", out]) == 2
    assert "belongs to other weights" in capsys.readouterr().err
    (run / "calibration.json").write_text('{"spread": 3')
    assert main(["predict", str(run), frames, "--coverage", "0.5", "--out", out]) == 2
    assert "calibration.json: corrupted" in capsys.readouterr().err
