"""Copies are found in any orientation, handedness and order; other structures are not merged."""

import numpy as np
import pytest
from ase.build import bulk
from ase.cluster import Icosahedron
from scipy.spatial.transform import Rotation

from pyg_clusters.frames import read_blocks
from pyg_clusters.shipped import shipped_folder
from pyg_clusters.structures.duplicates import copies, copy_groups, representatives
from pyg_clusters.structures.superposition import (
    SAME_STRUCTURE,
    PairComparison,
    key_share,
    sorted_distances,
    structure_distance,
    structure_keys,
)

ENERGY = "binding_energy"


def perturbed(pos: np.ndarray, count: int, rng: np.random.Generator, noise: float = 0.01) -> list[np.ndarray]:
    """Rotated, reflected, permuted and shifted copies with noise on each coordinate."""
    turns = Rotation.random(count, rng=rng).as_matrix() * rng.choice([-1, 1], count)[:, None, None]
    shifted = [(pos @ turn)[rng.permutation(len(pos))] + rng.normal(0, 50, 3) for turn in turns]
    return [copy + rng.normal(0, noise, copy.shape) for copy in shifted]


def flat(structures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ptr = np.cumsum([0, *map(len, structures)])
    return np.full(ptr[-1], 31), np.concatenate(structures), ptr


@pytest.fixture(scope="module")
def minima() -> tuple[list[np.ndarray], np.ndarray]:
    """The shipped gallium minima in the order of their energies, and these energies in eV."""
    blocks = list(read_blocks(shipped_folder("gallium_clusters") / "gallium_minima.extxyz", properties=[ENERGY]))
    energy = np.concatenate([block.properties[ENERGY] for block in blocks])
    structures = [part for block in blocks for part in np.split(block.pos, block.ptr[1:-1])]
    order = np.argsort(energy, kind="stable")
    return [structures[place] for place in order], energy[order]


def test_every_copy_is_found_across_blocks_and_cells(minima):
    """120 minima x 25 copies of 31 to 70 atoms: all copies are found, and no others."""
    rng = np.random.default_rng(0)
    chosen = [minima[0][place] for place in rng.permutation(len(minima[0]))[:120]]
    structures = [copy for pos in chosen for copy in perturbed(pos, 25, rng)]
    label = np.repeat(np.arange(120), 25)
    order = rng.permutation(len(structures))
    found = representatives(*flat([structures[place] for place in order]))
    np.testing.assert_array_equal(label[order][found], label[order])
    assert len(np.unique(found)) == 120
    np.testing.assert_array_equal(found[found], found)
    assert (found <= np.arange(len(found))).all()


def test_copies_of_known_structures(minima):
    """Perturbed copies of 60 of 100 known minima are matched to these; other minima and elements are not matched."""
    rng = np.random.default_rng(2)
    order = rng.permutation(len(minima[0]))
    known, other = order[:100], order[100:140]
    frames = [perturbed(minima[0][place], 1, rng)[0] for place in known[:60]] + [minima[0][place] for place in other]
    z, pos, ptr = flat(frames)
    training = flat([minima[0][place] for place in known])
    np.testing.assert_array_equal(copies(z, pos, ptr, training), [*range(60), *[-1] * 40])
    z[ptr[3] : ptr[4]] = 13
    assert copies(z, pos, ptr, training)[:5].tolist() == [0, 1, 2, -1, 4]


def test_vibrating_copies_are_found_by_few_comparisons(minima, monkeypatch):
    """40 frames are compared with at most 16 of 300 frames of a vibrating cluster each, and copies of 20 are found."""
    rng = np.random.default_rng(5)
    known = perturbed(minima[0][0], 300, rng, noise=0.05)
    frames = [perturbed(known[place], 1, rng)[0] for place in range(20)] + perturbed(minima[0][0], 20, rng, noise=0.05)
    compared = []
    same = PairComparison.same
    monkeypatch.setattr(PairComparison, "same", lambda self, a, b: (compared.append(len(a)), same(self, a, b))[1])
    found = copies(*flat(frames), flat(known))
    np.testing.assert_array_equal(found[:20], range(20))
    assert sum(compared) <= 16 * 40


def test_a_copy_of_a_copy_of_a_known_structure_is_found():
    """Every known structure counts, also one within the tolerance of another known one."""
    rng = np.random.default_rng(3)
    first = rng.uniform(0, 12, (30, 3))
    step = rng.normal(0, 1, first.shape)
    step *= 0.06 / np.sqrt(np.square(step).sum(axis=1).mean())
    z, pos, ptr = flat([first + 2 * step])
    assert structure_distance(z, first, first + 2 * step) > 0.1
    assert copies(z, pos, ptr, flat([first, first + step])).tolist() == [1]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 9, 13, 20])
def test_copies_of_small_clusters(size):
    rng = np.random.default_rng(size)
    pos = 2.7 * np.stack(np.unravel_index(rng.choice(64, size, replace=False), (4, 4, 4)), axis=1)
    pos = pos + rng.normal(0, 0.3, pos.shape)
    assert (representatives(*flat(perturbed(pos, 300, rng, noise=0.007))) == 0).all()


def test_copies_of_symmetric_and_flat_clusters():
    """Atoms with indistinguishable surroundings, on shells, in a plane, in a row."""
    rng = np.random.default_rng(0)
    cube = bulk("Cu", "fcc", cubic=True).repeat(3)
    plane = np.pad(np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2), ((0, 0), (0, 1)))
    row = np.arange(8.0)[:, None] * [2.7, 0, 0]
    for pos in (Icosahedron("Cu", 4).positions, cube.positions, 2.7 * plane, row):
        found = representatives(*flat(perturbed(pos, 12, rng)))
        assert (found == 0).all(), len(pos)


