import numpy as np
import pytest
import torch
from ase.cluster import Icosahedron, Octahedron

from pyg_clusters.analysis.descriptor import collisions, empty_shells, mean_counts_by_size, same_multiset, shell_name
from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution
from pyg_clusters.pairs import shell_counts

COPPER_BOND = 3.615 / np.sqrt(2)


def counts_of(pos: np.ndarray, ptr: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    return shell_counts(torch.as_tensor(pos), torch.as_tensor(ptr), radii).numpy()


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q


def describe(structures: list[np.ndarray], radii: tuple[float, ...], energy: list[float] | None = None, z=None):
    pos = np.concatenate(structures)
    ptr = np.cumsum([0, *map(len, structures)])
    z = np.full(len(pos), 31) if z is None else z
    return collisions(z, pos, ptr, counts_of(pos, ptr, radii), None if energy is None else np.array(energy))


# Two chains of four atoms with bonds of 2.5 Å. Next-nearest atoms are 5 Å apart in the straight one, 4.06 in the bent
# one; the ends 7.5 and 6.27 Å. With radii of 3.5 and 6 Å both have the counts (1, 1, 1) at the two ends and (2, 1, 0)
# in the middle.
STRAIGHT = np.array([[0.0, 0.0, 0.0], [2.5, 0.0, 0.0], [5.0, 0.0, 0.0], [7.5, 0.0, 0.0]])
BENT = np.array([[-0.8, 2.3685, 0.0], [0.0, 0.0, 0.0], [2.5, 0.0, 0.0], [3.3, -2.3685, 0.0]])
RADII = (3.5, 6.0)


# Pair distribution


def test_radii_of_an_icosahedron():
    # A Mackay icosahedron of 147 copper atoms: neighbours at 2.5 to 2.7 Å (radial bonds are 5 % shorter than those on
    # the faces), second ones at 4.2 to 5.1 (1.6 to 2 bonds), third from 6.3 Å on.
    atoms = Icosahedron("Cu", 4)
    distribution = pair_distribution(atoms.positions, np.array([0, len(atoms)]), r_max=16.0)
    assert len(atoms) == 147
    assert distribution.bond_length == pytest.approx(2.63, abs=0.1)
    assert distribution.neighbors_within()[-1] == pytest.approx(146)
    first, second = distribution.suggested_radii()
    assert 2.8 < first < 3.7 and 5.2 < second < 6.2


def test_radii_scale_with_the_bond_length():
    small, large = (
        pair_distribution(scale * Octahedron("Cu", 5).positions, np.array([0, 85]), 16.0 * scale, 0.05 * scale)
        for scale in (1.0, 2.0)
    )
    assert np.array(large.suggested_radii()) == pytest.approx(2 * np.array(small.suggested_radii()), abs=0.02)
    # fcc: 12 neighbours at b, 6 at 1.41 b, 24 at 1.73 b, 12 at 2 b, 24 at 2.24 b, 8 at 2.45 b
    first, second = small.suggested_radii()
    assert COPPER_BOND < first < 1.41 * COPPER_BOND
    assert 2.0 * COPPER_BOND < second < 2.45 * COPPER_BOND


def test_uniform_ball_has_no_shells(generator):
    # Points of a uniform ball: freed from the boundary, g is the constant density.
    directions = torch.randn(1000, 3, generator=generator, dtype=torch.double)
    ball = 10 * directions / directions.norm(dim=1, keepdim=True)
    ball *= torch.rand(1000, 1, generator=generator, dtype=torch.double) ** (1 / 3)
    distribution = pair_distribution(ball, torch.tensor([0, 1000]), r_max=20.0, bin_width=0.5)
    flat = distribution.without_boundary()
    assert len(flat) == pytest.approx(34, abs=1)
    np.testing.assert_allclose(flat[3:], 1000 / (4 / 3 * np.pi * 10**3), rtol=0.1)


def test_too_few_shells_are_reported():
    distribution = pair_distribution(STRAIGHT[:2], np.array([0, 2]))
    with pytest.raises(ValueError, match="fewer than 3 peaks"):
        distribution.suggested_radii()
    with pytest.raises(ValueError, match="zero everywhere"):
        PairDistribution(np.arange(0.05, 5, 0.1), np.zeros(50), float("inf")).suggested_radii()


# Counts


def test_mean_counts_by_hand():
    # An icosahedron of 13 atoms (bonds 2.5, next neighbours 4 to 5 Å): the centre has 12 neighbours, a vertex 6; the
    # vertex has 5 next-nearest and 1 opposite one. A dimer has one neighbour each.
    icosahedron = Icosahedron("Cu", 2).positions
    pos, ptr = np.concatenate([icosahedron, STRAIGHT[:2], STRAIGHT[:2]]), np.array([0, 13, 15, 17])
    rows = mean_counts_by_size(counts_of(pos, ptr, (3.3, 20.0)), ptr)
    assert rows[0] == {"size": 2, "num_clusters": 2, "mean_J": 1.0, "mean_K": 0.0, "mean_L": 0.0}
    assert rows[1]["mean_J"] == pytest.approx((12 + 12 * 6) / 13)
    assert rows[1]["mean_K"] == pytest.approx(12 * 6 / 13)
    assert empty_shells(counts_of(pos, ptr, (3.3, 20.0))) == [2]
    assert empty_shells(counts_of(pos, ptr, (3.3, 4.8))) == []


def test_shell_names():
    assert [shell_name(shell) for shell in (0, 1, 2, 3, 16, 17)] == ["J", "K", "L", "M", "Z", "17"]


# Collisions


def test_two_isomers_of_one_multiset():
    found = describe([STRAIGHT, BENT], RADII, [-5.0, -4.9])
    ptr = np.array([0, 4, 8])
    both = counts_of(np.concatenate([STRAIGHT, BENT]), ptr, RADII)
    assert both.tolist() == 2 * [[1, 1, 1], [2, 1, 0], [2, 1, 0], [1, 1, 1]]
    assert (found.num_frames, found.num_isomers, found.num_multisets) == (2, 2, 1)
    assert found.num_colliding == 2 and found.rate == 1.0
    assert found.shared[0].frames == (0, 1) and found.shared[0].size == 4
    assert found.mean_spread == found.largest_spread == pytest.approx(0.1 * 23.060548)
    assert found.error_floor == pytest.approx(0.05 * 23.060548)


def test_same_structure_rotated_is_one_isomer():
    rng = np.random.default_rng(0)
    turned = BENT[rng.permutation(4)] @ random_rotation(rng).T + rng.normal(size=3)
    mirrored = BENT * [1.0, 1.0, -1.0]
    found = describe([BENT, turned, mirrored], RADII, [-5.0, -5.0005, -5.0])
    assert (found.num_isomers, found.num_multisets, found.shared) == (1, 1, [])
    assert found.rate == 0.0 and found.error_floor == 0.0
    assert np.isnan(found.mean_spread)


def test_one_of_energy_and_structure_is_enough_to_be_distinct():
    assert describe([STRAIGHT, BENT], RADII, [-5.0, -5.0]).num_isomers == 2  # structure
    assert describe([BENT, BENT.copy()], RADII, [-5.0, -5.0011]).num_isomers == 2  # energy
    assert describe([BENT, BENT.copy()], RADII, [-5.0, -5.0009]).num_isomers == 1
    unlabelled = describe([STRAIGHT, BENT], RADII)
    assert unlabelled.num_isomers == 2
    assert np.isnan(unlabelled.largest_spread) and np.isnan(unlabelled.error_floor)


def test_other_radii_distinguish_them():
    found = describe([STRAIGHT, BENT], (3.5, 7.0), [-5.0, -4.9])  # ends at 7.5 and 6.27 Å
    assert (found.num_isomers, found.num_multisets, found.num_colliding) == (2, 2, 0)


def test_elements_belong_to_the_multiset():
    z = np.array([29, 79, 79, 29, 79, 29, 29, 79])  # gold inside, gold outside
    assert describe([BENT, BENT.copy()], RADII, [-5.0, -4.9], z).num_multisets == 2


def test_homotops_are_distinct_isomers():
    """Two gold atoms on the surface of an icosahedron of copper have three arrangements; no two have equal counts."""
    icosahedron = Icosahedron("Cu", 2)
    apart = icosahedron.get_all_distances()
    surface = np.flatnonzero(apart.sum(axis=1) > apart.sum(axis=1).min() + 1)
    first, *others = surface[np.argsort(apart[surface[0], surface])]
    frames = []
    for other in others:
        frames.append(icosahedron.copy())
        frames[-1].symbols[[first, other]] = "Au"
    z, pos = (np.concatenate([getattr(atoms, name) for atoms in frames]) for name in ("numbers", "positions"))
    ptr = np.arange(len(frames) + 1) * 13
    everything = np.zeros((len(z), 1), dtype=int)  # counts that distinguish nothing
    found = collisions(z, pos, ptr, everything)
    assert (found.num_multisets, found.num_isomers, found.num_frames) == (1, 3, 11)


def test_sizes_are_never_mixed():
    ptr = np.array([0, 4, 6, 8])
    pos = np.concatenate([STRAIGHT, STRAIGHT[:2], STRAIGHT[:2]])
    assert same_multiset(np.full(8, 31), ptr, counts_of(pos, ptr, RADII)) == [[0], [1, 2]]
