"""Superposition of two structures by rotation, reflection and permutation of like atoms."""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ase import Atoms
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

SAME_STRUCTURE: float = 0.035
"""Maximum root mean square distance in Å between the atoms of two copies.

Noise of 0.01 Å on each coordinate separates copies by 0.024 Å (0.031 Å at most in a large sample). Distinct minima are
rarely that close: 3 of the 6,030 shipped gallium minima have another within this distance (0.022 to 0.031 Å, 1.1 to
1.6 meV higher), and 21 have one within 0.05 Å.
"""

KEY_LENGTH: int = 64  # number of blocks of the sorted distances whose means form the key of a structure

FRAMES_AT_ONCE: int = 1024
"""Maximum number of structures per batch, when keys are computed or looked up."""

PAIRS_AT_ONCE: int = 128  # maximum number of pairs that are superposed in one batch
DISTANCES_AT_ONCE: int = 1 << 22  # maximum number of distances in memory, which limits the batches of large structures
FAR: float = 100.0  # penalty distance in Å that prevents matching atoms of different elements

UNLIKE: float = 6.0
"""Atoms whose environments differ by more than this number of tolerances are never matched in copies."""

TRIED: int = 16
"""Number of orientations, best by nearest-atom distances, in which two structures are matched atom by atom."""


def structure_distance(species: np.ndarray, a: np.ndarray, b: np.ndarray, within: float = 4 * SAME_STRUCTURE) -> float:
    """Compute the root mean square distance of the atoms of two structures in Å after the best superposition.

    Each trial orientation maps two atoms of ``a`` to two atoms of ``b`` with similar distances from the centre and from
    each other. The result is infinite if there are no such atoms, or if no orientation brings the nearest atoms within
    the tolerance.

    Args:
        species: Atomic numbers ``[num_atoms]`` of both structures.
        a: Positions ``[num_atoms, 3]`` of the first structure in Å.
        b: Positions ``[num_atoms, 3]`` of the second structure in Å.
        within: Tolerance in Å on the distances of the two atoms, and on the root mean square distance of nearest atoms.
    """
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    alien = FAR * (species[:, None] != species)
    radius_a, radius_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    first = int(np.argmax(radius_a))
    second = int(np.argmax(_off_axis(a[None], a[None, first])[0]))
    near_first = np.flatnonzero((np.abs(radius_b - radius_a[first]) <= within) & (species == species[first]))
    near_second = np.flatnonzero((np.abs(radius_b - radius_a[second]) <= within) & (species == species[second]))
    apart = cdist(b[near_first], b[near_second]) - np.linalg.norm(a[first] - a[second])
    i, j = np.nonzero(np.abs(apart) <= within)
    if not i.size:
        return float("inf")
    turned_a = a @ _axes(a[None, first], a[None, second])[0].T
    turned = b @ _axes(b[near_first[i]], b[near_second[j]]).transpose(0, 2, 1)
    turned = np.concatenate([turned, turned * [1, 1, -1]])
    squared = _apart(np.broadcast_to(turned_a, turned.shape), turned) + np.square(alien)
    loose = np.sqrt(squared.min(axis=2).mean(axis=1))  # of nearest like atoms
    best = float("inf")
    for place in np.argsort(loose, kind="stable")[:TRIED]:
        if loose[place] > within:
            break
        matched = turned[place]
        for _ in range(2):  # first in the orientation of the two atoms, then after superposing all atoms
            order = linear_sum_assignment(np.square(cdist(turned_a, matched) + alien))[1]
            best = min(best, float(_least_rms(turned_a[None], matched[None, order])[0]))
            left, _, right = np.linalg.svd(matched[order].T @ turned_a)
            matched = matched @ (left @ right)
    return best


def structure_keys(pos: np.ndarray, species: np.ndarray | None = None) -> np.ndarray:
    """Compute keys of structures of one size: scaled means of blocks of the sorted distances.

    Args:
        pos: Positions ``[num_frames, num_atoms, 3]`` in Å.
        species: Atomic numbers ``[num_atoms]`` of every structure, to sort within each pair of elements.

    Returns:
        ``[num_frames, num_blocks]`` in Å. The Euclidean distance between two keys is at most the root mean square
        difference of the sorted pair distances.
    """
    num_pairs = pos.shape[1] * (pos.shape[1] - 1) // 2
    if not num_pairs:
        return np.zeros((len(pos), 1), dtype=np.float32)
    bounds = np.linspace(0, num_pairs, min(KEY_LENGTH, num_pairs) + 1).astype(int)
    weights = 1 / np.sqrt(np.diff(bounds) * num_pairs)
    keys = np.zeros((len(pos), len(weights)), dtype=np.float32)
    at_once = _at_once(FRAMES_AT_ONCE, num_pairs)
    for start in range(0, len(pos), at_once):
        chosen = slice(start, start + at_once)
        keys[chosen] = np.add.reduceat(sorted_distances(pos[chosen], species), bounds[:-1], axis=1) * weights
    return keys