def test_shipped_minima_are_distinct(minima):
    """Three minima are within 0.035 Å and 2 meV of another one."""
    structures, energy = minima
    arrays = flat(structures)
    found = representatives(*arrays, energy=energy)
    merged = found != np.arange(len(energy))
    assert merged.sum() == 3
    assert np.abs(energy[merged] - energy[found[merged]]).max() < 2e-3


def test_energies_choose_the_representative():
    rng = np.random.default_rng(0)
    arrays = flat(perturbed(rng.uniform(0, 10, (15, 3)), 4, rng))
    energy = np.array([-1.0, -1.5, -1.4995, -1.0005])
    assert representatives(*arrays, energy=energy).tolist() == [1, 1, 1, 1]


def test_elements_matter():
    """Exchanging two elements gives another cluster; exchanging the order of the atoms does not."""
    rng = np.random.default_rng(0)
    pos = rng.uniform(0, 12, (16, 3))
    z = np.repeat([29, 79], 8)
    exchanged = z.copy()
    exchanged[[0, 15]] = exchanged[[15, 0]]
    order = rng.permutation(16)
    arrays = np.concatenate([z, exchanged, z[order]]), np.concatenate([pos, pos, pos[order]]), np.arange(4) * 16
    assert representatives(*arrays).tolist() == [0, 1, 0]


def test_structure_distance_of_a_moved_atom():
    """One atom of 40 moved by 0.2 Å: 0.2/sqrt(40) = 0.032 Å less the gain by superposition (below 3 %)."""
    rng = np.random.default_rng(0)
    pos = rng.uniform(0, 14, (40, 3))
    moved = pos.copy()
    moved[7] += [0.2, 0, 0]
    moved = -moved[rng.permutation(40)] @ Rotation.random(rng=rng).as_matrix() + 3.0
    species = np.full(40, 31)
    assert structure_distance(species, pos, moved) == pytest.approx(0.2 / 40**0.5, rel=0.1)
    assert structure_distance(species, pos, moved) == pytest.approx(structure_distance(species, moved, pos), rel=1e-6)
    assert structure_distance(species, pos, rng.uniform(0, 14, (40, 3))) > SAME_STRUCTURE


def test_keys_never_lengthen_a_distance():
    pos = np.random.default_rng(0).uniform(0, 14, (60, 30, 3))
    exact = sorted_distances(pos)
    for other in range(1, 60):
        gap = np.sqrt(np.square(exact[0] - exact[other]).mean())
        assert np.linalg.norm(structure_keys(pos)[0] - structure_keys(pos)[other]) <= gap * (1 + 1e-4)


@pytest.mark.parametrize("size", [2, 3, 8, 31, 46])
def test_noise_of_sorted_distances_is_within_the_key_share(minima, size):
    """Sorted distances differ by at most sqrt(2N/(N-1)) times the distance of the atoms, and less for noise."""
    rng = np.random.default_rng(0)
    pos = next(pos for pos in minima[0] if len(pos) >= max(size, 31))[:size]
    a, b = (pos + rng.normal(0, 0.01, (2, 500, size, 3))).astype(np.float64)
    apart = np.sqrt(np.square(sorted_distances(a) - sorted_distances(b)).mean(axis=1))
    bound = (2 * size / (size - 1)) ** 0.5
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    assert (apart <= bound * np.sqrt(np.square(a - b).sum(axis=2).mean(axis=1)) * (1 + 1e-3)).all()
    assert key_share(size) <= bound
    if size > 3:
        assert apart.max() <= key_share(size) * SAME_STRUCTURE


def test_bad_arguments():
    with pytest.raises(ValueError, match="positive"):
        representatives(*flat([np.zeros((1, 3))]), tolerance=0)


def test_no_structures():
    assert representatives(np.zeros(0, int), np.zeros((0, 3)), np.zeros(1, int)).tolist() == []


def test_groups_of_copies_are_closed():
    """Copies of copies belong together: frames 0.06 Å apart in a row, each a copy of the next ones only."""
    rng = np.random.default_rng(4)
    first, other = rng.uniform(0, 12, (2, 30, 3))
    step = rng.normal(0, 1, first.shape)
    step *= 0.06 / np.sqrt(np.square(step).sum(axis=1).mean())
    row = [perturbed(first + number * step, 1, rng, noise=0.0)[0] for number in (3, 0, 4, 1, 2)]
    z, pos, ptr = flat([other, *row, *perturbed(other, 2, rng)])
    assert copy_groups(z, pos, ptr).tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    z[ptr[1] : ptr[2]] = 13  # without its link the last of the row is separate
    assert copy_groups(z, pos, ptr).tolist() == [0, 1, 2, 3, 2, 2, 0, 0]


def test_copies_are_found_among_many_homotops():
    """Sixty arrangements of gold in one cluster of copper, and a perturbed, rotated and reordered copy of each."""
    rng, cluster = np.random.default_rng(0), Icosahedron("Cu", 3)
    size, number = len(cluster), 60
    z = np.stack([rng.permutation(np.repeat([29, 79], [size - 20, 20])) for _ in range(number)])
    order = rng.permuted(np.tile(np.arange(size), (number, 1)), axis=1)
    turns = np.linalg.qr(rng.normal(size=(number, 3, 3)))[0]
    again = (cluster.positions[order] + rng.normal(0, 0.005, (number, size, 3))) @ turns
    ptr = np.arange(number + 1) * size
    known = z.ravel(), np.tile(cluster.positions, (number, 1)), ptr
    found = copies(np.take_along_axis(z, order, axis=1).ravel(), again.reshape(-1, 3), ptr, known)
    np.testing.assert_array_equal(found, np.arange(number))
    np.testing.assert_array_equal(representatives(*known), np.arange(number))
