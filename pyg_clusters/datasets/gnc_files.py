"""Structures of the GNC data set from files, folders, and archives that are not trusted."""

import lzma
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

from ase import Atoms
from ase.io import iread

from pyg_clusters.errors import InputError, describe_error
from pyg_clusters.frames import BadFrame, check_block
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.by_format import frames_of_file
from pyg_clusters.frames.paths import OPENERS, XYZ_SUFFIXES

POSCAR_SUFFIXES: tuple[str, ...] = (".vasp", ".poscar")
TABLE_SUFFIXES: tuple[str, ...] = (".csv", ".tsv", ".txt", ".dat")
ARCHIVE_SUFFIXES: tuple[str, ...] = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_UNPACKED: int = 4 * 2**30
"""Maximum size of an unpacked archive in bytes."""

MAX_DEPTH: int = 3
"""Maximum depth of archives within archives."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A cluster that can be used.

    Attributes:
        file: Name of the file, below the folder of all; a member of an archive is below the name of that.
        number: Index of the frame in the file, from 0.
        atoms: The cluster, joined and not periodic.
        comment: The comment line.
    """

    file: str
    number: int
    atoms: Atoms
    comment: str


def files_below(folder: Path) -> list[Path]:
    """All files below a folder in the order of their names, without the hidden ones that systems leave there."""
    hidden = ("__MACOSX", ".")
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [folder / name for name in names if not any(part.startswith(hidden) for part in name.parts)]


def gather(folder: Path, scratch: Path, depth: int = 0) -> dict[str, Path]:
    """Paths of the files below a folder and of the members of archives among them, by name.

    Args:
        folder: The folder.
        scratch: A folder in which archives are unpacked.
        depth: Number of archives around the folder.

    Raises:
        InputError: If an archive cannot be unpacked, or not safely.
    """
    gathered: dict[str, Path] = {}
    for file in files_below(folder):
        name = file.relative_to(folder).as_posix()
        if depth < MAX_DEPTH and file.name.lower().endswith(ARCHIVE_SUFFIXES):
            unpacked = Path(mkdtemp(dir=scratch))
            _unpack(file, unpacked)
            members = gather(unpacked, scratch, depth + 1)
            gathered |= {f"{name}/{member}": path for member, path in members.items()}
        else:
            gathered[name] = file
    return gathered


def _unpack(path: Path, folder: Path):
    """Unpack the files of an archive into a folder; links and devices are left out.

    Raises:
        InputError: If the archive is cut short, damaged or encrypted, has a member that would be written outside of
            the folder, or is larger than :data:`MAX_UNPACKED`.
    """
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                _check_members(path, {member.filename: member.file_size for member in archive.infolist()})
                archive.extractall(folder)
            return
        with tarfile.open(path) as tar:
            files = [member for member in tar if member.isfile()]
            _check_members(path, {member.name: member.size for member in files})
            # A file cut between two members reads like a whole one, but for the block of zeros at its end.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end of the archive")
            tar.extractall(folder, files, filter="data")
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cut short or damaged ({describe_error(error)}); download it again") from error


def _check_members(archive: Path, sizes: dict[str, int]):
    for name in sizes:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
            raise InputError(f"{archive}: its member {name!r} would be written elsewhere; do not trust this archive")
    if sum(sizes.values()) > MAX_UNPACKED:
        limit = f"{MAX_UNPACKED / 2**30:.0f} GiB"
        raise InputError(f"{archive}: unpacks to more than {limit}; put its unpacked files there instead")


def is_structure_file(name: str) -> bool:
    """Whether a file is one of XYZ text (compressed or not), a POSCAR or a CONTCAR, by its name."""
    path = PurePosixPath(name)
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    return inner.suffix in XYZ_SUFFIXES or _is_poscar(path)


def is_table(name: str) -> bool:
    """Whether a file may be a table, by its name."""
    return PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES


def _is_poscar(path: PurePosixPath) -> bool:
    plain = any(word in path.name.upper() for word in ("POSCAR", "CONTCAR"))
    return path.suffix.lower() in POSCAR_SUFFIXES or (plain and not is_table(path.name))


def read_structures(name: str, path: Path) -> Iterator[Structure | BadFrame]:
    """The structures of a file, or what is wrong with them.

    Args:
        name: Name of the file, for the results.
        path: Where it is.
    """
    frames, comments = _poscar(name, path) if _is_poscar(PurePosixPath(name)) else _xyz(name, path)
    for number, (frame, comment) in enumerate(zip(frames, comments, strict=True)):
        if isinstance(frame, BadFrame):
            yield BadFrame(name, number, frame.reason)
            continue
        block, bad = check_block(block_of_frames(Path(name), {number: frame}), on_bad="skip")
        if bad:
            yield bad[0]
        else:
            assert block.atoms is not None
            yield Structure(name, number, block.atoms[0], comment)


def _xyz(name: str, path: Path) -> tuple[list[Atoms | BadFrame], list[str]]:
    frames: list[Atoms | BadFrame] = []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*the last line has no end")  # no file of a data set is still growing
            frames.extend(frames_of_file(path))
        if not frames:
            raise InputError(f"{path}: no frames in it")
    except InputError as error:
        frames.append(BadFrame(name, len(frames), str(error).removeprefix(f"{path}: ")))
    return frames, _comments(path, len(frames))


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


def _poscar(name: str, path: Path) -> tuple[list[Atoms | BadFrame], list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > 5 and all(word.isdecimal() for word in lines[5].split()):
            lines.insert(5, " ".join("Ga" for _ in lines[5].split()))  # before VASP 5 the elements were not written
        return list(iread(StringIO("\n".join(lines) + "\n"), format="vasp")), [lines[0].strip()]
    except Exception as error:  # ASE's reader raises many kinds
        reason = f"cannot be read as a POSCAR ({describe_error(error)}); is it cut short?"
        return [BadFrame(name, 0, reason)], [""]
