"""Pair lists and sums compared with the kernels of torch-cluster and torch-scatter (extra ext)."""

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import scatter

from pyg_clusters.geometry import beyond_masks, pad_clusters, ptr_to_batch
from pyg_clusters.nn import Interpolation, ShellConv, filtered_sum
from pyg_clusters.pairs import radius_pairs, shell_counts
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import RadiusGraph

torch_cluster = pytest.importorskip("torch_cluster", reason="needs the extra ext")
torch_scatter = pytest.importorskip("torch_scatter", reason="needs the extra ext")

SIZES = (2, 13, 1, 40, 70)


def sorted_pairs(edge_index: torch.Tensor) -> torch.Tensor:
    """The same pairs ordered by target, then source."""
    return edge_index[:, (edge_index[1] * (int(edge_index.max()) + 1) + edge_index[0]).argsort()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cutoff", [1.0, 3.49, 6.3, 40.0])
def test_pairs_are_those_of_torch_cluster(generator, cutoff, dtype):
    _, pos, ptr = random_clusters(SIZES, 31, generator)
    pos = pos.to(dtype)
    theirs = torch_cluster.radius_graph(pos, cutoff, ptr_to_batch(ptr), max_num_neighbors=max(SIZES))
    ours, distance = radius_pairs(pos, ptr, cutoff)
    assert torch.equal(ours, sorted_pairs(theirs) if theirs.numel() else theirs)
    torch.testing.assert_close(distance, (pos[ours[0]] - pos[ours[1]]).norm(dim=1))
    batch = Batch.from_data_list([RadiusGraph(cutoff)(Data(pos=one)) for one in pos.split(list(SIZES))])
    assert torch.equal(batch.edge_index, ours)


def test_both_omit_the_pairs_at_the_cutoff():
    side = 3 * torch.arange(4.0)
    pos = torch.cartesian_prod(side, side, side)
    ptr = torch.tensor([0, len(pos)])
    for cutoff, num_pairs in ((3.0, 0), (3.001, 2 * 3 * 3 * 16)):
        assert radius_pairs(pos, ptr, cutoff)[0].size(1) == num_pairs
        assert torch_cluster.radius_graph(pos, cutoff, max_num_neighbors=64).size(1) == num_pairs


def test_the_usual_cap_loses_pairs_that_ours_have(generator):
    _, pos, ptr = random_clusters((70,), 31, generator)
    capped = torch_cluster.radius_graph(pos, 6.3)
    assert int(capped[1].bincount().max()) <= 32 < int(radius_pairs(pos, ptr, 6.3)[0][1].bincount().max())


def test_shell_counts_are_sums_over_the_pairs_of_torch_cluster(generator):
    _, pos, ptr = random_clusters(SIZES, 31, generator)
    pairs = [
        torch_cluster.radius_graph(pos, r, ptr_to_batch(ptr), max_num_neighbors=max(SIZES)) for r in (3.49, 6.3, 99)
    ]
    within = [torch_scatter.scatter_add(torch.ones_like(p[1]), p[1], dim_size=len(pos)) for p in pairs]
    shells = torch.stack([within[0], within[1] - within[0], within[2] - within[1]], dim=1)
    assert torch.equal(shell_counts(pos, ptr, (3.49, 6.3)), shells)


def test_sums_over_clusters_are_those_of_torch_scatter(generator):
    values = torch.randn(sum(SIZES), 3, generator=generator, dtype=torch.double)
    ptr = torch.tensor([0, *SIZES]).cumsum(0)
    ours = scatter(values, ptr_to_batch(ptr), dim_size=len(SIZES))
    torch.testing.assert_close(ours, torch_scatter.segment_csr(values, ptr))
    torch.testing.assert_close(ours, torch_scatter.scatter_add(values, ptr_to_batch(ptr), dim=0, dim_size=len(SIZES)))


def test_shell_conv_from_positions_is_a_sum_of_torch_scatter(generator):
    """Matrix products of shell masks, compared with sums over neighbours one by one."""
    _, pos, ptr = random_clusters((40, 13), 31, generator)
    conv = ShellConv(3, 5, num_shells=2, active_shells=[0], root_weight=False).double()
    x = torch.randn(len(pos), 3, generator=generator, dtype=torch.double)
    source, target = torch_cluster.radius_graph(pos, 3.49, ptr_to_batch(ptr), max_num_neighbors=40)
    theirs = torch_scatter.scatter_add(conv.shells["0"](x)[source], target, dim=0, dim_size=len(pos))
    padded, place, _ = pad_clusters(pos, ptr_to_batch(ptr))
    features = x.new_zeros(padded.shape[:2].numel(), 3).index_copy(0, place, x).view(padded.shape)
    valid = ~padded[..., 0].isnan()
    ours = conv.forward_dense(features, beyond_masks(padded, [3.49], dtype=torch.double), valid)[valid]
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(conv(x, torch.stack([source, target]), torch.zeros_like(source)), theirs)


def test_filtered_sum_and_its_gradients_are_those_of_torch_scatter(generator):
    _, pos, ptr = random_clusters((40, 13), 11, generator)
    source, target = pairs = torch_cluster.radius_graph(pos, 6.0, ptr_to_batch(ptr), max_num_neighbors=40)
    x = torch.randn(len(pos), 4, generator=generator, dtype=torch.double, requires_grad=True)
    distance = (pos[source] - pos[target]).norm(dim=1).requires_grad_()
    between = Interpolation(distance, 6.0, 60)
    filters = torch.randn(between.nodes.numel(), 4, generator=generator, dtype=torch.double, requires_grad=True)
    of_pairs = (between.weights[..., None] * filters[between.index]).sum(1)
    theirs = torch_scatter.scatter_add(of_pairs * x[source], target, dim=0, dim_size=len(pos))
    ours = filtered_sum(x, filters, pairs, between)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(ours.shape, generator=generator, dtype=torch.double)
    of_ours, of_theirs = (
        torch.autograd.grad((y * weight).sum(), [x, filters, distance], retain_graph=True) for y in (ours, theirs)
    )
    for one, other in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(one, other)
