"""Symmetry functions, HDNN and its optimiser."""

import copy
import math

import numpy as np
import pytest
import torch
import yaml
from helpers import atoms_of
from safetensors.torch import load_file
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.frames import write_extxyz
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import HDNN
from pyg_clusters.models.checkpoint import load_model, save_model
from pyg_clusters.nn import InputScale
from pyg_clusters.testing import random_clusters, validate_model
from pyg_clusters.training import AdamWWithSGD, ClusterDataModule
from pyg_clusters.transforms import SymmetryFunctions

pytest.importorskip("torchani")

SIZES = (13, 1, 2, 20)
SMALL = {"num_radial_shifts": 8, "num_angular_shifts": 4, "num_angles": 3}
"""Arguments of fewer functions, 20 for one element."""


@pytest.fixture
def clusters(generator):
    return random_clusters(SIZES, 31, generator)


def make(**arguments) -> HDNN:
    torch.manual_seed(0)
    return HDNN(**arguments)


def by_formula(symbols, pos, functions: SymmetryFunctions) -> np.ndarray:
    """Equations 3 and 4 of Smith, Isayev, Roitberg 2017, term by term, in NumPy."""
    elements = functions.elements
    pairs = [(a, b) for number, a in enumerate(elements) for b in elements[number:]]
    spacing = (functions.radial_cutoff - functions.radial_start) / functions.num_radial_shifts
    radial_shifts = functions.radial_start + spacing * np.arange(functions.num_radial_shifts)
    spacing = (functions.angular_cutoff - functions.angular_start) / functions.num_angular_shifts
    shifts = functions.angular_start + spacing * np.arange(functions.num_angular_shifts)
    angles = (np.arange(functions.num_angles) + 0.5) * np.pi / functions.num_angles

    def envelope(distance, cutoff):
        return 0.5 * math.cos(math.pi * distance / cutoff) + 0.5 if distance < cutoff else 0.0

    rows = []
    for i, center in enumerate(pos):
        others = [j for j in range(len(pos)) if j != i]
        vector = {j: pos[j] - center for j in others}
        distance = {j: math.sqrt(vector[j] @ vector[j]) for j in others}
        radial = {symbol: np.zeros(len(radial_shifts)) for symbol in elements}
        angular = {pair: np.zeros((len(shifts), len(angles))) for pair in pairs}
        for j in others:
            gauss = np.exp(-functions.radial_eta * (distance[j] - radial_shifts) ** 2)
            radial[symbols[j]] += 0.25 * gauss * envelope(distance[j], functions.radial_cutoff)
        for j in others:
            for k in (k for k in others if k > j):
                f = envelope(distance[j], functions.angular_cutoff) * envelope(distance[k], functions.angular_cutoff)
                theta = math.acos(0.95 * (vector[j] @ vector[k]) / (distance[j] * distance[k]))
                gauss = np.exp(-functions.angular_eta * ((distance[j] + distance[k]) / 2 - shifts) ** 2)
                around = 2 * ((1 + np.cos(theta - angles)) / 2) ** functions.zeta
                pair = tuple(sorted((symbols[j], symbols[k]), key=elements.index))
                angular[pair] += f * gauss[:, None] * around
        rows.append(np.concatenate([*radial.values(), *(angular[pair].ravel() for pair in pairs)]))
    return np.array(rows)


@pytest.mark.parametrize("elements", [("Ga",), ("Cu", "Au"), ("Cu", "Ga", "Au")], ids=str)
def test_functions_are_those_of_the_formulas(elements, generator):
    _, pos, ptr = random_clusters((9, 1, 2, 7), 31, generator)
    functions = SymmetryFunctions(elements, num_angles=8)
    numbers = {"Ga": 31, "Cu": 29, "Au": 79}
    symbols = [elements[number % len(elements)] for number in range(pos.size(0))]
    found = functions.compute(torch.tensor([numbers[symbol] for symbol in symbols]), pos, ptr)
    assert found.shape == (19, functions.num_functions)
    for a, b in zip(ptr.tolist(), ptr[1:].tolist(), strict=False):
        expected = by_formula(symbols[a:b], pos[a:b].numpy(), functions)
        largest = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(found[a:b].numpy(), expected, rtol=1e-5, atol=1e-6 * largest)  # shifts are single


