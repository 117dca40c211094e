"""Compressed files, known by their first bytes whatever their name."""

import bz2
import gzip
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyg_clusters.errors import InputError

OPENERS: dict[str, Callable] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
"""How to open a compressed file, by its last suffix."""

FIRST_BYTES: dict[bytes, Callable] = {b"\xfd7zXZ\x00": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
"""How to open a compressed file, by its first bytes."""

OTHERS: dict[bytes, str] = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
}
"""Compressions that are not read, by the first bytes of a file."""

DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""Errors of reading a file that is damaged or cut."""

MAX_RATIO: int = 200
"""A file that unpacks to more than so many times its size, and more than :data:`ALWAYS_UNPACKED`, is refused."""

ALWAYS_UNPACKED: int = 1 << 26
"""So many bytes are unpacked whatever the size of the file."""


def inner_name(path: Path) -> str:
    """Name of a file without the suffix of a compression."""
    return path.stem if path.suffix.lower() in OPENERS else path.name


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed, by its first bytes."""
    return _opener(path) is not None


def other_compression(content: bytes) -> str | None:
    """Name of a compression that is not read, by the first bytes of a file."""
    return next((name for first, name in OTHERS.items() if content.startswith(first)), None)


def open_binary(path: Path) -> BinaryIO:
    """The content of a file, unpacked while it is read."""
    return (_opener(path) or open)(path, "rb")


def first_bytes(path: Path, count: int = 4096) -> bytes:
    """The first bytes of the content of a file, fewer where it is short or damaged."""
    parts: list[bytes] = []
    try:
        with open_binary(path) as stream:
            while count > 0 and (part := stream.read1(count)):  # type: ignore[attr-defined]
                parts.append(part)
                count -= len(part)
    except DAMAGED:
        pass  # reading on says what is wrong
    return b"".join(parts)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A path with the content of a file: its own, or that of a temporary file where it is compressed.

    Raises:
        InputError: If it is damaged, or unpacks to more than :data:`MAX_RATIO` times its size.
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
        except DAMAGED as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{path}: cannot be unpacked ({text}); is it damaged?") from error
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
