"""Resumable jobs: their settings, and finished parts or frames on disk."""

import json
import shutil
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from ase import Atoms
from ase.io.extxyz import read_xyz

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, file_fingerprint, read_json, remove_stale, write_json
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.paths import XYZ_SUFFIXES
from pyg_clusters.frames.writing import extxyz_text

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Part:
    """Record of a finished part: a block of frames with its results."""

    #: Index of the file among the input files and index of the block in it, by which parts are ordered.
    position: tuple[int, int]
    num_frames: int  #: Number of frames that were used.
    checksum: int  #: CRC-32 of the results.
    bad: tuple[BadFrame, ...] = ()  #: Frames that were left out.
    num_flagged: int = 0  #: Number of frames outside the training set of the model.

    def to_json(self) -> str:
        """Format as one line."""
        bad = [[frame.file, frame.number, frame.reason] for frame in self.bad]
        return json.dumps([self.position, self.num_frames, self.checksum, bad, self.num_flagged])

    @classmethod
    def from_json(cls, line: str) -> "Part":
        """Parse a line."""
        try:
            (file, block), num_frames, checksum, bad, flagged = json.loads(line)
            return cls((file, block), num_frames, checksum, tuple(BadFrame(*one) for one in bad), flagged)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not the record of a part: {line[:80]!r}") from error


