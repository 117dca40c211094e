import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_clusters import pairs
from pyg_clusters.geometry import (
    GALLIUM_RADII,
    batch_to_ptr,
    beyond_masks,
    check_radii,
    masks_to_counts,
    pad_clusters,
    ptr_to_batch,
)
from pyg_clusters.pairs import all_pairs, edge_shell_counts, radius_pairs, shell_counts, shell_pairs
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import TopologicalDescriptor


def icosahedron(radius: float) -> torch.Tensor:
    """The centre, then the twelve vertices at ``radius``, in double precision."""
    golden = (1 + 5**0.5) / 2
    faces = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    vertices = torch.tensor([face[i:] + face[:i] for face in faces for i in range(3)], dtype=torch.double)
    return torch.cat([torch.zeros(1, 3, dtype=torch.double), vertices * radius / math.hypot(1.0, golden)])


def cube(points: int, spacing: float) -> torch.Tensor:
    """A cubic fragment of ``points`` atoms along each edge, in double precision."""
    side = torch.arange(points, dtype=torch.double) * spacing
    return torch.cartesian_prod(side, side, side)


def one(pos: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0, pos.size(0)])


def rotation(generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.double))[0]


# A vertex of an icosahedron of radius R (centre to vertex) has the centre at R, five vertices at the edge
# R / sin(72°) = 1.05146 R, five at the golden ratio times that, 1.70130 R, and one opposite at 2 R.
@pytest.mark.parametrize(
    ("radius", "radii", "vertex"),
    [
        # 3.0, 5 x 3.154 | 5 x 5.104, 6.0 |
        (3.0, (3.49, 6.3), [6, 6, 0]),
        # 3.4 | 5 x 3.575, 5 x 5.784 | 6.8
        (3.4, (3.49, 6.3), [1, 10, 1]),
        # 3.0 | 5 x 3.154 | 5 x 5.104 | 6.0
        (3.0, (3.1, 4.0, 5.5), [1, 5, 5, 1]),
        # 3.0, 5 x 3.154, 5 x 5.104 | 6.0
        (3.0, (5.2,), [11, 1]),
    ],
)
def test_icosahedron(radius, radii, vertex):
    pos = icosahedron(radius)
    distance = (pos[1] - pos[2:]).norm(dim=1).sort().values / radius
    assert distance.tolist() == pytest.approx([1.05146] * 5 + [1.70130] * 5 + [2.0], abs=1e-5)

    counts = shell_counts(pos, one(pos), radii)
    centre = [12 if radius < radii[0] else 0] + [0] * len(radii)
    assert counts[0].tolist() == centre
    assert counts[1:].tolist() == [vertex] * 12


def test_cube_of_eight_atoms():
    # Each atom of a cube has three neighbours at a, three at a√2, one at a√3: 2.8, 3.96, 4.85 Å.
    pos = cube(2, 2.8)
    assert shell_counts(pos, one(pos), (3.49, 4.5)).tolist() == [[3, 3, 1]] * 8
    assert shell_counts(pos, one(pos), GALLIUM_RADII).tolist() == [[3, 4, 0]] * 8


def test_cube_of_twenty_seven_atoms():
    # With a = 2.5 Å the squared distances in units of a² are whole numbers n, and n = 1 lies in J, 2 to 6 in K (the
    # radii are at n = 1.95 and 6.35), 8, 9, 12 in L. Counting displacements from each kind of site, as n: how many,
    #   corner       1: 3 | 2: 3, 3: 1, 4: 3, 5: 6, 6: 3 | 8: 3, 9: 3, 12: 1
    #   edge centre  1: 4 | 2: 5, 3: 2, 4: 2, 5: 6, 6: 4 | 8: 1, 9: 2
    #   face centre  1: 5 | 2: 8, 3: 4, 4: 1, 5: 4, 6: 4 |
    #   body centre  1: 6 | 2: 12, 3: 8                  |
    of_site = {0: [6, 20, 0], 1: [5, 21, 0], 2: [4, 19, 3], 3: [3, 16, 7]}
    pos = cube(3, 2.5)
    outer = (pos != 2.5).sum(dim=1)  # coordinates on the surface: 0 in the body centre, 3 in a corner
    expected = [of_site[site] for site in outer.tolist()]
    assert shell_counts(pos, one(pos), GALLIUM_RADII).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_a_distance_equal_to_a_radius(dtype):
    pos = torch.tensor([[0.0, 0, 0], [3.49, 0, 0], [0, 6.3, 0]], dtype=dtype)
    _, edge_type = shell_pairs(pos, one(pos), GALLIUM_RADII)
    # 3.49 is not below the first radius: K. 6.3 is not beyond the second: K. The third side is 7.2: L.
    assert edge_type.tolist() == [1, 1, 1, 2, 1, 2]

    below = torch.nextafter(pos[1, 0], pos[0, 0]), torch.nextafter(pos[2, 1], pos[2, 1] + 1)
    pos[1, 0], pos[2, 1] = below
    _, edge_type = shell_pairs(pos, one(pos), GALLIUM_RADII)
    assert edge_type.tolist() == [0, 2, 0, 2, 2, 2]

    line = torch.tensor([[0.0, 0, 0], [2, 0, 0], [4, 0, 0], [6, 0, 0], [6.5, 0, 0]], dtype=dtype)
    # From the first atom with radii 2, 4, 6: 2 -> shell 1, 4 -> shell 1, 6 -> shell 2, 6.5 -> shell 3.
    assert shell_counts(line, one(line), (2, 4, 6))[0].tolist() == [0, 2, 1, 1]


