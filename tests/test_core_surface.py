import numpy as np
import pytest
import torch
from ase.cluster import Icosahedron

from pyg_clusters.analysis.core_surface import (
    atomic_features,
    centre_of_mass,
    check_regions,
    feature_map,
    linear_probe,
    regions,
    silhouette,
)
from pyg_clusters.analysis.core_surface_report import region_map
from pyg_clusters.errors import InputError
from pyg_clusters.models import DART
from pyg_clusters.testing import random_clusters

CORE, BETWEEN, SURFACE = range(3)


def test_mackay_icosahedron_of_55_atoms():
    # Around the central atom: 12 atoms at R, 30 on the edges at 1.70 R and 12 at the vertices at 2 R.
    atoms = Icosahedron("Cu", 3)
    atoms.positions *= 2.7 / np.sort(np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1))[1]
    shift = torch.tensor([100.0, -50.0, 7.0], dtype=torch.double)
    pos = torch.tensor(atoms.positions) + shift
    region, distance = regions(torch.full((55,), 31), pos, torch.tensor([0, 55]), (3.49, 5.0))
    assert [(region == number).sum() for number in (CORE, BETWEEN, SURFACE)] == [13, 30, 12]
    shells, numbers = np.unique(distance.round(3), return_counts=True)
    assert numbers.tolist() == [1, 12, 30, 12]
    assert shells == pytest.approx([0.0, 2.7, 1.7013 * 2.7, 5.4], abs=2e-3)
    with pytest.raises(InputError, match="region 'surface'"):
        check_regions(regions(torch.full((55,), 31), pos, torch.tensor([0, 55]), (3.49, 6.3))[0])


def test_boundaries_are_those_of_shells():
    pos = torch.tensor([[3.49, 0, 0], [-3.49, 0, 0], [0, 6.3, 0], [0, -6.3, 0], [0, 0, 6.4], [0, 0, -6.4]]).double()
    pos = (100 * pos).round() / 100  # in double precision
    region, _ = regions(torch.full((6,), 31), pos, torch.tensor([0, 6]), (3.49, 6.3))
    assert region.tolist() == [BETWEEN] * 4 + [SURFACE] * 2


def test_centre_is_weighted_by_mass():
    # Cu (63.546) at 0 and Au (196.967) at 1 along x.
    pos = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [5.0, 5.0, 5.0]], dtype=torch.double)
    masses = torch.tensor([63.546, 196.967, 1.0])
    centre = centre_of_mass(masses, pos, torch.tensor([0, 2, 3]))
    assert centre[0, 0].item() == pytest.approx(196.967 / (63.546 + 196.967))
    assert centre[1].tolist() == [5.0, 5.0, 5.0]
    _, distance = regions(torch.tensor([29, 79, 31]), pos, torch.tensor([0, 2, 3]), (3.49, 6.3))
    assert distance[0] == pytest.approx(0.7561, abs=1e-3) and distance[2] == 0.0


def test_features_are_those_behind_the_energy(monkeypatch, generator):
    torch.manual_seed(0)
    model = DART(hidden_channels=16).double()
    z, pos, ptr = random_clusters((31, 40, 33, 52), 31, generator)
    atoms = atomic_features(model, z, pos, ptr)
    assert atoms.features.shape == (156, 32) and atoms.counts.shape == (156, 3)
    last = model.interaction[-1]
    with torch.no_grad():
        expected = model.scale(last(torch.from_numpy(atoms.features)).squeeze(-1), z)
        total = model(z, pos, torch.repeat_interleave(ptr.diff()))
    np.testing.assert_allclose(atoms.energy, expected, rtol=1e-12)
    np.testing.assert_allclose(np.add.reduceat(atoms.energy, ptr[:-1].numpy()), total, rtol=1e-12)
    np.testing.assert_array_equal(atoms.counts.sum(axis=1), np.repeat([30, 39, 32, 51], [31, 40, 33, 52]))
    # In batches, far from the origin, rotated: the same.
    monkeypatch.setattr("pyg_clusters.analysis.core_surface.ATOMS_AT_ONCE", 50)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.double))
    again = atomic_features(model, z, pos @ turn.T + 100, ptr)
    np.testing.assert_allclose(again.features, atoms.features, atol=1e-9)
    np.testing.assert_array_equal(again.counts, atoms.counts)