@pytest.mark.parametrize("elements", [("Ga",), ("Cu", "Ga", "Au")], ids=str)
def test_functions_are_those_of_torchani(elements, clusters, generator):
    z, pos, ptr = clusters
    functions = SymmetryFunctions(elements)
    element = torch.randint(len(elements), z.shape, generator=generator)
    z = torch.tensor([{"Ga": 31, "Cu": 29, "Au": 79}[symbol] for symbol in elements])[element]
    found = functions.compute(z, pos, ptr)
    computer = functions.computer().double()
    assert computer.out_dim == functions.num_functions
    for a, b in zip(ptr, ptr[1:], strict=False):
        expected = computer(element[None, a:b], pos[None, a:b])[0]
        torch.testing.assert_close(found[a:b], expected, rtol=1e-9, atol=1e-9)


def test_defaults_are_those_of_the_paper():
    functions = SymmetryFunctions()
    computer = functions.computer()
    assert functions.num_functions == 64 + 24 * 24 == 640
    assert (computer.radial.cutoff, computer.angular.cutoff) == (15.0, 6.5)
    assert (float(computer.radial.eta), float(computer.angular.eta), float(computer.angular.zeta)) == (16.0, 8.0, 32.0)
    layers = [640, 128, 128, 64, 1]
    expected = sum(a * b + b for a, b in zip(layers, layers[1:], strict=False))
    assert sum(parameter.numel() for parameter in HDNN().parameters()) == expected
    assert sum(parameter.numel() for parameter in HDNN(["Cu", "Au"]).networks["Au"].parameters()) == (
        expected + (2 * 64 + 3 * 576 - 640) * 128
    )


def test_a_dimer_by_hand():
    """At its shift a Gaussian is one, so the function is a quarter of the envelope. A dimer has no angles."""
    functions = SymmetryFunctions(radial_cutoff=12.0, radial_start=2.0, num_radial_shifts=10)
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 3.0]])
    g = functions.compute(torch.tensor([31, 31]), pos, torch.tensor([0, 2]))
    envelope = 0.5 * (math.cos(math.pi * 3 / 12) + 1)
    torch.testing.assert_close(g[:, 1], torch.full((2,), 0.25 * envelope))
    torch.testing.assert_close(g[:, 2], torch.full((2,), 0.25 * envelope * math.exp(-16)), rtol=1e-4, atol=0)
    assert g[:, 10:].abs().max() == 0


@pytest.mark.parametrize("distance, seen", [(14.9, True), (15.0, False), (15.5, False), (31.0, False)])
def test_nothing_is_seen_beyond_the_radial_cutoff(distance, seen):
    """The cosine of the envelope would rise again beyond the cutoff, to one at twice the cutoff."""
    pos = torch.tensor([[0.0, 0, 0], [0, 0, distance]])
    g = SymmetryFunctions().compute(torch.tensor([31, 31]), pos, torch.tensor([0, 2]))
    assert bool(g.abs().max() > 1e-9) == seen


@pytest.mark.parametrize("distance, seen", [(6.4, True), (6.5, False), (13.0, False)])
def test_no_angle_is_seen_beyond_the_angular_cutoff(distance, seen):
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 2.7], [0, distance, 0]], dtype=torch.double)
    g = SymmetryFunctions(angular_start=4.0).compute(torch.tensor([31, 31, 31]), pos, torch.tensor([0, 3]))
    assert bool(g[0, 64:].max() > 1e-6) == seen


