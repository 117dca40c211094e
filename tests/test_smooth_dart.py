"""SmoothDART: the sharp limit, physics, forces and their uses."""

import json

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.calculator import CalculatorError
from ase.calculators.fd import calculate_numerical_forces
from ase.cluster import Icosahedron
from scipy.special import eval_legendre

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, GalliumClusters, group_split
from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.geometry import pad_clusters, pair_distances, ptr_to_batch, soft_beyond_masks
from pyg_clusters.inference.run import Run
from pyg_clusters.models import DART, Ensemble, SmoothDART, save_model
from pyg_clusters.nn import spherical_harmonics
from pyg_clusters.structures import Gupta, ModelCalculator, energy_and_forces, relax
from pyg_clusters.testing import random_clusters, validate_model

SMALL = {"descriptor_radii": (2.5, 3.0, 3.5, 4.5), "width": 1.0, "hidden_channels": 16}


def clusters(sizes=(20, 31, 7, 1, 2), seed=1):
    z, pos, ptr = random_clusters(sizes, 31, torch.Generator().manual_seed(seed))
    return z, pos, ptr_to_batch(ptr)


def test_sharp_shells_without_directions_are_those_of_dart():
    dart = DART().double()
    smooth = SmoothDART(width=1e-7, degree=0, act="celu").double().eval()
    missing = smooth.load_state_dict(dart.state_dict(), strict=False)
    assert not missing.unexpected_keys and {key.split(".")[0] for key in missing.missing_keys} == {"inputs"}
    assert torch.allclose(smooth(*clusters()), dart(*clusters()), rtol=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"degree": 0}, {"degree": 4, "rounds": 2, **SMALL}, {"outermost_shell": False, **SMALL}]
)
def test_physics(options):
    validate_model(SmoothDART(**options))


def test_memberships_sum_to_one_and_count_neighbours():
    _, pos, batch = clusters()
    padded, _, sizes = pad_clusters(pos, batch)
    pairs, _, distance = pair_distances(padded, sizes)
    masks = soft_beyond_masks(distance, pairs, (3.0, 4.0, 6.0), 0.3)
    outer = torch.cat([pairs[:, :, None].double(), masks], dim=2)
    weights = outer - torch.cat([masks, torch.zeros_like(masks[:, :, :1])], dim=2)
    assert (weights >= 0).all() and torch.allclose(weights.sum(2), pairs.double())
    assert pairs.sum().item() == sum(size * (size - 1) for size in sizes.tolist())
    half = soft_beyond_masks(torch.full((1, 1, 1), 3.0), torch.ones(1, 1, 1, dtype=torch.bool), (3.0,), 0.3)
    assert half.item() == pytest.approx(0.5)


@pytest.mark.parametrize("degree", range(1, 9))
def test_harmonics_obey_the_addition_theorem(degree):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.nn.functional.normalize(torch.randn(2, 40, 3, generator=generator, dtype=torch.double), dim=-1)
    orders = slice(degree**2 - 1, (degree + 1) ** 2 - 1)
    sums = (spherical_harmonics(a, 8)[:, orders] * spherical_harmonics(b, 8)[:, orders]).sum(-1)
    assert np.allclose(sums, eval_legendre(degree, (a * b).sum(-1).numpy()), atol=1e-12)
    fewer = spherical_harmonics(a, 8)[:, : (degree + 1) ** 2 - 1]
    assert torch.allclose(spherical_harmonics(a, degree), fewer, rtol=0, atol=1e-13)


def test_forces_are_exact():
    model = SmoothDART(degree=3, rounds=2, **SMALL).double().eval()
    z, pos, batch = clusters((6, 4))
    _, forces = energy_and_forces(model, z, pos, batch)
    step = 1e-4
    for atom, axis in ((0, 0), (3, 1), (8, 2)):
        moved = torch.zeros_like(pos)
        moved[atom, axis] = step
        difference = model(z, pos + moved, batch).sum() - model(z, pos - moved, batch).sum()
        assert -difference.item() / (2 * step) == pytest.approx(forces[atom, axis].item(), rel=1e-5, abs=1e-7)
    assert forces[:6].sum(0).abs().max() < 1e-8  # the cluster as a whole does not move


