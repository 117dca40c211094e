"""Positions that are not finite or coincide never give a plausible number."""

import numpy as np
import pytest
import torch
from helpers import atoms_of
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.frames import check_block
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import ReadOptions
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, AlloyDART, Ensemble, LayeredModel, NodeSchNet, ShieldingDART, SmoothDART
from pyg_clusters.models.fast_dart import FusedDART, TabulatedDART
from pyg_clusters.models.shielding_lasso import ShieldingLasso
from pyg_clusters.positions import coinciding
from pyg_clusters.structures.potentials import energy_and_forces
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import RadiusGraph, RunningCoordination, ShellGraph, TopologicalDescriptor

SIZES = (6, 13, 9)
WRONG = {
    "nan": (0, float("nan")),
    "infinite": (1, float("inf")),
    "too large": (2, -1e200),
    "coinciding": None,
    "nearly coinciding": 1e-5,
}


def hdnn():
    pytest.importorskip("torchani")
    from pyg_clusters.models import HDNN

    return HDNN()


MODELS = {
    "DART": DART,
    "AlloyDART": lambda: AlloyDART(elements=(31, 79)),
    "SmoothDART": SmoothDART,
    "NodeSchNet": NodeSchNet,
    "ShieldingDART": ShieldingDART,
    "LayeredModel": lambda: LayeredModel("torch_geometric.nn.GATv2Conv", num_layers=1, hidden_channels=8),
    "SchNet": lambda: LayeredModel("torch_geometric.nn.SchNet", num_layers=1, hidden_channels=8),
    "HDNN": hdnn,
    "ShieldingLasso": ShieldingLasso,
    "Ensemble": lambda: Ensemble([DART(), DART()]),
}


def clusters(what: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three clusters, the second with an invalid atom 5."""
    z, pos, ptr = random_clusters(SIZES, 31, torch.Generator().manual_seed(0))
    change = WRONG[what]
    if isinstance(change, tuple):
        pos[SIZES[0] + 5, change[0]] = change[1]
    else:
        pos[SIZES[0] + 5] = pos[SIZES[0] + 1] + (change or 0.0)
    return z, pos, ptr


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", MODELS)
def test_models_give_nan_and_leave_the_other_clusters_alone(name, what, dtype):
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype).eval()
    z, pos, ptr = clusters(what)
    batch = ptr_to_batch(ptr)
    found = model(z, pos.to(dtype), batch)
    of = batch if found.numel() == batch.numel() else torch.arange(3)
    assert found[of == 1].isnan().all()
    for cluster in (0, 2):
        atoms = batch == cluster
        alone = model(z[atoms], pos[atoms].to(dtype), batch[atoms] * 0)
        torch.testing.assert_close(found[of == cluster], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("fast", [FusedDART, TabulatedDART])
def test_fast_paths_of_dart(fast, what):
    model = DART().eval()
    _, pos, ptr = clusters(what)
    wrong = pos[ptr[1] : ptr[2]]
    right = random_clusters((13,), 31, torch.Generator().manual_seed(1))[1]
    found = fast(model)(torch.full((2, 13), 31), torch.stack([wrong, right]).float())
    assert found.isnan().tolist() == [True, False]
    expected = model(torch.full((13,), 31), right.float(), torch.zeros(13, dtype=torch.long))
    torch.testing.assert_close(found[1:], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("what", WRONG)
def test_predictor_and_transforms_name_the_atom(what):
    z, pos, ptr = clusters(what)
    frames = atoms_of(z, pos, ptr)
    for predictor in (Predictor(DART()), Predictor(NodeSchNet(), transform=RadiusGraph(6.0))):
        for arguments in ((z, pos, ptr), (frames,)):
            with pytest.raises(InputError, match=r"frame 1: atom 5 is at .* (not a valid position|another atom)"):
                predictor(*arguments)
    single = Data(z=z[6:19], pos=pos[6:19])
    batch = Batch.from_data_list([Data(z=z[a:b], pos=pos[a:b]) for a, b in zip(ptr, ptr[1:], strict=False)])
    for transform in (RadiusGraph(6.0), ShellGraph(), TopologicalDescriptor(), RunningCoordination()):
        for data, frame in ((single, 0), (batch, 1)):
            with pytest.raises(InputError, match=f"frame {frame}: atom 5 is at"):
                transform(data.clone())


def test_frames_of_files_with_positions_beyond_single_precision_are_bad():
    z, pos, ptr = clusters("too large")
    frames = dict(enumerate(atoms_of(z, pos, ptr)))
    good, bad = check_block(block_of_frames("md.xyz", frames, ReadOptions(with_atoms=True)), on_bad="skip")
    assert good.number.tolist() == [0, 2]
    assert "frame 1: the position of atom 5 is" in str(bad[0])


def test_relaxation_of_forces_is_nan_too():
    """Forces of a cluster without energy are not finite; those of the others are the same."""
    model = SmoothDART(degree=1).double()
    z, pos, ptr = clusters("nan")
    pos.requires_grad_()
    batch = ptr_to_batch(ptr)
    energy = model(z, pos, batch)
    (gradient,) = torch.autograd.grad(energy[[0, 2]].sum(), pos)
    assert gradient[batch != 1].isfinite().all()
    forces = energy_and_forces(model, z, pos, batch)[1]
    assert forces[batch == 1].isnan().all()  # zero would count as converged
    torch.testing.assert_close(forces[batch != 1], -gradient[batch != 1])


def test_coinciding_atoms_are_found_in_any_order():
    """Among 3,000 random atoms in 30 clusters, coinciding pairs are found, but not pairs 0.01 Å apart."""
    rng = np.random.default_rng(0)
    pos = torch.from_numpy(rng.uniform(-30, 30, (3000, 3)))
    batch = torch.arange(30).repeat_interleave(100)
    assert not coinciding(pos, batch).any()
    same = rng.choice(3000, 40, replace=False)
    for atom in same:
        other = batch[atom] * 100 + (atom + 37) % 100
        pos[atom] = pos[other]
    found = coinciding(pos, batch)
    expected = (torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist") < 1e-3).fill_diagonal_(False)
    assert set(batch[found].tolist()) == set(batch[expected.any(1)].tolist())
    apart = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.01, 0.0]])
    assert not coinciding(apart, torch.tensor([0, 0])).any()
    assert not coinciding(torch.zeros(2, 3), torch.tensor([0, 1])).any()  # of two clusters
