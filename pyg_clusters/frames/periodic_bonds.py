"""Bonds of one structure across the faces of its cell, and the structure unwrapped along them."""

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

The widest gap that has to be bridged to make one piece of a cluster is 1.26 sums in liquid gallium, 1.1 in sodium and
1.0 in silver and copper-gold.
"""

MIN_VACUUM: float = 5.0
"""An isolated cluster is at least so far, in Å, from its periodic images: above any bond, below any box of DFT."""

SHORTEST_VECTOR: float = 1.0
"""A structure that repeats itself at less than this, in Å, is bonded to its image whatever its atoms are."""

PAIRS_AT_ONCE: int = 1 << 20


@dataclass(frozen=True)
class Unwrapped:
    """A periodic structure whose bonds lead from atom to atom without crossing a face.

    Attributes:
        shift: Lattice vectors to add to each atom ``[num_atoms, 3]``.
        piece: Piece that each atom is in ``[num_atoms]``; the atoms of a piece are bonded to each other.
        gap: Widest distance in Å at which a piece was placed beside the others; 0 with one piece.
        spans: Lattice vectors by which the structure is bonded to its own image ``[num_spans, 3]``.
        vacuum: Distance in Å to the nearest image; infinity, if that is beyond the reach of what was looked for.
    """

    shift: np.ndarray
    piece: np.ndarray
    gap: float
    spans: np.ndarray
    vacuum: float

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each piece, the largest first."""
        return np.sort(np.bincount(self.piece))[::-1]


def reach_of(z: np.ndarray) -> float:
    """Distance in Å beyond which atoms are neither bonded nor too close to an image."""
    return max(MIN_VACUUM, 2 * BOND_FACTOR * float(covalent_radii[z].max()))


def unwrap(z: np.ndarray, pos: np.ndarray, lattice: np.ndarray) -> Unwrapped:
    """Unwrap a structure along its bonds, exactly, in any cell.

    All images within reach are looked at, in the reduced cell, so that skewed cells and cells smaller than a bond are
    right. Pieces that are not bonded to each other are placed at their nearest images.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions in Å ``[num_atoms, 3]``.
        lattice: Lattice vectors in Å ``[3, 3]``, independent; zero in directions without images.
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
    """Pairs of an atom i and an image of an atom j within reach: i, j, vectors to the image ``[., k]``, distance."""
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
    """Lattice vectors to add to each atom ``[num_atoms, k]``, by a spanning tree of each piece, and the pieces."""
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
    """Adds to ``offset`` what brings each piece beside the others, from the largest on; the widest distance bridged."""
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
    """Distance of each of the others to the nearest of some atoms, and the lattice vectors that bring it there."""
    around = np.array(list(product((-1, 0, 1), repeat=len(vectors))), dtype=np.int64)
    nearest = np.full(len(others), np.inf)
    best = np.zeros((len(others), len(vectors)), dtype=np.int64)
    rows = max(1, PAIRS_AT_ONCE // len(others))
    for first in range(0, len(pos), rows):
        apart = others[None] - pos[first : first + rows, None]  # [rows, others, 3]
        home = -np.rint(apart @ dual).astype(np.int64)
        for step in around:
            distance = np.linalg.norm(apart + (home + step) @ vectors, axis=2)
            row = distance.argmin(axis=0)
            shortest = distance[row, np.arange(len(others))]
            closer = shortest < nearest
            nearest[closer] = shortest[closer]
            best[closer] = home[row, np.arange(len(others))][closer] + step
    return nearest, best
