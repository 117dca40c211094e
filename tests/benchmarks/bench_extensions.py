"""Pair lists and sums compared with the kernels of torch-cluster and torch-scatter (extra ext)."""

import pytest
import torch
from torch_geometric.utils import scatter

from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.nn import Interpolation, filtered_sum
from pyg_clusters.pairs import radius_pairs
from pyg_clusters.testing import random_clusters

torch_cluster = pytest.importorskip("torch_cluster", reason="needs the extra ext")
torch_scatter = pytest.importorskip("torch_scatter", reason="needs the extra ext")

CUTOFF = 6.3
CHANNELS = 128
ROUNDS = 5


def clusters(num_clusters: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions in single precision, and offsets."""
    _, pos, ptr = random_clusters((size,) * num_clusters, 31, torch.Generator().manual_seed(0))
    return pos.float(), ptr


@pytest.mark.parametrize(("num_clusters", "size"), [(256, 20), (256, 52), (32, 200), (8, 700)])
def test_pairs(num_clusters, size, least_seconds, capsys):
    pos, ptr = clusters(num_clusters, size)
    batch = ptr_to_batch(ptr)

    def ours():
        return radius_pairs(pos, ptr, CUTOFF)

    def theirs():
        source, target = pairs = torch_cluster.radius_graph(pos, CUTOFF, batch, max_num_neighbors=size)
        return pairs, (pos[source] - pos[target]).norm(dim=1)

    assert ours()[0].size(1) == theirs()[0].size(1)
    seconds = least_seconds(ROUNDS, ours=ours, theirs=theirs)
    report(
        capsys,
        f"pairs within {CUTOFF} Å and distances, {num_clusters} clusters of {size} atoms",
        seconds,
        {
            "theirs": "torch_cluster.radius_graph",
        },
    )


def test_sums(least_seconds, capsys):
    pos, ptr = clusters(256, 52)
    values = torch.randn(len(pos), CHANNELS)
    batch = ptr_to_batch(ptr)
    torch.testing.assert_close(scatter(values, batch), torch_scatter.segment_csr(values, ptr), rtol=1e-4, atol=1e-4)
    seconds = least_seconds(
        ROUNDS,
        ours=lambda: scatter(values, batch, dim_size=256),
        scatter_add=lambda: torch_scatter.scatter_add(values, batch, dim=0, dim_size=256),
        segment_csr=lambda: torch_scatter.segment_csr(values, ptr),
    )
    report(
        capsys,
        f"sums over 256 clusters of 52 atoms, {CHANNELS} channels",
        seconds,
        {
            "scatter_add": "torch_scatter.scatter_add",
            "segment_csr": "torch_scatter.segment_csr",
        },
    )


def test_sums_over_neighbours(least_seconds, capsys):
    pos, ptr = clusters(64, 40)
    pairs, distance = radius_pairs(pos, ptr, CUTOFF)
    source, target = pairs
    x = torch.randn(len(pos), CHANNELS)
    between = Interpolation(distance, CUTOFF, 60)
    filters = torch.randn(between.nodes.numel(), CHANNELS)

    def ours():
        return filtered_sum(x, filters, pairs, between)

    def theirs():
        of_pairs = torch.einsum("ek,ekc->ec", between.weights, filters[between.index])
        return torch_scatter.scatter_add(of_pairs * x[source], target, dim=0, dim_size=len(pos))

    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
    seconds = least_seconds(ROUNDS, ours=ours, theirs=theirs)
    report(
        capsys,
        f"filtered sums over neighbours within {CUTOFF} Å, 64 clusters of 40 atoms",
        seconds,
        {
            "theirs": "torch_scatter.scatter_add",
        },
    )


def report(capsys, title: str, seconds: dict[str, float], names: dict[str, str]):
    with capsys.disabled():
        print(f"\n\n{title}, one thread, least of {ROUNDS} rounds\n  ours {seconds['ours'] * 1e3:37.2f} ms")
        for key, name in names.items():
            print(f"  {name:<30}{seconds[key] * 1e3:12.2f} ms, ratio {seconds[key] / seconds['ours']:.2f}")