def test_energy_is_continuous_where_that_of_dart_jumps():
    distance = torch.linspace(3.2, 6.6, 341, dtype=torch.double)
    pos = torch.zeros(341, 2, 3, dtype=torch.double)
    pos[:, 1, 0] = distance
    z, batch = torch.full((682,), 31), torch.arange(341).repeat_interleave(2)
    torch.manual_seed(0)
    jumps = {}
    for model in (DART().double(), SmoothDART().double().eval()):
        energy = model(z, pos.flatten(0, 1), batch).detach()
        steps = energy.diff().abs()
        jumps[type(model).__name__] = float(steps.max() / (energy.max() - energy.min()))
    assert jumps["DART"] > 0.4 and jumps["SmoothDART"] < 0.05


def test_positions_in_double_precision_are_taken_by_a_model_in_single():
    model = SmoothDART(degree=3, **SMALL).eval()
    z, pos, batch = clusters((12, 9))
    energy, forces = energy_and_forces(model, z, pos.double(), batch)
    assert energy.dtype == forces.dtype == torch.double
    of_single = energy_and_forces(model, z, pos.float(), batch)
    assert torch.allclose(energy.float(), of_single[0]) and torch.allclose(forces.float(), of_single[1], atol=1e-5)
    relaxed = relax(model, z, pos.double(), batch, fmax=1e9)
    assert relaxed.converged.all() and torch.equal(relaxed.pos, pos.double())


@pytest.mark.parametrize("change", ["every pair", "small blocks"])
def test_shortcuts_change_nothing(monkeypatch, change):
    model = SmoothDART(degree=8, **SMALL).double().eval()
    z, pos, batch = clusters((45, 60, 2, 1))
    fast = energy_and_forces(model, z, pos, batch)
    if change == "every pair":
        monkeypatch.setattr(SmoothDART, "_near", lambda self, *pairs: pairs)
    else:
        monkeypatch.setattr("pyg_clusters.models.smooth_dart.ATOMS_AT_ONCE", 30)
    for found, expected in zip(energy_and_forces(model, z, pos, batch), fast, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_inputs_are_standardised_by_the_whole_first_batch(monkeypatch):
    z, pos, batch = clusters((45, 60, 20))
    means = []
    for atoms in (1000, 30):
        monkeypatch.setattr("pyg_clusters.models.smooth_dart.ATOMS_AT_ONCE", atoms)
        model = SmoothDART(**SMALL).double().train()
        model(z, pos, batch)
        means.append(model.inputs.mean)
    assert torch.equal(*means)


@pytest.mark.parametrize(("outermost_shell", "additive"), [(False, True), (True, False)])
def test_distant_clusters_add_without_the_outermost_shell(outermost_shell, additive):
    model = SmoothDART(outermost_shell=outermost_shell, **SMALL).double().eval()
    z, pos, batch = clusters((20, 13))
    apart = pos + 50.0 * batch[:, None]
    together = model(z, apart, torch.zeros_like(batch))
    assert torch.allclose(together, model(z, pos, batch).sum(), rtol=1e-10) == additive


def test_directions_distinguish_angles():
    def triple(angle):
        return torch.tensor([[0.0, 0.0, 0.0], [2.7, 0.0, 0.0], [2.7 * np.cos(angle), 2.7 * np.sin(angle), 0.0]])

    far = torch.tensor([[20.0, 0.0, 0.0]])  # both angles leave the counts of the first atom alone
    for degree, told in ((0, False), (1, True)):
        model = SmoothDART(radii=(3.49,), degree=degree, **SMALL).eval()
        padded = torch.stack([torch.cat([triple(1.2), far]), torch.cat([triple(2.0), far])])
        x, _ = model._descriptor(padded, torch.tensor([4, 4]))
        assert bool((x[0, 0] - x[1, 0]).abs().max() > 0.05) == told


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match="degree must be 0 to 8"):
        SmoothDART(degree=9)
    with pytest.raises(InputError, match="width of a shell boundary must be positive"):
        SmoothDART(width=0.0)


