import math

import pytest
import torch
from torch_geometric.nn import SchNet
from torch_geometric.utils import scatter

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import batch_to_ptr, ptr_to_batch
from pyg_clusters.models import NodeSchNet
from pyg_clusters.models.checkpoint import load_model, save_model
from pyg_clusters.pairs import radius_pairs
from pyg_clusters.testing import random_clusters, validate_model

SIZES = (14, 1, 2, 40)


@pytest.fixture
def clusters(generator):
    z, pos, ptr = random_clusters(SIZES, 11, generator)
    return z, pos, ptr


@pytest.fixture
def shieldings(generator):
    skewed = torch.rand(sum(SIZES), generator=generator, dtype=torch.double).log()
    return 620 + 40 * skewed


def make(transform=False, **arguments) -> NodeSchNet:
    torch.manual_seed(0)
    return NodeSchNet(transform=transform, **arguments)


@pytest.mark.parametrize("arguments", [{}, {"num_interactions": 3, "num_gaussians": 50, "cutoff": 8.0}], ids=str)
def test_same_weights_sum_to_schnet_of_pyg(clusters, arguments):
    z, pos, ptr = clusters
    model = make(**arguments)
    pooled = SchNet(
        hidden_channels=128,
        num_filters=128,
        num_interactions=model.num_interactions,
        num_gaussians=model.num_gaussians,
        cutoff=model.cutoff,
        interaction_graph=lambda pos, batch: radius_pairs(pos, batch_to_ptr(batch), model.cutoff),
    )
    missing = model.load_state_dict(pooled.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith(("scale.", "domain.")) for key in missing.missing_keys)
    pos, batch = pos.float(), ptr_to_batch(ptr)
    expected = pooled(z, pos, batch).flatten()
    assert expected.std() > 0.01  # the compared numbers are not all equal
    summed = scatter(model(z, pos, batch), batch, reduce="sum")
    torch.testing.assert_close(summed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"num_gaussians": 2}, {"num_gaussians": 50, "cutoff": 8.0}], ids=str)
