r"""Detection of duplicate structures, up to rigid motion, reflection and order of the atoms.

Two clusters of the same composition are copies if

1. their sorted pair distances differ by at most :func:`~pyg_clusters.structures.superposition.key_share` times the
   tolerance :math:`\tau` (root mean square), and
2. their atoms differ by at most :math:`\tau` (root mean square) after the best translation, rotation, reflection and
   permutation of like atoms.

Sorted distances are continuous in the positions, unlike neighbour counts, which jump at the shell radii. Random noise
changes them less than it displaces the atoms: with noise of 0.01 Å on each coordinate, the atoms of two copies of a
46-atom cluster differ by 0.024 Å and their sorted distances by 0.011 Å. Sorted distances alone are not sufficient,
because those of distinct frames of a liquid cluster often differ by less than 0.05 Å. They only select the structures
to superpose.

Candidate pairs are neighbours in a k-d tree of *keys*: means of successive blocks of the sorted distances, projected
onto principal axes. Both operations can only decrease a distance, so the tree never misses a pair that meets
criterion 1. The distances of alloys are sorted within each pair of elements, so that structures that differ only in
the positions of their elements have different keys; their tree never misses a pair that meets criterion 2.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pyg_clusters.structures.superposition import (
    FRAMES_AT_ONCE,
    SAME_STRUCTURE,
    PairComparison,
    strict_share,
    structure_keys,
)

SPLIT_TOLERANCE: float = 2 * SAME_STRUCTURE
"""Distance in Å within which a test structure is a copy of a training structure.

Larger than :data:`~pyg_clusters.structures.superposition.SAME_STRUCTURE`, because optimisations of the same minimum
differ by as much as their convergence criterion allows, and grouping a few distinct structures does not harm a split.
"""

TREE_DIMENSIONS: int = 8
"""Number of principal axes in the tree; more make the tree slower, fewer leave more pairs to compare."""

FITTED: int = 20_000  # approximate maximum number of structures from which the principal axes are computed

LOOKED_UP_AT_ONCE: int = 128
"""Number of structures in one query for all neighbours; each of 10,000 copies has 10,000 neighbours."""

NEAREST: int = 16
"""Number of known structures, nearest by key, with which :func:`copies` compares each structure.

The keys of all frames of a vibrating cluster are similar, and comparing all pairs would take hours.
"""


def representatives(
    z: np.ndarray,
    pos: np.ndarray,
    ptr: np.ndarray,
    *,
    energy: np.ndarray | None = None,
    tolerance: float = SAME_STRUCTURE,
) -> np.ndarray:
    """Assign each structure to the representative that it is a copy of.

    Structures are visited in order of energy, or in input order if no energies are given. A structure that is not a
    copy of an earlier representative becomes a representative. The number of comparisons scales linearly with the
    number of structures.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the structures ``[num_frames + 1]``.
        energy: Energies ``[num_frames]`` in eV; the lowest of several copies is the representative.
        tolerance: Maximum root mean square displacement of the atoms in Å. Use three to four times the noise on each
            coordinate (about 0.01 Å for structures relaxed to 0.01 eV/Å).

    Returns:
        Index of the representative of each structure, ``[num_frames]``; a representative has its own index.

    Example:
        >>> triangle = np.array([[0, 0, 0], [2.7, 0, 0], [0, 3.1, 0]])
        >>> mirrored = triangle[[2, 0, 1]] * [1, -1, 1] + 5.0
        >>> other = triangle * 1.1
        >>> pos, ptr = np.concatenate([triangle, mirrored, other]), np.array([0, 3, 6, 9])
        >>> representatives(np.full(9, 31), pos, ptr)
        array([0, 0, 2])
    """
    result = np.arange(len(ptr) - 1)
    for frames, species, positions in _by_composition(np.asarray(z), np.asarray(pos, float), np.asarray(ptr)):
        order = np.arange(len(frames)) if energy is None else np.argsort(np.asarray(energy)[frames], kind="stable")
        finder = _Finder(PairComparison(species, positions[order], tolerance))
        result[frames[order]] = frames[order][finder.representatives()]
    return result


def copies(
    z: np.ndarray,
    pos: np.ndarray,
    ptr: np.ndarray,
    known: tuple[np.ndarray, np.ndarray, np.ndarray],
    tolerance: float = SPLIT_TOLERANCE,
) -> np.ndarray:
    """Find the known structure that each structure is a copy of.

    Each structure is compared with the :data:`NEAREST` known structures whose keys are closest to its own. The
    arguments are those of :func:`representatives`, and ``known``: ``z``, ``pos`` and ``ptr`` of the known structures,
    for instance a training set.

    Returns:
        Indices ``[num_frames]`` of known structures; -1 for structures that are not copies.

    Example:
        >>> triangle = np.array([[0, 0, 0], [2.7, 0, 0], [0, 3.1, 0]])
        >>> pos, z = np.concatenate([triangle * 1.1, triangle[::-1] + 5.0]), np.full(6, 31)
        >>> copies(z, pos, np.array([0, 3, 6]), (np.full(3, 31), triangle, np.array([0, 3])))
        array([-1,  0])
    """
    num_known, num_atoms = len(known[2]) - 1, int(known[2][-1])
    all_z, all_pos = np.concatenate([known[0], z]), np.concatenate([known[1], pos]).astype(float)
    result = np.full(len(ptr) - 1, -1)
    for frames, species, positions in _by_composition(all_z, all_pos, np.concatenate([known[2], ptr[1:] + num_atoms])):
        first = int(np.searchsorted(frames, num_known))  # the first structure that is not a known one
        if 0 < first < len(frames):
            found = frames[_Finder(PairComparison(species, positions, tolerance)).copies_of_first(first)]
            result[frames[first:] - num_known] = np.where(found < num_known, found, -1)
    return result


def copy_groups(z: np.ndarray, pos: np.ndarray, ptr: np.ndarray, tolerance: float = SPLIT_TOLERANCE) -> np.ndarray:
    """Group structures that are copies of each other, directly or through a chain of copies.

    Structures of different groups are never copies of each other. The arguments are those of :func:`representatives`.

    Returns:
        Index of the first structure of the group of each structure, ``[num_frames]``.

    Example:
        >>> triangle = np.array([[0, 0, 0], [2.7, 0, 0], [0, 3.1, 0]])
        >>> pos = np.concatenate([triangle * 1.1, triangle, triangle[::-1] + 5.0])
        >>> copy_groups(np.full(9, 31), pos, np.array([0, 3, 6, 9]))
        array([0, 1, 1])
    """
    result = np.arange(len(ptr) - 1)
    for frames, species, positions in _by_composition(np.asarray(z), np.asarray(pos, float), np.asarray(ptr)):
        result[frames] = frames[_Finder(PairComparison(species, positions, tolerance)).groups()]
    return result


def merge_groups(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Merge two divisions of structures into groups, ``[num_frames]``: a group shared in either of them is shared.

    Example:
        >>> merge_groups(np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 0]))
        array([0, 0, 0, 1, 0])
    """
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    num_nodes = len(a) + len(b)
    links = coo_array((np.ones(len(a)), (a, len(a) + b)), shape=(num_nodes, num_nodes))
    return np.unique(connected_components(links, directed=False)[1][a], return_inverse=True)[1]


