"""Binary trajectories that hold positions only, by MDAnalysis."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.frames.ase_reader import one_line
from pyg_clusters.frames.block import FrameBlock, LazyAtoms
from pyg_clusters.frames.compression import unpacked
from pyg_clusters.frames.formats import file_format
from pyg_clusters.frames.one_by_one import read_topology
from pyg_clusters.frames.read_options import Keep, ReadOptions, TruncatedFrame, cut_frame
from pyg_clusters.frames.trajectory_end import whole_frames


def check_trajectory(path: Path, topology: Path | None):
    """Checks that a file of positions can be read.

    Raises:
        MissingExtra: If MDAnalysis is not installed.
        InputError: If nothing says what the atoms are.
    """
    _reader_class(path)
    if topology is None:
        raise InputError(
            f"{path}: {file_format(path)} holds positions only; say what the atoms are with --topology FILE "
            "(of predict and convert; topology= in Python), any file with a frame of the same atoms in the same order"
        )


def trajectory_blocks(path: Path, wanted: ReadOptions, keep: Keep) -> Iterator[FrameBlock | None]:
    """Blocks of a trajectory, none in place of one that is passed over.

    Raises:
        InputError: If it cannot be read, holds other atoms than the topology, or labels are wanted of it.
    """
    if wanted.properties or wanted.atom_properties:
        key = (*wanted.properties, *wanted.atom_properties)[0]
        raise InputError(f"{path}: no property {key!r}; {file_format(path)} holds positions only")
    with _opened(path, wanted) as (reader, z, cut):
        num_frames = reader.n_frames
        for number, first in enumerate(range(0, num_frames, wanted.block_size)):
            end = min(first + wanted.block_size, num_frames)
            block = _read(path, reader, z, first, end, wanted) if keep(number) else None
            if cut and block is not None and end == num_frames:
                block.unreadable = [cut_frame(TruncatedFrame, path, num_frames)]
            yield block


def num_frames_of_trajectory(path: Path, wanted: ReadOptions) -> int:
    """Number of frames of a trajectory.

    Raises:
        InputError: If it cannot be read, or holds other atoms than the topology.
    """
    with _opened(path, wanted) as (reader, _, _):
        return reader.n_frames


@contextmanager
def _opened(path: Path, wanted: ReadOptions):
    """MDAnalysis' reader, the atomic numbers ``[num_atoms]``, and whether a frame is cut behind the whole ones."""
    check_trajectory(path, wanted.topology)
    assert wanted.topology is not None
    z = read_topology(wanted.topology).numbers
    try:
        with (
            unpacked(path) as copy,
            _without_rest(copy, file_format(path)) as (whole, cut),
            _reader(path, whole, len(z)) as reader,
        ):
            if reader.n_atoms != len(z):
                raise InputError(f"{path}: {reader.n_atoms} atoms, but {wanted.topology} has {len(z)}")
            yield reader, z, cut
    except InputError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: cannot be read as {file_format(path)} ({one_line(error)})") from error


@contextmanager
def _without_rest(path: Path, kind: str) -> Iterator[tuple[Path, bool]]:
    """A path with the whole frames of a file, its own where there are no others, and whether there is a rest."""
    _, end = whole_frames(path, kind)
    if end == path.stat().st_size:
        yield path, False
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with path.open("rb") as source, copy.open("wb") as target:
            while (left := end - target.tell()) > 0:
                target.write(source.read(min(left, 1 << 24)))
        yield copy, True


def _reader(path: Path, copy: Path, num_atoms: int):
    reader_class = _reader_class(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units and time steps, which are not used
        return reader_class(str(copy), n_atoms=num_atoms)


def _read(path: Path, reader, z: np.ndarray, first: int, end: int, wanted: ReadOptions) -> FrameBlock:
    pos = reader.timeseries(start=first, stop=end, order="fac")
    num_frames = len(pos)
    cell = _cells(reader, first, end)
    block = FrameBlock(
        file=str(path),
        number=np.arange(first, first + num_frames),
        z=np.tile(z, num_frames),
        pos=pos.reshape(-1, 3).astype(np.float64),
        ptr=np.arange(num_frames + 1) * len(z),
        cell=cell,
        pbc=np.asarray(cell.any(axis=2)),
    )
    if wanted.with_atoms:
        block.atoms = LazyAtoms(partial(Atoms, numbers=z, positions=p, cell=c) for p, c in zip(pos, cell, strict=True))
    return block


def _cells(reader, first: int, end: int) -> np.ndarray:
    """Lattice vectors of each frame in Å ``[num_frames, 3, 3]``, zero where there is no cell."""
    lengths_and_angles = [reader[frame].dimensions for frame in range(first, end)]
    known = [np.zeros(6) if found is None else np.asarray(found, dtype=float) for found in lengths_and_angles]
    cells = {tuple(found): cellpar_to_cell(found) if found.all() else np.diag(found[:3]) for found in known}
    return np.array([cells[tuple(found)] for found in known]).reshape(-1, 3, 3)


def _reader_class(path: Path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from MDAnalysis.coordinates.core import get_reader_for
    except ImportError as error:
        raise MissingExtra("MDAnalysis", "traj", f"reading {file_format(path)} trajectories") from error
    return get_reader_for(str(path), format=file_format(path))
