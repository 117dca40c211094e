"""Validation of frame stores on opening, and safe writing of HDF5 files."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from pyg_clusters.concurrency import check_stopped, deferring_stop
from pyg_clusters.errors import InputError, describe_error

FORMAT: str = "pyg_clusters frames"
VERSION: int = 1

FILTERS: frozenset[int] = frozenset(
    {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
)
"""Supported filters. Others may load code (plug-ins) or expand data without limit."""

MAX_ATOMIC_NUMBER: int = 118

MAX_COMPRESSION: int = 1100  # upper limit of the compression ratio; that of gzip reaches 1032

MAX_CHUNK_BYTES: int = 1 << 28

ROWS_AT_ONCE: int = 1 << 20


@contextmanager
def reading_store(path: Path) -> Iterator[None]:
    """Convert errors from reading a store to an :class:`InputError` that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise InputError(f"{path}: cannot be read ({describe_error(error)}); is it corrupted?") from error


@contextmanager
def open_store(path: Path) -> Iterator[h5py.File]:
    """Open a frame store and validate its layout.

    No other file is accessed, and no more memory is allocated than the file can fill: links, external storage, virtual
    data sets and unknown filters are refused before they are followed.

    Raises:
        InputError: If the file is not a frame store, its arrays are inconsistent, or it is corrupted.
    """
    with reading_store(path), h5py.File(path, "r") as file:
        version = attribute(file, "version")
        if attribute(file, "format") != FORMAT or not isinstance(version, int | np.integer) or version != VERSION:
            raise InputError(f"{path}: not a frame store of version {VERSION}; create one with pyg-clusters convert")
        _Layout(path, file).check()
        yield file


def unit_of_label(file: h5py.File, name: str) -> str:
    """Unit that a store states for a value per frame, if it is an energy."""
    label = file[f"properties/{name}"] if name in names_in(file, "properties") else file
    return str(attribute(label, "units") or attribute(file, "energy_unit") or "eV")


def attribute(file: h5py.File | h5py.Dataset, name: str) -> object:
    """Value of an attribute of a store or a data set in it; ``None`` if it is missing or not a single value."""
    try:
        value = file.attrs[name]
    except Exception:  # missing, or of a type that h5py cannot convert
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else value if np.ndim(value) == 0 else None


class _Layout:
    """Checks of an open file, which raise an error at the first fault."""

    def __init__(self, path: Path, file: h5py.File):
        self.path = path
        self.file = file

    def check(self):
        """Check members, types, shapes and offsets."""
        ptr = self._dataset(self.file, "ptr", "iu", [None])
        num_atoms = len(self._dataset(self.file, "z", "iu", [None]))
        num_frames = len(ptr) - 1
        if num_frames < 1:
            raise self._error("'ptr' has no frames")
        self._dataset(self.file, "pos", "f", [num_atoms, 3])
        self._dataset(self.file, "cell", "f", [num_frames, 3, 3])
        self._dataset(self.file, "pbc", "biu", [num_frames, 3])
        self._dataset(self.file, "charge", "iu", [num_frames])
        self._dataset(self.file, "unpaired", "iu", [num_frames])
        origin = self._group("origin")
        if origin is None:
            raise self._error("'origin' is missing")
        self._dataset(origin, "file", "iu", [num_frames])
        self._dataset(origin, "number", "iu", [num_frames])
        self._dataset(origin, "files", "SO", [None])
        for name, length in (("properties", num_frames), ("atom_properties", num_atoms)):
            if (group := self._group(name)) is None:
                continue
            for key in names_in(self.file, name):
                self._dataset(group, key, "biufSO", [length, ...])
        self._check_offsets(ptr, num_atoms)

    def _error(self, fault: str) -> InputError:
        return InputError(f"{self.path}: not a valid frame store, {fault}; create it again with pyg-clusters convert")

    def _group(self, name: str) -> h5py.Group | None:
        member = self._member(self.file, name)
        if member is not None and not isinstance(member, h5py.Group):
            raise self._error(f"{name!r} is not a group")
        return member

    def _member(self, group: h5py.Group, name: str) -> object:
        link = group.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise self._error(f"{name!r} is a link, which is not followed")
        return group[name]

    def _dataset(self, group: h5py.Group, name: str, kinds: str, shape: list) -> h5py.Dataset:
        """Data set of one of the NumPy ``kinds`` and of a shape, in which ``None`` is any length."""
        dataset = self._member(group, name)
        if dataset is None:
            raise self._error(f"{name!r} is missing")
        if not isinstance(dataset, h5py.Dataset):
            raise self._error(f"{name!r} is not a data set")
        kind = dataset.dtype.kind
        if kind not in kinds or (kind == "O" and h5py.check_string_dtype(dataset.dtype) is None):
            raise self._error(f"{name!r} has the type {dataset.dtype}")
        found = dataset.shape
        fits = found is not None and (len(found) == len(shape) or (shape[-1] is ... and len(found) >= len(shape) - 1))
        expected = [length for length in shape if length is not ...]
        if not fits or any(b is not None and a != b for a, b in zip(found or (), expected, strict=False)):
            wanted = ", ".join("..." if length is ... else "any" if length is None else str(length) for length in shape)
            raise self._error(f"{name!r} has the shape {found}, not [{wanted}]")
        self._check_storage(dataset, name)
        return dataset

    def _check_storage(self, dataset: h5py.Dataset, name: str):
        plist = dataset.id.get_create_plist()
        if dataset.is_virtual or dataset.external:
            raise self._error(f"{name!r} is stored in another file, which is not read")
        filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        if not set(filters) <= FILTERS or len(set(filters)) < len(filters):
            raise self._error(f"{name!r} is compressed by filters {filters}, which are not supported")
        width = dataset.id.get_type().get_size()
        if dataset.chunks and np.prod(dataset.chunks, dtype=float) * width > MAX_CHUNK_BYTES:
            raise self._error(f"{name!r} has chunks of {dataset.chunks}, more than {MAX_CHUNK_BYTES >> 20} MiB each")
        stored = dataset.id.get_storage_size() * (MAX_COMPRESSION if filters else 1)
        if np.prod(dataset.shape, dtype=float) * width > stored:
            raise self._error(f"{name!r} claims the shape {dataset.shape}, but the file is too small for it")

    def _check_offsets(self, ptr: h5py.Dataset, num_atoms: int):
        """Check that the frames cover all atoms in order, each with at least one atom."""
        end = -1
        for first in range(0, len(ptr), ROWS_AT_ONCE):
            part = ptr[first : first + ROWS_AT_ONCE]
            exact = part.astype(np.int64)
            steps = np.diff(exact, prepend=end)
            wrong = np.flatnonzero((steps <= 0) | (exact < 0) | (exact > num_atoms))
            if first == 0 and exact[0] != 0:
                raise self._error(f"'ptr' starts at {part[0]}, not at 0")
            if wrong.size:
                frame = first + int(wrong[0]) - 1
                raise self._error(
                    f"'ptr' goes from {end if wrong[0] == 0 else part[wrong[0] - 1]} to {part[wrong[0]]} "
                    f"at frame {frame}, of {num_atoms} atoms in total"
                )
            end = int(exact[-1])
        if end != num_atoms:
            raise self._error(f"'ptr' ends at {end}, but there are {num_atoms} atoms")