@pytest.mark.parametrize("sharper", [1.0, 4.0])
def test_interpolated_filters_are_those_of_the_network(clusters, arguments, sharper):
    """Values, and gradients of weights and positions, compared with PyG's blocks in double precision."""
    z, pos, ptr = clusters
    model, batch = make(**arguments).double(), ptr_to_batch(ptr)
    with torch.no_grad():
        for block in model.interactions:
            block.mlp[0].weight.mul_(sharper)  # filters that vary more rapidly than those of fresh weights

    def by_pyg(pos):
        edge_index, _ = radius_pairs(pos, ptr, model.cutoff)
        distance = (pos[edge_index[0]] - pos[edge_index[1]]).norm(dim=-1)
        h = model.embedding(z)
        for block in model.interactions:
            h = h + block(h, edge_index, distance, model.distance_expansion(distance))
        return model.lin2(model.act(model.lin1(h))).squeeze(-1)

    pos = pos.requires_grad_()
    found, expected = model.raw(z, pos, batch), by_pyg(pos)
    assert found.dtype == torch.double
    assert float((found - expected).detach().abs().max() / expected.detach().abs().max()) < 1e-6
    wanted = [pos, *model.parameters()]
    ours, theirs = (torch.autograd.grad(values.square().sum(), wanted) for values in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.parametrize("transform", [False, True])
def test_physics(transform, shieldings, clusters):
    z, _, ptr = clusters
    model = make(transform)
    validate_model(model, atomic_number=11, per_atom=True)
    model.scale.fit(z, ptr, shieldings)
    validate_model(model, atomic_number=11, per_atom=True)


def test_defaults_are_those_of_the_paper():
    model = NodeSchNet()
    assert (model.hidden_channels, model.num_filters, model.num_interactions) == (128, 128, 2)
    assert (model.num_gaussians, model.cutoff) == (25, 6.0)
    assert model.embedding.weight.shape == (100, 128) and model.embedding.weight[0].abs().max() == 0
    block = (25 * 128 + 128) + (128 * 128 + 128) + 128 * 128 + (128 * 128 + 128) + (128 * 128 + 128)
    expected = 100 * 128 + 2 * block + (128 * 64 + 64) + (64 + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_one_atom_sees_nothing_but_its_element():
    model = make()
    alone = model(torch.tensor([11]), torch.zeros(1, 3), torch.tensor([0]))
    assert alone.shape == (1,) and alone.isfinite().all()
    far = torch.tensor([[0.0, 0, 0], [0, 0, 6.0]])  # the cutoff is exclusive
    torch.testing.assert_close(model(torch.tensor([11, 11]), far, torch.tensor([0, 0])), alone.expand(2))
    alone.sum().backward()  # no edges


def test_a_neighbour_fades_out_at_the_cutoff():
    model = make().double()
    z, batch = torch.tensor([11, 11]), torch.tensor([0, 0])

    def value(distance):
        pos = torch.tensor([[0.0, 0, 0], [0, 0, distance]], dtype=torch.double)
        return model(z, pos, batch)[0].item()

    alone = value(60.0)
    assert abs(value(3.5) - alone) > 1e-4
    assert value(6.0 - 1e-4) == pytest.approx(alone, abs=1e-7)
    assert value(9.0) == alone  # the envelope of PyG's convolution would be 0.5 here


def test_no_neighbour_is_dropped(generator):
    """All 60 atoms within the cutoff of a central one count."""
    direction = torch.randn(60, 3, generator=generator, dtype=torch.double)
    shell = 5.0 * direction / direction.norm(dim=1, keepdim=True)
    pos = torch.cat([torch.zeros(1, 3, dtype=torch.double), shell])
    z, batch = torch.full((61,), 11), torch.zeros(61, dtype=torch.long)
    model = make(num_interactions=1).double()
    filters = model.interactions[0].mlp(model.distance_expansion(torch.tensor([5.0], dtype=torch.double)))
    envelope = 0.5 * (math.cos(5 / 6 * math.pi) + 1)
    h = model.embedding(z[:1])
    block = model.interactions[0]
    neighbours = 60 * block.conv.lin1(h) * filters * envelope
    h = h + block.lin(block.act(block.conv.lin2(neighbours)))
    expected = model.lin2(model.act(model.lin1(h))).flatten()
    torch.testing.assert_close(model(z, pos, batch)[:1], expected, rtol=1e-10, atol=1e-10)


def test_graph_equals_positions(clusters):
    z, pos, ptr = clusters
    model, batch = make().double(), ptr_to_batch(ptr)
    expected = model(z, pos, batch)
    for cutoff in (6.0, 12.0):  # pairs beyond the cutoff are omitted
        edge_index, edge_weight = radius_pairs(pos, ptr, cutoff)
        given = model(z, None, batch, edge_index=edge_index, edge_weight=edge_weight)
        torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model(z, pos, batch, edge_index=edge_index), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="needs positions, or pairs and their distances"):
        model(z, None, batch, edge_index=edge_index)


def test_scale_of_shieldings(clusters, shieldings):
    z, pos, ptr = clusters
    model, batch = make().double(), ptr_to_batch(ptr)
    model.scale.fit(z, ptr, shieldings)
    assert float(model.scale.mean) == pytest.approx(shieldings.mean().item(), rel=1e-6)
    raw = model.raw(z, pos, batch)
    torch.testing.assert_close(model(z, pos, batch), model.scale.mean + shieldings.std(correction=0) * raw)
    torch.testing.assert_close(model.scale.standardize(model(z, pos, batch)), raw)
    model.scale.fit(z, ptr, torch.full_like(shieldings, 600.0))
    assert float(model.scale.scale) == 1


def test_transformed_target(clusters, shieldings):
    z, pos, ptr = clusters
    model, batch = make(transform=True).double(), ptr_to_batch(ptr)
    model.scale.fit(z, ptr, shieldings)
    standard = model.scale.standardize(shieldings)
    assert abs(standard.mean()) < 1e-6 and standard.std(correction=0) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(model.scale(standard), shieldings, rtol=1e-10, atol=0)
    raw = model.raw(z, pos, batch)
    torch.testing.assert_close(model.scale.standardize(model(z, pos, batch)), raw, rtol=1e-9, atol=1e-9)
    with pytest.raises(InputError, match="all 57 values are 600"):
        model.scale.fit(z, ptr, torch.full_like(shieldings, 600.0))


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_saved_and_loaded(tmp_path, clusters, shieldings, transform, dtype):
    z, pos, ptr = clusters
    model = make(transform, hidden_channels=16, num_filters=8).to(dtype)
    model.scale.fit(z, ptr, shieldings)
    model.domain.fit(z, ptr)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert str(loaded) == str(model)
    arguments = z, pos.to(dtype), ptr_to_batch(ptr)
    assert loaded(*arguments).dtype == dtype and loaded(*arguments).equal(model(*arguments))
    assert loaded.domain.atomic_numbers == [11] and loaded.domain.size_range == (1, 40)


@pytest.mark.parametrize("transform", [False, True])
def test_it_learns(clusters, shieldings, transform):
    z, pos, ptr = clusters
    model, batch = make(transform, hidden_channels=32, num_filters=32), ptr_to_batch(ptr)
    y = shieldings.float()
    model.scale.fit(z, ptr, y)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = (model.raw(z, pos.float(), batch) - model.scale.standardize(y)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="positive, finite and increasing"):
        NodeSchNet(cutoff=0)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        NodeSchNet(num_gaussians=1)
