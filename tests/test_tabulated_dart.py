import shutil

import pytest
import torch

from pyg_clusters.errors import InputError
from pyg_clusters.frames import read_blocks
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, NodeSchNet, load_model
from pyg_clusters.models.fast_dart import TabulatedDART
from pyg_clusters.units import KCAL_PER_MOL

NUM_FRAMES = 100


@pytest.fixture(scope="module")
def hot_frames():
    """900 K frames of Ga57: far from the minima that ``gallium`` was trained on."""
    block = next(iter(read_blocks("datasets/gallium_clusters/gallium_md_57.extxyz")))
    pos = torch.as_tensor(block.pos[: 57 * NUM_FRAMES]).float().view(NUM_FRAMES, 57, 3)
    return torch.full((NUM_FRAMES, 57), 31), pos


def by_forward(model, z, pos):
    num_graphs, num_atoms = z.shape
    batch = torch.arange(num_graphs).repeat_interleave(num_atoms)
    with torch.no_grad():
        return model(z.flatten(), pos.flatten(0, 1), batch)


@pytest.mark.parametrize("radii", [(3.49, 6.3), (3.0,), (2.8, 4.0, 5.5)])
def test_it_equals_the_model(radii, hot_frames):
    torch.manual_seed(0)
    z, pos = (value[:8, :30] for value in hot_frames)
    model = DART(radii=radii)
    torch.testing.assert_close(TabulatedDART(model)(z, pos), by_forward(model, z, pos), rtol=1e-5, atol=1e-4)


def test_a_cluster_too_large_for_the_table(hot_frames, monkeypatch):
    monkeypatch.setattr("pyg_clusters.models.fast_dart.MOST_ROWS", 1000)
    z, pos = (value[:8] for value in hot_frames)
    model = load_model("gallium")
    torch.testing.assert_close(TabulatedDART(model)(z, pos), by_forward(model, z, pos), rtol=1e-5, atol=1e-4)


def test_it_follows_the_weights(hot_frames):
    z, pos = (value[:8] for value in hot_frames)
    model = load_model("gallium")
    energies = TabulatedDART(model)
    before = energies(z, pos)
    with torch.no_grad():
        model.conv.root.lins[0].weight += 0.01
    torch.testing.assert_close(energies(z, pos), by_forward(model, z, pos), rtol=1e-5, atol=1e-4)
    assert not torch.allclose(energies(z, pos), before)


def test_half_precision_is_exact_to_a_hundredth_kcal_per_atom(hot_frames):
    z, pos = hot_frames
    model = load_model("gallium")
    exact = Predictor(model)(z, pos).energy
    error = (Predictor(model, half=True)(z, pos).energy - exact).abs() * KCAL_PER_MOL / 57
    assert 0 < error.max() < 0.01
    assert error.mean() < 0.003


def test_half_precision_of_other_models_is_refused():
    with pytest.raises(InputError, match="half precision is for DART and ensembles of it, not for NodeSchNet"):
        Predictor(NodeSchNet(), half=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_equals_plain(hot_frames):
    z, pos = hot_frames
    model = load_model("gallium")
    plain, compiled = TabulatedDART(model, compiled=False), TabulatedDART(model, compiled=True)
    for number in (NUM_FRAMES, 7):  # the last batch of a trajectory is smaller
        for size in (57, 40):
            part = z[:number, :size], pos[:number, :size]
            torch.testing.assert_close(compiled(*part), plain(*part), rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_gives_the_same(half, hot_frames):
    z, pos = hot_frames
    model = load_model("gallium")
    exact = Predictor(model)(z, pos).energy
    error = (Predictor(model, device="cuda", half=half)(z, pos).energy - exact).abs() * KCAL_PER_MOL / 57
    assert error.max() < (0.01 if half else 1e-3)
