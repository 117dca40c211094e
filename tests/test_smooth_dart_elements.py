"""SmoothDART for several elements: one element, sums of the formula, symmetries, forces, errors."""

import pytest
import torch
from ase import Atoms

from pyg_clusters.datasets import CopperGoldClusters, group_split
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import pad_clusters, ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.models import SmoothDART, load_model, save_model
from pyg_clusters.nn import ElementChannels, spherical_harmonics
from pyg_clusters.structures import ClusterEMT, ModelCalculator, energy_and_forces, relax
from pyg_clusters.testing import random_clusters, validate_model

SMALL = {"descriptor_radii": (2.5, 3.0, 3.5, 4.5), "width": 1.0, "hidden_channels": 16}
SIX = (28, 29, 46, 47, 78, 79)

GALLIUM: float = -8.401803
"""Energy in eV of four atoms by `gallium-forces`."""


def alloy(elements=(29, 79), sizes=(13, 1, 20, 2, 38)):
    """Clusters of mixed sizes, elements at random, in double precision."""
    generator = torch.Generator().manual_seed(3)
    _, pos, ptr = random_clusters(sizes, 29, generator)
    z = torch.tensor(elements)[torch.randint(len(elements), (pos.size(0),), generator=generator)]
    return z, pos, ptr_to_batch(ptr)


def model(elements=(29, 79), **options) -> SmoothDART:
    torch.manual_seed(1)
    return SmoothDART(elements=elements, **{**SMALL, "degree": 3, **options}).double().eval()


def test_one_element_is_the_blind_model_exactly():
    z, pos, batch = alloy((31,))
    blind, of_one = model(None), model((31,))
    of_one.load_state_dict(blind.state_dict())
    assert torch.equal(of_one(z, pos, batch), blind(z, pos, batch))
    with pytest.raises(InputError, match=r"has the elements \[31\], not \[79\]"):
        of_one(torch.full_like(z, 79), pos, batch)


def test_shipped_models_are_blind_and_unchanged():
    shipped = load_model("gallium-forces")
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7], [0.0, 2.3, 1.4], [2.3, 0.8, 1.4]])
    energy = shipped(None, pos, torch.zeros(4, dtype=torch.long))
    assert shipped.elements is None and energy.item() == pytest.approx(GALLIUM, abs=2e-5)


def test_elements_start_apart_and_as_many_channels_as_are_of_use_are_made():
    assert torch.allclose(ElementChannels((29, 79), 5).weight, torch.tensor([[1.0], [-1.0]]))
    weight = ElementChannels(SIX, 2).weight.detach()
    assert weight.shape == (6, 2) and torch.allclose(weight.mT @ weight, 6 * torch.eye(2), atol=1e-5)
    assert torch.allclose(weight.sum(0), torch.zeros(2), atol=1e-5)
    assert torch.cdist(weight, weight).fill_diagonal_(9).min() > 0.2


@pytest.mark.parametrize("channels", [1, 2])
def test_the_descriptor_is_that_of_the_formula(channels):
    """Sums over every pair, with weights of the shells by their own formula and harmonics of each direction."""
    found, (z, pos, _) = model((28, 29, 79), element_channels=channels), alloy((28, 29, 79), (9,))
    padded, place, sizes = pad_clusters(pos, torch.zeros(9, dtype=torch.long))
    x, _ = found._descriptor(padded, sizes, *(values[place][None] for values in found.element_values(z, pos.dtype)))
    t = ((torch.cdist(pos, pos)[..., None] - torch.tensor([-1.0, 2.5, 3.0, 3.5, 4.5])) + 0.5).clamp(0, 1)
    beyond = t**3 * (10 - 15 * t + 6 * t**2) * (1 - torch.eye(9, dtype=torch.double))[..., None]
    shells = torch.cat([beyond[..., :-1] - beyond[..., 1:], beyond[..., -1:]], dim=-1)
    away = torch.nn.functional.normalize(pos[None] - pos[:, None], dim=-1)
    harmonics = torch.cat([torch.ones(9, 9, 1, dtype=torch.double), spherical_harmonics(away, 3)], dim=-1)
    weights = found.channels.weight.double()[found.channels.index(z)]
    expected = [x[0, :, : 5 + 3 * 10]]  # without elements
    for c in range(channels):
        ours = torch.einsum("ijs,j,ijm->ism", shells, weights[:, c], harmonics)
        all_alike = torch.einsum("ijs,ijm->ism", shells, harmonics)
        expected.append(ours[..., 0])
        for other in (all_alike, ours):
            of_degrees = (other * ours)[:, :4].split([1, 3, 5, 7], dim=-1)[1:]
            expected += [part.sum(-1) for part in of_degrees]
    assert torch.allclose(x[0, :, :-3], torch.cat(expected, dim=-1), atol=1e-9)  # the last three encode the element


