"""Structures from folders and archives of files, with what their comment lines say; archives are not trusted."""

import lzma
import shutil
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import IO

from ase import Atoms
from ase.io import iread

from pyg_clusters.errors import InputError, describe_error
from pyg_clusters.frames import BadFrame
from pyg_clusters.frames.by_format import frames_of_file
from pyg_clusters.frames.join import join_atoms
from pyg_clusters.frames.paths import OPENERS, XYZ_SUFFIXES

ARCHIVE_SUFFIXES: tuple[str, ...] = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Suffixes of the archives that are unpacked."""

MAX_UNPACKED: int = 4 * 2**30
"""An archive that unpacks to more bytes than this is refused."""

MAX_DEPTH: int = 3
"""Maximum depth of archives within archives."""


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of an archive."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def unpack(path: Path, folder: Path, depth: int = 1):
    """Unpacks the files of an archive into a folder, and the archives among them into folders of their names.

    Links and devices are left out.

    Args:
        path: The archive (``.zip``, or ``.tar`` with or without compression).
        folder: A folder, which is made. Nothing is written outside of it.
        depth: Archives around this one, itself included.

    Raises:
        InputError: If the archive is cut short, damaged or encrypted, has a member that would be written outside of
            the folder, or is larger than :data:`MAX_UNPACKED`.
    """
    inner = []
    left = MAX_UNPACKED
    members = _zip_members(path) if path.suffix.lower() == ".zip" else _tar_members(path)
    try:
        with closing(members):
            for name, size, stream in members:
                with stream:
                    left -= size
                    if left < 0:
                        limit = f"{MAX_UNPACKED / 2**30:.0f} GiB"
                        raise InputError(f"{path}: unpacks to more than {limit}; put its unpacked files there instead")
                    target = folder / _safe(name, path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "wb") as copy:
                        shutil.copyfileobj(stream, copy)
                if is_archive(target):
                    inner.append(target)
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as error:
        reason = describe_error(error)
        raise InputError(f"{path}: cut short or damaged ({reason}); download it again") from error
    for archive in inner if depth < MAX_DEPTH else []:
        unpacked = archive.with_name(f".unpacked-{archive.name}")
        unpack(archive, unpacked, depth + 1)
        archive.unlink()
        if unpacked.exists():
            unpacked.rename(archive)


def _zip_members(path: Path) -> Generator[tuple[str, int, IO[bytes]], None, None]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, member.file_size, archive.open(member)


def _tar_members(path: Path) -> Generator[tuple[str, int, IO[bytes]], None, None]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and (stream := archive.extractfile(member)) is not None:
                yield member.name, member.size, stream
        # A file cut between two members reads like a whole one, but for the block of zeros at its end.
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of the archive")


def _safe(name: str, archive: Path) -> Path:
    """The name of a member as a path below a folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
        raise InputError(f"{archive}: its member {name!r} would be written elsewhere; do not trust this archive")
    return Path(*parts)


POSCAR_SUFFIXES: tuple[str, ...] = (".vasp", ".poscar")
TABLE_SUFFIXES: tuple[str, ...] = (".csv", ".tsv", ".txt", ".dat")


@dataclass(frozen=True, eq=False)
class Structure:
    """A cluster as a file has it.

    Attributes:
        file: Name of the file, below the folder of all; a member of an archive is below the name of that.
        number: Number of the frame in the file, from 0.
        atoms: The cluster, joined and not periodic.
        comment: The comment line.
    """

    file: str
    number: int
    atoms: Atoms
    comment: str


def files_below(folder: Path) -> list[Path]:
    """All files below a folder in the order of their names, without the hidden ones that systems leave there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not _is_hidden(path.relative_to(folder)))


def gather(files: list[Path], folder: Path, scratch: Path) -> dict[str, Path]:
    """Paths of files and of the members of archives among them, by name.

    Args:
        files: Files below a folder.
        folder: The folder.
        scratch: An empty folder, where archives are unpacked.

    Raises:
        InputError: If an archive cannot be unpacked, or not safely.
    """
    gathered: dict[str, Path] = {}
    for file in files:
        name = file.relative_to(folder)
        if is_archive(file):
            unpack(file, scratch / name)
            gathered |= {path.relative_to(scratch).as_posix(): path for path in files_below(scratch / name)}
        else:
            gathered[name.as_posix()] = file
    return gathered


def is_structure_file(name: str) -> bool:
    """Whether a file is one of XYZ text (compressed or not), a POSCAR or a CONTCAR, by its name."""
    path = PurePosixPath(name)
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    return inner.suffix in XYZ_SUFFIXES or _is_poscar(path)


def is_table(name: str) -> bool:
    """Whether a file may be a table, by its name."""
    return PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES


def read_structures(name: str, path: Path) -> Iterator[Structure | BadFrame]:
    """The structures of a file, or what is wrong with them.

    Args:
        name: Name of the file, for the results.
        path: Where it is.
    """
    found = _poscar(name, path) if _is_poscar(PurePosixPath(name)) else _xyz(name, path)
    for structure in found:
        if isinstance(structure, BadFrame):
            yield structure
            continue
        try:
            atoms = join_atoms(structure.atoms)
        except InputError as error:
            yield BadFrame(name, structure.number, str(error))
        else:
            yield Structure(name, structure.number, atoms, structure.comment)


def _xyz(name: str, path: Path) -> Iterator[Structure | BadFrame]:
    frames: list[Atoms | BadFrame] = []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*the last line has no end")  # no file of a data set is still growing
            frames.extend(frames_of_file(path))
        if not frames:
            raise InputError(f"{path}: no frames in it")
    except InputError as error:
        frames.append(BadFrame(name, len(frames), str(error).removeprefix(f"{path}: ")))
    for number, (frame, comment) in enumerate(zip(frames, _comments(path, len(frames)), strict=True)):
        if isinstance(frame, BadFrame):
            yield BadFrame(name, number, frame.reason)
        else:
            yield Structure(name, number, frame, comment)


def _comments(path: Path, num: int) -> list[str]:
    """The comment lines of the first frames of a file, with nothing for those that cannot be read."""
    opener = OPENERS.get(path.suffix, open)
    comments: list[str] = []
    with suppress(OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error):
        with opener(path, "rt", encoding="utf-8") as stream:
            while len(comments) < num and (header := next((line for line in stream if line.strip()), None)):
                comments.append(next(stream, "").strip())
                for _ in range(int(header) if header.strip().isdecimal() else 0):
                    next(stream, "")
    return comments + [""] * (num - len(comments))


def _poscar(name: str, path: Path) -> Iterator[Structure | BadFrame]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > 5 and all(word.isdecimal() for word in lines[5].split()):
            lines.insert(5, " ".join("Ga" for _ in lines[5].split()))  # before VASP 5 the elements were not written
        (atoms,) = iread(StringIO("\n".join(lines) + "\n"), format="vasp")
    except Exception as error:  # ASE's reader raises many kinds
        reason = describe_error(error)
        yield BadFrame(name, 0, f"cannot be read as a POSCAR ({reason}); is it cut short?")
    else:
        yield Structure(name, 0, atoms, lines[0].strip())


def _is_poscar(path: PurePosixPath) -> bool:
    plain = any(word in path.name.upper() for word in ("POSCAR", "CONTCAR"))
    return path.suffix.lower() in POSCAR_SUFFIXES or (plain and not is_table(path.name))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
