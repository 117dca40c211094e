"""Opening of files: compression, and limits on sizes."""

import bz2
import gzip
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyg_clusters.errors import InputError, describe_error

VARIABLE: str = "PYG_CLUSTERS_MAX_ATOMS"
"""Environment variable that sets the maximum number of atoms of a frame."""

MAX_ATOMS: int = 250_000
"""Default maximum number of atoms of a frame."""


def max_atoms() -> int:
    """Maximum number of atoms of a frame: :data:`MAX_ATOMS`, or the environment variable :data:`VARIABLE`."""
    text = os.environ.get(VARIABLE, str(MAX_ATOMS))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{VARIABLE} must be a positive number of atoms, got {text!r}")
    return int(text)


def check_num_atoms(where: object, number: int):
    """Check that a frame has at most :func:`max_atoms` atoms."""
    if number > max_atoms():
        raise InputError(f"{where}: {number:,} atoms in a frame; {lifted_by()}")


def lifted_by() -> str:
    """Remedy in messages about limits that follow from :func:`max_atoms`."""
    return f"if the file is correct, set the environment variable {VARIABLE} higher (now {max_atoms()})"


OPENERS: dict[str, Callable] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
"""Functions that open compressed files, by their last suffix."""

FIRST_BYTES: dict[bytes, Callable] = {b"\xfd7zXZ\x00": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
"""Functions that open compressed files, by their first bytes."""

OTHERS: dict[bytes, str] = {
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
