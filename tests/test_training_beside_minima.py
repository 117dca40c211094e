"""Repulsion and perturbed minima, which prevent low energies near the training minima."""

import math

import pytest
import torch

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import SmoothDART, load_model
from pyg_clusters.models.checkpoint import save_model
from pyg_clusters.models.smooth_dart_parts import FULL, screened_repulsion
from pyg_clusters.pairs import LARGE
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.testing import random_clusters, validate_model
from pyg_clusters.training.forces import springs

OPTIONS = {"degree": 2, "hidden_channels": 8, "interaction_channels": (8,)}


def clusters(sizes=(13, 20, 2, 1), number=79):
    z, pos, ptr = random_clusters(sizes, number, torch.Generator().manual_seed(1))
    return z, pos.double(), ptr


def models(elements=None) -> tuple[SmoothDART, SmoothDART]:
    """A model with repulsion and the same without, with the domain fitted to the clusters."""
    torch.manual_seed(0)
    held = SmoothDART(**OPTIONS, elements=elements, repulsion=True).double().eval()
    held.domain.fit(*clusters()[::2], clusters()[1])
    bare = SmoothDART(**OPTIONS, elements=elements).double().eval()
    bare.load_state_dict(held.state_dict())
    return held, bare


def test_screened_repulsion_is_that_of_the_formula():
    """Protons at 0.1 Å, by hand: a = 0.23427 Å, x = 0.42686, a screening of 0.64918; 143.9964 eV without it."""
    one = torch.tensor(1)
    energy = screened_repulsion(torch.tensor([0.1, 1e-6], dtype=torch.double), one, one)
    assert energy[0] == pytest.approx(143.9964 * 0.64918, rel=1e-4)
    assert energy[1] == pytest.approx(14.39964e6, rel=1e-3)  # bare nuclei without screening


def test_repulsion_acts_below_the_distances_of_the_training_set_only():
    held, bare = models()
    z, pos, ptr = clusters()
    batch = ptr_to_batch(ptr)
    assert torch.equal(held(z, pos, batch), bare(z, pos, batch))
    squeezed = held(z, 0.7 * pos, batch) - bare(z, 0.7 * pos, batch)
    assert (squeezed[:2] > 1).all() and squeezed[3] == 0  # a single atom has no pair
    with pytest.raises(InputError, match="atomic numbers z are needed"):
        held(None, pos, batch)
    shortest = float(held.domain.geometry[0]) * 2 * 1.36  # covalent radius of gold
    full = FULL * shortest - 0.1
    dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, full]], dtype=torch.double)
    pair = torch.tensor([79, 79]), dimer, torch.tensor([0, 0])
    known = screened_repulsion(torch.tensor(full), *pair[0])
    assert float((held(*pair) - bare(*pair)).detach()) == pytest.approx(float(known), rel=1e-5)


def test_energy_with_repulsion_has_forces_and_is_smooth_at_the_edge(tmp_path):
    held, _ = models()
    z, pos, ptr = clusters((5, 9))
    pos, batch = 0.75 * pos, ptr_to_batch(ptr)
    _, forces = energy_and_forces(held, z, pos, batch)
    step = torch.zeros_like(pos)
    step[3, 1] = 1e-5
    difference = (held(z, pos - step, batch) - held(z, pos + step, batch)).sum() / 2e-5
    assert float(forces[3, 1]) == pytest.approx(float(difference.detach()), rel=1e-5)
    save_model(held, tmp_path / "held")
    assert torch.equal(load_model(tmp_path / "held")(z, pos, batch), held(z, pos, batch))
    held.domain.geometry[0] *= 1.2  # so that it acts on the clusters of the check
    validate_model(held, atomic_number=79)


def test_repulsion_of_large_clusters_is_that_of_small_ones(monkeypatch):
    held, _ = models()
    z, pos, ptr = clusters((60,))
    args = z, 0.75 * pos, ptr_to_batch(ptr)
    small = held(*args)
    assert LARGE > 60
    monkeypatch.setattr("pyg_clusters.pairs.LARGE", 10)
    assert torch.allclose(held(*args), small, rtol=1e-9)


def test_springs_hold_a_minimum_by_distances_alone():
    z, minimum, ptr = clusters()
    batch = ptr_to_batch(ptr)
    noise = 0.1 * torch.randn(minimum.shape, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    pos = (minimum + noise).requires_grad_()
    energy, forces = springs(z, minimum, pos, batch, stiffness=2.0)
    (gradient,) = torch.autograd.grad(energy.sum(), pos)
    assert torch.allclose(forces, -gradient) and (energy[:3] > 0).all() and energy[3] == 0
    turn = torch.tensor([[math.cos(1), math.sin(1), 0], [-math.sin(1), math.cos(1), 0], [0, 0, 1]], dtype=torch.double)
    energy, forces = springs(z, minimum, minimum @ turn + 3.0, batch, stiffness=2.0)
    assert energy.abs().max() < 1e-20 and forces.abs().max() < 1e-9
    pair = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.72]]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.82]])
    energy, forces = springs(torch.tensor([79, 79]), *pair, torch.tensor([0, 0]), stiffness=2.0)
    assert float(energy) == pytest.approx(0.01, rel=1e-4) and float(forces[1, 2]) == pytest.approx(-0.2, rel=1e-4)
