"""Frames as ASE objects, one by one, by the reader of their format."""

from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import ase_frames
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.formats import POSITIONS_ONLY, file_format
from pyg_clusters.frames.lammps import Topology, dump_frames
from pyg_clusters.frames.xdatcar import xdatcar_frames
from pyg_clusters.frames.xyz_reader import xyz_frames


def frames_by_format(path: Path, kind: str, topology: Path | None = None) -> Iterator[Atoms | BadFrame]:
    """Frames of a file with elements, or the reasons that they cannot be read.

    Args:
        path: The file.
        kind: Its format, see :func:`~pyg_clusters.frames.formats.file_format`.
        topology: File with the elements of the atoms of a LAMMPS dump.
    """
    if kind == "xyz":
        return xyz_frames(path)
    if kind == "xdatcar":
        return xdatcar_frames(path)
    if kind == "lammps-dump":
        return dump_frames(path, None if topology is None else read_topology(topology))
    return ase_frames(path, kind)


def read_topology(path: Path) -> Topology:
    """Elements of the atoms, read from the first frame of a file.

    Raises:
        InputError: If it cannot be read, or has no elements.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file, but the elements are to be read from it")
    kind = file_format(path)
    if kind in POSITIONS_ONLY or kind == "store":
        raise InputError(f"{path}: a file of format {kind} has no elements; give one in XYZ, for example")
    frame = next(frames_by_format(path, kind), None)
    if isinstance(frame, BadFrame) or frame is None:
        raise InputError(f"{path}: no frame with elements ({frame or 'it is empty'})")
    return Topology(path, frame.numbers.astype(int), frame.arrays.get("id"))
