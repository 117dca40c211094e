"""Generated clusters, the Gupta potential and relaxations."""

import math
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.fd import calculate_numerical_forces
from ase.cluster import Icosahedron, Octahedron
from ase.optimize import BFGS
from torch import Tensor

from pyg_clusters.errors import InputError
from pyg_clusters.structures import (
    GUPTA_PARAMETERS,
    Gupta,
    GuptaCalculator,
    GuptaParameters,
    energy_and_forces,
    relax,
    sblda,
)
from pyg_clusters.structures.sblda import SHORTEST
from pyg_clusters.testing import validate_model

MU1, MU2, SIGMA = 3.50, 3.60, 0.1

# Lattice constant (Å) and cohesive energy (eV) to which the parameters were fitted (Cleri & Rosato 1993).
FITTED = {
    "Ni": (3.523, 4.435),
    "Cu": (3.615, 3.544),
    "Pd": (3.887, 3.936),
    "Ag": (4.085, 2.960),
    "Pt": (3.924, 5.853),
    "Au": (4.079, 3.779),
}
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
BCC = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])


# S-BLDA


@pytest.fixture(scope="module")
def generated() -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [sblda(14 + 2 * (number % 9), rng=rng) for number in range(200)]


def sorted_distances(pos: np.ndarray) -> np.ndarray:
    """Distances of each atom to all others, ascending ``[num_atoms, num_atoms - 1]``."""
    return np.sort(np.linalg.norm(pos[:, None] - pos[None], axis=2), axis=1)[:, 1:]


def test_distances_of_generated_clusters(generated):
    """Means over all atoms of the finished clusters Na14 to Na30."""
    neighbors = [sorted_distances(pos) for pos in generated]
    first = np.concatenate([distances[:, 0] for distances in neighbors])
    second = np.concatenate([distances[:, 1] for distances in neighbors])
    assert first.mean() == pytest.approx(MU1, abs=0.06)
    assert second.mean() == pytest.approx(MU2, abs=0.06)
    assert 0.05 < first.std() < 0.15
    assert first.min() >= MU1 - SHORTEST * SIGMA - 1e-9
    coordination = np.concatenate([(distances < 4.0).sum(axis=1) for distances in neighbors])
    assert coordination.min() >= 1 and 9 <= coordination.max() <= 12


def test_generated_clusters_are_centred_and_connected(generated):
    for pos in generated[:50]:
        np.testing.assert_allclose(pos.mean(axis=0), 0, atol=1e-12)
        near = np.linalg.norm(pos[:, None] - pos[None], axis=2) < MU2 + 6 * SIGMA
        assert np.linalg.matrix_power(near.astype(float), len(pos)).all()