def test_far_clusters_are_added():
    z, pos, ptr = random_clusters((12, 15), 31, torch.Generator().manual_seed(3))
    model = make().double()
    apart = model(z, pos, ptr_to_batch(ptr))
    moved = torch.cat([pos[:12], pos[12:] + torch.tensor([60.0, 0.0, 0.0], dtype=torch.double)])
    together = model(z, moved, torch.zeros_like(z))
    torch.testing.assert_close(together, apart.sum(0, keepdim=True), rtol=1e-10, atol=1e-10)


def test_physics(clusters):
    z, pos, ptr = clusters
    model = make()
    validate_model(model)
    model.train()(z, pos.float(), ptr_to_batch(ptr))
    assert model.inputs.fitted
    validate_model(model)
    validate_model(make(elements=["Cu", "Ga"], descriptor=SMALL))


def test_forces_are_the_gradient(generator):
    """Central differences of the energy; the functions are smooth at the cutoffs."""
    z, pos, _ = random_clusters((8,), 31, generator)
    model, batch = make().double(), torch.zeros_like(z)
    pos.requires_grad_()
    (gradient,) = torch.autograd.grad(model(z, pos, batch).sum(), pos)
    step = torch.zeros_like(pos)
    step[3, 1] = 1e-4
    slope = (model(z, pos + step, batch) - model(z, pos - step, batch)) / 2e-4
    torch.testing.assert_close(gradient[3, 1], slope[0], rtol=1e-5, atol=1e-8)


def test_stored_functions_give_the_same(clusters):
    z, pos, ptr = clusters
    data = SymmetryFunctions()(Data(z=z, pos=pos.float(), ptr=ptr))
    model, batch = make(), ptr_to_batch(ptr)
    stored = model(z, None, batch, symmetry_functions=data.symmetry_functions)
    torch.testing.assert_close(model(z, pos.float(), batch), stored, rtol=0, atol=0)
    assert data.symmetry_functions.dtype == torch.float32


