"""Bonds across the faces of periodic cells, and unwrapping of structures along bonds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase.data import covalent_radii
from ase.geometry.minkowski_reduction import minkowski_reduce
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

BOND_FACTOR: float = 1.5
"""Atoms are bonded below this multiple of the sum of their covalent radii: 3.7 Å for Ga, 4.4 Å for Ag, 5.0 Å for Na.

The longest bond that is needed to connect a cluster is 1.26 times the sum of the radii in liquid gallium, 1.1 times in
sodium, and 1.0 times in silver and copper-gold.
"""

MIN_VACUUM: float = 5.0
"""Minimum distance in Å of an isolated cluster from its periodic images: longer than chemical bonds, shorter than
the vacuum of DFT cells."""

SHORTEST_VECTOR: float = 1.0
"""Length of a lattice vector in Å below which a structure is bonded to its image, whatever its elements."""

DISTANCES_AT_ONCE: int = 1 << 20


@dataclass(frozen=True)
class Unwrapped:
    """A periodic structure that is unwrapped so that no bond crosses a face."""

    shift: np.ndarray  #: Numbers of lattice vectors to add to each atom, ``[num_atoms, 3]``.
    piece: np.ndarray  #: Index of the piece of each atom, ``[num_atoms]``; the atoms of a piece are connected by bonds.
    gap: float  #: Largest distance in Å of a piece from the others; 0 for a single piece.
    spans: np.ndarray  #: Lattice translations by which the structure is bonded to its own images, ``[num_spans, 3]``.
    vacuum: float  #: Distance in Å to the nearest image; infinity beyond the range of the search.

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each piece, the largest first."""
        return np.sort(np.bincount(self.piece))[::-1]


def reach_of(z: np.ndarray) -> float:
    """Distance in Å beyond which atoms are neither bonded nor too close to an image."""
    return max(MIN_VACUUM, 2 * BOND_FACTOR * float(covalent_radii[z].max()))


def unwrap(z: np.ndarray, pos: np.ndarray, lattice: np.ndarray) -> Unwrapped:
    """Unwrap a structure along its bonds, exactly and in any cell.

    All images within reach in the reduced cell are considered, so that skewed cells and cells smaller than a bond are
    supported. Pieces that are not bonded to each other are placed at their nearest images. Positions
    ``[num_atoms, 3]`` and lattice vectors ``[3, 3]`` are in Å; the vectors are linearly independent, or zero in
    directions without images.
    """
    periodic = lattice.any(axis=1)
    reduced, change = minkowski_reduce(lattice, periodic)
    vectors, change = reduced[periodic], np.rint(change[periodic]).astype(np.int64)  # [k, 3] each
    one_piece = np.zeros(len(z), dtype=np.int64)
    lengths = np.linalg.norm(vectors, axis=1)
    if lengths.min(initial=np.inf) < SHORTEST_VECTOR:
        still = np.zeros((len(z), 3), dtype=np.int64)
        return Unwrapped(still, one_piece, 0.0, change[[lengths.argmin()]], float(lengths.min()))
    dual = np.linalg.pinv(vectors)
    inside = -np.floor(pos @ dual).astype(np.int64)
    base = pos + inside @ vectors
    i, j, step, distance = _links(base, vectors, dual, reach_of(z))
    bonded = distance < BOND_FACTOR * (covalent_radii[z[i]] + covalent_radii[z[j]])
    offset, piece = _along_bonds(i[bonded], j[bonded], step[bonded], len(z))
    gap = _place_pieces(base, vectors, dual, offset, piece)
    across = offset[i] + step - offset[j]
    to_image = across.any(axis=1)
    spans = np.unique(across[to_image & bonded], axis=0)
    vacuum = float(distance[to_image].min(initial=np.inf))
    return Unwrapped((inside + offset) @ change, piece, gap, spans @ change, vacuum)


