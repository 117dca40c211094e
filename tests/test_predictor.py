from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.cluster import Icosahedron
from helpers import atoms_of
from torch_geometric.nn import GATv2Conv

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, write_extxyz
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, LayeredModel, SmoothDART
from pyg_clusters.structures import ModelCalculator, energy_and_forces
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import ShellGraph

SIZES = (13, 1, 40, 2, 13, 40, 1, 7, 13)


@pytest.fixture
def clusters(generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Atomic numbers, positions in double precision, and offsets of clusters of mixed sizes."""
    return random_clusters(SIZES, 31, generator)


def dart(dtype=torch.float, **arguments) -> DART:
    torch.manual_seed(0)
    model = DART(**arguments).to(dtype)
    model.scale.offset[31] = -2.4
    return model


class PairEnergies(torch.nn.Module):
    """Sum of exp(-d) over the pairs of a cluster, in units of a weight."""

    def __init__(self, trained: bool = True):
        super().__init__()
        if trained:
            self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.trained = trained

    def forward(self, z, pos, batch):
        same = batch[:, None] == batch
        same.fill_diagonal_(False)
        of_atom = (torch.exp(-(pos[:, None] - pos + 1e-9).norm(dim=-1)) * same).sum(1) / 2
        energy = pos.new_zeros(int(batch[-1]) + 1).index_add(0, batch, of_atom)
        return energy * self.weight if self.trained else energy


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"radii": (4.0,)},
        {"radii": (3.0, 4.0, 6.0, 8.0)},
        {"active_shells": (0, 2)},
        {"active_shells": ()},
        {"hidden_channels": 16, "interaction_channels": (8,)},
    ],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float, 1e-5), (torch.double, 1e-9)])
def test_equals_the_model(clusters, arguments, dtype, tolerance):
    z, pos, ptr = clusters
    model = dart(dtype, **arguments)
    expected = model(z, pos.to(dtype), ptr_to_batch(ptr)).detach()
    energy = Predictor(model)(z, pos, ptr).energy
    assert energy.dtype == dtype
    torch.testing.assert_close(energy, expected, rtol=tolerance, atol=tolerance)


def test_order_is_kept(clusters):
    z, pos, ptr = clusters
    predict = Predictor(dart())
    together = predict(z, pos, ptr).energy
    alone = [predict(z[a:b], pos[a:b], torch.tensor([0, b - a])).energy for a, b in zip(ptr, ptr[1:], strict=False)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-5)
    assert torch.unique(together).numel() > 5  # single atoms are equal, others are not


@pytest.mark.parametrize("max_atoms", [1, 13, 30, 100])
def test_small_batches(clusters, max_atoms):
    z, pos, ptr = clusters
    model = dart()
    expected = Predictor(model)(z, pos, ptr).energy
    energy = Predictor(model, max_atoms=max_atoms)(z, pos, ptr).energy
    torch.testing.assert_close(energy, expected, rtol=1e-6, atol=1e-5)


def test_large_batch_after_a_small_one(generator):
    # Values cached between batches must not change the results, in any order of the batches.
    model = dart()
    predict = Predictor(model)
    for sizes in [(5,), (30,) * 4, (5,), (30,)]:
        z, pos, ptr = random_clusters(sizes, 31, generator)
        expected = model(z, pos.float(), ptr_to_batch(ptr)).detach()
        torch.testing.assert_close(predict(z, pos, ptr).energy, expected, rtol=1e-5, atol=1e-5)


def test_forms_of_input(clusters):
    z, pos, ptr = clusters
    predict = Predictor(dart())
    expected = predict(z, pos, ptr).energy

    by_numpy = predict(z.numpy(), pos.numpy(), ptr.numpy()).energy
    assert by_numpy.equal(expected)

    frames = atoms_of(z, pos, ptr)
    assert predict(frames).energy.equal(expected)

    icosahedra = [number for number, size in enumerate(SIZES) if size == 13]
    rows = torch.stack([pos[ptr[number] : ptr[number + 1]] for number in icosahedra])
    rectangular = predict(torch.full((3, 13), 31), rows).energy
    torch.testing.assert_close(rectangular, expected[icosahedra], rtol=1e-6, atol=1e-5)

    assert predict([]).energy.shape == (0,)


def test_far_from_the_origin(clusters):
    z, pos, ptr = clusters
    predict = Predictor(dart())
    expected = predict(z, pos, ptr).energy
    far = pos + torch.tensor([1000.0, -1000.0, 500.0], dtype=torch.double)
    torch.testing.assert_close(predict(z, far, ptr).energy, expected, rtol=1e-6, atol=1e-5)

    # Two atoms 3.4899999 Å apart, which single precision cannot distinguish from 3.49 Å at 1,000 Å: J; just beyond: K.
    def pair(distance):
        return predict([Atoms("Ga2", [[1000.0, 0, 0], [1000.0 + distance, 0, 0]])]).energy

    assert pair(3.48999).equal(pair(2.5))
    assert pair(3.49001).equal(pair(5.0))
    assert not pair(3.48999).equal(pair(3.49001))


@pytest.mark.parametrize("trained", [True, False])
def test_other_models(clusters, trained):
    z, pos, ptr = clusters
    model = PairEnergies(trained)
    expected = model(z, pos.float(), ptr_to_batch(ptr)).detach()
    torch.testing.assert_close(Predictor(model)(z, pos, ptr).energy, expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_used_in_evaluation_mode(clusters):
    z, pos, ptr = clusters
    predict = Predictor(dart().train())
    assert not predict.model.training
    assert not predict(z, pos, ptr).energy.requires_grad


def test_a_model_in_training_is_used_in_evaluation_mode(clusters):
    """As between two epochs; the layers that are frozen in evaluation mode stay so."""
    dropout = LayeredModel(GATv2Conv, num_layers=1, hidden_channels=8, conv_args={"dropout": 0.9}, embedding="element")
    unfitted = SmoothDART(degree=1, hidden_channels=8)
    for model in (dropout, unfitted):
        predictor, calculator = Predictor(model), ModelCalculator(model)
        cluster = atoms_of(*clusters)[0]
        expected = predictor(*clusters).energy
        forces = calculator.get_forces(cluster)
        inputs = (clusters[0], clusters[1].float(), ptr_to_batch(clusters[2]))
        shared = energy_and_forces(model, *inputs)[1].numpy()
        model.train()
        frozen = next(module for module in model.modules() if not list(module.children())).eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for _ in range(2):
            assert predictor(*clusters).energy.equal(expected)
            calculator.reset()
            assert np.array_equal(calculator.get_forces(cluster), forces)
            assert np.array_equal(energy_and_forces(model, *inputs)[1].numpy(), shared)
        assert all(module.training is (module is not frozen) for module in model.modules())
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert len(predictor.atomic_energies([cluster])[0]) == len(cluster) and not unfitted.inputs.fitted


class Charged(torch.nn.Module):
    """Sum of the charges over the neighbours of an atom."""

    def forward(self, z, pos, batch, *, edge_index, charges):
        return torch.zeros_like(charges).index_add(0, edge_index[1], charges[edge_index[0]])


def test_graphs_have_the_additional_values(clusters):
    z, pos, ptr = clusters
    charges = torch.arange(float(z.numel()))
    values = Predictor(Charged(), transform=ShellGraph())(z, pos, ptr, extra={"charges": charges}).values
    batch = ptr_to_batch(ptr)
    sums = torch.zeros(ptr.numel() - 1).index_add(0, batch, charges)
    torch.testing.assert_close(values, sums[batch] - charges)


def test_inputs_stay_as_they_are(clusters):
    z, pos, ptr = (value.clone() for value in clusters)
    Predictor(dart())(z, pos, ptr)
    for found, expected in zip((z, pos, ptr), clusters, strict=True):
        assert found.equal(expected)


def test_unknown_elements(clusters):
    z, pos, ptr = clusters
    model = dart()
    sodium = torch.full_like(z, 11)
    assert Predictor(model)(sodium, pos, ptr).energy.isfinite().all()  # the model has no domain yet
    model.domain.fit(z, ptr)
    assert Predictor(model)(z, pos, ptr).energy.isfinite().all()
    with pytest.raises(InputError, match="the model was trained on Ga and not on Na, Al"):
        sodium[3] = 13
        Predictor(model)(sodium, pos, ptr)
    with pytest.raises(InputError, match="not on Cu"):
        Predictor(model)([Icosahedron("Cu", 2)])


def test_inconsistent_shapes(clusters):
    z, pos, ptr = clusters
    predict = Predictor(dart())
    with pytest.raises(ValueError, match=r"without ptr, .* got z \[130\] and pos \[130, 3\]"):
        predict(z, pos)
    with pytest.raises(ValueError, match=r"got z \[2, 5\] and pos \[2, 4, 3\]"):
        predict(torch.full((2, 5), 31), torch.zeros(2, 4, 3))
    wrong = [
        (z[:-1], pos, ptr),
        (z, pos[:, :2], ptr),
        (z, pos, ptr[:-1]),
        (z, pos, ptr[1:]),  # the first frame would be omitted
        (z, pos, torch.cat([ptr[:3], ptr[2:]])),  # a frame without atoms
        (z, pos, torch.tensor([], dtype=torch.long)),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match="increasing ptr"):
            predict(*arguments)


def test_numpy_frames_of_single_precision(clusters):
    z, pos, ptr = clusters
    predict = Predictor(dart())
    energy = predict(z.numpy().astype(np.int32), pos.numpy().astype(np.float32), ptr.numpy().astype(np.int32)).energy
    torch.testing.assert_close(energy, predict(z, pos, ptr).energy, rtol=1e-5, atol=1e-5)


def test_positions_that_are_not_finite_are_refused(clusters):
    z, pos, ptr = clusters
    pos = pos.clone()
    pos[ptr[4] + 2, 1] = float("nan")
    with pytest.raises(InputError, match=r"frame 4: atom 2 is at .*nan"):
        Predictor(dart())(z, pos, ptr)


def test_weights_that_change_are_followed(clusters):
    model = dart()
    predictor = Predictor(model)
    before = predictor(*clusters).energy
    for parameter in model.parameters():
        parameter.data.mul_(1.1)
    after = predictor(*clusters).energy
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, Predictor(model)(*clusters).energy)
    model.double()
    assert predictor(*clusters).energy.dtype == torch.double
    torch.testing.assert_close(predictor(*clusters).energy.float(), after, rtol=1e-4, atol=1e-3)


def test_several_threads_use_one_predictor(generator):
    parts = [random_clusters((40,) * 60, 31, generator) for _ in range(16)]
    predictor = Predictor(dart())
    expected = [predictor(*part).energy for part in parts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda part: predictor(*part).energy, parts))
    assert all(energy.equal(other) for energy, other in zip(found, expected, strict=True))


def test_device_that_does_not_exist():
    for device in ("warp", "cuda:99"):
        with pytest.raises(InputError, match=f"device {device} cannot be used"):
            Predictor(dart(), device=device)


def test_the_model_stays_on_its_device():
    model = dart()
    assert Predictor(model).device == torch.device("cpu")
    assert next(model.parameters()).device == torch.device("cpu")


def test_own_attributes_called_domain_or_scale_are_left_alone(clusters):
    class Own(PairEnergies):
        def __init__(self):
            super().__init__()
            self.domain, self.scale = "metals", 2.0

    torch.testing.assert_close(Predictor(Own())(*clusters).energy, Predictor(PairEnergies())(*clusters).energy)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu(clusters):
    on_cpu, on_gpu = Predictor(dart()), Predictor(dart(), device="cuda")
    torch.testing.assert_close(on_gpu(*clusters).energy, on_cpu(*clusters).energy, rtol=1e-5, atol=1e-4)


class Crowded(PairEnergies):
    """Model that runs out of memory above some number of atoms."""

    def __init__(self, max_atoms=10**9):
        super().__init__()
        self.max_atoms = max_atoms
        self.batches = []

    def forward(self, z, pos, batch):
        self.batches.append(tuple(torch.bincount(batch).tolist()))
        if z.numel() > self.max_atoms:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(z, pos, batch)


def test_a_batch_that_does_not_fit_is_halved(generator):
    z, pos, ptr = random_clusters((13,) * 40 + (5,) * 3 + (30,), 31, generator)
    expected = Predictor(PairEnergies())(z, pos, ptr).energy
    model = Crowded(max_atoms=100)
    energy = Predictor(model)(z, pos, ptr).energy
    torch.testing.assert_close(energy, expected, rtol=1e-5, atol=1e-6)
    thirteens = [len(batch) for batch in model.batches if batch[0] == 13]
    assert thirteens[:4] == [40, 20, 10, 5]
    assert set(thirteens[4:]) == {5}, "later batches are as small as the last that fitted"


def test_one_cluster_that_does_not_fit(generator):
    z, pos, ptr = random_clusters((13, 30, 13), 31, generator)
    with pytest.raises(InputError, match="a cluster of 30 atoms does not fit in the memory of cpu"):
        Predictor(Crowded(max_atoms=26))(z, pos, ptr)


def test_batches_are_bounded_in_atoms_and_in_pairs(generator):
    z, pos, ptr = random_clusters((4,) * 60 + (40,) * 8 + (150,) * 2, 31, generator)
    model = Crowded()
    Predictor(model, max_atoms=160)(z, pos, ptr)
    assert [len(batch) for batch in model.batches] == [1, 1, 4, 4, 40, 20]
    assert all(sum(n * n for n in batch) <= 160 * 128 for batch in model.batches if batch[0] < 150)
    model.batches.clear()
    Predictor(model, max_atoms=300)(z, pos, ptr)
    assert [len(batch) for batch in model.batches] == [1, 1, 7, 1, 60]  # two of 150 atoms are 300 atoms, 45,000 pairs


def test_frames_of_files(clusters, tmp_path):
    z, pos, ptr = clusters
    frames = [atoms for atoms in atoms_of(z, pos, ptr) if len(atoms) > 1]
    model = dart()
    expected = Predictor(model)(frames).energy
    write_extxyz(tmp_path / "a.xyz", frames[:4])
    write_extxyz(tmp_path / "b.xyz", frames[4:])
    paths = [tmp_path / "a.xyz", tmp_path / "b.xyz"]
    found = Predictor(model)(Frames.open(paths, block_size=3)).energy
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    frames[2].positions[1] = frames[2].positions[0]
    write_extxyz(tmp_path / "a.xyz", frames[:4])
    with pytest.raises(InputError, match=r"a\.xyz, frame 2: two atoms \(0 and 1\) are 0\.00 Å apart"):
        Predictor(model)(Frames.open(paths))
    found = Predictor(model)(Frames.open(paths, on_bad="skip", block_size=3)).energy
    assert found.isnan().tolist() == [number == 2 for number in range(len(frames))]
    torch.testing.assert_close(found[3:], expected[3:], rtol=1e-5, atol=1e-5)


def test_atoms_too_close_are_refused_and_a_cluster_needs_no_list():
    """Positions in nm are not taken for Å."""
    predictor = Predictor("gallium")
    cluster = Icosahedron("Ga", 2, latticeconstant=4.0)
    assert predictor(cluster).energy.tolist() == predictor([cluster]).energy.tolist()
    small = Atoms(cluster.numbers, cluster.positions / 10)
    with pytest.raises(InputError, match=r"frame 1: two atoms .* are 0.\d\d Å apart; are its positions in Å\?"):
        predictor([cluster, small])
    with pytest.raises(ValueError, match=r"a list of ASE Atoms is needed, got 'a.xyz'; for files: Frames.open"):
        predictor(["a.xyz"])
    with pytest.raises(ValueError, match=r"got .*a.xyz.*; for files: Frames.open"):
        predictor(Path("a.xyz"))
    grid = np.array([[[0, 0, 0], [3, 0, 0], [0, 3, 0]]])
    assert predictor(np.full((1, 3), 31), grid).energy == predictor(np.full((1, 3), 31), grid.astype(float)).energy