def test_counts_do_not_change_with_position_and_orientation(generator):
    _, pos, ptr = random_clusters((13, 40, 55), 31, generator)
    counts = shell_counts(pos, ptr, GALLIUM_RADII)
    assert shell_counts(pos + torch.tensor([1000.0, -1000.0, 1000.0]), ptr, GALLIUM_RADII).equal(counts)
    assert shell_counts(pos @ rotation(generator), ptr, GALLIUM_RADII).equal(counts)
    assert shell_counts(-pos, ptr, GALLIUM_RADII).equal(counts)


def test_counts_are_the_in_degrees_of_the_graph(generator):
    _, pos, ptr = random_clusters((13, 1, 40, 2), 31, generator)
    for radii in [(4.0,), GALLIUM_RADII, (3.0, 5.0, 7.0, 9.0)]:
        edge_index, edge_type = shell_pairs(pos, ptr, radii)
        counts = shell_counts(pos, ptr, radii)
        assert edge_shell_counts(edge_index, edge_type, pos.size(0), len(radii) + 1).equal(counts)
        sizes = ptr.diff()
        assert counts.sum(dim=1).equal(torch.repeat_interleave(sizes - 1, sizes))


def test_batched_equals_single(generator):
    _, pos, ptr = random_clusters((13, 1, 40, 2), 31, generator)
    batched = shell_counts(pos, ptr, GALLIUM_RADII)
    batched_edges = shell_pairs(pos, ptr, GALLIUM_RADII)
    counts, edges, types = [], [], []
    for start, end in zip(ptr, ptr[1:], strict=False):
        cluster = pos[start:end]
        counts.append(shell_counts(cluster, one(cluster), GALLIUM_RADII))
        edge_index, edge_type = shell_pairs(cluster, one(cluster), GALLIUM_RADII)
        edges.append(edge_index + start)
        types.append(edge_type)
    assert torch.cat(counts).equal(batched)
    assert torch.cat(edges, dim=1).equal(batched_edges[0])
    assert torch.cat(types).equal(batched_edges[1])


def test_one_atom_and_no_cluster():
    pos = torch.zeros(2, 3)
    ptr = torch.tensor([0, 1, 2])  # single atoms of two clusters at the same position are not neighbours
    assert shell_counts(pos, ptr, GALLIUM_RADII).tolist() == [[0, 0, 0]] * 2
    assert all_pairs(ptr).shape == (2, 0)
    assert radius_pairs(pos, ptr, 5.0)[1].shape == (0,)
    nothing = torch.tensor([0])
    assert all_pairs(nothing).shape == (2, 0)
    assert shell_counts(torch.zeros(0, 3), nothing, GALLIUM_RADII).shape == (0, 3)


def test_no_neighbour_is_dropped(generator):
    _, pos, ptr = random_clusters((200,), 31, generator)
    edge_index, _ = shell_pairs(pos, ptr, GALLIUM_RADII)
    assert edge_index.shape == (2, 200 * 199)
    assert torch.unique(edge_index, dim=1).size(1) == 200 * 199
    assert bool((edge_index[0] != edge_index[1]).all())
    keys = edge_index[1] * 200 + edge_index[0]
    assert bool((keys.diff() > 0).all())  # ordered by target, then by source