def onion(num_groups: int, rng: np.random.Generator, gap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features whose first column separates the regions; the second column only depends on the group."""
    region = np.tile(np.repeat([0, 1, 2], [5, 10, 15]), num_groups)
    groups = np.repeat(np.arange(num_groups), 30)
    features = np.column_stack([gap * region + rng.normal(size=len(region)), 10.0 * groups])
    return features, region, groups


def test_probe_finds_separable_regions_only():
    rng = np.random.default_rng(0)
    features, region, groups = onion(12, rng, gap=20.0)
    probe = linear_probe(features, region, groups)
    assert probe.balanced_accuracy == 1.0 and probe.recall.tolist() == [1.0, 1.0, 1.0] and probe.fold_spread == 0.0
    assert linear_probe(features, rng.permutation(region), groups).balanced_accuracy == pytest.approx(1 / 3, abs=0.08)
    features, region, groups = onion(12, rng, gap=1.0)
    probe = linear_probe(features, region, groups)
    assert probe.balanced_accuracy == pytest.approx(probe.recall.mean())
    assert 0.4 < probe.balanced_accuracy < 0.8


def test_probe_is_not_misled_by_unequal_regions():
    # 1 core atom of 30: always answering "surface" is right for 90 % of the atoms, but has a balanced accuracy of 1/3.
    region = np.tile([0, 1, 1] + [2] * 27, 10)
    features = np.random.default_rng(0).normal(size=(300, 1))
    probe = linear_probe(features, region, np.repeat(np.arange(10), 30))
    assert probe.balanced_accuracy == pytest.approx(1 / 3, abs=0.12)


def test_probe_is_tested_on_other_clusters():
    # The feature identifies the cluster, and a cluster has one kind of atom: it is useless for other clusters.
    rng = np.random.default_rng(0)
    region = np.repeat(rng.permutation(np.tile([0, 1, 2], 6)), 10)
    groups = np.repeat(np.arange(18), 10)
    assert linear_probe(np.eye(18)[groups], region, groups).balanced_accuracy < 0.5
    assert linear_probe(np.eye(18)[groups], region, rng.permutation(groups)).balanced_accuracy == 1.0


def test_probe_needs_clusters():
    with pytest.raises(InputError, match="at least two clusters"):
        linear_probe(np.zeros((6, 1)), np.array([0, 0, 1, 1, 2, 2]), np.zeros(6))
    with pytest.raises(InputError, match="too few clusters"):
        linear_probe(np.zeros((6, 1)), np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 2]))


def test_silhouette_and_map_of_far_groups():
    rng = np.random.default_rng(0)
    region = np.repeat([0, 1, 2], 40)
    far = rng.normal(size=(120, 3)) + 30 * np.eye(3)[region]
    assert silhouette(far, region) > 0.6
    assert abs(silhouette(far, rng.permutation(region))) < 0.1
    places = feature_map(far, perplexity=10, seed=1)
    assert silhouette(places, region) > 0.6
    np.testing.assert_array_equal(places, feature_map(far, perplexity=10, seed=1))
    for perplexity in (0.0, 120.0):
        with pytest.raises(InputError, match="number of atoms \\(120\\)"):
            feature_map(far, perplexity)


def test_the_colour_bar_of_the_map_names_the_energy(generator):
    points, energy = torch.rand(30, 2, generator=generator).numpy(), torch.rand(30, generator=generator).numpy()
    figure = region_map(points, np.arange(30) % 3, energy, "energy / eV")
    assert [axes.get_ylabel() for axes in figure.axes] == ["", "", "energy / eV"]