def test_elements_have_networks_of_their_own(generator):
    z, pos, ptr = random_clusters((10,), 29, generator)
    z[:4] = 79
    model = make(elements=["Cu", "Au"], descriptor=SMALL)
    batch = ptr_to_batch(ptr)
    before = model.atomic_energies(z, pos.float(), batch)
    with torch.no_grad():
        model.networks["Au"][-1].bias += 1.0
    change = model.atomic_energies(z, pos.float(), batch) - before
    torch.testing.assert_close(change, torch.where(z == 79, float(model.scale.scale), 0.0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        scatter(before, batch, reduce="sum"), make(elements=["Cu", "Au"], descriptor=SMALL)(z, pos.float(), batch)
    )


def test_saved_and_loaded(tmp_path, clusters):
    z, pos, ptr = clusters
    model = make(descriptor={"radial_start": 1.5} | SMALL, hidden_channels=[8, 4])
    batch = ptr_to_batch(ptr)
    model.train()(z, pos.float(), batch)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.functions.radial_start == 1.5 and loaded.inputs.fitted
    torch.testing.assert_close(loaded(z, pos.float(), batch), model.eval()(z, pos.float(), batch), rtol=0, atol=0)


def test_element_without_functions_is_named():
    pos, batch = torch.tensor([[0.0, 0, 0], [0, 0, 2.7]]), torch.tensor([0, 0])
    with pytest.raises(InputError, match="symmetry functions for Ga but not for Na"):
        make()(torch.tensor([31, 11]), pos, batch)
    with pytest.raises(InputError, match="symmetry functions for Ga but not for Na"):
        SymmetryFunctions()(Data(z=torch.tensor([31, 11]), pos=pos))


@pytest.mark.parametrize("elements", [[], ["Xx"], "Ga", ["Ga", "Ga"]], ids=str)
def test_elements_are_checked(elements):
    with pytest.raises(InputError, match="elements must be different symbols"):
        SymmetryFunctions(elements)


def test_other_functions_are_refused():
    model = make(descriptor=SMALL)
    with pytest.raises(ValueError, match="got 640 symmetry functions per atom, but the model has 20"):
        model(torch.tensor([31]), None, torch.tensor([0]), symmetry_functions=torch.zeros(1, 640))
    with pytest.raises(InputError, match="descriptor of HDNN has no 'eta'; it has radial_cutoff"):
        make(descriptor={"eta": 4.0})
    with pytest.raises(ValueError, match="positions, or symmetry_functions"):
        model(torch.tensor([31]), None, torch.tensor([0]))


def test_missing_torchani_is_named(monkeypatch):
    monkeypatch.setattr("pyg_clusters.transforms.symmetry_functions.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pyg-clusters\[hdnn\]"):
        HDNN()


def test_repr_names_every_parameter():
    assert str(SymmetryFunctions()) == (
        "SymmetryFunctions(elements=('Ga',), angular_cutoff=6.5, radial_cutoff=15.0, radial_eta=16.0, angular_eta=8.0, "
        "zeta=32.0, num_radial_shifts=64, num_angular_shifts=24, num_angles=24, radial_start=2.0, angular_start=2.0)"
    )


def test_inputs_are_standardised_once(generator):
    x = torch.randn(500, 4, generator=generator) * torch.tensor([5.0, 1.0, 1e-6, 0.0]) + 3
    scale = InputScale(4, floor=0.01)
    torch.testing.assert_close(scale.eval()(x), x, rtol=0, atol=0)
    y = scale.train()(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(y[:, :2].std(0, correction=0), torch.ones(2), rtol=1e-4, atol=0)
    assert y[:, 2:].abs().max() < 1e-3
    torch.testing.assert_close(scale(x[:3]), y[:3], rtol=0, atol=0)
    assert str(scale) == "InputScale(4, floor=0.01)"


def steps(optimizer, model, x, number):
    for _ in range(number):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def test_weights_are_trained_by_adamw_and_biases_by_sgd(linear, generator):
    x = torch.randn(10, 3, generator=generator)
    expected = [parameter.detach().clone().requires_grad_() for parameter in linear.parameters()]
    adamw = torch.optim.AdamW(expected[0::2], lr=1e-2, weight_decay=0.3)
    sgd = torch.optim.SGD(expected[1::2], lr=1e-3)
    for _ in range(5):
        hidden = torch.tanh(x @ expected[0].T + expected[1])
        loss = (hidden @ expected[2].T + expected[3]).square().sum()
        for optimizer in (adamw, sgd):
            optimizer.zero_grad()
        loss.backward()
        adamw.step()
        sgd.step()
    steps(AdamWWithSGD(linear.parameters(), lr=1e-2, bias_lr=1e-3, weight_decay=0.3), linear, x, 5)
    for found, wanted in zip(linear.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_resumed_equals_uninterrupted(linear, generator):
    x = torch.randn(10, 3, generator=generator)
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    optimizer = AdamWWithSGD(linear.parameters(), bias_lr=1e-2)
    steps(optimizer, linear, x, 3)
    other.load_state_dict(linear.state_dict())
    resumed = AdamWWithSGD(other.parameters(), lr=1.0, bias_lr=1.0, weight_decay=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, linear, x, 3)
    steps(resumed, other, x, 3)
    for found, wanted in zip(other.parameters(), linear.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_a_schedule_changes_both_rates(linear):
    optimizer = AdamWWithSGD(linear.parameters(), lr=1e-2, bias_lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    before = linear[0].weight.detach().clone()
    steps(optimizer, linear, torch.ones(1, 3), 1)
    first = (linear[0].weight - before).abs().max()
    schedule.step()
    before = linear[0].weight.detach().clone()
    steps(optimizer, linear, torch.ones(1, 3), 1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 1e-4])
    assert (linear[0].weight - before).abs().max() < 0.2 * first


def test_a_model_without_biases_is_refused():
    with pytest.raises(ValueError, match="weights and biases"):
        AdamWWithSGD(torch.nn.Linear(3, 1, bias=False).parameters())


@pytest.fixture
def recipe(tmp_path):
    """Training for four epochs on 30 small clusters in groups of three, with functions from a ``pre_transform``."""
    generator = torch.Generator().manual_seed(5)
    clusters = atoms_of(*random_clusters(tuple(range(4, 14)) * 3, 31, generator))
    for number, atoms in enumerate(clusters):
        bonds = int((torch.pdist(torch.tensor(atoms.positions)) < 3.49).sum())
        atoms.info = {"energy": -0.3 * bonds, "segment": f"s{number // 3}"}
    frames = tmp_path / "clusters.extxyz"
    write_extxyz(frames, clusters)
    functions = {"class_path": "pyg_clusters.transforms.SymmetryFunctions", "init_args": dict(SMALL)}
    arguments = {"root": str(tmp_path), "files": str(frames), "group": "segment", "pre_transform": functions}
    configuration = {
        "data": {
            "dataset": {"class_path": "pyg_clusters.datasets.ClusterDataset", "init_args": arguments},
            "fractions": [0.6, 0.2, 0.2],
            "batch_size": 8,
        },
        "model": {
            "model": {
                "class_path": "pyg_clusters.models.HDNN",
                "init_args": {"hidden_channels": [8, 4], "descriptor": SMALL},
            },
            "optimizer": {"class_path": "pyg_clusters.training.AdamWWithSGD", "init_args": {"bias_lr": 0.01}},
            "scheduler": {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 4}},
        },
        "trainer": {"max_epochs": 4, "accelerator": "cpu"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return path


def test_training_takes_stored_functions_and_resumes(recipe, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "stopped"
    assert main(["train", "--config", str(recipe), "--out", str(whole)]) == 0

    assert main(["train", "--config", str(recipe), "--out", str(run), "--trainer.max_epochs", "2"]) == 0
    (run / "finished.json").unlink()  # as if it had been interrupted there
    configuration = run / "config.yaml"
    configuration.write_text(configuration.read_text().replace("max_epochs: 2", "max_epochs: 4"))
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    expected, found = (load_file(folder / "best" / "model.safetensors") for folder in (whole, run))
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    functions = SymmetryFunctions(**SMALL)
    dataset = ClusterDataset(tmp_path, tmp_path / "clusters.extxyz", group="segment", pre_transform=functions)
    training = ClusterDataModule(dataset, whole / "splits")
    data = training.batches.stored(training.split.train.tolist())
    model = load_model(whole)
    assert model.inputs.fitted and model.domain.atomic_numbers == [31]
    computed = functions.compute(data.z, data.pos, data.ptr)
    torch.testing.assert_close(data.symmetry_functions, computed, rtol=1e-5, atol=1e-5)
    stored = model(data.z, None, data.batch, symmetry_functions=data.symmetry_functions)
    torch.testing.assert_close(model(data.z, data.pos, data.batch), stored, rtol=1e-5, atol=1e-5)


def test_functions_of_another_element_are_refused_in_training(recipe, capsys):
    configuration = yaml.safe_load(recipe.read_text())
    configuration["data"]["dataset"]["init_args"]["pre_transform"]["init_args"]["elements"] = ["Na"]
    recipe.write_text(yaml.safe_dump(configuration))
    assert main(["train", "--config", str(recipe), "--out", str(recipe.parent / "run")]) == 2
    message = capsys.readouterr().err.strip()
    assert "symmetry functions for Na but not for Ga" in message and len(message.splitlines()) == 1


def test_mixed_precision_keeps_the_energies(clusters):
    z, pos, ptr = clusters
    model, batch = make(descriptor=SMALL), ptr_to_batch(ptr)
    expected = model(z, pos.float(), batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(z, pos.float(), batch)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-3)
