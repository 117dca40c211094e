"""Paths, compression and formats of files of frames."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO

from ase.io.formats import UnknownFileTypeError, extension2format, ioformats, match_magic

from pyg_clusters.errors import InputError, describe_error
from pyg_clusters.shipped import shipped_frames

OPENERS: dict[str, Callable] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
"""Functions that open compressed files, by their last suffix."""

FIRST_BYTES: dict[bytes, Callable] = {b"\xfd7zXZ\x00": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
"""Functions that open compressed files, by their first bytes."""

UNSUPPORTED: dict[bytes, str] = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
}
"""Names of unsupported compressions, by the first bytes of files."""

CORRUPTED: tuple[type[Exception], ...] = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""Errors from reading a corrupted or truncated file."""

MAX_RATIO: int = 200
"""Maximum ratio of unpacked to compressed size, for more than :data:`ALWAYS_UNPACKED` bytes."""

ALWAYS_UNPACKED: int = 1 << 26
"""Number of bytes that may be unpacked from a file of any size."""

HEAD: int = 1 << 16
"""Number of bytes by which the format of a file is recognised."""


def inner_name(path: Path) -> str:
    """Name of a file without the suffix of a compression."""
    return path.stem if path.suffix.lower() in OPENERS else path.name


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed, by its first bytes."""
    return _opener(path) is not None


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading; a compressed file is unpacked as it is read."""
    return (_opener(path) or open)(path, "rb")


