"""Models in ``torch.compile(fullgraph=True)`` and ``torch.export``, and with ``batch=None``."""

import pytest
import torch

from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import DART, HDNN, AlloyDART, LayeredModel, NodeSchNet, SmoothDART
from pyg_clusters.pairs import radius_pairs, radius_slots
from pyg_clusters.structures import Gupta, energy_and_forces
from pyg_clusters.testing import random_clusters

SIZES = (9, 1, 2, 12)
MODELS = {
    "DART": DART,
    "SmoothDART": lambda: SmoothDART(hidden_channels=16, degree=2, elements=(31, 49)),
    "NodeSchNet": NodeSchNet,
}


def clusters(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z, pos, ptr = random_clusters(sizes, 31, torch.Generator().manual_seed(seed))
    return z, pos.float(), ptr_to_batch(ptr)


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval()


@pytest.fixture(autouse=True)
def forget_compiled():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["DART", "NodeSchNet", pytest.param("SmoothDART", marks=pytest.mark.slow)])
def test_compiled_without_a_break_in_the_graph(name):
    """Trace the model and run the graph as it is, which needs no C++ compiler."""
    model = made(name)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for sizes, seed in ((SIZES, 0), (SIZES, 1), ((4, 8, 12), 2)):  # the last has as many atoms in other clusters
        z, pos, batch = clusters(sizes, seed)
        torch.testing.assert_close(compiled(z, pos, batch), model(z, pos, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_exported(name):
    model = made(name)
    exported = torch.export.export(model, clusters()).module()
    for sizes, seed in ((SIZES, 1), ((4, 8, 12), 2)):
        z, pos, batch = clusters(sizes, seed)
        torch.testing.assert_close(exported(z, pos, batch), model(z, pos, batch), rtol=1e-5, atol=1e-5)
    if name == "SmoothDART":
        check_forces(model, exported)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_generated_code(name):
    model = made(name)
    z, pos, batch = clusters()
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(z, pos, batch), model(z, pos, batch), rtol=1e-5, atol=1e-5)


def check_forces(model: torch.nn.Module, traced: torch.nn.Module):
    z, pos, batch = clusters(seed=1)
    energy, forces = energy_and_forces(model, z, pos, batch)
    found_energy, found_forces = energy_and_forces(traced, z, pos, batch)
    torch.testing.assert_close(found_energy, energy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found_forces, forces, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_forces_of_a_compiled_model():
    """With the backend ``aot_eager``: ``inductor`` does not support a size of a value plus one (``u2 + 1``)."""
    model = made("SmoothDART")
    check_forces(model, torch.compile(model, fullgraph=True, backend="aot_eager"))


def test_slots_hold_the_pairs_within_the_cutoff():
    _, pos, batch = clusters()
    pairs, distance = radius_pairs(pos, torch.tensor([0, *SIZES]).cumsum(0), 4.0)
    slots, slot_distance = radius_slots(pos, batch, 4.0)
    inside = slot_distance < 4.0
    assert slots.size(1) == len(pos) * max(SIZES)
    torch.testing.assert_close(slots[:, inside], pairs)
    torch.testing.assert_close(slot_distance[inside], distance)


@pytest.mark.parametrize(
    "model",
    [
        DART(),
        SmoothDART(hidden_channels=16, degree=1),
        AlloyDART(elements=[31, 49]),
        NodeSchNet(),
        LayeredModel("torch_geometric.nn.GATv2Conv", num_layers=1),
        LayeredModel("torch_geometric.nn.SchNet", num_layers=1),
        Gupta("Na"),
        HDNN(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_no_batch_is_one_cluster(model):
    z, pos, batch = clusters((6,))
    if isinstance(model, Gupta):
        z = torch.full_like(z, 11)
    model = model.eval()
    torch.testing.assert_close(model(z, pos), model(z, pos, batch))
    torch.testing.assert_close(model(z, pos, None), model(z, pos, batch))
