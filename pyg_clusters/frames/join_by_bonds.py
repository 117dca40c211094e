"""Join one frame along its bonds, or say why it is no isolated cluster."""

import numpy as np

from pyg_clusters.frames.periodic_bonds import MIN_VACUUM, Unwrapped, unwrap
from pyg_clusters.options.common import Fragments

FARTHEST: float = 1e7
"""Positions further than this from the origin, in Å, have lost the digits that tell bonds."""

DEPENDENT: float = 1e-12
"""Vectors are not independent below this square of the volume that they would span, were they of length one."""

VECTORS = "abc"
IN_PIECES = "stays in"
MOST_SIZES = 5
"""So many sizes of pieces are named."""


class NoClusterError(ValueError):
    """A frame is no isolated cluster: the message says why."""


@np.errstate(invalid="ignore", over="ignore")
def are_usable(cells: np.ndarray) -> np.ndarray:
    """Whether the vectors of cells ``[num_cells, 3, 3]``, zero if not periodic, are finite and independent."""
    lengths = np.linalg.norm(cells, axis=2)
    unit = cells / np.where(lengths > 0, lengths, 1.0)[:, :, None]
    gram = unit @ unit.transpose(0, 2, 1) + np.eye(3) * (lengths == 0)[:, :, None]
    return np.isfinite(cells).all(axis=(1, 2)) & (np.linalg.det(gram) >= DEPENDENT)


def cell_fault(lattice: np.ndarray) -> str:
    """Why a cell cannot be used."""
    if not np.isfinite(lattice).all():
        return f"has the cell {lattice.tolist()}, which is not finite"
    return f"has a periodic cell whose vectors are not independent: {lattice.tolist()}"


def join_by_bonds(
    z: np.ndarray, pos: np.ndarray, cell: np.ndarray, lattice: np.ndarray, fragments: Fragments
) -> np.ndarray:
    """Lattice vectors to add to each atom ``[size, 3]``, none to the first one, so that a frame is one cluster.

    Args:
        z: Atomic numbers ``[size]``.
        pos: Finite positions in Å ``[size, 3]``.
        cell: Cell of the file in Å ``[3, 3]``.
        lattice: Those of its vectors that are periodic, the others zero.
        fragments: What to do with a periodic frame that stays in several pieces.

    Raises:
        NoClusterError: If it is no isolated cluster.
    """
    away = np.abs(pos).max()
    if away > FARTHEST:
        raise NoClusterError(f"has an atom {away:.0e} Å away from the origin")
    found = unwrap(z, pos, lattice)
    if len(found.spans):
        along, kind = _directions(found.spans), _kind(found.spans)
        raise NoClusterError(f"is connected to its own image along {along}: {kind}, no cluster")
    if len(found.sizes) > 1 and fragments == "refuse":
        _check_pieces(found, z, pos, cell, lattice)
    if found.vacuum < MIN_VACUUM:
        less = f"less than {MIN_VACUUM} Å of vacuum"
        raise NoClusterError(f"is only {found.vacuum:.1f} Å from its periodic image, {less}: no cluster")
    return found.shift - found.shift[0]


def _check_pieces(found: Unwrapped, z: np.ndarray, pos: np.ndarray, cell: np.ndarray, lattice: np.ndarray):
    """Refuse a frame in several pieces, unless it is not periodic and its cell would not join it either."""
    periodic = lattice.any(axis=1)
    further = cell.any(axis=1) & ~periodic
    text = f"{IN_PIECES} {_sizes(found)}, {found.gap:.1f} Å apart"
    if further.any() and _would_join(z, pos, cell):
        named = _listed([VECTORS[axis] for axis in np.flatnonzero(further)])
        text = f"{text}, but would be one across the faces along {named}, where pbc is F: set it to T"
        raise NoClusterError(text)
    if periodic.any():
        raise NoClusterError(text)


def _would_join(z: np.ndarray, pos: np.ndarray, cell: np.ndarray) -> bool:
    """Whether a frame would be one isolated cluster, were its cell periodic in all directions."""
    if not are_usable(cell[None])[0]:
        return False
    found = unwrap(z, pos, cell)
    return len(found.sizes) == 1 and not len(found.spans) and found.vacuum >= MIN_VACUUM


def _sizes(found: Unwrapped) -> str:
    sizes = list(map(str, found.sizes))
    more = [f"{len(sizes) - MOST_SIZES} more"] if len(sizes) > MOST_SIZES else []
    return f"{len(sizes)} pieces of {_listed([*sizes[: MOST_SIZES if more else None], *more])} atoms"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _kind(spans: np.ndarray) -> str:
    return {1: "a wire", 2: "a slab", 3: "a crystal"}[int(np.linalg.matrix_rank(spans))]


def _directions(spans: np.ndarray) -> str:
    """Lattice vectors as ``a and b``, or ``[1 1 0]``."""
    chosen: list[np.ndarray] = []
    for span in sorted(spans, key=lambda span: (np.count_nonzero(span), np.abs(span).sum())):
        if np.linalg.matrix_rank([*chosen, span]) > len(chosen):
            chosen.append(span)
    return _listed(sorted(_name(span) for span in chosen))


def _name(span: np.ndarray) -> str:
    (axes,) = np.nonzero(span)
    span = span * np.sign(span[axes[0]])
    return VECTORS[axes[0]] if len(axes) == 1 else f"[{' '.join(map(str, span))}]"
