import math
import pickle

import numpy as np
import pytest
import torch

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import GALLIUM_RADII, ptr_to_batch
from pyg_clusters.models import DART
from pyg_clusters.pairs import distinct_counts, shell_counts, shell_pairs
from pyg_clusters.testing import random_clusters, validate_model

SIZES = (13, 1, 40, 2)
KCAL_PER_MOL = 23.060548


@pytest.fixture
def model() -> DART:
    torch.manual_seed(0)
    return DART().double()


@pytest.fixture
def clusters(generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Atomic numbers, positions in double precision, and offsets."""
    return random_clusters(SIZES, 31, generator)


def published_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights and biases in the layout of the published implementation."""
    rng = np.random.default_rng(seed)
    shapes = {f"f{letter}{layer}": (128, 3 if layer == 1 else 128) for letter in "ijkl" for layer in (1, 2)}
    shapes |= {"inter1": (256, 128), "inter2": (128, 256), "inter3": (32, 128), "inter4": (1, 32)}
    weights = {f"{name}.weight": rng.normal(0, shape[1] ** -0.5, shape) for name, shape in shapes.items()}
    biases = {f"{name}.bias": rng.normal(0, 0.1, shape[0]) for name, shape in shapes.items()}
    # In the order of the module; the first key belongs to an unused layer.
    return {"mask.weight": rng.normal(size=(1, 3))} | weights | biases


def published_checkpoint(weights: dict[str, np.ndarray]) -> dict:
    state = {name: torch.tensor(value, dtype=torch.float) for name, value in weights.items()}
    return {
        "epoch": 812,
        "val_loss": np.float64(4.1),
        "train_loss_32": np.float32(3.5),
        "train_loss": 3.2,
        "state_dict": state,
        "optim_dict": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]},
    }


def energy_by_formula(weights: dict[str, np.ndarray], pos: np.ndarray) -> float:
    """Equations 1 to 7 of Modee et al. 2021 for one cluster, in kcal/mol, neighbour by neighbour."""

    def layer(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def celu(t):
        return np.where(t > 0, t, 0.1 * np.expm1(np.minimum(t, 0) / 0.1))

    def network(letter, x):
        return celu(layer(f"f{letter}2", celu(layer(f"f{letter}1", x))))

    def shell(i, j):
        distance = math.dist(pos[i], pos[j])
        return "j" if distance < 3.49 else "k" if distance <= 6.3 else "l"

    atoms = range(len(pos))
    shells = [{j: shell(i, j) for j in atoms if j != i} for i in atoms]
    descriptors = [np.array([list(of.values()).count(letter) for letter in "jkl"], dtype=float) for of in shells]
    energy = 0.0
    for i in atoms:
        x = network("i", descriptors[i])
        for j, letter in shells[i].items():
            x = x + network(letter, descriptors[j])
        for name in ("inter1", "inter2", "inter3"):
            x = celu(layer(name, x))
        energy += layer("inter4", x).item()
    return energy


def test_published_checkpoint_against_the_formula(tmp_path, clusters):
    path = tmp_path / "published.pt"
    weights = published_weights()
    torch.save(published_checkpoint(weights), path)
    z, pos, ptr = clusters
    expected = [energy_by_formula(weights, pos[a:b].numpy()) for a, b in zip(ptr, ptr[1:], strict=False)]
    assert np.ptp(expected) > 1  # kcal/mol: the energies compared below are not zero

    model = DART.from_published_checkpoint(path)
    found = model(z, pos.float(), ptr_to_batch(ptr))
    np.testing.assert_allclose(found.detach().numpy() * KCAL_PER_MOL, expected, rtol=0, atol=1e-3)
    # In double precision the only error is the rounding of the weights to single precision in the file.
    found = model.double()(z, pos, ptr_to_batch(ptr))
    np.testing.assert_allclose(found.detach().numpy() * KCAL_PER_MOL, expected, rtol=2e-6, atol=2e-4)


class Malicious:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder),)


def test_nothing_is_executed_by_a_checkpoint(tmp_path):
    content = published_checkpoint(published_weights())
    victim = tmp_path / "executed"
    for number, dump in enumerate([torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]):
        path = tmp_path / f"malicious{number}.pt"
        dump(content | {"epoch": Malicious(victim)}, path)
        with pytest.raises(ValueError, match=f"malicious{number}.pt: not a checkpoint of the published DART") as caught:
            DART.from_published_checkpoint(path)
        assert "\n" not in str(caught.value)
        assert not victim.exists()


