"""Join clusters that the faces of a periodic cell cut."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame, FrameBlock, LazyAtoms, makers_of
from pyg_clusters.frames.join_by_bonds import IN_PIECES, NoClusterError, are_usable, cell_fault, join_by_bonds
from pyg_clusters.frames.quick_join import distinct, join_by_vacuum
from pyg_clusters.options.common import Fragments


class NoCluster(BadFrame):
    """A frame that is periodic and no isolated cluster."""


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

    Two atoms are bonded if images of them are closer than 1.5 times the sum of their covalent radii
    (:data:`~pyg_clusters.frames.periodic_bonds.BOND_FACTOR`). Atoms are moved by lattice vectors, and only where bonds
    cross a face; the first atom of a frame stays. The result is an isolated cluster if it is one piece, not bonded to
    its own image and at least 5 Å away from it (:data:`~pyg_clusters.frames.periodic_bonds.MIN_VACUUM`). Frames without
    a periodic direction stay as they are, but for those that their cell would join: these are a problem, too. So are
    cells that are not finite or whose vectors are not independent. Frames with positions that are not finite are passed
    over.

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
    if not cell.any():
        return Joined(pos, moved, problems)
    lattice = np.where(pbc[:, :, None], cell, 0.0)
    frames = np.flatnonzero(cell.any(axis=(1, 2)) & (np.diff(ptr) > 0) & _finite_frames(pos, ptr))
    cells, of_frame = distinct(lattice[frames])
    usable = are_usable(cells)[of_frame]
    problems = {int(frame): cell_fault(lattice[frame]) for frame in frames[~usable]}
    frames = frames[usable]
    if not len(frames):
        return Joined(pos, moved, problems)
    atoms, part = _atoms_of(ptr, frames)
    positions, lattice = pos[atoms], lattice[frames]
    steps, whole = join_by_vacuum(z[atoms], positions, part, lattice)
    for place in np.flatnonzero(~whole):
        frame, inside = int(frames[place]), slice(part[place], part[place + 1])
        try:
            steps[inside] = join_by_bonds(z[atoms][inside], positions[inside], cell[frame], lattice[place], fragments)
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
    """The atoms of some frames, and the offsets of these frames among them."""
    if len(frames) == len(ptr) - 1:
        return slice(None), ptr
    sizes = np.diff(ptr)[frames]
    part = np.concatenate([[0], np.cumsum(sizes)])
    return np.arange(part[-1]) + np.repeat(ptr[frames] - part[:-1], sizes), part


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
        problems = found.problems.items()
        bad = [NoCluster(block.file, int(block.number[place]), _advised(text)) for place, text in problems]
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
    finite = np.isfinite(pos)
    if finite.all():
        return np.ones(len(ptr) - 1, dtype=bool)
    finite = finite.all(axis=1)
    return np.diff(np.concatenate([[0], np.cumsum(~finite)])[ptr]) == 0