def test_same_seed_same_cluster():
    a, b = (sblda(20, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, sblda(20, rng=np.random.default_rng(4)))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_atoms(n):
    pos = sblda(n, rng=np.random.default_rng(0))
    assert pos.shape == (n, 3)
    if n == 2:
        assert np.linalg.norm(pos[1] - pos[0]) == pytest.approx(MU1, abs=0.4)


@pytest.mark.parametrize(
    ("n", "changed", "told"),
    [
        (0, {}, "n = 0"),
        (5, {"mu1": -1.0}, "mu1"),
        (5, {"mu2": float("nan")}, "mu2"),
        (5, {"sigma1": 0.0}, "sigma1"),
        (5, {"sigma2": -0.1}, "sigma2"),
        (5, {"mu2": 3.0}, "mu2"),
        (5, {"sigma1": 1.0}, "sigma1"),
        (5, {"mu2": 9.0}, "no cluster of 5 atoms"),
    ],
)
def test_impossible_parameters(n, changed, told, monkeypatch):
    monkeypatch.setattr(sys.modules[sblda.__module__], "MAX_RESTARTS", 5)
    with pytest.raises(InputError, match=told):
        sblda(n, **changed, rng=np.random.default_rng(0))


# The Gupta potential


def ball(basis: np.ndarray, radius: float) -> Tensor:
    """Lattice points within ``radius`` lattice constants of the first, which is at the origin, in lattice constants."""
    side = np.arange(-math.ceil(radius) - 1, math.ceil(radius) + 2)
    cells = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    points = (cells + basis).reshape(-1, 3)
    distance = np.linalg.norm(points, axis=1)
    return torch.from_numpy(points[distance.argsort()][: int((distance <= radius + 1e-9).sum())])


def bulk(element: str, basis: np.ndarray, radius: float, guess: float) -> tuple[float, float]:
    """Lattice constant (Å) and cohesive energy (eV) of a crystal, from the energy of the central atom of a sphere."""
    points = ball(basis, radius)
    z = torch.full((len(points),), Atoms(element).numbers[0])
    constants = guess * torch.linspace(0.98, 1.02, 5, dtype=torch.double)
    middle = torch.stack(
        [Gupta(element).atomic_energies(z, constant * points, torch.zeros_like(z))[0] for constant in constants]
    )
    lowest = int(middle.argmin())
    assert 0 < lowest < len(constants) - 1
    around = slice(lowest - 1, lowest + 2)
    fit = np.polyfit(constants[around].numpy(), middle[around].numpy(), 2)
    constant = -fit[1] / (2 * fit[0])
    return constant, -np.polyval(fit, constant)


@pytest.mark.parametrize("element", FITTED)
def test_bulk_fcc_is_what_the_parameters_were_fitted_to(element):
    """Five shells of neighbours, up to the square root of 5/2 lattice constants, as in the publication."""
    constant, cohesive = bulk(element, FCC, math.sqrt(2.5), FITTED[element][0])
    assert constant == pytest.approx(FITTED[element][0], abs=0.002)
    assert cohesive == pytest.approx(FITTED[element][1], abs=0.004)


@pytest.mark.parametrize("element", ["Cu", "Pd", "Ag", "Pt", "Au"])
def test_bulk_fcc_without_cutoff(element):
    constant, cohesive = bulk(element, FCC, 3.0, FITTED[element][0])
    assert constant == pytest.approx(FITTED[element][0], abs=0.004)
    assert cohesive == pytest.approx(FITTED[element][1], abs=0.01)


def test_bulk_sodium():
    """Measured: bcc, 4.225 Å at 5 K, 1.113 eV. The potential has the lattice constant of the local density
    approximation, 4.05 Å.
    """
    constant, cohesive = bulk("Na", BCC, 5.0, 4.05)
    assert constant == pytest.approx(4.05, abs=0.02)
    assert cohesive == pytest.approx(1.113, rel=0.03)
    _, close_packed = bulk("Na", FCC, 4.0, 5.1)
    assert abs(close_packed - cohesive) < 0.01


def test_dimer():
    """The energy of two atoms by hand: each term twice."""
    of = GUPTA_PARAMETERS["Cu"]
    stretch = 2.3 / of.r0 - 1
    expected = 2 * (of.a * math.exp(-of.p * stretch) - of.xi * math.exp(-of.q * stretch))
    pos = torch.tensor([[0, 0, 0], [0, 2.3, 0]], dtype=torch.double)
    energy = Gupta("Cu")(torch.tensor([29, 29]), pos, torch.tensor([0, 0]))
    assert energy.tolist() == pytest.approx([expected])


def test_gupta_is_a_model_of_cluster_energies():
    validate_model(Gupta("Na"), atomic_number=11)


def test_far_atoms_have_no_energy_and_no_force():
    pos = torch.tensor([[0, 0, 0], [0, 0, 1e5], [0, 0, 0]], dtype=torch.double)
    energy, forces = energy_and_forces(Gupta("Na"), torch.full((3,), 11), pos, torch.tensor([0, 0, 1]))
    assert energy.tolist() == [0, 0]
    assert torch.equal(forces, torch.zeros(3, 3, dtype=torch.double))


@pytest.mark.parametrize("element", GUPTA_PARAMETERS)
@pytest.mark.parametrize("shells", [2, 3])
def test_icosahedron_is_lower_than_cuboctahedron(element, shells):
    constant = math.sqrt(2) * GUPTA_PARAMETERS[element].r0
    ico = Icosahedron(element, shells, latticeconstant=constant)
    cubo = Octahedron(element, 2 * shells - 1, cutoff=shells - 1, latticeconstant=constant)
    assert len(ico) == len(cubo) == {2: 13, 3: 55}[shells]
    relaxed = relax(Gupta(element), *flat(ico, cubo), fmax=1e-3)
    assert relaxed.converged.all()
    assert relaxed.energy[0] < relaxed.energy[1] - 0.1


def test_calculator_forces_are_the_slope_of_the_energy():
    cluster = Atoms("Na14", sblda(14, rng=np.random.default_rng(1)))
    cluster.calc = GuptaCalculator("Na")
    numerical = calculate_numerical_forces(cluster, eps=1e-4)
    np.testing.assert_allclose(cluster.get_forces(), numerical, atol=1e-6)
    assert cluster.get_potential_energy() == pytest.approx(float(Gupta("Na")(*flat(cluster))))
    cluster.set_cell([30, 30, 30])
    cluster.pbc = True
    assert cluster.get_potential_energy() == pytest.approx(float(Gupta("Na")(*flat(cluster))))
    cluster.set_cell([4, 4, 4])
    with pytest.raises(InputError, match="the structure is connected to its own image along a, b and c: a crystal"):
        cluster.get_potential_energy()


def test_elements_of_gupta():
    with pytest.raises(InputError, match="Ga"):
        Gupta("Ga")
    with pytest.raises(InputError, match="no chemical element"):
        Gupta("Xx")
    with pytest.raises(InputError, match="Na, got Cu"):
        Gupta("Na")(torch.tensor([11, 29]), torch.rand(2, 3), torch.tensor([0, 0]))
    own = Gupta("Ga", GuptaParameters(0.1, 1.0, 10.0, 3.0, 2.7, "invented"))
    assert str(own) == "Gupta(Ga)"
    validate_model(own, atomic_number=31)


# Relaxation


def flat(*clusters: Atoms) -> tuple[Tensor, Tensor, Tensor]:
    z = torch.cat([torch.from_numpy(atoms.numbers).long() for atoms in clusters])
    pos = torch.cat([torch.from_numpy(atoms.positions) for atoms in clusters])
    return z, pos, torch.arange(len(clusters)).repeat_interleave(torch.tensor([len(atoms) for atoms in clusters]))


@pytest.fixture(scope="module")
def perturbed() -> list[Atoms]:
    """Clusters near a minimum."""
    clusters = [Icosahedron("Na", 2, latticeconstant=5.0), Octahedron("Na", 4, cutoff=1, latticeconstant=5.0)]
    clusters += [Atoms("Na3", sblda(3, rng=np.random.default_rng(0))), Atoms("Na")]
    for atoms in clusters:
        atoms.rattle(0.1, seed=1)
    return clusters


def test_relax_finds_the_minima_that_ase_finds(perturbed):
    relaxed = relax(Gupta("Na"), *flat(*perturbed), fmax=1e-3)
    assert relaxed.converged.all() and (relaxed.fmax <= 1e-3).all()
    for atoms, energy in zip(perturbed, relaxed.energy.tolist(), strict=True):
        copy = atoms.copy()
        copy.calc = GuptaCalculator("Na")
        BFGS(copy, logfile=None).run(fmax=1e-3)
        assert energy == pytest.approx(copy.get_potential_energy(), abs=1e-4)
    energy, forces = energy_and_forces(Gupta("Na"), *flat(*perturbed)[:1], relaxed.pos, flat(*perturbed)[2])
    torch.testing.assert_close(energy, relaxed.energy)
    assert float(forces.norm(dim=1).max()) == pytest.approx(float(relaxed.fmax.max()))


def test_relax_batched_equals_one_by_one_in_any_order(perturbed):
    together = relax(Gupta("Na"), *flat(*perturbed))
    assert len(set(together.steps.tolist())) > 2
    first = 0
    for number, atoms in enumerate(perturbed):
        alone = relax(Gupta("Na"), *flat(atoms))
        assert alone.steps[0] == together.steps[number]
        torch.testing.assert_close(alone.energy[0], together.energy[number])
        torch.testing.assert_close(alone.pos, together.pos[first : first + len(atoms)], rtol=0, atol=1e-6)
        first += len(atoms)
    backwards = relax(Gupta("Na"), *flat(*(atoms[::-1] for atoms in perturbed[::-1])))
    torch.testing.assert_close(backwards.pos.flip(0), together.pos, rtol=0, atol=1e-6)
    torch.testing.assert_close(backwards.energy.flip(0), together.energy)


def test_unconverged_relaxations_are_marked(perturbed):
    z, pos, batch = flat(*perturbed)
    before, left = pos.clone(), []
    relaxed = relax(Gupta("Na"), z, pos, batch, max_steps=2, progress=left.append)
    assert relaxed.converged.tolist() == [False, False, False, True]
    assert relaxed.steps.tolist() == [2, 2, 2, 0]
    assert left == [1, 3] and torch.equal(pos, before)
    torch.testing.assert_close(relaxed.energy, Gupta("Na")(z, relaxed.pos, batch))
    still = relax(Gupta("Na"), z, pos, batch, max_steps=0)
    assert torch.equal(still.pos, before)
    nothing = relax(Gupta("Na"), z[:0], pos[:0], batch[:0])
    assert nothing.energy.numel() == 0


def test_relax_leaves_a_cluster_without_finite_forces(perturbed):
    coincident = Atoms("Na2", np.zeros((2, 3)))
    relaxed = relax(Gupta("Na"), *flat(coincident, perturbed[0]))
    assert relaxed.converged.tolist() == [False, True]
    assert relaxed.steps[0] == 0 and not relaxed.fmax[0].isfinite()


def test_relax_in_single_precision(perturbed):
    z, pos, batch = flat(*perturbed)
    relaxed = relax(Gupta("Na"), z, pos.float(), batch)
    assert relaxed.pos.dtype == torch.float32 and relaxed.converged.all()