@pytest.mark.parametrize("options", [{}, {"degree": 0}, {"rounds": 2, "element_channels": 1, "elements": SIX}])
def test_physics(options):
    """``validate_model`` for gold clusters and for clusters with random elements."""
    tried = model(**options)
    validate_model(tried.float(), atomic_number=79)
    tried.double()
    z, pos, batch = alloy(tried.elements)
    energy = tried(z, pos, batch)
    order = torch.cat([(batch == k).nonzero().flatten().flip(0) for k in range(5)])
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double))
    assert torch.allclose(tried(z[order], pos[order] @ rotation, batch), energy, rtol=1e-9)
    for k in range(5):
        mine = batch == k
        assert torch.allclose(tried(z[mine], pos[mine], batch[mine] * 0), energy[k], rtol=1e-9)


@pytest.mark.parametrize("elements", [(29, 79), SIX])
def test_forces_are_exact(elements):
    found, (z, pos, batch) = model(elements), alloy(elements, (6, 4))
    _, forces = energy_and_forces(found, z, pos, batch)
    step = 1e-4
    for atom, axis in ((0, 0), (3, 1), (8, 2)):
        moved = torch.zeros_like(pos)
        moved[atom, axis] = step
        difference = found(z, pos + moved, batch).sum() - found(z, pos - moved, batch).sum()
        assert -difference.item() / (2 * step) == pytest.approx(forces[atom, axis].item(), rel=1e-5, abs=1e-7)


def test_exchange_of_elements_matters_and_of_like_atoms_does_not():
    (z, pos, batch), found = alloy(), model()
    energy = found(z, pos, batch)
    exchanged = found(torch.where(z == 29, 79, 29), pos, batch)
    assert (exchanged - energy)[[0, 2, 4]].abs().min() > 1e-3
    unlike = torch.stack([(z[:13] == 29).nonzero()[0, 0], (z[:13] == 79).nonzero()[0, 0]])
    like = (z[:13] == 29).nonzero().flatten()[:2]
    for pair, same in ((like, True), (unlike, False)):
        moved = pos.clone()
        moved[pair] = pos[pair.flip(0)]
        assert ((found(z, moved, batch) - energy)[0].abs() < 1e-9) == same


def test_predictor_and_calculator_take_its_elements_and_no_others(tmp_path):
    z, pos, batch = alloy(sizes=(13, 20))
    found = model().float()
    found.domain.fit(z, torch.tensor([0, 13, 33]), pos.float())
    save_model(found, tmp_path)
    predicted = Predictor(load_model(tmp_path))(z, pos.float(), torch.tensor([0, 13, 33])).energy
    assert torch.allclose(predicted, found(z, pos.float(), batch), atol=1e-5)
    cluster = Atoms(z[:13].numpy(), pos[:13].numpy(), calculator=ModelCalculator(found))
    assert cluster.get_potential_energy() == pytest.approx(predicted[0].item(), abs=1e-5)
    cluster.numbers[0] = 47
    with pytest.raises(InputError, match="trained on Cu, Au and not on Ag"):
        cluster.get_potential_energy()
    with pytest.raises(InputError, match="atomic numbers z are needed"):
        found(None, pos.float(), batch)


def test_an_alloy_relaxes_downhill_by_forces_of_its_elements():
    found, (z, pos, batch) = model(hidden_channels=8), alloy(sizes=(6, 5))
    found.scale.scale.fill_(1.0)
    ends = []
    for numbers in (z, torch.full_like(z, 29)):
        end = relax(found, numbers, pos, batch, fmax=0.01, max_steps=15)
        assert torch.allclose(found(numbers, end.pos, batch), end.energy)
        assert (end.energy < found(numbers, pos, batch) - 0.1).all()
        ends.append(end.pos)
    assert (ends[0] - ends[1]).abs().max() > 0.05


def test_wrong_elements_are_named():
    with pytest.raises(InputError, match=r"different atomic numbers, got \[29, 29\]"):
        SmoothDART(elements=(29, 29))
    with pytest.raises(InputError, match="channels must be at least 1, got 0"):
        SmoothDART(elements=(29, 79), element_channels=0)


def test_copper_gold_frames_have_forces_of_emt_and_are_in_the_part_of_their_minimum():
    both = CopperGoldClusters(subset="forces_minima")
    alone, split = group_split(both.groups[: both.num_minima], seed=0), both.group_split(seed=0)
    groups = [set(both.groups[part].tolist()) for part in (split.train, split.val, split.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert split.train.numel() + split.val.numel() + split.test.numel() == len(both) == 8915
    for part in ("train", "val", "test"):
        found = getattr(split, part)
        assert torch.equal(found[found < both.num_minima], getattr(alone, part))
    isolated = {29: 3.51, 79: 3.8}
    for index in (0, both.num_minima, 7000, 8914):
        cluster = both[index]
        atoms = Atoms(cluster.z.numpy(), cluster.pos.double().numpy(), calculator=ClusterEMT())
        binding = atoms.get_potential_energy() - sum(isolated[number] for number in cluster.z.tolist())
        assert binding == pytest.approx(cluster.y.item(), abs=2e-4)
        assert abs(atoms.get_forces() - cluster.force.numpy()).max() < (7e-3 if index < both.num_minima else 2e-4)
    with pytest.raises(InputError, match="choose one of minima, forces_minima"):
        CopperGoldClusters(subset="forces")
