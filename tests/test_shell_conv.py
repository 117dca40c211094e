import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import HeteroConv, Sequential, global_add_pool
from torch_geometric.testing import assert_module

from pyg_clusters.geometry import GALLIUM_RADII, beyond_masks
from pyg_clusters.nn import ShellConv
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import ShellGraph, TopologicalDescriptor

SIZES = (13, 1, 40, 2)


def shell_graph(generator, sizes=SIZES, radii=GALLIUM_RADII, dtype=torch.double, channels=4) -> Batch:
    """A batch with a shell graph and random features."""
    z, pos, ptr = random_clusters(sizes, 31, generator)
    graphs = [Data(pos=pos[a:b], z=z[a:b]) for a, b in zip(ptr, ptr[1:], strict=False)]
    batch = ShellGraph(radii)(Batch.from_data_list(graphs))
    batch.x = torch.randn(pos.size(0), channels, generator=generator, dtype=torch.double).to(dtype)
    return batch


def padded(values: torch.Tensor, ptr: torch.Tensor, filler: float) -> torch.Tensor:
    """Flat values per atom as ``[num_graphs, largest, channels]``."""
    sizes = ptr.diff().tolist()
    result = values.new_full((len(sizes), max(sizes), values.size(1)), filler)
    for number, part in enumerate(values.split(sizes)):
        result[number, : part.size(0)] = part
    return result


def dense(conv: ShellConv, graph: Batch, radii=GALLIUM_RADII) -> torch.Tensor:
    """Result of the dense path ``[num_atoms, out_channels]``."""
    sizes = graph.ptr.diff()
    masks = beyond_masks(padded(graph.pos, graph.ptr, torch.nan), radii, graph.x.dtype)
    valid = torch.arange(int(sizes.max())) < sizes[:, None]
    return conv.forward_dense(padded(graph.x, graph.ptr, 0.7), masks, valid)[valid]


def celu(t: np.ndarray) -> np.ndarray:
    return np.maximum(t, 0) + np.minimum(0, 0.1 * (np.exp(t / 0.1) - 1))


def perceptron(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    for layer in module.lins:
        x = celu(x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    return x


def test_repr():
    assert str(ShellConv(3, 128)) == "ShellConv(3, 128, num_shells=3, active_shells=[0, 1, 2])"
    assert str(ShellConv(8, 16, num_shells=4, active_shells=(3, 1))) == (
        "ShellConv(8, 16, num_shells=4, active_shells=[1, 3])"
    )


def test_the_equation_term_by_term(generator):
    graph = shell_graph(generator, sizes=(9,))
    conv = ShellConv(4, 6, hidden_channels=5).double()
    x, pos = graph.x.numpy(), graph.pos.numpy()
    expected = perceptron(conv.root, x)
    for i in range(9):
        for j in range(9):
            distance = np.sqrt(((pos[i] - pos[j]) ** 2).sum())
            shell = 0 if distance < 3.49 else 1 if distance <= 6.3 else 2
            if i != j:
                expected[i] += perceptron(conv.shells[str(shell)], x[j : j + 1])[0]
    found = conv(graph.x, graph.edge_index, graph.edge_type).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_as_a_pyg_module(generator):
    graph = shell_graph(generator)
    conv = ShellConv(4, 6).double()
    num_atoms = graph.num_nodes
    # Shells are an edge type, which sparse adjacency matrices cannot store.
    expected = assert_module(
        conv,
        graph.x,
        graph.edge_index,
        edge_type=graph.edge_type,
        expected_size=(num_atoms, 6),
        test_sparse_layouts=[],
    )

    order = torch.randperm(num_atoms, generator=generator)
    new_place = order.argsort()
    permuted = conv(graph.x[order], new_place[graph.edge_index], graph.edge_type)
    torch.testing.assert_close(permuted, expected[order], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float, 1e-5), (torch.double, 1e-12)])
@pytest.mark.parametrize("radii", [(4.0,), GALLIUM_RADII, (3.0, 5.0, 7.0, 9.0)], ids=len)
@pytest.mark.parametrize("root_weight", [True, False])
def test_dense_equals_graph(generator, dtype, tolerance, radii, root_weight):
    graph = shell_graph(generator, radii=radii, dtype=dtype)
    torch.manual_seed(0)
    conv = ShellConv(4, 16, num_shells=len(radii) + 1, root_weight=root_weight).to(dtype)
    expected = conv(graph.x, graph.edge_index, graph.edge_type)
    error = (dense(conv, graph, radii) - expected).abs().max() / expected.abs().max()
    assert error <= tolerance


