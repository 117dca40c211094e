"""Archives of files, unpacked without trusting them."""

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from pyg_clusters.errors import InputError

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
        reason = " ".join(f"{type(error).__name__}: {error}".split())
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