def test_calculator_gives_the_energy_and_its_gradient():
    cluster = Icosahedron("Na", 2, latticeconstant=5.2)
    cluster.rattle(0.1, seed=1)
    cluster.calc = ModelCalculator(Gupta("Na"))
    assert cluster.get_potential_energies().sum() == pytest.approx(cluster.get_potential_energy())
    numerical = calculate_numerical_forces(cluster, 1e-4)
    assert np.allclose(cluster.get_forces(), numerical, atol=1e-6)
    cluster.positions[3, 1] = np.nan
    with pytest.raises(CalculatorError, match=r"atom 3 is at \[.*nan.*\], which is not a valid position"):
        cluster.get_forces()
    model = SmoothDART(**SMALL)
    model.domain.fit(torch.tensor([31]), torch.tensor([0, 1]))
    cluster.calc = ModelCalculator(model)
    with pytest.raises(InputError, match="trained on Ga and not on Na"):
        cluster.get_potential_energy()


def test_a_model_without_forces_is_refused(tmp_path, capsys):
    write_extxyz(tmp_path / "ga.extxyz", [Icosahedron("Ga", 2, latticeconstant=4.0)])
    save_model(DART(), tmp_path / "dart")
    command = ["relax", str(tmp_path / "ga.extxyz"), "--calculator", str(tmp_path / "dart")]
    assert main([*command, "--out", str(tmp_path / "relaxed.extxyz")]) == 2
    assert "DART has no forces" in capsys.readouterr().err
    assert not (tmp_path / "relaxed.extxyz").exists()


def test_relaxing_with_a_model_ends_without_forces(tmp_path):
    torch.manual_seed(0)
    model = SmoothDART(**SMALL).double()
    model.scale.scale.fill_(1.0)
    save_model(model, tmp_path / "model")
    z, pos, batch = clusters((6, 5))
    frames = [ase.Atoms(z[batch == k].numpy(), pos[batch == k].numpy() + 50) for k in (0, 1)]
    write_extxyz(tmp_path / "in.extxyz", frames)
    command = ["relax", str(tmp_path / "in.extxyz"), "--calculator", str(tmp_path / "model"), "--fmax", "0.01"]
    assert main([*command, "--steps", "2000", "--out", str(tmp_path / "out.extxyz")]) == 0
    for before, after in zip(frames, ase.io.read(tmp_path / "out.extxyz", ":"), strict=True):
        after.calc = ModelCalculator(model)
        before.calc = ModelCalculator(model)
        assert after.info["converged"] and np.linalg.norm(after.get_forces(), axis=1).max() < 0.0101
        assert after.get_potential_energy() == pytest.approx(after.info["model_energy"], abs=1e-6)
        assert after.get_potential_energy() < before.get_potential_energy()


