r"""Copies among structures, in any orientation, handedness and order of the atoms.

Two clusters of one composition are copies if

1. their pair distances, sorted, differ by at most :func:`~pyg_clusters.structures.superposition.key_share` times the
   tolerance :math:`\tau` (root mean square), and
2. their atoms differ by at most :math:`\tau` (root mean square) after the best translation, rotation, reflection and
   permutation of like atoms.

Sorted distances are continuous in the positions (counts of neighbours jump at the shell radii), and random noise moves
them less than the atoms: noise of 0.01 Å on each coordinate of two copies of a cluster of 46 atoms sets their atoms
0.024 Å and their sorted distances 0.011 Å apart. They are no proof: distinct frames of a liquid cluster are often less
than 0.05 Å apart in them. So they only find the few structures to superpose.

No two structures are compared that do not lie near each other in a tree of *keys*: means of the sorted distances over
successive stretches, projected onto their principal axes. Both steps can only shorten a distance, so that a structure
that passes point 1 is never overlooked by the tree, on whatever side of a cell it lies.
"""

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from pyg_clusters.structures.superposition import FRAMES_AT_ONCE, SAME_STRUCTURE, PairComparison, structure_keys

SPLIT_TOLERANCE: float = 2 * SAME_STRUCTURE
"""Distance in Å within which a structure to be judged on is a copy of one that was trained on.

Looser than :data:`~pyg_clusters.structures.superposition.SAME_STRUCTURE`: geometry optimisations of one minimum end as
far apart as their criterion allows, and two structures too many held together do a split no harm.
"""

TREE_DIMENSIONS: int = 8
"""Principal axes of the keys that the tree has; more make it slow, fewer leave more to compare."""

FITTED: int = 20_000
"""Structures that the principal axes are taken from."""

LOOKED_UP_AT_ONCE: int = 128
"""Structures all of whose neighbours are looked up at a time: of 10,000 copies each has 10,000."""


NEAREST: int = 16
"""Known structures, the nearest by their keys, that :func:`copies` compares each structure with.

Frames of a vibrating cluster all lie near each other in their keys: to compare all of them takes hours.
"""


def representatives(
    z: np.ndarray,
    pos: np.ndarray,
    ptr: np.ndarray,
    *,
    energy: np.ndarray | None = None,
    tolerance: float = SAME_STRUCTURE,
) -> np.ndarray:
    """For each structure, the one that it is a copy of.

    The structures are gone through in the order of their energies, or as they come; one that is no copy of a
    representative so far becomes one. The number of comparisons grows
    with the number of structures, not with its square.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the structures ``[num_frames + 1]``.
        energy: Energies ``[num_frames]`` in eV: of copies the lowest is the representative.
        tolerance: In Å, root mean square over the atoms; three to four times the noise on each coordinate of copies
            (a quench to 0.01 eV/Å leaves some 0.01 Å).

    Returns:
        Places ``[num_frames]``: its own for a representative.

    Example:
        >>> triangle = np.array([[0, 0, 0], [2.7, 0, 0], [0, 3.1, 0]])
        >>> mirrored = triangle[[2, 0, 1]] * [1, -1, 1] + 5.0
        >>> other = triangle * 1.1
        >>> pos, ptr = np.concatenate([triangle, mirrored, other]), np.array([0, 3, 6, 9])
        >>> representatives(np.full(9, 31), pos, ptr)
        array([0, 0, 2])
    """
    _check_tolerance(tolerance)
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
    """The known structure that each structure is a copy of.

    Each structure is compared with the :data:`NEAREST` known ones whose sorted distances are most like its own.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the structures ``[num_frames + 1]``.
        known: ``z``, ``pos`` and ``ptr`` of the structures that they may be copies of (those of a training set, say).
        tolerance: In Å, root mean square over the atoms, see :func:`representatives`.

    Returns:
        Indices ``[num_frames]`` of known structures, -1 where a structure is a copy of none.

    Example:
        >>> triangle = np.array([[0, 0, 0], [2.7, 0, 0], [0, 3.1, 0]])
        >>> pos, z = np.concatenate([triangle * 1.1, triangle[::-1] + 5.0]), np.full(6, 31)
        >>> copies(z, pos, np.array([0, 3, 6]), (np.full(3, 31), triangle, np.array([0, 3])))
        array([-1,  0])
    """
    _check_tolerance(tolerance)
    num_known, num_atoms = len(known[2]) - 1, int(known[2][-1])
    all_z, all_pos = np.concatenate([known[0], z]), np.concatenate([known[1], pos]).astype(float)
    result = np.full(len(ptr) - 1, -1)
    for frames, species, positions in _by_composition(all_z, all_pos, np.concatenate([known[2], ptr[1:] + num_atoms])):
        first = int(np.searchsorted(frames, num_known))  # of those that may be copies
        if 0 < first < len(frames):
            found = frames[_Finder(PairComparison(species, positions, tolerance)).copies_of_first(first)]
            result[frames[first:] - num_known] = np.where(found < num_known, found, -1)
    return result


