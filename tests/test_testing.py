import pytest
import torch
from torch import nn

from pyg_clusters.geometry import batch_to_ptr
from pyg_clusters.models import DART
from pyg_clusters.testing import random_clusters, validate_model


class Centred(nn.Module):
    """A valid model: a quadratic form of the distances to the centroid, summed over a cluster."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def of_atoms(self, z, pos, batch):
        sizes = batch_to_ptr(batch).diff()
        sums = pos.new_zeros(sizes.numel(), 3).index_add(0, batch, pos)
        return self.weight * (pos - (sums / sizes[:, None])[batch]).square().sum(1)

    def forward(self, z, pos, batch):
        of_atoms = self.of_atoms(z, pos, batch)
        return of_atoms.new_zeros(int(batch[-1]) + 1).index_add(0, batch, of_atoms)


class PerAtom(Centred):
    def forward(self, z, pos, batch):
        return self.of_atoms(z, pos, batch)


class AbsolutePositions(Centred):
    def of_atoms(self, z, pos, batch):
        return self.weight * pos.square().sum(1)


class OneAxis(Centred):
    def of_atoms(self, z, pos, batch):
        return super().of_atoms(z, pos * torch.tensor([1, 1, 2]), batch)


class Handed(Centred):
    """Depends on the handedness of the first four atoms of a cluster, which rotations preserve."""

    def of_atoms(self, z, pos, batch):
        first = batch_to_ptr(batch)[:-1]
        last = batch_to_ptr(batch)[1:] - 1
        a, b, c, d = (pos[torch.minimum(first + k, last)] for k in range(4))
        volume = (torch.linalg.cross(b - a, c - a) * (d - a)).sum(1)
        return super().of_atoms(z, pos, batch) + volume.abs()[batch] + volume.clamp(min=0)[batch]


class OrderOfAtoms(Centred):
    def of_atoms(self, z, pos, batch):
        place = torch.arange(batch.numel()) - batch_to_ptr(batch)[batch]
        return super().of_atoms(z, pos, batch) * (1 + place)


class MixesClusters(Centred):
    def forward(self, z, pos, batch):
        energy = super().forward(z, pos, batch)
        return energy + 0.1 * energy.mean()


class ChangesItsInputs(Centred):
    def forward(self, z, pos, batch):
        energy = super().forward(z, pos, batch)
        pos -= pos.mean(0)
        return energy


class LoneAtomIsNotANumber(Centred):
    def forward(self, z, pos, batch):
        sizes = batch_to_ptr(batch).diff()
        return super().forward(z, pos, batch) / (sizes - 1) * (sizes - 1)


class Squeezes(Centred):
    def forward(self, z, pos, batch):
        return super().forward(z, pos, batch)[:, None]


class SinglePrecisionIsNotEnough(Centred):
    def of_atoms(self, z, pos, batch):
        return (super().of_atoms(z, pos, batch) + 1e8) - 1e8


class ForgetsAWeight(Centred):
    def __init__(self):
        super().__init__()
        self.register_buffer("learned", torch.rand(()), persistent=False)

    def of_atoms(self, z, pos, batch):
        return self.learned * super().of_atoms(z, pos, batch)


class LearnsOutsideItsState(Centred):
    """Stores a scale as a plain attribute, as PyG's SchNet does."""

    def __init__(self):
        super().__init__()
        self.learned = float(torch.rand(()))

    def of_atoms(self, z, pos, batch):
        return self.learned * super().of_atoms(z, pos, batch)


class ForgetsAnArgument(Centred):
    def __init__(self, factor: float = 1.0):
        super().__init__()


BROKEN = [
    (AbsolutePositions, "translation"),
    (OneAxis, "rotation"),
    (OrderOfAtoms, "permutation of the atoms"),
    (MixesClusters, "batched equals one by one"),
    (ChangesItsInputs, "it changes its inputs"),
    (LoneAtomIsNotANumber, "output is not finite"),
    (Squeezes, r"output \(4, 1\), not \(4,\)"),
    (SinglePrecisionIsNotEnough, "single against double precision"),
    (ForgetsAWeight, "rebuilt from its saved files"),
    (LearnsOutsideItsState, "rebuilt from its saved files"),
    (ForgetsAnArgument, "saving .*'factor'"),
]


@pytest.mark.parametrize(("broken", "what"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_errors_of_models_are_found_and_named(broken, what):
    with pytest.raises(AssertionError, match=f"{broken.__name__} fails: {what}"):
        validate_model(broken())


def test_a_handed_model_fails():
    with pytest.raises(AssertionError, match=r"Handed fails: (rotation|reflection)"):
        validate_model(Handed())


def test_valid_models_pass():
    validate_model(Centred())
    validate_model(PerAtom(), per_atom=True)
    validate_model(DART(), atomic_number=11, sizes=(2, 5, 1), seed=3)
    with pytest.raises(AssertionError, match=r"output \(4,\), not \(36,\)"):
        validate_model(Centred(), per_atom=True)


def test_the_model_is_not_changed():
    model = DART().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    validate_model(model)
    assert model.training
    assert all(
        value.equal(before[key]) and value.dtype == before[key].dtype for key, value in model.state_dict().items()
    )


def test_random_clusters(generator):
    z, pos, ptr = random_clusters((13, 1, 70), 31, generator)
    assert z.unique().tolist() == [31]
    assert ptr.tolist() == [0, 13, 14, 84]
    assert pos.shape == (84, 3)
    for a, b in zip(ptr, ptr[1:], strict=False):
        distance = torch.pdist(pos[a:b])
        # Lattice points 2.8 Å apart, with each coordinate displaced by at most 0.25 Å.
        assert bool((distance > 2.8 - 0.5 * 3**0.5).all())
    again = random_clusters((13, 1, 70), 31, torch.Generator().manual_seed(0))
    assert again[1].equal(pos)
