"""ShieldingDART: SmoothDART's network with a shielding per atom."""

import pytest
import torch
from ase import Atoms

from pyg_clusters import pairs
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import HasAtomicEnergies, NodeSchNet, ShieldingDART, SmoothDART
from pyg_clusters.structures import ModelCalculator, relax
from pyg_clusters.testing import random_clusters, validate_model

SIZES = (20, 31, 7, 1, 2)


@pytest.fixture
def clusters(generator):
    z, pos, ptr = random_clusters(SIZES, 11, generator)
    return z, pos.double(), ptr_to_batch(ptr)


@pytest.fixture
def model(clusters) -> ShieldingDART:
    """Model fitted to shieldings similar to those of sodium."""
    torch.manual_seed(0)
    model = ShieldingDART().double().eval()
    z, _, batch = clusters
    model.scale.fit(z, batch, torch.linspace(500, 620, len(z)))
    return model


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("options", [{}, {"outermost_shell": False, "elements": (11, 19)}, {"degree": 0, "rounds": 2}])
def test_physics(options, transform, generator):
    model = ShieldingDART(transform=transform, **options)
    skewed = 610 - 20 * torch.randn(200, generator=generator).exp()
    model.scale.fit(torch.full((200,), 11), torch.tensor([0, 200]), skewed)
    validate_model(model, atomic_number=11, per_atom=True)


def test_its_network_is_that_of_smooth_dart(model, clusters):
    energies = (
        SmoothDART(model.radii, degree=model.degree, hidden_channels=64, interaction_channels=(64, 32)).double().eval()
    )
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("scale.")}
    assert {name.split(".")[0] for name in energies.load_state_dict(weights, strict=False).missing_keys} == {"scale"}
    shares = energies.atomic_energies(*clusters)
    raw = (model(*clusters) - model.scale.mean) / model.scale.scale
    assert torch.allclose(raw, shares / energies.scale.scale, rtol=1e-9, atol=1e-9)
    assert float(model.scale.mean) == pytest.approx(560)


def test_large_clusters_from_near_pairs(monkeypatch, model, clusters):
    dense = model(*clusters)
    monkeypatch.setattr(pairs, "LARGE", 0)
    assert torch.allclose(model(*clusters), dense, rtol=1e-11)


@pytest.mark.parametrize(("degree", "tells"), [(0, False), (1, True)])
def test_directions_distinguish_atoms_that_distances_do_not(degree, tells):
    """Equal numbers of neighbours within and beyond 4 Å for all atoms, but at different angles."""
    flat = 3.5 * torch.tensor([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0]], dtype=torch.double)
    corner = 3.5 * torch.tensor([[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.double)
    torch.manual_seed(0)
    model, z = ShieldingDART(radii=(4.0,), width=0.2, degree=degree).double().eval(), torch.full((4,), 11)
    model.scale.fit(z, torch.tensor([0, 4]), torch.tensor([500.0, 560.0, 600.0, 620.0]))
    assert torch.allclose(model(z, flat), model(z, corner), rtol=1e-9) != tells


def test_it_is_not_an_energy_model(model, generator):
    assert not isinstance(model, HasAtomicEnergies) and isinstance(SmoothDART(), HasAtomicEnergies)
    dimer = Atoms("Na2", [[0, 0, 0], [0, 0, 3.5]], calculator=ModelCalculator(model))
    with pytest.raises(InputError, match="ShieldingDART gives a value per atom"):
        dimer.get_potential_energy()
    z, batch = torch.full((5,), 11), torch.tensor([0, 0, 1, 1, 1])
    for each in (model, NodeSchNet()):
        with pytest.raises(InputError, match="not an energy model"):
            relax(each, z, 4 * torch.rand(5, 3, generator=generator), batch)
