"""HDF5 files on disks that may be full."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def new_hdf5(path: str | Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file, and what raises the error of a write that the system has refused.

    Errors are raised at the end of the block in any case; until then what could not be written is held in memory.

    Raises:
        OSError: If the system refuses to write, also when the file is closed.

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
    with _File(path) as stream:
        try:
            with h5py.File(stream, "w") as file:
                yield file, stream.check
        except Exception:
            stream.check()
            raise
        stream.check()


class _File(io.FileIO):
    """A file whose writes never fail: what the disk does not take is held in memory.

    HDF5 cannot close a file after a failed write, and ends the process by a segmentation fault. The error is kept for
    :meth:`check` instead.
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
