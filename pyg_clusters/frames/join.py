"""Join clusters across the faces of periodic cells."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii

from pyg_clusters.frames.block import BadFrame, FrameBlock, LazyAtoms, atoms_of
from pyg_clusters.frames.periodic_bonds import MIN_VACUUM, Unwrapped, connected, distinct, join_by_vacuum, unwrap
from pyg_clusters.options import Fragments

TORN: float = 1.8
"""Largest accepted gap between pieces of a frame without a cell, in bond lengths (sums of covalent radii)."""

FARTHEST: float = 1e7  # distance from the origin in Å beyond which positions are too imprecise to recognise bonds
DEPENDENT: float = 1e-12  # squared volume spanned by unit vectors below which they are linearly dependent

VECTORS = "abc"
IN_PIECES = "stays in"
KEEP = '--fragments keep (fragments="keep"; for train --data.dataset.fragments keep)'
MOST_SIZES = 5  # maximum number of sizes of pieces in a message


class NoClusterError(ValueError):
    """A frame is not an isolated cluster, for the reason in the message."""


@np.errstate(invalid="ignore", over="ignore")
def are_usable(cells: np.ndarray) -> np.ndarray:
    """Whether the vectors of each cell ``[num_cells, 3, 3]`` are finite and, unless zero, linearly independent."""
    lengths = np.linalg.norm(cells, axis=2)
    unit = cells / np.where(lengths > 0, lengths, 1.0)[:, :, None]
    gram = unit @ unit.transpose(0, 2, 1) + np.eye(3) * (lengths == 0)[:, :, None]
    return np.isfinite(cells).all(axis=(1, 2)) & (np.linalg.det(gram) >= DEPENDENT)


def cell_fault(lattice: np.ndarray) -> str:
    """Reason why a cell cannot be used."""
    if not np.isfinite(lattice).all():
        return f"has the cell {lattice.tolist()}, which is not finite"
    return f"has a periodic cell whose vectors are not independent: {lattice.tolist()}"


def join_by_bonds(
    z: np.ndarray, pos: np.ndarray, cell: np.ndarray, lattice: np.ndarray, fragments: Fragments
) -> np.ndarray:
    """Numbers of lattice vectors to add to each atom ``[size, 3]`` to join a frame; zero for the first atom.

    The finite positions ``[size, 3]`` and the cell of the file ``[3, 3]`` are in Å; the lattice is the cell with zero
    in place of vectors that are not periodic.

    Raises:
        NoClusterError: If the frame is not an isolated cluster.
    """
    away = np.abs(pos).max()
    if away > FARTHEST:
        raise NoClusterError(f"has an atom {away:.0e} Å away from the origin")
    unwrapped = unwrap(z, pos, lattice)
    if len(unwrapped.spans):
        along, kind = _directions(unwrapped.spans), _kind(unwrapped.spans)
        raise NoClusterError(f"is connected to its own image along {along}: {kind}, not a cluster")
    if len(unwrapped.sizes) > 1 and fragments == "refuse":
        _check_pieces(unwrapped, z, pos, cell, lattice)
    if unwrapped.vacuum < MIN_VACUUM:
        less = f"less than {MIN_VACUUM} Å of vacuum"
        raise NoClusterError(f"is only {unwrapped.vacuum:.1f} Å from its periodic image, {less}: not a cluster")
    return unwrapped.shift - unwrapped.shift[0]


def _check_pieces(unwrapped: Unwrapped, z: np.ndarray, pos: np.ndarray, cell: np.ndarray, lattice: np.ndarray):
    """Refuse a frame in several pieces if it is periodic, or if its cell would join it."""
    periodic = lattice.any(axis=1)
    further = cell.any(axis=1) & ~periodic
    text = f"{IN_PIECES} {_sizes(unwrapped)}, {unwrapped.gap:.1f} Å apart"
    if further.any() and _would_join(z, pos, cell):
        named = _listed([VECTORS[axis] for axis in np.flatnonzero(further)])
        text = f"{text}, but would be one piece if joined along {named}, where pbc is F: set pbc to T there"
        raise NoClusterError(text)
    if periodic.any():
        raise NoClusterError(text)


def _would_join(z: np.ndarray, pos: np.ndarray, cell: np.ndarray) -> bool:
    """Whether a frame would be one isolated cluster if its cell were periodic in all directions."""
    if not are_usable(cell[None])[0]:
        return False
    unwrapped = unwrap(z, pos, cell)
    return len(unwrapped.sizes) == 1 and not len(unwrapped.spans) and unwrapped.vacuum >= MIN_VACUUM


def _sizes(unwrapped: Unwrapped) -> str:
    sizes = list(map(str, unwrapped.sizes))
    more = [f"{len(sizes) - MOST_SIZES} more"] if len(sizes) > MOST_SIZES else []
    return f"{len(sizes)} pieces of {_listed([*sizes[: MOST_SIZES if more else None], *more])} atoms"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _kind(spans: np.ndarray) -> str:
    return {1: "a wire", 2: "a slab", 3: "a crystal"}[int(np.linalg.matrix_rank(spans))]


def _directions(spans: np.ndarray) -> str:
    """Names of independent lattice vectors, such as ``a and b`` or ``[1 1 0]``."""
    chosen: list[np.ndarray] = []
    for span in sorted(spans, key=lambda span: (np.count_nonzero(span), np.abs(span).sum())):
        if np.linalg.matrix_rank([*chosen, span]) > len(chosen):
            chosen.append(span)
    return _listed(sorted(_name(span) for span in chosen))


def _name(span: np.ndarray) -> str:
    (axes,) = np.nonzero(span)
    span = span * np.sign(span[axes[0]])
    return VECTORS[axes[0]] if len(axes) == 1 else f"[{' '.join(map(str, span))}]"


class NoCluster(BadFrame):
    """A frame that is not an isolated cluster."""


@dataclass(frozen=True)
class Joined:
    """Frames as isolated clusters."""

    pos: np.ndarray  #: Positions in Å ``[num_atoms, 3]``.
    moved: np.ndarray  #: Whether atoms of each frame were moved, ``[num_frames]``.
    problems: dict[int, str]  #: Reasons why frames are not isolated clusters, by the indices of these frames.


def join_frames(
    z: np.ndarray, pos: np.ndarray, ptr: np.ndarray, cell: np.ndarray, pbc: np.ndarray, fragments: Fragments = "refuse"
) -> Joined:
    """Join clusters across the periodic faces of their cells.

    Two atoms are bonded if images of them are closer than 1.5 times the sum of their covalent radii
    (:data:`~pyg_clusters.frames.periodic_bonds.BOND_FACTOR`). Atoms are moved by lattice vectors only where bonds cross
    a face; the first atom of a frame stays in place. The result is an isolated cluster if it is one piece, not bonded
    to its own image and at least 5 Å away from it (:data:`~pyg_clusters.frames.periodic_bonds.MIN_VACUUM`). Frames
    without a periodic direction are not changed. It is a problem if they would be joined by periodicity along the
    vectors of their cell, or if a cell is not finite or has linearly dependent vectors. Frames with positions that are
    not finite are not examined.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions in Å ``[num_atoms, 3]``.
        ptr: Offsets of the frames ``[num_frames + 1]``.
        cell: Lattice vectors in Å ``[num_frames, 3, 3]``, in rows; zero without a cell.
        pbc: Whether each lattice vector is periodic ``[num_frames, 3]``.
        fragments: ``"refuse"`` reports a periodic frame that remains in several pieces as a problem, ``"keep"`` places
            the pieces at their nearest images.

    Example:
        >>> cut = Atoms("Ga2", positions=[[0.1, 5.0, 5.0], [19.5, 5.0, 5.0]], cell=[20.0, 20.0, 20.0], pbc=True)
        >>> joined = join_frames(cut.numbers, cut.positions, np.array([0, 2]), cut.cell[None], cut.pbc[None])
        >>> joined.pos[:, 0].tolist(), joined.moved.tolist()
        ([0.1, -0.5], [True])
    """
    pos = np.asarray(pos, dtype=np.float64)
    moved = np.zeros(len(cell), dtype=bool)
    problems: dict[int, str] = {}
    if not cell.any():
        return Joined(pos, moved, problems)
    lattice = np.where(pbc[:, :, None], cell, 0.0)
    frames = np.flatnonzero(cell.any(axis=(1, 2)) & (np.diff(ptr) > 0) & all_of_frame(np.isfinite(pos), ptr))
    cells, of_frame = distinct(lattice[frames])
    usable = are_usable(cells)[of_frame]
    problems = {int(frame): cell_fault(lattice[frame]) for frame in frames[~usable]}
    frames = frames[usable]
    if not len(frames):
        return Joined(pos, moved, problems)
    atoms, part = _atoms_of(ptr, frames)
    positions, lattice = pos[atoms], lattice[frames]
    steps, whole = join_by_vacuum(z[atoms], positions, part, lattice)
    for index in np.flatnonzero(~whole):
        frame, inside = int(frames[index]), slice(part[index], part[index + 1])
        try:
            steps[inside] = join_by_bonds(z[atoms][inside], positions[inside], cell[frame], lattice[index], fragments)
        except NoClusterError as error:
            problems[frame] = str(error)
            steps[inside] = 0
    (crossing,) = np.nonzero(steps.any(axis=1))
    if not crossing.size:
        return Joined(pos, moved, problems)
    of_atom = np.repeat(np.arange(len(frames)), np.diff(part))[crossing]
    moved[frames[of_atom]] = True
    joined = pos.copy()
    joined[np.arange(len(z))[atoms][crossing]] += np.einsum("ai,aij->aj", steps[crossing], lattice[of_atom])
    return Joined(joined, moved, problems)


def _atoms_of(ptr: np.ndarray, frames: np.ndarray) -> tuple[slice | np.ndarray, np.ndarray]:
    """Index of the atoms of the given frames, in ascending order, and their offsets; a slice if these are all atoms."""
    return (slice(None), ptr) if len(frames) == len(ptr) - 1 else atoms_of(ptr, frames)


def pieces_without_cell(
    z: np.ndarray, pos: np.ndarray, ptr: np.ndarray, frames: np.ndarray
) -> Iterator[tuple[int, str]]:
    """Index and fault of each of the given frames (without a periodic cell) that is in pieces far apart, or in atoms.

    A cell that the file does not state may have cut it, or its positions may not be in Å: in bohr read as Å, atoms are
    1.6 to 2.2 bond lengths apart, and most have no bond. Pairs of atoms, as along the dissociation of a dimer, are not
    examined. The positions ``[num_atoms, 3]`` of the given frames are finite.
    """
    frames = frames[np.diff(ptr)[frames] > 2]
    if not len(frames):
        return
    atoms, part = _atoms_of(ptr, frames)
    z, pos = z[atoms], pos[atoms]
    relative = (pos - pos[part[:-1]].repeat(np.diff(part), axis=0)).T.astype(np.float32, order="C")
    for index in np.flatnonzero(~connected(z, relative, part, np.arange(len(frames)))):
        inside = slice(part[index], part[index + 1])
        if pieces := pieces_far_apart(z[inside], pos[inside]):
            yield (
                int(frames[index]),
                f"has no periodic cell, but is in {pieces}; if a cell cut it, "
                "or its positions are not in Å, state this (ASE: cell and pbc; XYZ: Lattice=... or length_unit=bohr in "
                f"the comment); otherwise pass {KEEP}",
            )


def pieces_far_apart(z: np.ndarray, pos: np.ndarray) -> str | None:
    """Number and sizes of the pieces of a structure without a cell, if they are far apart or mostly atoms.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions in Å ``[num_atoms, 3]``, finite.
    """
    unwrapped = unwrap(z, pos, np.zeros((3, 3)))
    mostly_single = 2 * np.count_nonzero(unwrapped.sizes == 1) > unwrapped.sizes.sum()
    if mostly_single or unwrapped.gap > TORN * 2 * covalent_radii[z].mean():
        return f"{_sizes(unwrapped)}, {unwrapped.gap:.1f} Å apart"
    return None


def as_clusters(block: FrameBlock, fragments: Fragments = "refuse") -> FrameBlock:
    """Join the frames of a block to isolated clusters; others are moved to :attr:`FrameBlock.unreadable`.

    ASE objects of the frames, if present, have the joined positions and are not periodic; they keep their cells and
    results.
    """
    if block.joined is not None:
        return block
    joined = join_frames(block.z, block.pos, block.ptr, block.cell, block.pbc, fragments)
    clusters = replace(block, pos=joined.pos, joined=joined.moved)
    if block.atoms is not None and block.periodic.any():
        makers = list(block.atoms.makers)
        for index in np.flatnonzero(block.periodic):
            inside = slice(block.ptr[index], block.ptr[index + 1])
            makers[index] = partial(_made, makers[index], joined.pos[inside])
        clusters.atoms = LazyAtoms(makers)
    if joined.problems:
        problems = joined.problems.items()
        bad = [NoCluster(block.file, int(block.number[index]), advised(text)) for index, text in problems]
        good = np.ones(len(block), dtype=bool)
        good[list(joined.problems)] = False
        clusters = clusters.select(good)
        clusters.partial = block.partial
        clusters.unreadable = sorted([*block.unreadable, *bad], key=lambda frame: frame.number)
    return clusters


def advised(problem: str) -> str:
    """Reason why a frame is not an isolated cluster, with advice."""
    if problem.startswith(IN_PIECES):
        return f"{problem}; pass {KEEP} to place them at their nearest images"
    return f"{problem}; if it is nevertheless an isolated cluster, remove the cell"


def _made(maker: Callable[[], Atoms], pos: np.ndarray) -> Atoms:
    return isolated(maker(), pos)


def reporting_joined(blocks: Iterable[FrameBlock]) -> Iterator[FrameBlock]:
    """Yield the blocks, and warn at the end how many frames were joined."""
    joined = total = 0
    for block in blocks:
        joined += block.num_joined
        total += len(block)
        yield block
    warn_of_joined(joined, total)


def warn_of_joined(joined: int, frames: int):
    """Warn how many frames were joined, if any."""
    if joined:
        warnings.warn(f"joined {joined:,} of {frames:,} frames across the faces of their cells", stacklevel=2)


def isolated(atoms: Atoms, pos: np.ndarray) -> Atoms:
    """Copy of a frame with other positions ``[num_atoms, 3]`` in Å, not periodic, with its results."""
    cluster = atoms.copy()
    cluster.positions = pos
    cluster.pbc = False
    if isinstance(atoms.calc, SinglePointCalculator):
        cluster.calc = copy.copy(atoms.calc)
        cluster.calc.atoms = cluster.copy()
    return cluster


def all_of_frame(good: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Whether all coordinates of each frame are good, from ``[num_atoms, 3]``."""
    if good.all():
        return np.ones(len(ptr) - 1, dtype=bool)
    return np.diff(np.concatenate([[0], np.cumsum(~good.all(axis=1))])[ptr]) == 0
