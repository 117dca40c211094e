"""Reader of frame stores, in blocks or single frames in any order."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms

from pyg_clusters.errors import MissingProperty
from pyg_clusters.frames.block import FrameBlock, Keep, LazyAtoms, ReadOptions, names_found
from pyg_clusters.frames.electronic_state import ElectronicState
from pyg_clusters.frames.provenance import set_origin
from pyg_clusters.frames.store_layout import (
    MAX_ATOMIC_NUMBER,
    attribute,
    check_range,
    names_in,
    open_store,
    reading_store,
    unit_of_label,
)


class StoreReader:
    """Reader of single frames of a frame store.

    Only the offsets of the frames are in memory (8 bytes each). Uncompressed data are read directly at their offset in
    the file; for a frame of compressed data, a whole chunk is unpacked. A reader can also be used in processes other
    than the one that created it.

    Args:
        path: The store.

    Attributes:
        ptr: Offsets of the frames, ``[num_frames + 1]``.

    Raises:
        InputError: If the file is not a frame store, or is corrupted.

    Example:
        >>> import tempfile
        >>> from ase import Atoms
        >>> from pyg_clusters.frames import Frames, write_extxyz, write_store
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_extxyz(folder / "md.xyz", [Atoms("Na2", [[0, 0, 0], [0, 0, d]]) for d in (3.0, 3.1, 3.2)])
        >>> number = write_store(folder / "md.h5", Frames.open(folder / "md.xyz"), compressed=False)
        >>> [float(z) for z in StoreReader(folder / "md.h5").atoms("pos", [2, 0])[:, 2]]
        [0.0, 3.2, 0.0, 3.0]
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._offsets: dict[str, _RowOffsets | None] = {}
        with open_store(self.path) as file:
            self.ptr = file["ptr"][:].astype(np.int64)
            names = ["z", "pos", *(f"atom_properties/{key}" for key in names_in(file, "atom_properties"))]
            for name in names:
                self._offsets[name] = _row_offsets(file[name])
        self._process = 0  # id of the process that has opened the file
        self._descriptor: int | None = None
        self._file: h5py.File | None = None

    @property
    def direct(self) -> bool:
        """Whether single frames are read without unpacking whole chunks."""
        return all(self._offsets.values())

    def atoms(self, name: str, frames: np.ndarray | list[int]) -> np.ndarray:
        """Read values of the atoms of the given frames, in that order, ``[num_atoms, ...]``.

        Args:
            name: ``pos``, ``z`` or ``atom_properties/NAME``.
            frames: Indices of the frames.

        Raises:
            InputError: If the file cannot be read.
        """
        frames = np.asarray(frames, dtype=np.int64)
        starts, ends = self.ptr[frames], self.ptr[frames + 1]
        with reading_store(self.path):
            values = self._read(name, *_runs(starts, ends))
        if name == "z":
            check_range(self.path, name, values, 1, MAX_ATOMIC_NUMBER)
        return values

    def _read(self, name: str, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        if self._process != os.getpid():  # do not use files opened by another process
            self._process, self._descriptor, self._file = os.getpid(), None, None
        offsets = self._offsets[name]
        if offsets is not None:
            self._descriptor = os.open(self.path, os.O_RDONLY) if self._descriptor is None else self._descriptor
            return offsets.read(self._descriptor, starts, ends)
        self._file = h5py.File(self.path) if self._file is None else self._file
        dataset = self._file[name]
        rows = np.empty((int((ends - starts).sum()), *dataset.shape[1:]), dataset.dtype)
        to = np.concatenate([[0], np.cumsum(ends - starts)])
        for run in np.argsort(starts):  # a chunk with several of the frames is unpacked once
            if ends[run] > starts[run]:
                dataset.read_direct(rows, np.s_[starts[run] : ends[run]], np.s_[to[run] : to[run + 1]])
        return rows

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_process": 0, "_descriptor": None, "_file": None}

    def __del__(self):
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None and self._process == os.getpid():
            os.close(descriptor)


@dataclass(frozen=True)
class _RowOffsets:
    """Offsets in the file of the rows of an uncompressed data set."""

    dtype: np.dtype
    row: tuple[int, ...]
    chunk: int
    offsets: np.ndarray

    def read(self, descriptor: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        rows = np.empty((int((ends - starts).sum()), *self.row), self.dtype)
        width = self.dtype.itemsize * int(np.prod(self.row))
        view, to = rows.reshape(-1).view(np.uint8).data, 0
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            while start < end:
                chunk, first = divmod(start, self.chunk)
                num = min(end - start, self.chunk - first)
                at = int(self.offsets[chunk]) + first * width
                if os.preadv(descriptor, [view[to : to + num * width]], at) != num * width:
                    raise OSError("it ends early")
                start, to = start + num, to + num * width
        return rows


def _row_offsets(dataset: h5py.Dataset) -> _RowOffsets | None:
    """Offsets of the rows of a data set; ``None`` if it is compressed, or the system cannot read at an offset."""
    plain = dataset.id.get_create_plist().get_nfilters() == 0 and dataset.dtype.kind in "biuf"
    if not plain or not dataset.chunks or dataset.chunks[1:] != dataset.shape[1:] or not hasattr(os, "preadv"):
        return None
    offsets = np.full(-(-len(dataset) // dataset.chunks[0]), -1, dtype=np.int64)

    def note(info: h5py.h5d.StoreInfo):
        offsets[info.chunk_offset[0] // dataset.chunks[0]] = info.byte_offset

    dataset.id.chunk_iter(note)
    return _RowOffsets(dataset.dtype, dataset.shape[1:], dataset.chunks[0], offsets) if (offsets >= 0).all() else None


def _runs(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge adjacent ranges of rows."""
    apart = starts[1:] != ends[:-1]
    return starts[np.concatenate([[True], apart])[: len(starts)]], ends[np.concatenate([apart, [True]])[: len(ends)]]


def store_blocks(path: Path, options: ReadOptions, keep: Keep) -> Iterator[FrameBlock | None]:
    """Read the blocks of a frame store, with ``None`` in place of each skipped block."""
    with open_store(path) as file:
        _check_names(path, file, options)
        num_frames = len(file["ptr"]) - 1
        files = np.array([name.decode() for name in file["origin/files"][:].tolist()], dtype=object)
        for number, first in enumerate(range(0, num_frames, options.block_size)):
            end = min(first + options.block_size, num_frames)
            yield _read(path, file, files, first, end, options) if keep(number) else None


def num_frames_of_store(path: Path) -> int:
    """Number of frames in a store."""
    with open_store(path) as file:
        return len(file["ptr"]) - 1


def _check_names(path: Path, file: h5py.File, options: ReadOptions):
    per_frame, per_atom = (names_in(file, group) for group in ("properties", "atom_properties"))
    for keys, known, kind in ((options.properties, per_frame, ""), (options.atom_properties, per_atom, " per atom")):
        if missing := [key for key in keys if key not in known]:
            raise MissingProperty(f"{path}: no property {missing[0]!r}{kind}; {names_found(per_frame, per_atom)}")


def _read(path: Path, file: h5py.File, files: np.ndarray, first: int, end: int, options: ReadOptions) -> FrameBlock:
    ptr = file["ptr"][first : end + 1].astype(np.int64)
    frames, atoms = slice(first, end), slice(ptr[0], ptr[-1])
    z, origins = file["z"][atoms], file["origin/file"][frames]
    check_range(path, "z", z, 1, MAX_ATOMIC_NUMBER)
    check_range(path, "origin/file", origins, 0, len(files) - 1)
    block = FrameBlock(
        file=str(path),
        number=np.arange(first, end),
        z=z.astype(np.int64),
        pos=file["pos"][atoms].astype(np.float64, copy=False),
        ptr=ptr - ptr[0],
        cell=file["cell"][frames].astype(float),
        pbc=file["pbc"][frames].astype(bool),
        properties={key: _values(file["properties"][key], frames) for key in options.properties},
        atom_properties={key: _values(file["atom_properties"][key], atoms) for key in options.atom_properties},
        origin=(files[origins], file["origin/number"][frames]),
        states=_states(file, frames, z, ptr - ptr[0]),
    )
    if options.with_atoms:
        info = {key: _values(file["properties"][key], frames) for key in names_in(file, "properties")}
        common = str(attribute(file, "energy_unit") or "eV")
        units = {f"{key}_unit": unit for key in info if (unit := unit_of_label(file, key)) != common}
        units |= {"energy_unit": common} if info and common != "eV" else {}
        info |= {key: np.full(end - first, unit) for key, unit in units.items()}
        arrays = {key: _values(file["atom_properties"][key], atoms) for key in names_in(file, "atom_properties")}
        block.atoms = LazyAtoms(partial(_atoms, block, info, arrays, index) for index in range(end - first))
    if attribute(file, "joined"):
        block.joined = np.zeros(end - first, dtype=bool)
        block.fragments = "keep"
    return block


def _states(file: h5py.File, frames: slice, z: np.ndarray, ptr: np.ndarray) -> np.ndarray | None:
    """Charges and spins of frames, as in :attr:`FrameBlock.states`."""
    charge, unpaired = file["charge"][frames].astype(int), file["unpaired"][frames].astype(int)
    states = np.full(len(charge), None)
    for frame in np.flatnonzero((charge != 0) | (unpaired >= 0)):
        electrons = int(z[ptr[frame] : ptr[frame + 1]].sum()) - int(charge[frame])
        spin = None if unpaired[frame] < 0 else int(unpaired[frame])
        states[frame] = ElectronicState(int(charge[frame]), spin, electrons)
    return states if any(state is not None for state in states) else None


def _values(dataset: h5py.Dataset, rows: slice) -> np.ndarray:
    values = dataset[rows]
    if values.dtype.kind not in "SO":
        return values
    return np.array([value.decode() for value in values.flat], dtype=str).reshape(values.shape)


def _atoms(block: FrameBlock, info: dict[str, np.ndarray], arrays: dict[str, np.ndarray], index: int) -> Atoms:
    inside = slice(block.ptr[index], block.ptr[index + 1])
    atoms = Atoms(numbers=block.z[inside], positions=block.pos[inside], cell=block.cell[index])
    atoms.info.update({key: values[index] if values.ndim > 1 else values[index].item() for key, values in info.items()})
    state = None if block.states is None else block.states[index]
    if state is not None:
        atoms.info |= state.info
    files, numbers = block.origins
    set_origin(atoms.info, str(files[index]), int(numbers[index]))
    for key, values in arrays.items():
        atoms.set_array(key, values[inside])
    return atoms
