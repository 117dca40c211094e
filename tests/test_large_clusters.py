"""Models give large clusters, of which they see near pairs and totals, the energies that all pairs give."""

import pytest
import torch

from pyg_clusters import pairs
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART
from pyg_clusters.testing import random_clusters


@pytest.fixture
def clusters(generator):
    """Clusters of 90, 1, 2 and 60 atoms, in double precision."""
    z, pos, ptr = random_clusters((90, 1, 2, 60), 31, generator)
    return z, pos, ptr_to_batch(ptr)


def of_large(monkeypatch):
    """From now on every cluster is a large one."""
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
    """The sum over the outermost shell of a large cluster is one over nearly all atoms."""
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
