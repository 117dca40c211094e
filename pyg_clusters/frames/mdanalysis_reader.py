"""Reader of binary trajectories with MDAnalysis."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from pyg_clusters.errors import InputError, MissingExtra, MissingProperty, describe_error
from pyg_clusters.frames.block import (
    BadFrame,
    FrameBlock,
    Keep,
    LazyAtoms,
    ReadOptions,
    Topology,
    TruncatedFrame,
    cut_frame,
)
from pyg_clusters.frames.electronic_state import stated_states
from pyg_clusters.frames.paths import file_format, unpacked

SAME_DISTANCES: float = 0.2
"""Largest root mean square change in Å of the distances from an atom to all others, in the same structure."""

MAX_ATOMS_OF_KNOWN_ORDER: int = 2000
"""Largest number of atoms for which the order of the atoms is compared with that of the topology."""


def check_trajectory(path: Path, topology: Path | None):
    """Check that a trajectory can be read.

    Raises:
        MissingExtra: If MDAnalysis is not installed.
        InputError: If there is no topology.
    """
    _opener(path)
    if topology is None:
        raise InputError(
            f"{path}: {file_format(path)} holds positions only; give the elements with --topology FILE (for predict "
            "and convert; topology= in Python), a file with a frame of the same atoms in the same order"
        )


def trajectory_blocks(path: Path, options: ReadOptions, keep: Keep, topology: Topology) -> Iterator[FrameBlock | None]:
    """Read the blocks of a trajectory, with ``None`` in place of each skipped block."""
    if options.properties or options.atom_properties:
        key = (*options.properties, *options.atom_properties)[0]
        raise MissingProperty(f"{path}: no property {key!r}; {file_format(path)} holds positions only")
    with _opened(path, topology) as (trajectory, num_frames, cut):
        _check_order(path, topology, _read(path, trajectory, topology, 0, 1, options).pos)
        for number, first in enumerate(range(0, num_frames, options.block_size)):
            end = min(first + options.block_size, num_frames)
            block = _read(path, trajectory, topology, first, end, options) if keep(number) else None
            if cut and block is not None and end == num_frames:
                block.unreadable.append(cut_frame(TruncatedFrame, path, num_frames))
            yield block


def _check_order(path: Path, topology: Topology, pos: np.ndarray):
    """Check that the atoms of a topology are in the order of those of a trajectory with positions ``pos`` in Å.

    This is known if the first frame is the structure of the topology: then the distances of an atom to all others are
    nearly those of one atom of the topology, which must be of the same index or element.
    """
    if len(set(topology.numbers)) < 2 or not 0 < len(pos) <= MAX_ATOMS_OF_KNOWN_ORDER:
        return
    known, found = (np.sort(cdist(points, points), axis=1) for points in (topology.pos, pos))
    if np.sqrt(np.square(found - known).mean(axis=1)).max() <= SAME_DISTANCES:  # the same structure in the same order
        return
    change = cdist(found, known) / len(pos) ** 0.5
    atoms, alike = linear_sum_assignment(change)
    same_structure = change[atoms, alike].max() < SAME_DISTANCES
    moved = np.flatnonzero(change[atoms, atoms] > change[atoms, alike] + SAME_DISTANCES)
    wrong = moved[topology.numbers[alike[moved]] != topology.numbers[moved]]
    if same_structure and wrong.size:
        atom = int(wrong[0])
        raise InputError(
            f"{path}: the atoms are in another order than in {topology.file}: atom {atom} has the neighbours of atom "
            f"{alike[atom]} there; give a topology in the order of the trajectory"
        )


def num_frames_of_trajectory(path: Path, topology: Topology) -> int:
    """Number of frames of a trajectory."""
    with _opened(path, topology) as (_, num_frames, _):
        return num_frames


@contextmanager
def _opened(path: Path, topology: Topology):
    """Open a trajectory with MDAnalysis; yield it, the number of complete frames, and whether a part of one follows."""
    try:
        with unpacked(path) as copy, _quietly_opened(path, copy) as trajectory:
            if trajectory.n_atoms != len(topology.numbers):
                raise InputError(f"{path}: {trajectory.n_atoms} atoms, but {topology.file} has {len(topology.numbers)}")
            num_frames, end = _complete(trajectory)
            yield trajectory, num_frames, end < copy.stat().st_size
    except InputError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, IndexError) as error:
        fault = "it is corrupted, or ends within its first frame; copy it again"
        if _is_concatenated(path):
            fault = "it consists of several DCD files, one after the other; give each as a file of its own"
        raise InputError(f"{path}: cannot be read as {file_format(path)} ({describe_error(error)}); {fault}") from error


def _is_concatenated(path: Path) -> bool:
    """Whether the beginning of a DCD file occurs again in it."""
    with unpacked(path) as copy, copy.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        before = content.find(b"CORD", 0, 16)
        return before >= 0 and content.find(content[: before + 4], 1) >= 0


def _complete(trajectory) -> tuple[int, int]:
    """Number of complete frames, and the offset in bytes at the end of the last of them."""
    if hasattr(trajectory, "timeseries"):
        num_frames, file = trajectory.n_frames, trajectory._file
        return num_frames, file._header_size + file._firstframesize + (num_frames - 1) * file._framesize
    num_frames = len(trajectory.offsets)
    try:
        _frame(trajectory, num_frames - 1)
    except OSError:  # an incomplete frame is counted if its size is known
        num_frames -= 1
        _frame(trajectory, num_frames - 1)
    return num_frames, trajectory._bytes_tell()


def _frame(trajectory, number: int):
    """Frame of an XTC or TRR, with its positions ``x`` and lattice vectors ``box`` in nm."""
    trajectory.seek(number)
    return trajectory.read()


def _read(path: Path, trajectory, topology: Topology, first: int, end: int, options: ReadOptions) -> FrameBlock:
    z, info = topology.numbers, topology.info
    unreadable: list[BadFrame] = []
    if hasattr(trajectory, "timeseries"):
        pos = trajectory.timeseries(start=first, stop=end, order="fac")
        cell = _cells(trajectory, first, end)
        numbers = list(range(first, first + len(pos)))
    else:
        frames = {number: _frame(trajectory, number) for number in range(first, end)}
        empty = [number for number, frame in frames.items() if not getattr(frame, "hasx", True)]  # its x is arbitrary
        unreadable = [BadFrame(str(path), number, "holds velocities or forces, but no positions") for number in empty]
        frames = {number: frame for number, frame in frames.items() if number not in empty}
        pos = np.array([frame.x for frame in frames.values()]).reshape(-1, len(z), 3) * 10
        cell = np.array([frame.box for frame in frames.values()]).reshape(-1, 3, 3) * 10
        numbers = list(frames)
    num_frames = len(pos)
    block = FrameBlock(
        file=str(path),
        number=np.array(numbers, dtype=np.int64),
        z=np.tile(z, num_frames),
        pos=pos.reshape(-1, 3).astype(np.float64),
        ptr=np.arange(num_frames + 1) * len(z),
        cell=cell.astype(np.float64),
        pbc=np.asarray(cell.any(axis=2)),
        unreadable=unreadable,
        states=stated_states([Atoms(z, info=info)] * num_frames) if info else None,
    )
    if options.with_atoms:
        of_frames = zip(pos, cell, strict=True)
        block.atoms = LazyAtoms(partial(Atoms, numbers=z, positions=p, cell=c, info=info) for p, c in of_frames)
    return block


def _cells(trajectory, first: int, end: int) -> np.ndarray:
    """Lattice vectors of each frame in Å ``[num_frames, 3, 3]``, zero without a cell."""
    lengths_and_angles = [trajectory[frame].dimensions for frame in range(first, end)]
    known = [np.zeros(6) if found is None else np.asarray(found, dtype=float) for found in lengths_and_angles]
    cells = {tuple(found): cellpar_to_cell(found) if found.all() else np.diag(found[:3]) for found in known}
    return np.array([cells[tuple(found)] for found in known]).reshape(-1, 3, 3)


def _quietly_opened(path: Path, copy: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about units and time steps, which are not used
        return _opener(path)(str(copy))


def _opener(path: Path):
    """Class that opens a trajectory: MDAnalysis's reader of DCD files, or its file class for XTC or TRR.

    MDAnalysis's readers of XTC and TRR fail if the second frame is incomplete, and write files next to the trajectory.
    """
    kind = file_format(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from MDAnalysis.coordinates.DCD import DCDReader
            from MDAnalysis.lib.formats.libmdaxdr import TRRFile, XTCFile
    except ImportError as error:
        raise MissingExtra("MDAnalysis", "traj", f"reading {kind} trajectories") from error
    return {"DCD": DCDReader, "XTC": XTCFile, "TRR": TRRFile}[kind]