class _Finder:
    """Search for copies among structures of one composition, in input order."""

    def __init__(self, pairs: PairComparison):
        self.pairs, self.key_tolerance, species = pairs, pairs.key_tolerance, None
        if len(np.unique(pairs.species)) > 1:  # noise changes the fewer distances of a pair of elements more
            self.key_tolerance, species = strict_share(len(pairs.species)) * pairs.tolerance, pairs.species
        keys = structure_keys(pairs.pos, species)
        sample = keys[:: -(-len(keys) // FITTED)].astype(float)
        axes = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][:TREE_DIMENSIONS]
        self.keys = (keys - sample.mean(axis=0)) @ axes.T
        self.representative = np.arange(len(keys))

    def representatives(self) -> np.ndarray:
        known = _Trees(self.keys)
        for start in range(0, len(self.representative), FRAMES_AT_ONCE):
            frames = np.arange(start, min(start + FRAMES_AT_ONCE, len(self.representative)))
            fresh = self._copies_of(frames, *known.near(frames, self.key_tolerance))
            known.add(self._first_of_each(fresh))
        return self.representative

    def copies_of_first(self, number: int) -> np.ndarray:
        """For each structure after the first ``number``, return the one of these that it is a copy of, else itself."""
        frames = np.arange(number, len(self.representative))
        tree = cKDTree(self.keys[:number])
        distance, earlier = tree.query(self.keys[frames], k=NEAREST, distance_upper_bound=self.key_tolerance)
        near = np.isfinite(distance)
        self._copies_of(frames, earlier[near], np.repeat(frames, near.sum(axis=1)))
        return self.representative[number:]

    def groups(self) -> np.ndarray:
        """For each structure, return the first structure of its group, where copies of copies share a group."""
        first = self.representatives().copy()
        kinds = np.flatnonzero(first == np.arange(len(first)))
        # The representatives of two copies are at most three key tolerances apart: each copy is within one tolerance
        # of its representative, and the copies are within one tolerance of each other.
        pairs = kinds[cKDTree(self.keys[kinds]).query_pairs(3 * self.key_tolerance, output_type="ndarray")]
        several = np.flatnonzero(np.isin(first, pairs))
        if not several.size:
            return self.representative
        tree = cKDTree(self.keys[several])
        for frames in np.array_split(several, -(-len(several) // LOOKED_UP_AT_ONCE)):
            near = tree.query_ball_point(self.keys[frames], self.key_tolerance)
            earlier = several[np.concatenate(near).astype(int)]
            later = np.repeat(frames, [len(places) for places in near])
            apart = (earlier < later) & (self.representative[earlier] != self.representative[later])
            self._unite(earlier[apart], later[apart])
        return self.representative

    def _nearest_first(self, earlier: np.ndarray, later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sort pairs by the later structure, then by the distance of the keys."""
        distance = np.linalg.norm(self.keys[earlier] - self.keys[later], axis=1)
        order = np.lexsort((distance, later))
        return earlier[order], later[order]

    def _unite(self, earlier: np.ndarray, later: np.ndarray):
        """Merge the groups of pairs of structures that are copies."""
        earlier, later = self._nearest_first(earlier, later)
        while later.size:
            _, nearest = np.unique(later, return_index=True)
            same = nearest[self.pairs.same(earlier[nearest], later[nearest])]
            for pair in zip(earlier[same], later[same], strict=True):
                first, second = sorted(self.representative[list(pair)])
                if first != second:
                    self.representative[self.representative == second] = first
            left = self.representative[earlier] != self.representative[later]
            left[nearest] = False
            earlier, later = earlier[left], later[left]

    def _copies_of(self, frames: np.ndarray, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        """Assign frames that are copies of known representatives, and return the other frames."""
        earlier, later = self._nearest_first(earlier, later)
        while later.size:
            _, nearest = np.unique(later, return_index=True)
            same = nearest[self.pairs.same(earlier[nearest], later[nearest])]
            self.representative[later[same]] = earlier[same]
            left = ~np.isin(later, later[same])
            left[nearest] = False
            earlier, later = earlier[left], later[left]
        return frames[self.representative[frames] == frames]

    def _first_of_each(self, frames: np.ndarray) -> np.ndarray:
        """Assign copies among new frames, and return the new representatives."""
        if not len(frames):
            return frames
        pairs = frames[cKDTree(self.keys[frames]).query_pairs(self.key_tolerance, output_type="ndarray")]
        pairs = np.sort(pairs.reshape(-1, 2), axis=1)
        pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
        while pairs.size:
            ready = np.flatnonzero(~np.isin(pairs[:, 0], pairs[:, 1]))
            same = pairs[ready[self.pairs.same(*pairs[ready].T)]]
            copies, first = np.unique(same[:, 1], return_index=True)
            self.representative[copies] = same[first, 0]
            left = ~np.any(np.isin(pairs, copies), axis=1)
            left[ready] = False
            pairs = pairs[left]
        return frames[self.representative[frames] == frames]


class _Trees:
    """Representatives by key: a large tree, and a small tree of those added since the large one was built."""

    def __init__(self, keys: np.ndarray):
        self.keys = keys
        self.parts: list[np.ndarray] = [np.zeros(0, dtype=int), np.zeros(0, dtype=int)]
        self.trees: list[cKDTree | None] = [None, None]

    def add(self, frames: np.ndarray):
        if not len(frames):
            return
        old, recent = self.parts
        recent = np.concatenate([recent, frames])
        if len(recent) > len(old) / 4:
            self.parts = [np.concatenate([old, recent]), np.zeros(0, dtype=int)]
            self.trees = [cKDTree(self.keys[self.parts[0]]), None]
        else:
            self.parts = [old, recent]
            self.trees[1] = cKDTree(self.keys[recent])

    def near(self, frames: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of a representative and a frame within a radius, as two arrays ``[num_pairs]``."""
        earlier, later = [np.zeros(0, dtype=int)], [np.zeros(0, dtype=int)]
        for part, tree in zip(self.parts, self.trees, strict=True):
            if tree is not None:
                found = tree.query_ball_point(self.keys[frames], radius)
                earlier += [part[places] for places in found if places]
                later.append(np.repeat(frames, [len(places) for places in found]))
        return np.concatenate(earlier), np.concatenate(later)


def _by_composition(
    z: np.ndarray, pos: np.ndarray, ptr: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield, for each composition, structure indices ``[n]``, atomic numbers ``[N]`` and positions ``[n, N, 3]``."""
    sizes = np.diff(ptr)
    for size in np.unique(sizes):
        frames = np.flatnonzero(sizes == size)
        atoms = ptr[frames][:, None] + np.arange(size)
        atoms = np.take_along_axis(atoms, np.argsort(z[atoms], axis=1, kind="stable"), axis=1)
        compositions, kind = np.unique(z[atoms], axis=0, return_inverse=True)
        for number, species in enumerate(compositions):
            chosen = kind.ravel() == number
            yield frames[chosen], species, pos[atoms[chosen]]
