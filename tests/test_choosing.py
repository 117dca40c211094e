"""Each way of choosing takes the frames that its definition says."""

import numpy as np
import pytest
import torch

from pyg_clusters.models import DART
from pyg_clusters.screening.strategies import (
    cluster_features,
    farthest,
    lowest,
    lowest_of_bins,
    lowest_of_cells,
    lowest_unique,
    mean_shell_counts,
)
from pyg_clusters.testing import random_clusters


@pytest.fixture
def energy() -> np.ndarray:
    return np.random.default_rng(0).normal(-110, 0.5, 500)


def test_lowest_takes_the_earlier_of_equal_energies():
    choice = lowest(np.array([-1.0, -3.0, -2.0, -3.0, -2.5]), 3)
    assert choice.places.tolist() == [1, 3, 4]
    assert choice.why == ["lowest 1", "lowest 2", "lowest 3"]


def test_bins_are_of_equal_width_and_each_gives_its_lowest(energy):
    """Written down anew from section 3.5: equal bins from the lowest to the highest, from each the lowest frame."""
    edges = np.linspace(energy.min(), energy.max(), 41)
    expected = []
    for number, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        inside = np.flatnonzero((energy >= low) & ((energy < high) | (number == 39)))
        if inside.size:
            expected.append(int(inside[np.argmin(energy[inside])]))
    choice = lowest_of_bins(energy, 40)
    assert choice.places.tolist() == expected
    assert choice.places[0] == np.argmin(energy)
    assert len(expected) < 40, "some bins must be empty for this test to say something"


def test_bins_name_their_edges():
    choice = lowest_of_bins(np.array([-9.0, -8.9, -8.4, -8.2, -8.0]), 4)
    assert choice.places.tolist() == [0, 2, 3]  # none from -8.75 to -8.5; the highest belongs to the last bin
    assert choice.why[1] == "lowest of bin 3 from -8.500 to -8.250 eV"


@pytest.mark.parametrize("values", [[], [-1.0], [-2.0, -2.0, -2.0]])
def test_bins_of_no_width(values):
    energy = np.array(values)
    places = [0] if values else []
    assert lowest_of_bins(energy, 10).places.tolist() == places
    assert lowest_of_cells(energy, np.zeros((len(values), 3)), 10).places.tolist() == places


def test_cells_of_the_descriptor():
    features = np.array([[0.0, 0.0], [0.1, 0.2], [0.9, 0.1], [0.8, 0.3], [1.0, 1.0], [0.2, 0.1]])
    choice = lowest_of_cells(np.array([-1.0, -3.0, -2.0, -4.0, -0.5, -2.5]), features, 4)
    assert choice.places.tolist() == [3, 1, 4]  # the cell of low first and high second feature is empty
    assert choice.why[0] == "lowest of the cell 2/1 of the descriptor"


def test_mean_shell_counts_by_hand():
    """A dimer and three atoms in a row, 3 Å apart: neighbours closer than 3.49 Å, up to 6.3 Å, beyond."""
    pos = np.array([[0, 0, 0], [0, 0, 2.7], [0, 0, 0], [0, 0, 3], [0, 0, 6]], dtype=float)
    np.testing.assert_allclose(mean_shell_counts(pos, np.array([0, 2, 5])), [[1, 0, 0], [4 / 3, 2 / 3, 0]])
    assert mean_shell_counts(np.zeros((0, 3)), np.array([0])).shape == (0, 3)


def test_farthest_order():
    """Always the point whose nearest chosen one is farthest; compared with a search written down plainly."""
    rng = np.random.default_rng(1)
    energy, features = rng.normal(size=60), rng.normal(size=(60, 5))
    expected = [int(np.argmin(energy))]
    while len(expected) < 12:
        left = [place for place in range(60) if place not in expected]
        gap = [min(np.linalg.norm(features[place] - features[other]) for other in expected) for place in left]
        expected.append(left[int(np.argmax(gap))])
    assert farthest(energy, features, 12).places.tolist() == expected


def test_farthest_of_few_and_of_equal_frames():
    assert farthest(np.zeros(0), np.zeros((0, 2)), 3).places.tolist() == []
    assert sorted(farthest(np.zeros(4), np.zeros((4, 2)), 9).places.tolist()) == [0, 1, 2, 3]


def test_unique_takes_the_lowest_of_copies():
    rng = np.random.default_rng(2)
    clusters = [rng.uniform(0, 12, (20, 3)) for _ in range(3)]
    order = [0, 1, 0, 2, 1, 0]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pos = np.concatenate([(clusters[number] @ turn)[rng.permutation(20)] for number in order])
    energy = np.array([-5.0, -4.0, -5.5, -3.0, -4.5, -5.2])
    choice = lowest_unique(energy, np.full(120, 31), pos, np.arange(7) * 20, top=2)
    assert choice.places.tolist() == [2, 4]
    assert choice.why == ["distinct structure 1; frames like it 3", "distinct structure 2; frames like it 2"]


def test_features_of_dart_do_not_depend_on_orientation_order_or_origin(generator):
    torch.manual_seed(0)
    model = DART(hidden_channels=16)
    z, pos, _ = random_clusters((40,) * 70, 31, generator)
    z, pos = z.view(70, 40).numpy(), pos.view(70, 40, 3).double().numpy()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    features = cluster_features(model, z, pos)
    assert features.shape == (70, 32)
    np.testing.assert_allclose(
        cluster_features(model, z, (pos @ turn)[:, ::-1] + 1000.0), features, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(cluster_features(model, z[65:], pos[65:]), features[65:], rtol=1e-4, atol=1e-4)


def test_features_of_other_models_are_their_distances():
    pos = np.random.default_rng(0).uniform(0, 9, (4, 13, 3))
    features = cluster_features(torch.nn.Linear(1, 1), np.full((4, 13), 31), pos)
    np.testing.assert_allclose(cluster_features(torch.nn.Linear(1, 1), np.full((4, 13), 31), -pos), features, rtol=1e-5)
    assert np.linalg.norm(features[0] - features[1]) > 0.1