def key_share(num_atoms: int) -> float:
    r"""Maximum difference of the sorted distances of copies, as a fraction of the distance between their atoms.

    Random noise changes the sorted distances less than :func:`strict_share`, the more distances there are: 12,000 pairs
    of copies with noise of 0.01 Å needed at most 0.55 of the default tolerance for 31 atoms, 0.52 for 46 and 0.35 for
    70; this function returns 0.76, 0.67 and 0.61.
    """
    return min(strict_share(num_atoms), 0.5 + 8 / num_atoms)


def strict_share(num_atoms: int) -> float:
    r"""Upper bound :math:`\sqrt{2N / (N - 1)}` of :func:`key_share`, also for distances sorted by pairs of elements."""
    return math.sqrt(2 * num_atoms / max(num_atoms - 1, 1))


def distances_by_elements(atoms: Atoms) -> np.ndarray:
    """Return all pair distances ``[num_pairs]`` in Å, sorted within each pair of elements."""
    i, j = np.triu_indices(len(atoms), 1)
    low = np.minimum(atoms.numbers[i], atoms.numbers[j])
    high = np.maximum(atoms.numbers[i], atoms.numbers[j])
    distances = cdist(atoms.positions, atoms.positions)[i, j]
    return distances[np.lexsort((distances, high, low))]


def sorted_distances(pos: np.ndarray, species: np.ndarray | None = None) -> np.ndarray:
    """Return sorted pair distances ``[num_frames, num_pairs]`` in Å of ``pos [num_frames, num_atoms, 3]``.

    With the atomic numbers ``species [num_atoms]`` of every structure they are sorted within each pair of elements.
    """
    i, j = np.triu_indices(pos.shape[1], 1)
    columns = np.ascontiguousarray(pos.transpose(2, 0, 1), dtype=np.float32)
    squared = sum(np.square(column[:, i] - column[:, j]) for column in columns)
    if species is None:
        return np.sqrt(np.sort(squared, axis=1))
    kinds = 1000 * np.minimum(species[i], species[j]) + np.maximum(species[i], species[j])
    return np.sqrt(np.concatenate([np.sort(squared[:, kinds == kind], axis=1) for kind in np.unique(kinds)], axis=1))


