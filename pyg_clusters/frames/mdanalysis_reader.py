"""Reader of binary trajectories by MDAnalysis."""

import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from pyg_clusters.errors import InputError, MissingExtra, describe_error
from pyg_clusters.frames.block import FrameBlock, Keep, LazyAtoms, ReadOptions, Topology, TruncatedFrame, cut_frame
from pyg_clusters.frames.paths import file_format, unpacked

XTC_HEADER: int = 52
"""Number of bytes of an XTC frame before the number of atoms at the start of its positions."""

XTC_NARROW, XTC_WIDE = 1995, 2023
"""Magic numbers of XTC frames; frames with the second one store sizes in eight bytes."""

TRR_MAGIC: int = 1993
"""Magic number of TRR frames."""

TRR_SIZES: int = 10
"""Number of sizes in the header of a TRR frame."""


def whole_frames(path: Path, kind: str) -> tuple[int, int]:
    """Number of complete frames of a trajectory, and the offset in bytes at which the last of them ends.

    Args:
        path: The file.
        kind: ``"DCD"``, ``"XTC"`` or ``"TRR"``.

    Raises:
        OSError: If the first frame is incomplete, or the file has another format.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if kind == "DCD":
            first, of_frame = _dcd_sizes(stream)
            number = (size - first) // of_frame
            return number, first + number * of_frame
        number = end = 0
        while end < size:
            try:
                of_frame = _xtc_size(stream) if kind == "XTC" else _trr_size(stream)
            except struct.error:  # within the header of a frame
                break
            if of_frame <= 0 or end + of_frame > size:
                break
            number, end = number + 1, end + of_frame
            stream.seek(end)
    if not number:
        raise OSError("the file ends within its first frame")
    return number, end


def _dcd_sizes(stream: BinaryIO) -> tuple[int, int]:
    """Number of bytes before the first frame, and of each frame.

    Raises:
        OSError: If there is no complete frame.
    """
    start = stream.read(4)
    order = {struct.pack("<i", 84): "<", struct.pack(">i", 84): ">"}.get(start, "")
    if not order:
        raise OSError("the file does not start like a DCD")
    stream.seek(0)
    control = _record(stream, order)
    for _ in range(2):
        _record(stream, order)
    first = stream.tell()
    has_cell, has_fourth = struct.unpack(f"{order}2i", control[44:52])
    for _ in range(3 + bool(has_cell) + bool(has_fourth)):
        _record(stream, order)
    return first, stream.tell() - first


def _record(stream: BinaryIO, order: str) -> bytes:
    """Next record of a Fortran file, which is enclosed by two copies of its length."""
    try:
        (length,) = struct.unpack(f"{order}i", stream.read(4))
        content = stream.read(max(0, length))
        (again,) = struct.unpack(f"{order}i", stream.read(4))
    except struct.error:
        raise OSError("the file ends within its first frame") from None
    if length != again:
        raise OSError("the file is not a DCD, or is damaged")
    return content


def _xtc_size(stream: BinaryIO) -> int:
    """Number of bytes of the XTC frame at the current position."""
    head = stream.read(XTC_HEADER + 4)
    magic, num_atoms = struct.unpack(">2i", head[:8])
    if magic not in (XTC_NARROW, XTC_WIDE):
        raise OSError("a frame does not start like those of an XTC")
    if num_atoms <= 9:  # not compressed
        return XTC_HEADER + 4 + 12 * num_atoms
    stream.seek(32, 1)  # precision, smallest and largest coordinates, index of the small numbers
    width = 8 if magic == XTC_WIDE else 4
    (length,) = struct.unpack(">q" if width == 8 else ">i", stream.read(width))
    return len(head) + 32 + width + -(-length // 4) * 4


def _trr_size(stream: BinaryIO) -> int:
    """Number of bytes of the TRR frame at the current position."""
    start = stream.tell()
    magic, _, length = struct.unpack(">3i", stream.read(12))
    if magic != TRR_MAGIC:
        raise OSError("a frame does not start like those of a TRR")
    stream.seek(-(-length // 4) * 4, 1)
    numbers = struct.unpack(f">{TRR_SIZES + 3}i", stream.read(4 * (TRR_SIZES + 3)))
    sizes, num_atoms = numbers[:TRR_SIZES], numbers[TRR_SIZES]
    of_vectors = next((size // (3 * num_atoms) for size in sizes[7:] if size and num_atoms), 0) or sizes[2] // 9
    return stream.tell() - start + 2 * (of_vectors or 4) + sum(sizes)


def check_trajectory(path: Path, topology: Path | None):
    """Check that a trajectory can be read.

    Raises:
        MissingExtra: If MDAnalysis is not installed.
        InputError: If there is no topology.
    """
    _reader_class(path)
    if topology is None:
        raise InputError(
            f"{path}: {file_format(path)} holds positions only; give the elements by --topology FILE (of predict and "
            "convert; topology= in Python), any file with a frame of the same atoms in the same order"
        )


def trajectory_blocks(path: Path, wanted: ReadOptions, keep: Keep, topology: Topology) -> Iterator[FrameBlock | None]:
    """Blocks of a trajectory, ``None`` in place of a skipped block.

    Raises:
        InputError: If it cannot be read, has another number of atoms than the topology, or labels are requested.
    """
    if wanted.properties or wanted.atom_properties:
        key = (*wanted.properties, *wanted.atom_properties)[0]
        raise InputError(f"{path}: no property {key!r}; {file_format(path)} holds positions only")
    with _opened(path, topology) as (reader, cut):
        num_frames = reader.n_frames
        for number, first in enumerate(range(0, num_frames, wanted.block_size)):
            end = min(first + wanted.block_size, num_frames)
            block = _read(path, reader, topology.numbers, first, end, wanted) if keep(number) else None
            if cut and block is not None and end == num_frames:
                block.unreadable = [cut_frame(TruncatedFrame, path, num_frames)]
            yield block


def num_frames_of_trajectory(path: Path, topology: Topology) -> int:
    """Number of frames of a trajectory.

    Raises:
        InputError: If it cannot be read, or has another number of atoms than the topology.
    """
    with _opened(path, topology) as (reader, _):
        return reader.n_frames


@contextmanager
def _opened(path: Path, topology: Topology):
    """Reader of MDAnalysis, and whether an incomplete frame follows the complete ones."""
    try:
        with (
            unpacked(path) as copy,
            _without_rest(copy, file_format(path)) as (whole, cut),
            _reader(path, whole, len(topology.numbers)) as reader,
        ):
            if reader.n_atoms != len(topology.numbers):
                raise InputError(f"{path}: {reader.n_atoms} atoms, but {topology.file} has {len(topology.numbers)}")
            yield reader, cut
    except InputError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: cannot be read as {file_format(path)} ({describe_error(error)})") from error


@contextmanager
def _without_rest(path: Path, kind: str) -> Iterator[tuple[Path, bool]]:
    """Path of a file with the complete frames only, and whether an incomplete frame was removed."""
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
        warnings.simplefilter("ignore")  # about units and time steps, which are not used
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
    """Lattice vectors of each frame in Å ``[num_frames, 3, 3]``, zero without a cell."""
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