class Parts:
    """Finished parts of a resumable job, in a folder of its own until the job is done.

    The folder holds ``settings.json`` with all settings on which the results depend, and the parts ``0.part``,
    ``1.part``, ... in order: the record as a line of JSON, then the results. A part is renamed to its final name when
    it is complete, so that a kill leaves only complete parts. After a power failure, the parts from the first wrong
    checksum on are computed again.

    Args:
        folder: The folder, which is created with the first part.
        settings: Settings on which the results depend, as values that JSON can represent.
        overwrite: Remove the parts of an earlier job.

    Raises:
        InputError: If the folder holds parts of a job with other settings, or cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "job"
        >>> Parts(folder, {"model": "a"}).add((0, 0), 1000, b"the energies")
        >>> parts = Parts(folder, {"model": "a"})
        >>> parts.next_position, parts.num_frames, [results for part, results in parts]
        ((0, 1), 1000, [b'the energies'])
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], *, overwrite: bool = False):
        self.folder = folder
        self.settings = dict(settings)
        self.num_parts = self.num_frames = self.num_flagged = 0
        self.next_position = (0, 0)
        self.bad: list[BadFrame] = []
        if overwrite:
            self.remove()
        if self.is_started(folder):
            check_settings(folder / SETTINGS, settings, (), of=folder)
            while (part := self._read(self.num_parts)) is not None:
                self._count(part[0])

    @staticmethod
    def is_started(folder: Path) -> bool:
        """Whether a folder holds an unfinished job."""
        return (folder / SETTINGS).exists()

    def add(
        self, position: tuple[int, int], num_frames: int, results: bytes, bad: Sequence[BadFrame] = (), flagged: int = 0
    ):
        """Write a finished part; see :class:`Part` for the arguments."""
        part = Part(position, num_frames, zlib.crc32(results), tuple(bad), flagged)
        if not self.num_parts:
            self.remove()
            write_json(self.folder / SETTINGS, self.settings)
        with atomic_write(self._file(self.num_parts), durable=False) as temporary:
            temporary.write_bytes(part.to_json().encode() + b"\n" + results)
        self._count(part)

    def __iter__(self) -> Iterator[tuple[Part, bytes]]:
        """Yield records and results of the finished parts, in order."""
        for index in range(self.num_parts):
            part = self._read(index)
            if part is None:
                raise InputError(f"{self._file(index)}: corrupted; run the same command again")
            yield part

    def remove(self):
        """Remove the folder, the settings first, so that parts left by a kill are not taken for those of a job."""
        (self.folder / SETTINGS).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index}.part"

    def _read(self, index: int) -> tuple[Part, bytes] | None:
        """Record and results of a part, if it exists and is not corrupted."""
        try:
            line, _, results = self._file(index).read_bytes().partition(b"\n")
            part = Part.from_json(line.decode())
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be read ({error.strerror}); remove it") from error
        return (part, results) if zlib.crc32(results) == part.checksum else None

    def _count(self, part: Part):
        self.num_parts += 1
        self.num_frames += part.num_frames
        self.num_flagged += part.num_flagged
        self.bad += part.bad
        self.next_position = (part.position[0], part.position[1] + 1)


class FrameLog:
    """Extended XYZ file to which frames are appended one by one.

    The settings of the job are stored in ``NAME.extxyz.settings.json``. When the log is reopened with the same
    settings, it has the frames written so far, and further frames are appended. A frame that was truncated by a kill is
    removed.

    Args:
        path: The file, ``.extxyz`` or ``.xyz``.
        settings: Settings on which the frames depend, as values that JSON can represent.
        free: Names of settings that may change when the log is reopened.
        overwrite: Start again with an empty file.

    Raises:
        InputError: If the file was written with other settings or has none, or cannot be read or written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "frames.extxyz"
        >>> FrameLog(path, {"seed": 0}).append(Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]]))
        >>> len(FrameLog(path, {"seed": 0}).frames)
        1
    """

    def __init__(
        self, path: str | Path, settings: Mapping[str, object], free: Collection[str] = (), *, overwrite: bool = False
    ):
        self.path = Path(path)
        self.sidecar = self.path.with_name(self.path.name + ".settings.json")
        if self.path.suffix not in XYZ_SUFFIXES:
            raise InputError(
                f"{path}: frames are appended to a file one by one, which must end in .extxyz or .xyz; rename it"
            )
        for file in (self.path, self.sidecar):
            remove_stale(file)
        if overwrite:
            self.path.unlink(missing_ok=True)
        if self.path.exists():
            check_settings(self.sidecar, settings, free, of=self.path)
        write_json(self.sidecar, settings)
        self.frames: list[Atoms] = self._recover() if self.path.exists() else []
        """Frames in the file when it was opened."""

    def append(self, atoms: Atoms):
        """Append a frame."""
        text = extxyz_text(atoms)
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}; make room there and start again") from error

    def _recover(self) -> list[Atoms]:
        """Read the complete frames of the file and truncate it after the last of them."""
        lines = list(StringIO(self.path.read_text(encoding="utf-8", errors="replace"), newline="\n"))
        frames: list[Atoms] = []
        first, whole = 0, 0
        while first < len(lines) and lines[first].strip().isdigit():
            after = first + int(lines[first]) + 2
            if after > len(lines) or not lines[after - 1].endswith("\n"):
                break
            try:
                frames.append(next(read_xyz(StringIO("".join(lines[first:after])), index=0)))
            except Exception as error:  # ASE raises errors of many kinds, depending on what is wrong
                raise InputError(f"{self.path}, frame {len(frames)}: cannot be read ({error}); remove it") from error
            whole += sum(len(line.encode()) for line in lines[first:after])
            first = after
        rest = "".join(lines[first:])
        if first < len(lines) - 1 and not lines[first].strip().isdigit():
            raise InputError(
                f"{self.path}, frame {len(frames)}: expected a number of atoms, got {rest[:40]!r}; fix or remove it"
            )
        if rest:
            with self.path.open("r+b") as stream:
                stream.truncate(whole)
        return frames


def check_settings(path: Path, settings: Mapping[str, object], free: Collection[str], of: Path):
    """Check that an unfinished job was started with the same settings, except those named in ``free``.

    The file ``path`` holds the settings with which it was started; messages name ``of``, the output of the job.
    """
    if not path.exists():
        raise InputError(f"{of} exists, but not {path.name} beside it; choose another name, or pass --overwrite")
    before = read_json(path, f"choose another name for {of}, or pass --overwrite")
    settings = json.loads(json.dumps(settings))
    for name in [name for name in {**before, **settings} if name not in free]:
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{of} was started with {name} = {before.get(name)!r}, not {settings.get(name)!r}; use the same value "
                "to resume, choose another file, or pass --overwrite"
            )


def input_settings(paths: Iterable[Path]) -> dict[str, str]:
    """Name and checksum of each input file, for the settings of a resumable job.

    For a missing file, this is only the name: its reader raises the error.

    Example:
        >>> input_settings([Path("missing.xyz")])
        {'input 0': 'missing.xyz'}
    """
    return {
        f"input {number}": f"{path}, {file_fingerprint(path)}" if path.is_file() else str(path)
        for number, path in enumerate(paths)
    }
