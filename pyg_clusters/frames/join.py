"""Join clusters that the faces of a periodic cell cut."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame, FrameBlock, LazyAtoms, makers_of
from pyg_clusters.frames.periodic_bonds import BOND_FACTOR, MIN_VACUUM, Unwrapped, reach_of, unwrap
from pyg_clusters.frames.wanted import Fragments

FARTHEST: float = 1e6
"""Atoms more cells away from the origin than this have lost the digits that say where they are."""

DEPENDENT: float = 1e-12
"""Vectors are not independent below this square of the volume that they would span, were they of length one."""

PAIRS_AT_ONCE: int = 1 << 18
DENSE: int = 256
"""Clusters up to this size are tested for one piece by all their pairs of atoms."""

VECTORS = "abc"
IN_PIECES = "stays in"
MOST_SIZES = 5
"""So many sizes of pieces are named."""


@dataclass(frozen=True)
class Joined:
    """Frames as isolated clusters.

    Attributes:
        pos: Positions in Å ``[num_atoms, 3]``.
        moved: Whether atoms of a frame were moved, ``[num_frames]``.
        problems: Why a frame is no isolated cluster, by its index.
    """

    pos: np.ndarray
    moved: np.ndarray
    problems: dict[int, str]


def join_frames(
    z: np.ndarray,
    pos: np.ndarray,
    ptr: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    fragments: Fragments = "refuse",
) -> Joined:
    """Join clusters over the periodic faces of their cells.

    Two atoms are bonded if their nearest images are closer than :data:`BOND_FACTOR` times the sum of their covalent
    radii. Atoms are moved by lattice vectors, and only where bonds cross a face; the first atom of a frame stays. The
    result is an isolated cluster, if it is one piece, not bonded to its own image and at least :data:`MIN_VACUUM` away
    from it. Frames without a periodic direction stay as they are, but for those that their cell would join: these are a
    problem, too. So are cells that are not finite or whose vectors are not independent. Frames with positions that are
    not finite are passed over.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions in Å ``[num_atoms, 3]``.
        ptr: Offsets of the frames ``[num_frames + 1]``.
        cell: Lattice vectors in Å ``[num_frames, 3, 3]``, in rows; zero where there is none.
        pbc: Which of them are periodic ``[num_frames, 3]``.
        fragments: ``"keep"`` places the pieces of a frame that stays in several at their nearest images.

    Example:
        >>> cut = Atoms("Ga2", positions=[[0.1, 5.0, 5.0], [19.5, 5.0, 5.0]], cell=[20.0, 20.0, 20.0], pbc=True)
        >>> joined = join_frames(cut.numbers, cut.positions, np.array([0, 2]), cut.cell[None], cut.pbc[None])
        >>> joined.pos[:, 0].tolist(), joined.moved.tolist()
        ([0.1, -0.5], [True])
    """
    pos = np.asarray(pos, dtype=np.float64)
    moved = np.zeros(len(cell), dtype=bool)
    problems: dict[int, str] = {}
    has_cell = cell.any(axis=(1, 2)) & (np.diff(ptr) > 0)
    if not has_cell.any():
        return Joined(pos, moved, problems)
    pbc = pbc & cell.any(axis=2)
    lattice = np.where(pbc[:, :, None], cell, 0.0)
    usable = has_cell & _finite_frames(pos, ptr)
    for frame, reason in _unusable_cells(lattice, usable):
        problems[frame] = reason
        usable[frame] = False
    joined = pos
    for frames, atoms in _alike(ptr, np.flatnonzero(usable)):
        numbers, positions = z[atoms], pos[atoms]
        shift, whole = _by_vacuum(numbers, positions, lattice[frames])
        moves = np.asarray(shift.any(axis=(1, 2)))
        positions[moves] += shift[moves]
        whole &= _is_bonded(numbers, positions)
        for place in np.flatnonzero(~whole):
            frame = int(frames[place])
            found = _by_bonds(numbers[place], pos[atoms[place]], cell[frame], lattice[frame], fragments)
            if isinstance(found, str):
                problems[frame] = found
                found = np.zeros_like(pos[atoms[place]])
            positions[place] = pos[atoms[place]] + found
            moves[place] = found.any()
        if moves.any():
            joined = pos.copy() if joined is pos else joined
            joined[atoms[moves]] = positions[moves]
            moved[frames] = moves
    return Joined(joined, moved, problems)


def as_clusters(block: FrameBlock, fragments: Fragments = "refuse") -> FrameBlock:
    """The frames of a block as isolated clusters, those that are none among :attr:`FrameBlock.unreadable`.

    ASE's frames, where they are there, are at the same positions and not periodic; cell and results are kept.
    """
    if block.joined is not None:
        return block
    found = join_frames(block.z, block.pos, block.ptr, block.cell, block.pbc, fragments)
    clusters = replace(block, pos=found.pos, joined=found.moved)
    if block.atoms is not None and block.periodic.any():
        makers = list(makers_of(block.atoms))
        for place in np.flatnonzero(block.periodic):
            inside = slice(block.ptr[place], block.ptr[place + 1])
            makers[place] = partial(_made, makers[place], found.pos[inside])
        clusters.atoms = LazyAtoms(makers)
    if found.problems:
        bad = [BadFrame(block.file, int(block.number[place]), _advised(text)) for place, text in found.problems.items()]
        good = np.ones(len(block), dtype=bool)
        good[list(found.problems)] = False
        clusters = clusters.select(good)
        clusters.partial = block.partial
        clusters.unreadable = sorted([*block.unreadable, *bad], key=lambda frame: frame.number)
    return clusters


def _advised(problem: str) -> str:
    if problem.startswith(IN_PIECES):
        return f'{problem}; pass --fragments keep (fragments="keep") to take them at their nearest images'
    return f"{problem}; if it is an isolated cluster all the same, remove the cell"


def _made(maker: Callable[[], Atoms], pos: np.ndarray) -> Atoms:
    return isolated(maker(), pos)


def reporting_joined(blocks: Iterable[FrameBlock]) -> Iterator[FrameBlock]:
    """Passes blocks on, and warns in the end of how many of their frames were joined."""
    joined = total = 0
    for block in blocks:
        joined += 0 if block.joined is None else int(block.joined.sum())
        total += len(block)
        yield block
    warn_of_joined(joined, total)


def warn_of_joined(joined: int, frames: int):
    """Says once how many frames were joined, if any were."""
    if joined:
        warnings.warn(f"joined {joined:,} of {frames:,} frames over the faces of their cells", stacklevel=2)


def join_atoms(atoms: Atoms, fragments: Fragments = "refuse") -> Atoms:
    """A copy of a cluster that is joined over the faces of its cell and not periodic any more; the cell is kept.

    Args:
        atoms: The cluster, periodic or not.
        fragments: See :func:`join_frames`.

    Raises:
        InputError: If it is no isolated cluster.

    Example:
        >>> cut = Atoms("Ga2", positions=[[0.1, 5.0, 5.0], [17.5, 5.0, 5.0]], cell=[20.0, 20.0, 20.0], pbc=True)
        >>> joined = join_atoms(cut)
        >>> round(float(joined.get_distance(0, 1)), 3), bool(joined.pbc.any())
        (2.6, False)
    """
    ptr = np.array([0, len(atoms)])
    joined = join_frames(atoms.numbers, atoms.positions, ptr, atoms.cell.array[None], atoms.pbc[None], fragments)
    if joined.problems:
        raise InputError(f"the structure {joined.problems[0]}")
    return isolated(atoms, joined.pos)


def isolated(atoms: Atoms, pos: np.ndarray) -> Atoms:
    """A copy of a frame with other positions ``[num_atoms, 3]`` in Å that is not periodic, with the results it has."""
    cluster = atoms.copy()
    cluster.positions = pos
    cluster.pbc = False
    if isinstance(atoms.calc, SinglePointCalculator):
        cluster.calc = copy.copy(atoms.calc)
        cluster.calc.atoms = cluster.copy()
    return cluster


def _finite_frames(pos: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    finite = np.isfinite(pos).all(axis=1)
    if finite.all():
        return np.ones(len(ptr) - 1, dtype=bool)
    return np.diff(np.concatenate([[0], np.cumsum(~finite)])[ptr]) == 0


def _unusable_cells(lattice: np.ndarray, usable: np.ndarray) -> Iterator[tuple[int, str]]:
    """Frames whose periodic cell says nothing, with the reason."""
    frames = np.flatnonzero(usable)
    finite = np.isfinite(lattice[frames]).all(axis=(1, 2))
    for frame in frames[~finite]:
        yield int(frame), f"has the cell {lattice[frame].tolist()}, which is not finite"
    frames = frames[finite]
    lengths = np.linalg.norm(lattice[frames], axis=2)
    unit = lattice[frames] / np.where(lengths > 0, lengths, 1.0)[:, :, None]
    gram = unit @ unit.transpose(0, 2, 1) + np.eye(3) * (lengths == 0)[:, :, None]
    for frame in frames[np.linalg.det(gram) < DEPENDENT]:
        yield int(frame), f"has a periodic cell whose vectors are not independent: {lattice[frame].tolist()}"


def _alike(ptr: np.ndarray, frames: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some frames of one size at a time, with their atoms ``[frames, size]``."""
    sizes = np.diff(ptr)[frames]
    for size in np.unique(sizes).tolist():
        of_size = frames[sizes == size]
        step = max(1, PAIRS_AT_ONCE // size**2)
        for first in range(0, len(of_size), step):
            some = of_size[first : first + step]
            yield some, ptr[some][:, None] + np.arange(size)


def _by_vacuum(z: np.ndarray, pos: np.ndarray, lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join frames that have a slab of vacuum along each periodic direction.

    Returns:
        Displacements ``[frames, size, 3]``, and for which frames there is such vacuum: atoms between the slabs are
        within reach of no image, and bonds are plain distances.
    """
    shift = np.zeros_like(pos)
    cells, of_frame = np.unique(lattice.reshape(len(lattice), 9), axis=0, return_inverse=True)
    dual = np.linalg.pinv(cells.reshape(-1, 3, 3))[of_frame.ravel()]  # [frames, 3, 3]
    needed = reach_of(z) * np.linalg.norm(dual, axis=1)  # of each vector, zero where it is not periodic
    fractions = pos @ (dual[0] if len(cells) == 1 else dual)
    fractions = fractions.transpose(0, 2, 1) - fractions[:, :1].transpose(0, 2, 1)  # [frames, 3, size]
    steps = np.rint(fractions)
    near = (np.abs(steps) < FARTHEST).all(axis=(1, 2))
    whole = near & (1 - np.ptp(fractions - steps, axis=2) >= needed).all(axis=1)
    wide = np.flatnonzero(near & ~whole)
    if wide.size:
        steps[wide], whole[wide] = _steps_over_gaps(fractions[wide], needed[wide])
    cut = np.flatnonzero(whole & steps.any(axis=(1, 2)))
    shift[cut] = -steps[cut].transpose(0, 2, 1) @ lattice[cut]
    return shift, whole


def _steps_over_gaps(fractions: np.ndarray, needed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As above, from fractional coordinates ``[frames, 3, size]``: atoms begin behind the widest gap between them."""
    inside = np.sort(fractions - np.floor(fractions), axis=2)
    gaps = np.diff(inside, axis=2, append=inside[:, :, :1] + 1)
    widest = gaps.argmax(axis=2)[:, :, None]
    gap = np.take_along_axis(gaps, widest, axis=2)
    steps = np.floor(fractions - np.take_along_axis(inside, widest, axis=2) - gap / 2)
    return steps - steps[:, :, :1], np.asarray((gap[:, :, 0] >= needed).all(axis=1))


def in_one_piece(z: np.ndarray, pos: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Whether all atoms of a frame are bonded to each other, directly or by others, as it stands, ``[num_frames]``.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions in Å ``[num_atoms, 3]``.
        ptr: Offsets of the frames ``[num_frames + 1]``.
    """
    whole = np.ones(len(ptr) - 1, dtype=bool)
    for frames, atoms in _alike(ptr, np.flatnonzero(_finite_frames(pos, ptr) & (np.diff(ptr) > 0))):
        whole[frames] = _is_bonded(z[atoms], pos[atoms])
    return whole


def _is_bonded(z: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """As above, for atomic numbers ``[frames, size]`` and positions ``[frames, size, 3]``."""
    num_frames, size, _ = pos.shape
    if size > DENSE:
        return np.array([_is_one_piece(*frame) for frame in zip(z, pos, strict=True)], dtype=bool)
    radii = (BOND_FACTOR * covalent_radii).astype(np.float32)[z]
    pos = (pos - pos.mean(axis=1, keepdims=True)).astype(np.float32)
    own = np.einsum("fni,fni->fn", pos, pos)
    start = own.argmin(axis=1)
    own -= radii * radii
    # The square of the distance of i and j less that of the sum of their radii is a product of matrices.
    of_i = np.empty((num_frames, size, 6), dtype=np.float32)
    of_j = np.zeros((num_frames, -(-size // 8) * 8, 6), dtype=np.float32)  # so that 8 of them are one word
    of_i[..., :3], of_i[..., 3], of_i[..., 4], of_i[..., 5] = pos, radii, own, 1
    of_j[:, :size, :3], of_j[:, :size, 3], of_j[:, :size, 4], of_j[:, :size, 5] = -2 * pos, -2 * radii, 1, own
    bonded = (of_i @ of_j.transpose(0, 2, 1) < 0).view(np.uint64)  # [frames, size, words]
    reached = bonded[np.arange(num_frames), start]
    number = reached.view(bool).sum(axis=1)
    while True:
        marked = reached.view(bool)[:, :size]
        reached = np.bitwise_or.reduce(np.where(marked[:, :, None], bonded, np.uint64(0)), axis=1)
        before, number = number, reached.view(bool).sum(axis=1)
        if ((number == size) | (number == before)).all():
            return number == size


def _is_one_piece(z: np.ndarray, pos: np.ndarray) -> bool:
    radii = BOND_FACTOR * covalent_radii[z]
    pairs = cKDTree(pos).query_pairs(2 * radii.max(), output_type="ndarray")
    i, j = pairs.T
    bonded = np.linalg.norm(pos[i] - pos[j], axis=1) < radii[i] + radii[j]
    graph = csr_array((np.ones(bonded.sum()), (i[bonded], j[bonded])), shape=(len(pos), len(pos)))
    return connected_components(graph, directed=False)[0] == 1


def _by_bonds(
    z: np.ndarray, pos: np.ndarray, cell: np.ndarray, lattice: np.ndarray, fragments: Fragments
) -> np.ndarray | str:
    """Displacements ``[size, 3]`` that join a frame along its bonds, or why it is no isolated cluster."""
    away = np.abs(pos @ np.linalg.pinv(lattice)).max()
    if away > FARTHEST:
        return f"has an atom {away:.0e} cells away from the origin"
    found = unwrap(z, pos, lattice)
    if len(found.spans):
        return f"is connected to its own image along {_directions(found.spans)}: {_kind(found.spans)}, no cluster"
    if len(found.sizes) > 1 and fragments == "refuse":
        return _pieces(found, z, pos, cell, lattice)
    if found.vacuum < MIN_VACUUM:
        return f"is only {found.vacuum:.1f} Å from its periodic image, less than {MIN_VACUUM} Å of vacuum: no cluster"
    return (found.shift - found.shift[0]) @ lattice


def _pieces(
    found: Unwrapped, z: np.ndarray, pos: np.ndarray, cell: np.ndarray, lattice: np.ndarray
) -> np.ndarray | str:
    """Why a frame that stays in several pieces is no cluster; one that is not periodic is left as it is."""
    periodic = lattice.any(axis=1)
    further = cell.any(axis=1) & ~periodic
    text = f"{IN_PIECES} {_sizes(found)}, {found.gap:.1f} Å apart"
    if further.any() and _would_join(z, pos, cell):
        named = _listed([VECTORS[axis] for axis in np.flatnonzero(further)])
        return f"{text}, but would be one across the faces along {named}, where pbc is F: set it to T"
    return text if periodic.any() else np.zeros_like(pos)


def _would_join(z: np.ndarray, pos: np.ndarray, cell: np.ndarray) -> bool:
    """Whether a frame would be one isolated cluster, were its cell periodic in all directions."""
    if any(_unusable_cells(cell[None], np.ones(1, dtype=bool))):
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