@pytest.mark.parametrize("max_pairs", [1, 7, 100, 1000])
def test_blocks_give_the_same(monkeypatch, generator, max_pairs):
    _, pos, ptr = random_clusters((13, 1, 40, 2), 31, generator)
    counts = shell_counts(pos, ptr, GALLIUM_RADII)
    edge_index, edge_weight = radius_pairs(pos, ptr, 6.0)
    monkeypatch.setattr(pairs, "MAX_PAIRS_AT_ONCE", max_pairs)
    assert shell_counts(pos, ptr, GALLIUM_RADII).equal(counts)
    found = radius_pairs(pos, ptr, 6.0)
    assert found[0].equal(edge_index)
    assert found[1].equal(edge_weight)


@pytest.mark.parametrize("radii", [(), (3.0, 3.0), (6.3, 3.49), (0.0, 3.0), (-1.0,), (3.0, math.inf), (math.nan,)])
def test_invalid_radii(radii):
    with pytest.raises(ValueError, match=r"positive, finite and increasing \(in Å\), got \["):
        check_radii(radii)


def test_masks_give_the_same_counts(generator):
    sizes = (13, 1, 40, 2)
    _, pos, ptr = random_clusters(sizes, 31, generator)
    padded = pos.new_full((len(sizes), max(sizes), 3), torch.nan)
    for number, size in enumerate(sizes):
        padded[number, :size] = pos[ptr[number] : ptr[number + 1]]
    for radii in [(4.0,), GALLIUM_RADII, (3.0, 5.0, 7.0)]:
        masks = beyond_masks(padded, radii)
        counts = masks_to_counts(masks, ptr.diff() - 1)
        valid = torch.cat([counts[number, :size] for number, size in enumerate(sizes)])
        assert valid.equal(shell_counts(pos, ptr, radii).double())
        outside = padded.isnan().any(-1)
        assert masks.transpose(2, 3)[outside[:, None].expand(-1, max(sizes), -1)].sum() == 0
    alike = pos[ptr[2] : ptr[3]][None]
    masks = beyond_masks(alike, GALLIUM_RADII, torch.float)
    assert masks.dtype == torch.float
    assert masks_to_counts(masks, 39)[0].equal(shell_counts(alike[0], one(alike[0]), GALLIUM_RADII).float())


def test_radius_pairs_against_brute_force(generator):
    _, pos, ptr = random_clusters((13, 1, 40, 2), 31, generator)
    xyz, batch = pos.numpy(), ptr_to_batch(ptr).numpy()
    distance = np.linalg.norm(xyz[:, None] - xyz[None], axis=-1)
    target, source = np.nonzero((distance < 6.0) & (batch[:, None] == batch) & ~np.eye(len(xyz), dtype=bool))
    edge_index, edge_weight = radius_pairs(pos, ptr, 6.0)
    np.testing.assert_array_equal(edge_index.numpy(), [source, target])
    np.testing.assert_allclose(edge_weight.numpy(), distance[target, source], rtol=1e-12)


def test_radius_is_exclusive():
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 6.0], [0, 5.5, 0]])
    edge_index, edge_weight = radius_pairs(pos, one(pos), 6.0)
    assert edge_index.tolist() == [[2, 0], [0, 2]]
    assert edge_weight.tolist() == [5.5, 5.5]


def test_batch_and_ptr():
    batch = torch.tensor([0, 0, 1, 3, 3])
    ptr = torch.tensor([0, 2, 3, 3, 5])  # cluster 2 is empty
    assert batch_to_ptr(batch).equal(ptr)
    assert batch_to_ptr(batch, num_graphs=5).tolist() == [0, 2, 3, 3, 5, 5]
    assert ptr_to_batch(ptr).equal(batch)
    with pytest.raises(ValueError, match="batch must be sorted"):
        batch_to_ptr(torch.tensor([0, 1, 0]))


def test_a_pyg_batch_gives_the_same(generator):
    _, pos, ptr = random_clusters((5, 8), 31, generator)
    graphs = [Data(pos=pos[:5]), Data(pos=pos[5:])]
    counts = TopologicalDescriptor()(Batch.from_data_list(graphs)).x
    assert counts.equal(shell_counts(pos, ptr, GALLIUM_RADII).double())


def test_padding_keeps_every_atom_in_its_cluster():
    pos = torch.arange(15.0).view(5, 3)
    padded, place, sizes = pad_clusters(pos, torch.tensor([0, 0, 1, 1, 1]))
    assert sizes.tolist() == [2, 3]
    assert torch.equal(padded.flatten(0, 1)[place], pos) and torch.equal(padded[1], pos[2:])
    assert padded[0, 2].isnan().all() and padded.isnan().sum() == 3