def first_bytes(path: Path) -> bytes:
    """First :data:`HEAD` bytes of the unpacked content of a file, fewer if it is short or corrupted."""
    content = b""
    try:
        with open_binary(path) as stream:
            while len(content) < HEAD and (part := stream.read1(HEAD - len(content))):  # type: ignore[attr-defined]
                content += part
    except CORRUPTED:
        pass  # the reader of the format raises the error
    return content


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the path of a file, or of a temporary file with the unpacked content if it is compressed.

    Raises:
        InputError: If the file is corrupted, or unpacks to more than :data:`MAX_RATIO` times its size.
    """
    opener = _opener(path)
    if opener is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / inner_name(path)
        most = max(ALWAYS_UNPACKED, MAX_RATIO * path.stat().st_size)
        try:
            with opener(path, "rb") as stream, copy.open("wb") as target:
                while target.tell() <= most and (part := stream.read1(1 << 20)):
                    target.write(part)
        except CORRUPTED as error:
            raise InputError(f"{path}: cannot be unpacked ({describe_error(error)}); is it corrupted?") from error
        if copy.stat().st_size > most:
            shutil.rmtree(folder, ignore_errors=True)
            raise InputError(
                f"{path}: unpacks to more than {MAX_RATIO} times its size; unpack it yourself if you trust it"
            )
        yield copy


def _opener(path: Path) -> Callable | None:
    try:
        with open(path, "rb") as stream:
            head = stream.read(6)
    except OSError:
        return OPENERS.get(path.suffix.lower())
    return next((opener for first, opener in FIRST_BYTES.items() if head.startswith(first)), None)


STORE_SUFFIXES: tuple[str, ...] = (".h5", ".hdf5")
"""Suffixes of frame stores."""

XYZ_SUFFIXES: tuple[str, ...] = (".xyz", ".extxyz")
"""Suffixes of (extended) XYZ text, before the suffix of a compression if there is one."""

POSITIONS_ONLY: tuple[str, ...] = ("DCD", "XTC", "TRR")
"""Formats that do not state the elements of the atoms, by their names in MDAnalysis."""

SIGNATURES: dict[str, re.Pattern[bytes]] = {
    "store": re.compile(rb"\x89HDF\r\n\x1a\n"),
    "DCD": re.compile(rb".{4}(?:.{4})?CORD", re.DOTALL),
    "XTC": re.compile(rb"\x00\x00\x07[\xcb\xe3]"),
    "TRR": re.compile(rb"\x00\x00\x07\xc9"),
    "lammps-dump": re.compile(rb"\s*ITEM: [A-Z]+"),
    "xyz": re.compile(  # a number of atoms, a comment, and an atom
        rb"(?:\xef\xbb\xbf)?\s*\d+[ \t\r]*\n[^\n]*\n[ \t]*[A-Za-z0-9]\S*(?:[ \t]+[-+]?[0-9.]\S*){3}"
    ),
    "lammps-data": re.compile(rb"[^\n]*\n\s*\d+[ \t]+atoms\b"),
    "xdatcar": re.compile(rb"(?:[^\n]*\n){5,9}?\s*Direct configuration=", re.IGNORECASE),
}
"""Match beginnings of files, by the format that they identify; the first match counts."""

SUFFIXES: dict[str, str] = {
    **dict.fromkeys(XYZ_SUFFIXES, "xyz"),
    **dict.fromkeys(STORE_SUFFIXES, "store"),
    ".lammpstrj": "lammps-dump",
    ".lammpsdump": "lammps-dump",
    ".dcd": "DCD",
    ".xtc": "XTC",
    ".trr": "TRR",
}
"""Formats by the suffix of a file, before the suffix of a compression if there is one."""

OF_ASE: dict[str, str] = {"extxyz": "xyz", "xyz": "xyz", "lammps-dump-text": "lammps-dump", "vasp-xdatcar": "xdatcar"}
"""Formats by their names in ASE."""

NO_STRUCTURES: frozenset[str] = frozenset({"eps", "gif", "html", "mp4", "png", "pov", "py", "x3d"})
"""Formats of ASE for pictures or programs, which hold no structures to read."""

REQUIRED: dict[str, re.Pattern[bytes]] = {
    "aims": re.compile(rb"^\s*atom(_frac)?\s", re.MULTILINE),
    "castep-md": re.compile(rb"\s*BEGIN header"),
    "cp2k-restart": re.compile(rb"^\s*&(?:GLOBAL|MOTION|FORCE_EVAL)\b", re.MULTILINE),
    "dlp4": re.compile(rb"\A[^\n]*\n\s*\d+\s+\d+\s"),
    "espresso-out": re.compile(rb"Program PWSCF"),
    "gamess-us-punch": re.compile(rb"^\s*\$DATA", re.MULTILINE),
    "gaussian-in": re.compile(rb"^\s*#", re.MULTILINE),
    "gaussian-out": re.compile(rb"Entering Gaussian System"),
    "json": re.compile(rb"\A\s*\{\s*\"(\d+|ids|nextid)\""),
    "runnerdata": re.compile(rb"^\s*begin\b", re.MULTILINE),
}
"""Match text required near the beginning of a file, for formats whose suffix is also used by other programs."""

ANYTHING: re.Pattern[bytes] = re.compile(rb"")


def file_format(path: Path) -> str:
    """Format of a file: a value of :data:`SUFFIXES`, ``"xdatcar"``, or the name of the format in ASE.

    Raises:
        InputError: If it is unknown, holds no structures, or the compression is not supported.
    """
    content = first_bytes(path)
    name = Path(inner_name(path))
    known = next((kind for kind, start in SIGNATURES.items() if start.match(content)), None)
    known = known or SUFFIXES.get(name.suffix.lower()) or _ase_format(name, content)
    packed = next((name for first, name in UNSUPPORTED.items() if content.startswith(first)), None)
    packed = "tar" if content[257:].startswith(b"ustar") else packed
    if known is None and packed:
        raise InputError(f"{path}: is packed by {packed}, which is not supported; unpack it, or use xz, gzip or bzip2")
    if known is None or known in NO_STRUCTURES:
        raise InputError(
            f"{path}: neither content nor name identifies a format of structures; rename the file with the "
            "suffix of its format, such as .xyz or .lammpstrj"
        )
    return OF_ASE.get(known, known)


def holds_structures(path: Path) -> bool:
    """Whether the format of a file is known."""
    try:
        file_format(path)
    except InputError:
        return False
    return True


def _ase_format(name: Path, content: bytes) -> str | None:
    """Name in ASE of the format of a file; ``None`` if ASE cannot read it."""
    names = (name.name, name.name.upper(), name.name.lower())
    found = next((kind for kind in ioformats.values() if any(map(kind.match_name, names))), None)
    if found is None:
        try:
            found = match_magic(content if name.suffix.lower() in (".out", ".log") else content[:2000])
        except UnknownFileTypeError:
            suffix = name.suffix[1:].lower()
            found = extension2format.get(suffix) or ioformats.get(suffix)
    if found is None or not found.can_read or not REQUIRED.get(found.name, ANYTHING).search(content):
        return None
    return found.name


def expand_paths(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    r"""Expand folders and patterns to files, in the given order.

    A pattern (``md/*.xyz``, ``runs/**/OUTCAR``) is expanded to the matching files, and a folder to the files of
    structures in it, but not in its subfolders. Both are in natural order: ``frame2.xyz`` comes before ``frame10.xyz``.
    The name of a shipped file (``gallium_md_57``) refers to that file if there is no other file of this name. Hidden
    files are left out. So are files of a folder that hold no structures, with a warning. Missing files are kept: their
    reader raises the error.

    Args:
        paths: Files, folders and patterns, or one of them.

    Raises:
        InputError: If a pattern matches nothing, a folder has no structures or files of several formats, or a name is
            not UTF-8.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("au10.xyz", "au2.xyz"):
        ...     _ = (folder / name).write_text("1\n\nAu 0 0 0\n")
        >>> [path.name for path in expand_paths(folder)]
        ['au2.xyz', 'au10.xyz']
    """
    names = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    files = [file for path in names for file in _expand(Path(path))]
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            raise InputError(f"{str(file)!a}: the name is not UTF-8; rename the file") from None
    return files


def check_named_once(names: Iterable[str | os.PathLike]):
    """Check that files, folders and patterns do not name a file twice, also by a link, where that would change results.

    Raises:
        InputError: If they do.
    """
    found: dict[tuple[int, int], Path] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about other files of a folder, which its reader gives
        files = [file for file in expand_paths(names) if file.exists()]
    for file in files:
        status = file.stat()
        first = found.get((status.st_dev, status.st_ino))
        if first is not None:
            same = "is named twice" if file == first else f"is the same file as {first}"
            raise InputError(f"{file}: {same}; name each file once")
        found[status.st_dev, status.st_ino] = file


def short_names(files: Iterable[str | os.PathLike]) -> dict[str, str]:
    """Names of files without their folders, by path; whole paths if several files have the same name.

    Example:
        >>> short_names(["md/a.xyz", "md/b.xyz"]), short_names(["1/OUTCAR", "2/OUTCAR"])
        ({'md/a.xyz': 'a.xyz', 'md/b.xyz': 'b.xyz'}, {'1/OUTCAR': '1/OUTCAR', '2/OUTCAR': '2/OUTCAR'})
    """
    names = {file: Path(file).name for file in dict.fromkeys(map(str, files))}
    return names if len(set(names.values())) == len(names) else {file: file for file in names}


def is_among(path: Path, pattern: Path) -> bool:
    """Whether an existing file is among those to which a file, folder or pattern expands."""
    if pattern.is_dir():
        return path.parent.samefile(pattern) and holds_structures(path)
    if pattern.exists():
        return path.samefile(pattern)
    return has_magic(str(pattern)) and any(path.samefile(file) for file in _expand(pattern))


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that orders numbers within names by value."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _structures_in(path)
    if path.exists() or not has_magic(str(path)):
        return [path if path.exists() else shipped_frames().get(str(path), path)]
    files = [Path(name) for name in glob(str(path), recursive=True)]
    files = sorted((file for file in files if file.is_file()), key=natural_order)
    if not files:
        raise InputError(f"{path}: no file matches; check the pattern")
    return files


def _structures_in(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir(), key=natural_order)
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    files = [entry for entry in visible if entry.is_file() and holds_structures(entry)]
    others = [ascii(entry.name)[1:-1] for entry in visible if entry not in set(files)]
    if not files:
        raise InputError(
            f"{folder}: no files of structures in the folder; give files, or a pattern in quotes such as "
            f"'{folder}/*/OUTCAR'"
        )
    formats = {file_format(file): file.name for file in files}
    if len(formats) > 1:
        some = ", ".join(f"{name} ({kind})" for kind, name in formats.items())
        raise InputError(f"{folder}: files of several formats in the folder: {some}; give a pattern in quotes instead")
    if others:
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        warnings.warn(f"{folder}: left out {len(others)} entries that are not structures: {some}", stacklevel=4)
    return files


def is_store(path: Path) -> bool:
    """Whether a file is a frame store, by its name."""
    return path.suffix in STORE_SUFFIXES
