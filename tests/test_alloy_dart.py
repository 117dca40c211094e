"""DART for several elements."""

import pytest
import torch

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, AlloyDART
from pyg_clusters.pairs import shell_pairs
from pyg_clusters.testing import random_clusters, validate_model

RADII = (3.4, 5.8)


@pytest.fixture
def alloy(generator):
    """Random copper-gold clusters of mixed sizes, in double precision."""
    z, pos, ptr = random_clusters((13, 1, 20, 2, 38), 29, generator)
    z = torch.where(torch.rand(z.shape, generator=generator) < 0.4, 79, z)
    return z, pos, ptr


def model(networks: str = "shared") -> AlloyDART:
    torch.manual_seed(1)
    return AlloyDART((29, 79), RADII, hidden_channels=24, element_networks=networks).double()


def test_one_element_is_dart_exactly(generator):
    torch.manual_seed(1)
    z, pos, ptr = random_clusters((13, 1, 40, 2), 31, generator)
    dart, alloy = DART(), AlloyDART((31,))
    assert {name: weight.shape for name, weight in dart.state_dict().items()} == {
        name: weight.shape for name, weight in alloy.state_dict().items()
    }
    alloy.load_state_dict(dart.state_dict())
    batch = ptr_to_batch(ptr)
    expected = dart(z, pos.float(), batch)
    torch.testing.assert_close(alloy(z, pos.float(), batch), expected, rtol=1e-6, atol=0)  # sums over threads differ
    of_alloy, of_dart = (Predictor(model)(z, pos, ptr).energy for model in (alloy, dart))
    torch.testing.assert_close(of_alloy, of_dart, rtol=1e-5, atol=1e-4)  # 2e-6 eV per atom, in single precision


@pytest.mark.parametrize("networks", ["shared", "separate"])
def test_counts_and_sums_are_those_of_the_formula(alloy, networks):
    z, pos, ptr = alloy
    batch = ptr_to_batch(ptr)
    dart = model(networks)
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    same = (batch[:, None] == batch) & ~torch.eye(z.numel(), dtype=torch.bool)
    shells = [same & (distance < 3.4), same & (distance >= 3.4) & (distance <= 5.8), same & (distance > 5.8)]
    columns = [(shell & (z == element)).sum(1) for shell in shells for element in (29, 79)]
    x = torch.stack([*columns, z == 29, z == 79], dim=1).double()
    torch.testing.assert_close(dart.descriptor(z, pos, batch), x)
    y = dart.conv.root(x)
    for number, shell in enumerate(shells):
        for element in range(2):
            conv = dart.conv if networks == "shared" or element == 0 else dart.other_convs[0]
            y = y + (shell & (z == (29, 79)[element])).double() @ conv.shells[str(number)](x)
    expected = torch.zeros(5, dtype=torch.double).index_add(0, batch, dart._read_out(y, z).energy)
    torch.testing.assert_close(dart(z, pos, batch), expected)


@pytest.mark.parametrize("networks", ["shared", "separate"])
def test_edges_and_positions_give_the_same(alloy, networks):
    z, pos, ptr = alloy
    edge_index, edge_type = shell_pairs(pos, ptr, RADII)
    batch, dart = ptr_to_batch(ptr), model(networks)
    from_edges = dart(z, None, batch, edge_index=edge_index, edge_type=edge_type)
    torch.testing.assert_close(from_edges, dart(z, pos, batch))


@pytest.mark.parametrize("networks", ["shared", "separate"])
def test_symmetries(networks):
    validate_model(model(networks).float(), atomic_number=79)


def test_exchange_of_elements_matters_and_of_like_atoms_does_not(alloy):
    z, pos, ptr = alloy
    batch, dart = ptr_to_batch(ptr), model()
    energy = dart(z, pos, batch)
    exchanged = torch.where(z == 29, 79, 29)
    assert bool((dart(exchanged, pos, batch) - energy)[[0, 2, 4]].abs().min() > 0.01)
    like = (z[:13] == 29).nonzero().flatten()[:2]
    moved = pos.clone()
    moved[like] = pos[like.flip(0)]
    torch.testing.assert_close(dart(z, moved, batch), energy)


def test_unknown_elements_are_refused(alloy):
    z, pos, ptr = alloy
    with pytest.raises(InputError, match=r"has the elements \[29, 79\], not \[31\]"):
        model()(torch.where(z == 79, 31, z), pos, ptr_to_batch(ptr))
    with pytest.raises(InputError, match="different atomic numbers"):
        AlloyDART((29, 29))