class PairComparison:
    """Comparison of pairs of structures of one composition.

    Args:
        species: Atomic numbers ``[num_atoms]`` of every structure.
        pos: Positions ``[num_frames, num_atoms, 3]`` in Å.
        tolerance: Maximum root mean square distance of the atoms of copies in Å.
    """

    def __init__(self, species: np.ndarray, pos: np.ndarray, tolerance: float):
        if not tolerance > 0:
            raise ValueError(f"the tolerance must be positive (in Å), got {tolerance}")
        self.species = species
        self.pos = pos - pos.mean(axis=1, keepdims=True)
        self.radii = _sorted_radii(species, self.pos)
        self.tolerance = tolerance
        self.key_tolerance = key_share(len(species)) * tolerance

    def same(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return whether the structures with these indices are copies, ``[num_pairs]``."""
        at_once = _at_once(PAIRS_AT_ONCE, len(self.species) ** 2)
        parts = [slice(start, start + at_once) for start in range(0, len(first), at_once)]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            found = threads.map(lambda part: self._same_of(first[part], second[part]), parts)
            return np.concatenate([np.zeros(0, dtype=bool), *found])

    def _same_of(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        same = np.ones(len(first), dtype=bool)
        if len(self.species) < 2:
            return same
        # Fix the order of each pair: close to the tolerance, the result must not depend on it.
        swapped = self.radii[first].sum(axis=1) > self.radii[second].sum(axis=1)
        first, second = np.where(swapped, second, first), np.where(swapped, first, second)
        difference = sorted_distances(self.pos[first]) - sorted_distances(self.pos[second])
        same &= np.sqrt(np.square(difference).mean(axis=1)) <= self.key_tolerance
        near = np.flatnonzero(same)
        radii = np.sqrt(np.square(self.radii[first[near]] - self.radii[second[near]]).mean(axis=1))
        same[near] = radii <= self.tolerance  # a lower bound of the distance of the atoms
        near = np.flatnonzero(same)
        a, b = self.pos[first[near]], self.pos[second[near]]
        apart, certain = _superposed(self.species, a, b, self.tolerance)
        superposed = apart <= self.tolerance
        for place in np.flatnonzero(~superposed & ~certain):
            distance = structure_distance(self.species, a[place], b[place], 4 * self.tolerance)
            superposed[place] = distance <= self.tolerance
        same[near] = superposed
        return same


def _at_once(most: int, num_distances: int) -> int:
    """Number of structures or pairs per batch."""
    return max(1, min(most, DISTANCES_AT_ONCE // max(num_distances, 1)))


def _sorted_radii(species: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """Distances from the centre ``[num_frames, num_atoms]`` in Å, sorted among the atoms of each element."""
    radii = np.linalg.norm(pos, axis=2)
    parts = [np.sort(radii[:, species == number], axis=1) for number in np.unique(species)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _superposed(species: np.ndarray, a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Superpose pairs of centred structures that are probably copies, by matching two distinctive atoms.

    The two atoms of each ``a [num_pairs, num_atoms, 3]`` whose environments differ most from all others are mapped to
    the atoms of ``b`` with the most similar environments.

    Returns:
        Root mean square distances ``[num_pairs]`` in Å, infinite if the nearest atoms are not a one-to-one matching;
        and whether the distance is certain because no other atoms of ``b`` have similar environments, ``[num_pairs]``.
    """
    rows = np.arange(len(a))
    features_a, features_b = _surroundings(species, a), _surroundings(species, b)
    gap = _apart(features_a, features_a)
    gap[:, np.arange(len(species)), np.arange(len(species))] = np.inf
    gap = gap.min(axis=2) + 1e-6
    radius = np.linalg.norm(a, axis=2)
    first = np.argmax(gap * (radius > 0.3 * radius.max(axis=1, keepdims=True)), axis=1)
    second = np.argmax(gap * _off_axis(a, a[rows, first]), axis=1)
    unlike = [
        np.linalg.norm(features_b - features_a[rows, atom][:, None], axis=2) for atom in (first, second)
    ]  # [num_pairs, num_atoms] each
    partners = [of_atom.argmin(axis=1) for of_atom in unlike]
    certain = np.array([np.partition(of_atom, 1, axis=1)[:, 1] > UNLIKE * tolerance for of_atom in unlike]).all(axis=0)
    turned_a = (a @ _axes(a[rows, first], a[rows, second]).transpose(0, 2, 1)).astype(np.float32)
    turned_b = (b @ _axes(b[rows, partners[0]], b[rows, partners[1]]).transpose(0, 2, 1)).astype(np.float32)
    result = np.full(len(a), np.inf)
    alien = np.where(species[:, None] != species, FAR, 0.0) if len(set(species)) > 1 else 0.0
    for handedness in (1, -1):
        apart = _apart(turned_a, turned_b * np.array([1, 1, handedness], dtype=np.float32)) + alien
        nearest = apart.argmin(axis=2)  # [num_pairs, num_atoms]
        whole = (np.sort(nearest, axis=1) == np.arange(len(species))).all(axis=1)
        matched = np.take_along_axis(b[whole], nearest[whole][:, :, None], axis=1)
        result[whole] = np.minimum(result[whole], _least_rms(a[whole], matched))
    return result, certain & np.isfinite(result)


def _surroundings(species: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """Smooth invariant features ``[num_frames, num_atoms, 4]`` of atoms, which change by about 1 per Å."""
    squared = _apart(pos.astype(np.float32), pos.astype(np.float32))
    near = [np.exp(-squared / width**2).sum(axis=2) for width in (3.0, 5.0)]
    kinds = np.broadcast_to(FAR * np.unique(species, return_inverse=True)[1], pos.shape[:2])
    return np.stack([np.linalg.norm(pos, axis=2), *near, kinds], axis=2, dtype=np.float32)


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances ``[num_pairs, n, m]`` of ``a [num_pairs, n, d]`` and ``b [num_pairs, m, d]``."""
    product = a @ b.transpose(0, 2, 1)
    squared = np.square(a).sum(axis=2)[:, :, None] + np.square(b).sum(axis=2)[:, None] - 2 * product
    return np.maximum(squared, 0, out=squared)


def _off_axis(pos: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Distances ``[num_frames, num_atoms]`` of atoms from the line through the centre along ``[num_frames, 3]``."""
    axis = axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-12)
    along = (pos * axis[:, None]).sum(axis=2, keepdims=True)
    return np.linalg.norm(pos - along * axis[:, None], axis=2)


def _axes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Right-handed axes ``[num_frames, 3, 3]``: x along the first atom, y in the plane of both atoms."""
    x = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    y = second - (second * x).sum(axis=1, keepdims=True) * x
    if (np.linalg.norm(y, axis=1) < 1e-6).any():  # collinear: use any perpendicular direction
        across = np.eye(3)[np.argmin(np.abs(x), axis=1)]
        across -= (across * x).sum(axis=1, keepdims=True) * x
        y = np.where(np.linalg.norm(y, axis=1, keepdims=True) < 1e-6, across, y)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _least_rms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square distances of matched, centred atoms after the best rotation or reflection, ``[num_pairs]``.

    Computed from the singular values of the covariance (Kabsch, Acta Cryst. A 1976, 32, 922).
    """
    stretch = np.linalg.svd(a.transpose(0, 2, 1) @ b, compute_uv=False).sum(axis=1)
    squared = np.square(a).sum(axis=(1, 2)) + np.square(b).sum(axis=(1, 2)) - 2 * stretch
    return np.sqrt(np.maximum(squared, 0) / a.shape[1])
