import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import one_cluster
from pyg_clusters.models import LayeredModel
from pyg_clusters.pairs import edge_shell_counts, shell_counts
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import RadiusGraph, RunningCoordination, ShellGraph, TopologicalDescriptor

TRANSFORMS = [TopologicalDescriptor(), ShellGraph(), RadiusGraph(6.0), ShellGraph([3.0, 5.0, 7.0])]


@pytest.fixture
def clusters(generator) -> list[Data]:
    z, pos, ptr = random_clusters((13, 1, 20, 2), 31, generator)
    return [Data(z=z[a:b], pos=pos[a:b].float()) for a, b in zip(ptr, ptr[1:], strict=False)]


def test_repr_prints_every_parameter():
    assert str(TopologicalDescriptor()) == "TopologicalDescriptor(radii=[3.49, 6.3])"
    assert str(TopologicalDescriptor([4])) == "TopologicalDescriptor(radii=[4.0])"
    assert str(ShellGraph()) == "ShellGraph(radii=[3.49, 6.3])"
    assert str(ShellGraph((3, 5, 7))) == "ShellGraph(radii=[3.0, 5.0, 7.0])"
    assert str(RadiusGraph(6)) == "RadiusGraph(cutoff=6.0)"


@pytest.mark.parametrize(
    "make", [lambda: TopologicalDescriptor([5, 4]), lambda: ShellGraph([]), lambda: RadiusGraph(0)]
)
def test_radii_are_checked(make):
    with pytest.raises(ValueError, match="positive, finite and increasing"):
        make()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_batch_equals_single(transform, clusters):
    of_batch = transform(Batch.from_data_list(clusters))
    batch_of = Batch.from_data_list([transform(cluster) for cluster in clusters])
    for key in ("x", "edge_index", "edge_type", "edge_weight"):
        assert (key in of_batch) == (key in batch_of)
        if key in of_batch:
            assert of_batch[key].equal(batch_of[key]), key


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_without_ptr_the_batch_vector_is_used(transform, clusters):
    whole = Batch.from_data_list(clusters)
    flat = Data(pos=whole.pos, batch=whole.batch)
    found, expected = transform(flat), transform(whole)
    for key in ("x", "edge_index", "edge_type", "edge_weight"):
        if key in expected:
            assert found[key].equal(expected[key]), key


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_the_input_is_not_changed(transform, clusters):
    before = clusters[0].clone()
    transform(clusters[0])
    assert clusters[0].keys() == before.keys()
    assert clusters[0].pos.equal(before.pos)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_dtypes(dtype):
    dimer = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]], dtype=dtype))
    assert TopologicalDescriptor()(dimer).x.dtype == dtype
    assert RadiusGraph(3.0)(dimer).edge_weight.dtype == dtype
    assert ShellGraph()(dimer).edge_type.dtype == torch.long
    assert ShellGraph()(dimer).edge_index.dtype == torch.long


def test_counts_and_graph_agree(clusters):
    for radii in [(4.0,), (3.49, 6.3), (3.0, 5.0, 7.0)]:
        data = ShellGraph(radii)(TopologicalDescriptor(radii)(Batch.from_data_list(clusters)))
        counts = edge_shell_counts(data.edge_index, data.edge_type, data.num_nodes, len(radii) + 1)
        assert counts.float().equal(data.x)


def test_edges_run_from_source_to_target():
    trimer = ShellGraph()(Data(pos=torch.tensor([[0.0, 0, 0], [0, 0, 2.7], [0, 0, 9.1]])))
    # Around atom 0 atom 1 is in J (2.7 Å) and atom 2 in L (9.1 Å); around atom 1 atom 2 is in L too (6.4 Å).
    edges = dict(zip(map(tuple, trimer.edge_index.T.tolist()), trimer.edge_type.tolist(), strict=True))
    assert edges == {(1, 0): 0, (2, 0): 2, (0, 1): 0, (2, 1): 2, (0, 2): 2, (1, 2): 2}


def test_distance_and_self_loops_of_pyg_compose(clusters):
    cluster = RadiusGraph(4.0)(clusters[0])
    with_distance = T.Distance(norm=False)(cluster.clone())
    torch.testing.assert_close(with_distance.edge_attr, cluster.edge_weight[:, None])
    looped = T.AddSelfLoops("edge_weight", fill_value=0.0)(cluster.clone())
    loops = looped.edge_index[0] == looped.edge_index[1]
    assert loops.sum() == 13 and bool((looped.edge_weight[loops] == 0).all())
    shells = T.Distance(norm=False)(ShellGraph()(clusters[0].clone()))
    nearest = shells.edge_attr.flatten() < 3.49
    assert torch.equal(nearest, shells.edge_type == 0)


def test_distances_of_transforms_are_those_of_a_layered_model(clusters):
    batch = Batch.from_data_list([RadiusGraph(6.0)(cluster) for cluster in clusters])
    model = LayeredModel("torch_geometric.nn.GCNConv", num_layers=1).eval()
    given = model(batch.z, batch.pos, batch.batch, edge_index=batch.edge_index, edge_weight=batch.edge_weight)
    torch.testing.assert_close(given, model(batch.z, batch.pos, batch.batch))


def test_integer_positions_are_compared_with_the_radii_themselves():
    trimer = Data(pos=torch.tensor([[0, 0, 0], [0, 0, 3], [0, 7, 0]]))
    exact = Data(pos=trimer.pos.float())
    for transform in (ShellGraph(), TopologicalDescriptor(), RadiusGraph(3.49), RunningCoordination([3.49, 6.3])):
        found, expected = transform(trimer), transform(exact)
        assert found.pos is trimer.pos
        for key in set(expected.keys()) - {"pos"}:
            assert found[key].equal(expected[key]) and found[key].dtype == expected[key].dtype, key
    assert shell_counts(trimer.pos, torch.tensor([0, 3]), (3.49, 6.3)).tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 2]]


@pytest.mark.parametrize("transform", [*TRANSFORMS, RunningCoordination()], ids=str)
def test_a_graph_without_positions_does_not_end_an_iteration(transform):
    with pytest.raises(InputError, match="no positions: set pos"):
        list(map(transform, [Data(z=torch.tensor([31, 31]))]))
    with pytest.raises(InputError, match="positions pos"):
        one_cluster(None)


def test_attributes_of_other_edges_are_removed(clusters):
    shells, near = ShellGraph(), RadiusGraph(4.0)
    cluster = T.Distance(norm=False)(shells(clusters[0]))
    assert set(near(cluster).keys()) == {"z", "pos", "edge_index", "edge_weight"}
    assert set(shells(near(cluster)).keys()) == {"z", "pos", "edge_index", "edge_type"}
    both = RadiusGraph(4.0)(ShellGraph(cutoff=4.0)(clusters[0]))  # the same edges
    assert both.edge_type.numel() == both.edge_weight.numel() > 0