def test_gradients_of_both_paths_are_equal(generator):
    graph = shell_graph(generator)
    conv = ShellConv(4, 6, active_shells=(0, 2)).double()
    graph.x.requires_grad_()
    weights = torch.randn(graph.num_nodes, 6, generator=generator, dtype=torch.double)

    def gradients(out):
        return torch.autograd.grad((out * weights).sum(), [graph.x, *conv.parameters()])

    by_graph = gradients(conv(graph.x, graph.edge_index, graph.edge_type))
    by_masks = gradients(dense(conv, graph))
    for a, b in zip(by_graph, by_masks, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_equals_hetero_conv_over_the_relations(generator):
    graph = shell_graph(generator)
    conv = ShellConv(4, 6).double()

    relations = [("atom", shell, "atom") for shell in "JKL"]
    flat = Data(x=graph.x, edge_index=graph.edge_index, edge_type=graph.edge_type)
    flat.node_type = torch.zeros(graph.num_nodes, dtype=torch.long)
    hetero = flat.to_heterogeneous(node_type_names=["atom"], edge_type_names=relations)

    parts = {}
    for shell, relation in enumerate(relations):
        part = ShellConv(4, 6, num_shells=1, root_weight=shell == 0).double()
        part.shells["0"] = conv.shells[str(shell)]
        if shell == 0:
            part.root = conv.root
        parts[relation] = part
    found = HeteroConv(parts, aggr="sum")(hetero.x_dict, hetero.edge_index_dict)["atom"]
    expected = conv(graph.x, graph.edge_index, graph.edge_type)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_bipartite():
    conv = ShellConv(4, 6, num_shells=2).double()
    x_source, x_target = torch.randn(3, 4, dtype=torch.double), torch.randn(2, 4, dtype=torch.double)
    edge_index = torch.tensor([[0, 1, 2, 2], [0, 0, 0, 1]])
    edge_type = torch.tensor([0, 1, 1, 0])
    inner, outer = conv.shells["0"], conv.shells["1"]
    sums = torch.stack([inner(x_source[0]) + outer(x_source[1]) + outer(x_source[2]), inner(x_source[2])])
    found = conv((x_source, x_target), edge_index, edge_type)
    torch.testing.assert_close(found, conv.root(x_target) + sums, rtol=1e-12, atol=1e-12)

    alone = conv((x_source, None), edge_index, edge_type)  # no target features: as many targets as sources
    torch.testing.assert_close(alone[:2], sums, rtol=1e-12, atol=1e-12)
    assert alone.shape == (3, 6)
    assert alone[2].abs().sum() == 0


@pytest.mark.parametrize("active", [(), (0,), (1,), (2,), (0, 1), (1, 2)])
def test_shells_that_are_switched_off(generator, active):
    graph = shell_graph(generator)
    full = ShellConv(4, 6).double()
    conv = ShellConv(4, 6, active_shells=active).double()
    assert set(conv.shells) == {str(shell) for shell in active}
    per_perceptron = 4 * 6 + 6 + 6 * 6 + 6
    assert sum(p.numel() for p in conv.parameters()) == (1 + len(active)) * per_perceptron

    wanted = conv.state_dict().keys()
    conv.load_state_dict({key: value for key, value in full.state_dict().items() if key in wanted})
    kept = torch.isin(graph.edge_type, torch.tensor(active, dtype=torch.long))
    expected = full(graph.x, graph.edge_index[:, kept], graph.edge_type[kept])
    found = conv(graph.x, graph.edge_index, graph.edge_type)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dense(conv, graph), expected, rtol=1e-11, atol=1e-11)


def test_atoms_of_other_clusters_contribute_nothing(generator):
    graph = shell_graph(generator)
    conv = ShellConv(4, 6).double()
    found = dense(conv, graph)
    for number in range(len(SIZES)):
        start, end = graph.ptr[number], graph.ptr[number + 1]
        alone = Batch.from_data_list([Data(pos=graph.pos[start:end], x=graph.x[start:end])])
        torch.testing.assert_close(found[start:end], dense(conv, alone), rtol=1e-12, atol=1e-12)


def test_inside_a_graph_network(generator):
    _, pos, ptr = random_clusters((13, 1, 20, 2), 31, generator)
    prepare = [TopologicalDescriptor(), ShellGraph()]
    graphs = [Data(pos=pos[a:b].float()) for a, b in zip(ptr, ptr[1:], strict=False)]
    for transform in prepare:
        graphs = [transform(graph) for graph in graphs]
    network = Sequential(
        "x, edge_index, edge_type, batch",
        [
            (ShellConv(3, 8), "x, edge_index, edge_type -> x"),
            (ShellConv(8, 8), "x, edge_index, edge_type -> x"),
            (global_add_pool, "x, batch -> x"),
            torch.nn.Linear(8, 1),
        ],
    )

    def run(loader):
        outs = [network(data.x, data.edge_index, data.edge_type, data.batch) for data in loader]
        return torch.cat(outs)

    together = run(DataLoader(graphs, batch_size=4))
    torch.testing.assert_close(run(DataLoader(graphs, batch_size=1)), together, rtol=1e-5, atol=1e-5)
    together.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_wrong_use():
    x, edge_index = torch.randn(2, 4), torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="edge_type is needed to distinguish 3 shells"):
        ShellConv(4, 6)(x, edge_index)
    with pytest.raises(ValueError, match=r"active_shells must be among 0 to 2, got \[0, 3\]"):
        ShellConv(4, 6, active_shells=(0, 3))
    assert ShellConv(4, 6, num_shells=1)(x, edge_index).shape == (2, 6)


def test_another_activation(generator):
    graph = shell_graph(generator, dtype=torch.float)
    conv = ShellConv(4, 6, act="tanh")
    out = conv(graph.x, graph.edge_index, graph.edge_type)
    assert isinstance(conv.root.act, torch.nn.Tanh)
    assert bool((out.abs() <= torch.repeat_interleave(graph.ptr.diff(), graph.ptr.diff())[:, None]).all())
