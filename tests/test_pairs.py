"""Pairs and counts of large clusters, from a tree and from totals, equal those from all pairs."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pyg_clusters import pairs
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import GALLIUM_RADII, ptr_to_batch
from pyg_clusters.models import DART, AlloyDART, TrainingDomain
from pyg_clusters.nn import EnergyScale
from pyg_clusters.pairs import near_pairs, near_shells, radius_pairs, shell_counts, shell_pairs
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import ShellGraph

SIZES = (13, 1, 40, 2, 70)


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(pairs, "LARGE", 1)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_large_clusters_have_the_pairs_of_small_ones(monkeypatch, generator, dtype, far):
    _, pos, ptr = random_clusters(SIZES, 31, generator)
    pos = (pos + far).to(dtype)
    small = radius_pairs(pos, ptr, 6.0), shell_counts(pos, ptr, GALLIUM_RADII), shell_counts(pos, ptr, (3.0, 5.0, 7.0))
    monkeypatch.setattr(pairs, "LARGE", 1)
    edge_index, edge_weight = radius_pairs(pos, ptr, 6.0)
    assert edge_index.equal(small[0][0]) and edge_weight.equal(small[0][1])
    assert shell_counts(pos, ptr, GALLIUM_RADII).equal(small[1])
    assert shell_counts(pos, ptr, (3.0, 5.0, 7.0)).equal(small[2])


def test_a_cube_of_8000_atoms():
    side = 2.5 * torch.arange(20.0)
    pos = torch.cartesian_prod(side, side, side)
    ptr = torch.tensor([0, len(pos)])
    counts = shell_counts(pos, ptr, (2.5, 5.0))
    # Nearest neighbours, at the first radius, lie in the shell outside it. Within 5 Å are 26 atoms around an inner
    # one and 6 at twice the spacing; around a corner 7 and 3.
    assert counts[0].tolist() == [0, 10, 7989]
    inside = (pos.min(1).values >= 5.0) & (pos.max(1).values <= 42.5)
    assert counts[inside].unique(dim=0).tolist() == [[0, 32, 7967]]
    edge_index, distance = radius_pairs(pos, ptr, 2.6)
    assert edge_index.size(1) == 2 * 3 * 19 * 20 * 20 and distance.unique().tolist() == [2.5]


def test_a_distance_equal_to_a_radius_of_a_large_cluster(all_large):
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 3.49], [0, 6.3, 0]])
    assert shell_counts(pos, torch.tensor([0, 3]), GALLIUM_RADII).tolist() == [[0, 2, 0], [0, 1, 1], [0, 1, 1]]
    assert radius_pairs(pos, torch.tensor([0, 3]), 3.49)[0].numel() == 0


def test_clusters_of_a_batch_are_apart(generator):
    pos = torch.rand(200, 3, generator=generator, dtype=torch.double) * 8
    batch = torch.arange(4).repeat_interleave(50)
    found = near_pairs(pos, batch, 3.0)
    assert (batch[found[0]] == batch[found[1]]).all()
    alone = [near_pairs(part, torch.zeros(50, dtype=torch.long), 3.0).size(1) for part in pos.split(50)]
    assert found.size(1) == sum(alone)


def test_shells_of_large_clusters_are_ordered_and_counted(generator):
    _, pos, ptr = random_clusters(SIZES, 31, generator)
    near = near_shells(pos, ptr, (3.0, 5.0))
    source, target = near.edge_index
    assert (target.diff() >= 0).all() and (ptr_to_batch(ptr)[source] == ptr_to_batch(ptr)[target]).all()
    assert near.counts.sum(1).equal((ptr.diff() - 1).repeat_interleave(ptr.diff()))
    distance = (pos[source] - pos[target]).norm(dim=1).numpy()
    np.testing.assert_array_equal(near.edge_type.numpy(), (distance >= 3.0).astype(int))


def test_no_atoms():
    empty = torch.zeros(0, 3)
    assert near_pairs(empty, torch.zeros(0, dtype=torch.long), 3.0).shape == (2, 0)
    assert near_shells(empty, torch.tensor([0]), (3.0, 5.0)).counts.shape == (0, 3)


def test_shell_graph_within_a_cutoff(generator):
    z, pos, _ = random_clusters((40,), 31, generator)
    data, near = (ShellGraph(cutoff=cutoff)(Data(z=z, pos=pos)) for cutoff in (None, 5.0))
    inside = (pos[data.edge_index[0]] - pos[data.edge_index[1]]).norm(dim=1) < 5.0
    assert near.edge_index.equal(data.edge_index[:, inside]) and near.edge_type.equal(data.edge_type[inside])
    batch = torch.zeros_like(z)
    for model in (DART(), AlloyDART([31, 79])):
        with pytest.raises(InputError, match=r"all 1,560 pairs .* got \d+"):
            model(z, pos, batch, edge_index=near.edge_index, edge_type=near.edge_type)
    assert str(ShellGraph(cutoff=5)) == "ShellGraph(radii=[3.49, 6.3], cutoff=5.0)"


@pytest.mark.parametrize(
    "call",
    [
        lambda z, pos, offsets: radius_pairs(pos, offsets, 4.0),
        lambda z, pos, offsets: shell_pairs(pos, offsets, (3.49, 6.3)),
        lambda z, pos, offsets: shell_counts(pos, offsets, (3.49, 6.3)),
        lambda z, pos, offsets: TrainingDomain().fit(z, offsets, pos),
        lambda z, pos, offsets: EnergyScale().fit(z, offsets, torch.zeros(offsets.diff().numel())),
    ],
)
def test_cluster_indices_are_not_taken_for_offsets(call, generator):
    z, pos, ptr = random_clusters((13, 20), 31, generator)
    call(z, pos, ptr)
    for wrong, last in ((ptr_to_batch(ptr), 1), (ptr[:-1], 13)):
        with pytest.raises(ValueError, match=f"number of atoms, 33, but has {last} as its last element; is it batch"):
            call(z, pos, wrong)
    with pytest.raises(ValueError, match="has no element"):
        call(z, pos, ptr[:0])