def test_minima_and_hot_frames_are_split_as_each_is_alone():
    both, minima = GalliumClusters(subset="forces_minima"), GalliumClusters()
    split = both.group_split(seed=0)
    hot = 3500
    assert len(both) == hot + len(minima)
    assert torch.equal(split.test[split.test >= hot] - hot, group_split(minima.groups, seed=0).test)
    assert both[hot].force.abs().max() == 0 and both[0].force.abs().max() > 0.1
    groups = [set(both.groups[part].tolist()) for part in (split.train, split.val, split.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Rattled sodium icosahedra with energies and forces of the Gupta potential."""
    found = []
    for number in range(48):
        cluster = Icosahedron("Na", 2, latticeconstant=5.1)
        cluster.rattle(0.15, seed=number)
        cluster.calc = ModelCalculator(Gupta("Na"))
        atoms = ase.Atoms(cluster.numbers, cluster.positions, info={"REF_energy": cluster.get_potential_energy()})
        atoms.arrays["forces"] = cluster.get_forces()
        atoms.info["run"] = f"r{number // 4}"
        found.append(atoms)
    path = tmp_path_factory.mktemp("frames") / "sodium.extxyz"
    write_extxyz(path, found)
    return path


EPOCHS = 14


def recipe(frames, folder, **data):
    arguments = {"root": str(folder), "files": [str(frames)], "target": "REF_energy", "group": "run", **data}
    content = {
        "data": {
            "dataset": {"class_path": "pyg_clusters.datasets.ClusterDataset", "init_args": arguments},
            "batch_size": 8,
        },
        "model": {
            "class_path": "pyg_clusters.training.ForceTraining",
            "init_args": {
                "model": {
                    "class_path": "pyg_clusters.models.SmoothDART",
                    "init_args": {"radii": [4.5], "descriptor_radii": [3.4, 3.8, 4.2, 4.6, 5.4], "degree": 2},
                },
                "force_weight": 2.0,
                "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}},
                "scheduler": {
                    "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
                    "init_args": {"T_max": EPOCHS},
                },
            },
        },
        "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_forces_are_learned(frames, tmp_path):
    path = recipe(frames, tmp_path, forces=True)
    assert main(["train", "--config", str(path), "--out", str(tmp_path / "run")]) == 0
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().replace('"', "").splitlines()
    column = header.split(",").index("val_force_mae")
    tested = json.loads((tmp_path / "run" / "test_metrics.json").read_text())["forces"]
    assert 0 < tested["mae_mev_per_angstrom"] < 40
    run = Run(tmp_path / "run")
    assert run.forces == "forces"
    assert run.metrics is not None and run.metrics["force_mae_mev_per_angstrom"] == tested["mae_mev_per_angstrom"]
    first, last = float(rows[0].split(",")[column]), float(rows[-1].split(",")[column])
    assert last < 0.4 * first and last < 40  # meV/Å; the forces are 150 on average


def test_a_model_without_forces_on_data_with_forces(frames, tmp_path):
    path = recipe(frames, tmp_path, forces=True)
    content = yaml.safe_load(path.read_text())
    dart = {"class_path": "pyg_clusters.models.DART", "init_args": {"radii": [4.5]}}
    del content["model"]["init_args"]["force_weight"]
    content["model"] = {
        "class_path": "pyg_clusters.training.EnergyTraining",
        "init_args": content["model"]["init_args"] | {"model": dart},
    }
    path.write_text(yaml.safe_dump(content))
    command = ["train", "--config", str(path), "--out", str(tmp_path / "run"), "--trainer.max_epochs", "1"]
    assert main(command) == 0
    assert "forces" not in json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    assert Run(tmp_path / "run").forces is None


def test_errors_of_forces_on_frames(frames, tmp_path, capsys):
    """A model trained on forces is compared with those of the frames; others only if they are named."""
    model, out = SmoothDART([4.5], descriptor_radii=[3.4, 3.8, 4.2], degree=1), tmp_path / "errors.json"
    atoms = ase.io.read(frames, ":3")
    z, pos = (
        torch.from_numpy(np.concatenate([getattr(one, name) for one in atoms])) for name in ("numbers", "positions")
    )
    model.domain.fit(z, torch.tensor([0, 13, 26, 39]), pos)
    save_model(model, tmp_path / "energies", {"target": "REF_energy"})
    save_model(model, tmp_path / "forces", {"target": "REF_energy", "val_force_mae_mev_per_angstrom": 30.0})
    predicted = [ModelCalculator(model).get_forces(one) for one in atoms]
    for number, (one, force) in enumerate(zip(atoms, predicted, strict=True)):
        one.positions += 1e4  # does not matter in single precision
        one.arrays |= {"twice": -2.0 * force, "per_bohr": 0.529177 * force}
        one.arrays["forces"] = force + 0.1 * np.array([0.0, 0.0, 3.0 * number])
        one.calc = None
    write_extxyz(tmp_path / "a.extxyz", atoms)
    command = ["evaluate", str(tmp_path / "forces"), str(tmp_path / "a.extxyz"), "--out", str(out), "--overwrite"]

    def errors(*more: str) -> dict[str, float] | None:
        assert main([*command, *more]) == 0
        return json.loads(out.read_text()).get("forces")

    expected = {"mae_mev_per_angstrom": 100.0, "rmse_mev_per_angstrom": 1000 * ((0.3**2 + 0.6**2) / 9) ** 0.5}
    assert errors() == pytest.approx(expected, rel=1e-4)
    assert "warning: the forces" not in capsys.readouterr().out
    errors("--forces", "twice")
    assert "the forces of the frames are -2 times those of the model (correlation -1.00)" in capsys.readouterr().out
    errors("--forces", "per_bohr")
    assert "the forces of the frames are 0.529 times those of the model" in capsys.readouterr().out
    assert errors("--energy-unit", "Hartree")["mae_mev_per_angstrom"] > 5 * expected["mae_mev_per_angstrom"]
    command[1] = str(tmp_path / "energies")
    assert errors() is None and errors("--forces", "forces") == pytest.approx(expected, rel=1e-4)
    capsys.readouterr()
    atoms[1].arrays["forces"][2, 1] = np.nan
    write_extxyz(tmp_path / "a.extxyz", atoms)
    command[1] = str(tmp_path / "forces")
    assert main(command) == 2 and "frame 1: 'forces' of atom 2 must be a number" in capsys.readouterr().err
    expected = {"mae_mev_per_angstrom": 100.0, "rmse_mev_per_angstrom": 1000 * (0.6**2 / 6) ** 0.5}
    assert errors("--on-bad", "skip") == pytest.approx(expected, rel=1e-4)
    del atoms[1].arrays["forces"]
    write_extxyz(tmp_path / "a.extxyz", atoms)
    assert errors() is None
    assert "no errors of forces: " in capsys.readouterr().out
    assert errors("--on-bad", "skip") is None and "no errors of forces: " in capsys.readouterr().out
    assert errors("--on-bad", "skip", "--forces", "forces") == pytest.approx(expected, rel=1e-4)
    assert main([*command, "--forces", "forces"]) == 2 and "frame 1: no property 'forces'" in capsys.readouterr().err
    atoms[0].info["force_unit"] = "Hartree/Bohr"
    write_extxyz(tmp_path / "a.extxyz", atoms)
    assert main(command) == 2 and "frame 0: states force_unit=Hartree/Bohr" in capsys.readouterr().err


def test_training_on_forces_needs_forces(frames, tmp_path, capsys):
    path = recipe(frames, tmp_path)
    assert main(["train", "--config", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "there are no forces to train on" in capsys.readouterr().err


def test_files_of_minima_need_no_forces_and_must_be_among_the_files(frames, tmp_path):
    bare = [ase.Atoms(a.numbers, a.positions, info=a.info) for a in ase.io.read(frames, ":6")]
    minima = tmp_path / "minima.extxyz"
    write_extxyz(minima, bare)
    both = {"target": "REF_energy", "group": "run", "forces": True}
    with pytest.raises(InputError, match="forces"):
        ClusterDataset(tmp_path / "a", [frames, minima], **both)
    dataset = ClusterDataset(tmp_path / "b", [frames, minima], minima=[minima], **both)
    assert dataset[48].force.abs().max() == 0
    with pytest.raises(InputError, match="not among the files"):
        ClusterDataset(tmp_path / "c", [frames], minima=[minima], **both)


@pytest.mark.parametrize("outermost_shell", [True, False])
def test_nanoparticles_are_for_models_of_fixed_range(outermost_shell):
    """A sum over all of 64 atoms is meaningless for a model trained on at most 6 atoms."""
    model = SmoothDART(outermost_shell=outermost_shell, **SMALL).eval()
    z, pos, _ = clusters((6,))
    model.domain.fit(z, torch.tensor([0, 6]), pos)
    side = 3.0 * torch.arange(4.0)
    for each in (model, Ensemble([model, model])):
        cube = Atoms("Ga64", torch.cartesian_prod(side, side, side).numpy(), calculator=ModelCalculator(each))
        if outermost_shell:
            with pytest.raises(
                InputError, match=r"64 atoms are beyond .* sums over all atoms .*outermost_shell: false"
            ):
                cube.get_potential_energy()
        else:
            assert np.isfinite(cube.get_potential_energy())