def copy_groups(z: np.ndarray, pos: np.ndarray, ptr: np.ndarray, tolerance: float = SPLIT_TOLERANCE) -> np.ndarray:
    """Groups of structures that are copies of each other, directly or through further ones.

    No structure of a group is a copy of one of another group.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the structures ``[num_frames + 1]``.
        tolerance: In Å, root mean square over the atoms, see :func:`representatives`.

    Returns:
        Index of the first structure of the group of each structure, ``[num_frames]``.

    Example:
        >>> triangle = np.array([[0, 0, 0], [2.7, 0, 0], [0, 3.1, 0]])
        >>> pos = np.concatenate([triangle * 1.1, triangle, triangle[::-1] + 5.0])
        >>> copy_groups(np.full(9, 31), pos, np.array([0, 3, 6, 9]))
        array([0, 1, 1])
    """
    _check_tolerance(tolerance)
    result = np.arange(len(ptr) - 1)
    for frames, species, positions in _by_composition(np.asarray(z), np.asarray(pos, float), np.asarray(ptr)):
        result[frames] = frames[_Finder(PairComparison(species, positions, tolerance)).groups()]
    return result


def _check_tolerance(tolerance: float):
    if not tolerance > 0:
        raise ValueError(f"the tolerance must be positive (in Å), got {tolerance}")


class _Finder:
    """Finds the representatives among structures of one composition, in their order."""

    def __init__(self, pairs: PairComparison):
        self.pairs = pairs
        self.key_tolerance = pairs.key_tolerance
        keys = structure_keys(self.pairs.pos)
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
        """For each structure after the first ``number``, one of these that it is a copy of, else itself."""
        frames = np.arange(number, len(self.representative))
        tree = cKDTree(self.keys[:number])
        distance, earlier = tree.query(self.keys[frames], k=NEAREST, distance_upper_bound=self.key_tolerance)
        near = np.isfinite(distance)
        self._copies_of(frames, earlier[near], np.repeat(frames, near.sum(axis=1)))
        return self.representative[number:]

    def groups(self) -> np.ndarray:
        """For each structure the first one of its group, which copies of copies belong to as well."""
        first = self.representatives().copy()
        kinds = np.flatnonzero(first == np.arange(len(first)))
        # Copies of each other are no further from their representatives than these are from one another.
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
        """Sort pairs by the later structure, and by the distance of the keys."""
        distance = np.linalg.norm(self.keys[earlier] - self.keys[later], axis=1)
        order = np.lexsort((distance, later))
        return earlier[order], later[order]

    def _unite(self, earlier: np.ndarray, later: np.ndarray):
        """Joins the groups of pairs of structures that are copies."""
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
        """Settles the frames that are copies of known representatives, and returns the others."""
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
        """Settles the copies among frames that are new, and returns the first of each kind."""
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
    """Representatives by their keys: a large tree, and a small one of those that came since it was made."""

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
        """Representatives within a radius of frames, and these frames, ``[num_pairs]`` each."""
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
    """Places ``[n]`` of structures of one composition, their atomic numbers ``[N]``, and positions ``[n, N, 3]``."""
    sizes = np.diff(ptr)
    for size in np.unique(sizes):
        frames = np.flatnonzero(sizes == size)
        atoms = ptr[frames][:, None] + np.arange(size)
        atoms = np.take_along_axis(atoms, np.argsort(z[atoms], axis=1, kind="stable"), axis=1)
        compositions, kind = np.unique(z[atoms], axis=0, return_inverse=True)
        for number, species in enumerate(compositions):
            chosen = kind.ravel() == number
            yield frames[chosen], species, pos[atoms[chosen]]