def test_checkpoints_that_cannot_be_read(tmp_path):
    good = published_checkpoint(published_weights())

    def assert_refused(content=None, raw: bytes | None = None):
        path = tmp_path / "published.pt"
        path.write_bytes(raw) if content is None else torch.save(content, path)
        with pytest.raises(ValueError, match="not a checkpoint of the published DART") as caught:
            DART.from_published_checkpoint(path)
        assert "\n" not in str(caught.value)

    torch.save(good, tmp_path / "good.pt")
    DART.from_published_checkpoint(tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    assert_refused(raw=whole[: len(whole) // 2])
    assert_refused(raw=b"")
    assert_refused(raw=b"no checkpoint at all")
    assert_refused({"epoch": 3})
    assert_refused([1, 2])
    without = {key: value for key, value in good["state_dict"].items() if key != "fk2.bias"}
    assert_refused(good | {"state_dict": without})
    assert_refused(good | {"state_dict": good["state_dict"] | {"inter1.weight": torch.zeros(3, 3)}})
    with pytest.raises(FileNotFoundError):
        DART.from_published_checkpoint(tmp_path / "nowhere.pt")


def test_number_of_parameters():
    # Four networks 3-128-128 and one 128-256-128-32-1, each layer with biases.
    shell_network = (3 * 128 + 128) + (128 * 128 + 128)
    interaction = (128 * 256 + 256) + (256 * 128 + 128) + (128 * 32 + 32) + (32 * 1 + 1)
    assert 4 * shell_network + interaction == 138_177
    assert sum(parameter.numel() for parameter in DART().parameters()) == 138_177
    assert sum(p.numel() for p in DART(active_shells=(0, 1)).parameters()) == 138_177 - shell_network


def test_initialisation(model):
    # Kaiming normal of gain 1: standard deviation 1 / √fan_in.
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        else:
            expected = parameter.size(1) ** -0.5
            spread = 5 * expected / (2 * parameter.numel()) ** 0.5  # five standard errors
            assert abs(parameter.std().item() - expected) < spread, name
            assert abs(parameter.mean().item()) < 5 * expected / parameter.numel() ** 0.5, name


@pytest.mark.parametrize("radii", [(4.0,), GALLIUM_RADII, (3.0, 4.0, 6.0, 8.0)], ids=len)
@pytest.mark.parametrize("active", [None, (0,), ()], ids=str)
def test_graph_equals_positions(clusters, radii, active):
    z, pos, ptr = clusters
    batch = ptr_to_batch(ptr)
    torch.manual_seed(0)
    model = DART(radii, active_shells=active).double()
    edge_index, edge_type = shell_pairs(pos, ptr, radii)
    counts = shell_counts(pos, ptr, radii)

    def result(*args, **kwargs):
        energy = model(*args, **kwargs)
        gradients = torch.autograd.grad(energy.sum(), list(model.parameters()), allow_unused=True)
        return energy, gradients

    expected, expected_gradients = result(z, pos, batch)
    for x in (None, counts, counts.double()):
        energy, gradients = result(z, None, batch, x=x, edge_index=edge_index, edge_type=edge_type)
        torch.testing.assert_close(energy, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-9)


def test_clusters_of_a_batch_do_not_interact(model, clusters):
    # The two clusters have the same position: only the batch vector distinguishes them.
    z, pos, ptr = clusters
    first, last = pos[:13], pos[14:54]
    together = model(None, torch.cat([first, last]), torch.tensor([0] * 13 + [1] * 40))
    alone = [model(None, part, torch.zeros(len(part), dtype=torch.long)) for part in (first, last)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(z, pos, ptr_to_batch(ptr))[[0, 2]], together, rtol=1e-12, atol=1e-12)


def test_far_clusters_interact_through_the_outer_shell(model, clusters):
    # The outer shell is unbounded: two clusters in one frame interact, whatever their distance.
    _, pos, _ = clusters
    pair = torch.cat([pos[:13], pos[14:34]])
    one_frame = torch.zeros(33, dtype=torch.long)
    apart = torch.zeros(33, 3, dtype=torch.double)
    apart[13:, 0] = 50.0
    near, far = (model(None, pair + times * apart, one_frame) for times in (1, 20))
    assert near.equal(far)


def test_atomic_energies_and_features(model, clusters):
    z, pos, ptr = clusters
    batch = ptr_to_batch(ptr)
    model.scale.fit(z, ptr, torch.tensor([-30.0, 0.0, -95.0, -1.5]))
    atoms = model.energies_and_features(z, pos, batch)
    assert atoms.energy.shape == (56,)
    assert atoms.features.shape == (56, 32)
    sums = torch.stack([part.sum() for part in atoms.energy.split(list(SIZES))])
    torch.testing.assert_close(model(z, pos, batch), sums, rtol=1e-12, atol=1e-12)
    # The features are the input of the last layer.
    raw = model.interaction[-1](atoms.features).flatten()
    expected = raw / KCAL_PER_MOL + model.scale.offset[31]
    torch.testing.assert_close(atoms.energy, expected, rtol=1e-6, atol=1e-6)
    # Atoms with equal inputs have equal features: the two of the dimer.
    assert atoms.energy[-1] == atoms.energy[-2]


def test_offset_shifts_by_the_number_of_atoms(model, clusters):
    z, pos, ptr = clusters
    batch = ptr_to_batch(ptr)
    before = model(z, pos, batch)
    model.scale.offset[31] = -2.5
    torch.testing.assert_close(model(z, pos, batch), before - 2.5 * ptr.diff(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(None, pos, batch), before - 2.5 * ptr.diff(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("active", [(), (0,), (0, 1), (1, 2)])
def test_ablations(model, clusters, active):
    z, pos, ptr = clusters
    batch = ptr_to_batch(ptr)
    ablated = DART(active_shells=active).double()
    assert ablated.active_shells == active
    assert ablated.conv.in_channels == 3  # the descriptor keeps the counts of all shells
    # A disabled network equals a network of zeros.
    ablated.load_state_dict({key: model.state_dict()[key] for key in ablated.state_dict()})
    with torch.no_grad():
        for shell, perceptron in model.conv.shells.items():
            if int(shell) not in active:
                for parameter in perceptron.parameters():
                    parameter.zero_()
    torch.testing.assert_close(ablated(z, pos, batch), model(z, pos, batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"active_shells": (0, 1)},
        {"active_shells": (2,)},
        {"active_shells": ()},
        {"radii": (4.0,)},
        {"radii": (3.0, 4.0, 6.0, 8.0)},
        {"hidden_channels": 16, "interaction_channels": (8, 32)},
    ],
    ids=str,
)
def test_physics(arguments):
    torch.manual_seed(0)
    model = DART(**arguments)
    validate_model(model)
    validate_model(lambda_of_atoms(model), per_atom=True)


def lambda_of_atoms(model: DART) -> torch.nn.Module:
    """A model of the energies of the atoms."""

    class OfAtoms(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, z, pos, batch):
            return self.model.atomic_energies(z, pos, batch)

    return OfAtoms()


def test_wrong_use(model):
    with pytest.raises(ValueError, match="needs positions, or a shell graph"):
        model(None, None, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="positive, finite and increasing"):
        DART(radii=(6.3, 3.49))
    with pytest.raises(ValueError, match="active_shells must be among 0 to 2"):
        DART(active_shells=(3,))


def test_domain(model, clusters):
    z, _, ptr = clusters
    assert not model.domain.known
    assert str(model.domain) == "TrainingDomain()"
    model.domain.fit(z, ptr)
    assert model.domain.known
    assert str(model.domain) == "TrainingDomain(atomic_numbers=[31], sizes=(1, 40))"
    other = DART().double()
    other.load_state_dict(model.state_dict())
    assert str(other.domain) == str(model.domain)


@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.long])
def test_distinct_counts(generator, dtype):
    counts = torch.randint(0, 4, (200, 3), generator=generator).to(dtype)
    rows, row_of_atom = distinct_counts(counts)
    assert rows.dtype == dtype
    assert rows.size(0) == torch.unique(counts, dim=0).size(0)
    assert rows[row_of_atom].equal(counts)
    # So many shells that the counts do not fit into one integer.
    many = torch.randint(0, 90, (20, 12), generator=generator).to(dtype)
    rows, row_of_atom = distinct_counts(many)
    assert rows[row_of_atom].equal(many)


def test_a_graph_of_other_shells_is_refused():
    edge_index, batch = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0])
    with pytest.raises(InputError, match="from 0 to 2, got 3 to 3"):
        DART()(None, None, batch, edge_index=edge_index, edge_type=torch.tensor([3, 3]))
    with pytest.raises(InputError, match="edge_type is needed"):
        DART()(None, None, batch, edge_index=edge_index)


def test_no_clusters_no_energies():
    empty = torch.zeros(0, dtype=torch.long)
    assert DART()(empty, torch.zeros(0, 3), empty).shape == (0,)
