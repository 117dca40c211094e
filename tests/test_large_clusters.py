"""Energies of large clusters from near pairs and totals equal those from all pairs."""

import copy

import pytest
import torch

from pyg_clusters import pairs
from pyg_clusters.geometry import batch_to_ptr, ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.models import DART, SmoothDART
from pyg_clusters.nn.neighbor_sums import Neighbors, neighbor_sum
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.testing import random_clusters


@pytest.fixture
def clusters(generator):
    """Clusters of 90, 1, 2 and 60 atoms, in double precision."""
    z, pos, ptr = random_clusters((90, 1, 2, 60), 31, generator)
    return z, pos, ptr_to_batch(ptr)


def of_large(monkeypatch):
    """Treat every cluster as large."""
    monkeypatch.setattr(pairs, "LARGE", 1)


@pytest.mark.parametrize(
    "options", [{}, {"radii": (3.0,)}, {"radii": (3.0, 4.0, 6.0)}, {"active_shells": (0, 1)}, {"active_shells": (2,)}]
)
def test_dart(monkeypatch, clusters, options):
    torch.manual_seed(0)
    model = DART(**options).double()
    expected = model.energies_and_features(*clusters)
    gradient = torch.autograd.grad(expected.energy.sum(), model.parameters())
    of_large(monkeypatch)
    found = model.energies_and_features(*clusters)
    assert torch.allclose(found.energy, expected.energy, rtol=1e-11)
    assert torch.allclose(found.features, expected.features, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(torch.autograd.grad(found.energy.sum(), model.parameters()), gradient, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("radii", [(3.0,), (3.49, 6.3)])
def test_fast_dart(monkeypatch, clusters, radii):
    torch.manual_seed(0)
    predictor = Predictor(DART(radii))
    z, pos, batch = clusters
    ptr = torch.tensor([0, *torch.bincount(batch).cumsum(0)])
    expected = predictor(z, pos, ptr).energy
    of_large(monkeypatch)
    assert torch.allclose(predictor(z, pos, ptr).energy, expected, rtol=1e-5)


def test_single_precision_loses_no_more_digits_than_all_pairs(monkeypatch):
    """The outermost shell of a large cluster contains nearly all atoms."""
    side = 2.9 * torch.arange(11.0)
    pos = torch.cartesian_prod(side, side, side)
    pos += 0.2 * torch.rand(pos.shape, generator=torch.Generator().manual_seed(0))
    z, batch = torch.full((len(pos),), 31), torch.zeros(len(pos), dtype=torch.long)
    torch.manual_seed(0)
    model = DART()
    with torch.no_grad():
        exact = float(model.double()(z, pos.double(), batch))
        near = float(model.float()(z, pos, batch))
        monkeypatch.setattr(pairs, "LARGE", 10_000)
        dense = float(model(z, pos, batch))
    assert abs(near - exact) <= 1e-6 * abs(exact) + abs(dense - exact)
    assert near == pytest.approx(exact, rel=1e-5)


SMALL = {"descriptor_radii": (2.5, 3.0, 3.5, 4.5), "width": 1.0, "hidden_channels": 16}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"degree": 0, "radii": (3.0,)},
        {"radii": (3.0, 4.0, 6.0), "rounds": 2},
        {"outermost_shell": False, "rounds": 2},
        {"elements": (29, 31, 79)},
        {"elements": (29, 31, 79), "outermost_shell": False, "degree": 1},
    ],
)
def test_smooth_dart_and_its_forces(monkeypatch, clusters, options):
    torch.manual_seed(0)
    model = SmoothDART(**{**SMALL, **options}).double().eval()
    z, pos, batch = clusters
    if "elements" in options:
        z = torch.tensor([29, 31, 79])[torch.arange(len(z)) % 3]
    model.inputs.fit(2 * torch.rand(50, model.inputs.num_features, generator=torch.Generator().manual_seed(0)))
    energy, forces = energy_and_forces(model, z, pos, batch)
    of_large(monkeypatch)
    found = energy_and_forces(model, z, pos, batch)
    assert torch.allclose(found[0], energy, rtol=1e-11)
    assert torch.allclose(found[1], forces, rtol=1e-9, atol=1e-11 * float(forces.abs().max()))


@pytest.mark.parametrize("large", [False, True])
def test_smooth_dart_takes_positions_of_any_precision(monkeypatch, clusters, large):
    """Weights in single precision, reference energies in double precision."""
    torch.manual_seed(0)
    z, pos, batch = clusters
    model = SmoothDART(**SMALL, rounds=2, repulsion=True).eval()
    model.domain.fit(z, batch_to_ptr(batch), 1.2 * pos)
    model.inputs.fit(2 * torch.rand(50, model.inputs.num_features, generator=torch.Generator().manual_seed(0)))
    model.scale.set_references({"Ga": -52826.0867})
    sums = -52826.0867 * batch_to_ptr(batch).diff()
    double = copy.deepcopy(model).double()
    exact = double(z, pos, batch)
    if large:
        of_large(monkeypatch)
    for found in (model(z, pos, batch), model(z, pos.float(), batch), double(z, pos.float(), batch)):
        torch.testing.assert_close(found - sums, exact - sums, rtol=1e-4, atol=1e-3)


def test_smooth_dart_trains_on_forces_of_large_clusters(monkeypatch, clusters):
    torch.manual_seed(0)
    z, pos, batch = clusters
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        model = SmoothDART(**SMALL, degree=2).double().train()
        moved = pos.clone().requires_grad_()
        (force,) = torch.autograd.grad(model(z, moved, batch).sum(), moved, create_graph=True)
        gradients.append(torch.autograd.grad(force.square().sum(), model.parameters(), allow_unused=True))
        of_large(monkeypatch)
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        assert (ours is None and theirs is None) or torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def test_neighbor_sums_have_exact_derivatives(generator):
    pos = torch.rand(9, 3, generator=generator, dtype=torch.double) * 5
    near = pairs.near_pairs(pos, torch.zeros(9, dtype=torch.long), 3.0)
    neighbors = Neighbors.of(near, 9)
    x = torch.rand(9, 2, generator=generator, dtype=torch.double).requires_grad_()
    weight = torch.rand(near.size(1), generator=generator, dtype=torch.double).requires_grad_()
    dense = torch.zeros(9, 9, dtype=torch.double)
    dense[near[0], near[1]] = dense[near[1], near[0]] = weight.detach()
    assert torch.allclose(neighbor_sum(x, weight, neighbors), dense @ x)
    assert torch.autograd.gradcheck(lambda *inputs: neighbor_sum(*inputs, neighbors), (x, weight))
    assert torch.autograd.gradgradcheck(lambda *inputs: neighbor_sum(*inputs, neighbors), (x, weight))


def test_flags(monkeypatch, clusters):
    z, pos, batch = clusters
    pos[80] += 30.0
    ptr = torch.tensor([0, *torch.bincount(batch).cumsum(0)])[[0, 1, 3, 4]]  # the last frames have three and 60 atoms
    found = []
    for _ in range(2):
        trained = OutOfRangeFlagger.fit_blocks([(z[90:], pos[90:], ptr[1:] - 90)], radii=(3.0, 5.0))
        trained.allow_blocks([(z[90:], pos[90:], ptr[1:] - 90)])
        found.append((trained, trained.flags(z, pos, ptr).tolist()))
        of_large(monkeypatch)
    assert found[0][1] == found[1][1] and "from its nearest" in found[0][1][0]
    assert found[0][0].rows == found[1][0].rows and found[0][0].shortest == pytest.approx(found[1][0].shortest)