def _links(
    base: np.ndarray, vectors: np.ndarray, dual: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of an atom i and an image of an atom j within reach: i, j, translation ``[num_pairs, k]`` and distance."""
    fractions = base @ dual
    margin = reach * np.linalg.norm(dual, axis=0)
    steps = np.array(list(product(*(range(-m, m + 1) for m in np.ceil(margin).astype(int).tolist()))), dtype=np.int64)
    moved = fractions[None] + steps[:, None]  # [num_steps, num_atoms, k]
    near = ((moved >= -margin) & (moved <= 1 + margin)).all(axis=2)
    which, atom = np.nonzero(near)
    images = cKDTree(base[atom] + steps[which] @ vectors)
    found = cKDTree(base).sparse_distance_matrix(images, reach, output_type="ndarray")
    i, j, step = found["i"], atom[found["j"]], steps[which[found["j"]]]
    other = (i != j) | step.any(axis=1)
    return i[other], j[other], step[other], found["v"][other]


def _along_bonds(i: np.ndarray, j: np.ndarray, step: np.ndarray, num_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Lattice translation of each atom ``[num_atoms, k]``, by a spanning tree of each piece, and the piece of each."""
    offset = np.zeros((num_atoms, step.shape[1]), dtype=np.int64)
    pair, first = np.unique(i * num_atoms + j, return_index=True)
    graph = csr_array((np.ones(len(pair)), (i[first], j[first])), shape=(num_atoms, num_atoms))
    piece = connected_components(graph, directed=False)[1]
    starts = np.unique(piece, return_index=True)[1]
    for start in starts.tolist():
        order, parent = breadth_first_order(graph, start)
        children = order[1:]
        steps = step[first[np.searchsorted(pair, parent[children].astype(np.int64) * num_atoms + children)]]
        for child, by in zip(children.tolist(), steps, strict=True):
            offset[child] = offset[parent[child]] + by
    return offset, piece.astype(np.int64)


def _place_pieces(
    base: np.ndarray, vectors: np.ndarray, dual: np.ndarray, offset: np.ndarray, piece: np.ndarray
) -> float:
    """Add translations to ``offset`` that place each piece next to those placed before; return the widest gap in Å."""
    nearest = np.full(len(base), np.inf)
    by = np.zeros_like(offset)
    new = np.bincount(piece).argmax()
    placed = np.zeros(len(base), dtype=bool)
    gap = 0.0
    while True:
        placed |= piece == new
        (left,) = np.nonzero(~placed)
        if not left.size:
            return gap
        pos = base + offset @ vectors
        distance, step = _nearest_images(pos[piece == new], pos[left], vectors, dual)
        closer = distance < nearest[left]
        nearest[left[closer]], by[left[closer]] = distance[closer], step[closer]
        atom = left[nearest[left].argmin()]
        new = piece[atom]
        gap = max(gap, float(nearest[atom]))
        offset[piece == new] += by[atom]
        nearest[piece == new] = np.inf


def _nearest_images(
    pos: np.ndarray, others: np.ndarray, vectors: np.ndarray, dual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each of the others to the nearest of some atoms, and the lattice translation to this distance."""
    around = np.array(list(product((-1, 0, 1), repeat=len(vectors))), dtype=np.int64)
    nearest = np.full(len(others), np.inf)
    best = np.zeros((len(others), len(vectors)), dtype=np.int64)
    rows = max(1, DISTANCES_AT_ONCE // len(others))
    for first in range(0, len(pos), rows):
        relative = others[None] - pos[first : first + rows, None]  # [rows, others, 3]
        home = -np.rint(relative @ dual).astype(np.int64)
        for step in around:
            distance = np.linalg.norm(relative + (home + step) @ vectors, axis=2)
            row = distance.argmin(axis=0)
            shortest = distance[row, np.arange(len(others))]
            closer = shortest < nearest
            nearest[closer] = shortest[closer]
            best[closer] = home[row, np.arange(len(others))][closer] + step
    return nearest, best


PAIRS_AT_ONCE: int = 1 << 18
DENSE: int = 256  # up to this number of atoms, connectivity is tested by all pairs of atoms
WORD: int = 8  # number of marks of atoms, of one byte each, in a machine word

NEAR: float = 1e3
"""Number of cells that a frame may span; others are joined in double precision by :func:`unwrap`."""

RADII: np.ndarray = (BOND_FACTOR * covalent_radii).astype(np.float32)
"""Bond radii in Å, by atomic number: two atoms are bonded if they are closer than the sum of their bond radii."""


@np.errstate(over="ignore", invalid="ignore")  # atoms may be too far away for single precision
def join_by_vacuum(
    z: np.ndarray, pos: np.ndarray, ptr: np.ndarray, lattice: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Join frames that have a slab of vacuum along each periodic direction.

    Between the slabs, no image is within reach of an atom. Bonds therefore follow from plain distances, and it only
    remains to test that they connect all atoms.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions in Å ``[num_atoms, 3]``.
        ptr: Offsets of the frames, which are not empty, ``[num_frames + 1]``.
        lattice: Lattice vectors in Å ``[num_frames, 3, 3]``, zero in directions without images.

    Returns:
        Numbers of lattice vectors to add to each atom ``[num_atoms, 3]``, zero for the first of a frame; and whether
        they join each frame into one isolated cluster ``[num_frames]``.
    """
    # Relative to the first atom of the frame, positions in single precision are accurate enough for bonds.
    sizes, starts = np.diff(ptr), ptr[:-1]
    cells, of_frame = distinct(lattice)
    of_atom = of_frame.repeat(sizes)
    dual = np.linalg.pinv(cells)
    needed = (reach_of(z) * np.linalg.norm(dual, axis=1))[of_frame].T  # [3, num_frames], zero where not periodic
    relative = (pos - pos[starts].repeat(sizes, axis=0)).T.astype(np.float32, order="C")  # [3, num_atoms]
    fractions = _times(relative, dual, of_atom)
    # First try the images nearest to the first atom. They are correct if they leave at least the reach of a bond free
    # in the cell; other frames are cut at their widest gap instead.
    steps = np.rint(fractions)
    near = (np.maximum.reduceat(np.abs(steps), starts, axis=1) < NEAR).all(axis=0)  # false where they are not finite
    inside = fractions - steps
    span = np.maximum.reduceat(inside, starts, axis=1) - np.minimum.reduceat(inside, starts, axis=1)
    whole = near & (1 - span >= needed).all(axis=0)
    for frames, atoms in _alike(ptr, np.flatnonzero(near & ~whole)):
        steps[:, atoms], whole[frames] = _steps_over_gaps(fractions[:, atoms], needed[:, frames])
    if steps.any():
        relative -= _times(steps, cells, of_atom)
    frames = np.flatnonzero(whole)
    whole[frames] = connected(z, relative, ptr, frames)
    return -steps.T, whole


def distinct(lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct cells of frames ``[num_frames, 3, 3]``, and the index of the cell of each frame among them."""
    if (lattice == lattice[:1]).all():
        return lattice[:1], np.zeros(len(lattice), dtype=np.int64)
    cells, of_frame = np.unique(lattice.reshape(-1, 9), axis=0, return_inverse=True)
    return cells.reshape(-1, 3, 3), of_frame.ravel()


def _times(vectors: np.ndarray, matrices: np.ndarray, of_atom: np.ndarray) -> np.ndarray:
    """Products of vectors of atoms ``[3, num_atoms]`` with their matrices ``matrices[of_atom]``."""
    matrices = matrices.astype(np.float32)
    if len(matrices) == 1:
        return matrices[0].T @ vectors
    return np.einsum("ia,aij->ja", vectors, matrices[of_atom])


def _alike(ptr: np.ndarray, frames: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of frames with their atoms ``[frames, width]``, padded by repeating the last atom."""
    widths = -(-np.diff(ptr)[frames] // WORD) * WORD
    for width in np.unique(widths).tolist():
        of_width = frames[widths == width]
        step = max(1, PAIRS_AT_ONCE // width**2)
        for some in (of_width[first : first + step] for first in range(0, len(of_width), step)):
            yield some, np.minimum(ptr[some, None] + np.arange(width), ptr[some + 1, None] - 1)


def _steps_over_gaps(fractions: np.ndarray, needed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers to subtract from fractional coordinates ``[3, frames, width]`` to start after the widest gap, and
    whether this gap is as wide as needed in all directions ``[frames]``.
    """
    inside = np.sort(fractions - np.floor(fractions), axis=2)
    gaps = np.diff(inside, axis=2, append=inside[:, :, :1] + 1)
    widest = gaps.argmax(axis=2)[:, :, None]
    gap = np.take_along_axis(gaps, widest, axis=2)
    steps = np.floor(fractions - np.take_along_axis(inside, widest, axis=2) - gap / 2)
    return steps - steps[:, :, :1], np.all(gap[:, :, 0] >= needed, axis=0)


def connected(z: np.ndarray, pos: np.ndarray, ptr: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Whether bonds by plain distances connect all atoms of the given frames, ``[len(frames)]``.

    Positions are in Å, ``[3, num_atoms]`` in single precision.
    """
    whole = np.zeros(len(ptr) - 1, dtype=bool)
    large = np.diff(ptr)[frames] > DENSE
    for frame in frames[large]:
        atoms = slice(ptr[frame], ptr[frame + 1])
        whole[frame] = _is_connected(z[atoms], pos[:, atoms].T)
    radii = RADII[z]
    for some, index in _alike(ptr, frames[~large]):
        whole[some] = _all_bonded(radii[index], pos.take(index, axis=1))
    return whole[frames]


def _all_bonded(radii: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """As :func:`connected`, from radii ``[frames, width]`` and positions ``[3, frames, width]``."""
    num_frames, width = radii.shape
    # Breadth-first search from the atom nearest to the centre, in all frames at once. The bonds of an atom are a row of
    # bytes, viewed as words of eight; the rows of all newly reached atoms are combined by a bitwise or.
    squares = np.einsum("ifn,ifn->fn", pos, pos)
    rows = _bonds(radii, pos, squares).reshape(num_frames * width, width).view(np.uint64)  # [atoms, words]
    middle = pos @ np.full(width, 1 / width, dtype=np.float32)  # [3, frames]
    to_middle = squares - 2 * np.einsum("ifn,if->fn", pos, middle)
    reached = rows[np.arange(num_frames) * width + to_middle.argmin(axis=1)]  # [frames, words]
    marks = reached.view(bool)
    followed = np.zeros((num_frames, width), dtype=bool)
    while True:
        whole = marks.all(axis=1)
        new = marks > followed
        new[whole] = False
        atoms = np.flatnonzero(new)
        if not atoms.size:
            return whole
        counts = np.count_nonzero(new, axis=1)
        (going,) = np.nonzero(counts)
        starts = np.cumsum(counts[going]) - counts[going]
        reached[going] |= np.bitwise_or.reduceat(rows.take(atoms, axis=0), starts, axis=0)
        followed |= new


def _bonds(radii: np.ndarray, pos: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Whether two atoms are bonded ``[frames, width, width]``.

    The squared distance minus the squared sum of two radii is a product of two matrices with six columns.
    """
    num_frames, width = radii.shape
    own = squares - radii * radii
    of_i = np.empty((num_frames, 6, width), dtype=np.float32)
    of_i[:, 0], of_i[:, 1], of_i[:, 2], of_i[:, 3], of_i[:, 4], of_i[:, 5] = *pos, radii, own, 1
    of_j = -2 * of_i
    of_j[:, 4], of_j[:, 5] = 1, own
    return of_i.transpose(0, 2, 1) @ of_j < 0


def _is_connected(z: np.ndarray, pos: np.ndarray) -> bool:
    radii = RADII[z]
    i, j = cKDTree(pos).query_pairs(2 * radii.max(), output_type="ndarray").T
    bonded = np.linalg.norm(pos[i] - pos[j], axis=1) < radii[i] + radii[j]
    graph = csr_array((np.ones(bonded.sum()), (i[bonded], j[bonded])), shape=(len(pos), len(pos)))
    return connected_components(graph, directed=False)[0] == 1