def names_in(file: h5py.File, group: str) -> list[str]:
    """Names of the data sets of a group, empty if there is no such group.

    The names are sorted at once, since a suspended iterator of h5py holds its lock, and would block all other threads
    if an error left it unfinished.
    """
    return sorted(file[group]) if group in file else []


def check_range(path: Path, name: str, values: np.ndarray, lowest: int, highest: int):
    """Check the range of values read from a store."""
    wrong = values[(values < lowest) | (values > highest)]
    if wrong.size:
        raise InputError(
            f"{path}: {name!r} has {wrong[0]}, outside {lowest} to {highest}; create it again with pyg-clusters convert"
        )


@contextmanager
def new_hdf5(path: str | Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Create an HDF5 file; yield it and a function that raises the error of a failed write, or a stop by a signal.

    Both are raised at the end of the block in any case. Until then, data that could not be written is held in memory.

    Raises:
        OSError: If a write fails, including one on closing the file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "numbers.h5"
        >>> with new_hdf5(path) as (file, check):
        ...     file["numbers"] = [1, 2, 3]
        ...     check()
        >>> with h5py.File(path) as file:
        ...     file["numbers"][:].tolist()
        [1, 2, 3]
    """
    with deferring_stop(), _File(path) as stream:

        def check():
            stream.check()
            check_stopped()

        try:
            with h5py.File(stream, "w") as file:
                yield file, check
        except Exception:
            stream.check()
            raise
        check()


class _File(io.FileIO):
    """File whose writes never fail: data that cannot be written to disk is held in memory.

    HDF5 cannot close a file after a failed write, and crashes with a segmentation fault. Therefore the error is kept
    for :meth:`check`.
    """

    def __init__(self, path: str | Path):
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self.lost: list[tuple[int, bytes]] = []
        self.length = 0

    def check(self):
        """Raise the error of the first write that failed."""
        if self.error is not None:
            raise self.error

    def write(self, data) -> int:
        start, data = self.tell(), memoryview(data).cast("B")
        done = 0
        while done < len(data) and self.error is None:
            try:
                done += super().write(data[done:]) or 0
            except OSError as error:
                self.error = error
        if done < len(data):
            self.lost.append((start + done, bytes(data[done:])))
            self.seek(start + len(data))
        self.length = max(self.length, start + len(data))
        return len(data)

    def readinto(self, buffer) -> int:
        start, view = self.tell(), memoryview(buffer).cast("B")
        length = max(0, min(len(view), self.length - start))
        view[:length] = super().read(length).ljust(length, b"\0")
        for first, data in self.lost:
            begin, end = max(start, first), min(start + length, first + len(data))
            if begin < end:
                view[begin - start : end - start] = data[begin - first : end - first]
        self.seek(start + length)
        return length

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self.length + offset, os.SEEK_SET
        return super().seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        self.length = self.tell() if size is None else size
        try:
            return super().truncate(self.length)
        except OSError as error:
            self.error = self.error or error
            return self.length
