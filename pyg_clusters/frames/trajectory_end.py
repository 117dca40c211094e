"""Where the last whole frame of a binary trajectory ends, which MDAnalysis leaves out or fails at without a word."""

import struct
from pathlib import Path
from typing import BinaryIO

XTC_HEADER: int = 52
"""Bytes of a frame of an XTC before the number of atoms that begins its positions."""

XTC_NARROW, XTC_WIDE = 1995, 2023
"""Numbers with which frames of an XTC begin; of the second kind sizes are stored in eight bytes."""

TRR_MAGIC: int = 1993
"""Number with which frames of a TRR begin."""

TRR_SIZES: int = 10
"""Parts of a frame of a TRR whose sizes its header holds."""


def whole_frames(path: Path, kind: str) -> tuple[int, int]:
    """Number of whole frames of a trajectory, and where the last of them ends, in bytes.

    Args:
        path: The file.
        kind: ``"DCD"``, ``"XTC"`` or ``"TRR"``.

    Raises:
        OSError: If the first frame is not whole, or the file is of another format.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if kind == "DCD":
            first, of_frame = _dcd_sizes(stream)
            number = (size - first) // of_frame
            return number, first + number * of_frame
        number = end = 0
        while end < size:
            try:
                of_frame = _xtc_size(stream) if kind == "XTC" else _trr_size(stream)
            except struct.error:  # within the head of a frame
                break
            if of_frame <= 0 or end + of_frame > size:
                break
            number, end = number + 1, end + of_frame
            stream.seek(end)
    if not number:
        raise OSError("the file ends within its first frame")
    return number, end


def _dcd_sizes(stream: BinaryIO) -> tuple[int, int]:
    """Bytes before the first frame, and of each frame.

    Raises:
        OSError: If there is no whole frame.
    """
    start = stream.read(4)
    order = {struct.pack("<i", 84): "<", struct.pack(">i", 84): ">"}.get(start, "")
    if not order:
        raise OSError("the file does not begin as a DCD")
    stream.seek(0)
    control = _record(stream, order)
    for _ in range(2):
        _record(stream, order)
    first = stream.tell()
    has_cell, has_fourth = struct.unpack(f"{order}2i", control[44:52])
    for _ in range(3 + bool(has_cell) + bool(has_fourth)):
        _record(stream, order)
    return first, stream.tell() - first


def _record(stream: BinaryIO, order: str) -> bytes:
    """The next record of a Fortran file, between two copies of its length."""
    try:
        (length,) = struct.unpack(f"{order}i", stream.read(4))
        content = stream.read(max(0, length))
        (again,) = struct.unpack(f"{order}i", stream.read(4))
    except struct.error:
        raise OSError("the file ends within its first frame") from None
    if length != again:
        raise OSError("the file is no DCD, or is damaged")
    return content


def _xtc_size(stream: BinaryIO) -> int:
    """Bytes of the frame of an XTC that begins here."""
    head = stream.read(XTC_HEADER + 4)
    magic, num_atoms = struct.unpack(">2i", head[:8])
    if magic not in (XTC_NARROW, XTC_WIDE):
        raise OSError("a frame of it does not begin as those of an XTC")
    if num_atoms <= 9:  # not compressed
        return XTC_HEADER + 4 + 12 * num_atoms
    stream.seek(32, 1)  # precision, smallest and largest coordinates, index of the small numbers
    width = 8 if magic == XTC_WIDE else 4
    (length,) = struct.unpack(">q" if width == 8 else ">i", stream.read(width))
    return len(head) + 32 + width + -(-length // 4) * 4


def _trr_size(stream: BinaryIO) -> int:
    """Bytes of the frame of a TRR that begins here."""
    start = stream.tell()
    magic, _, length = struct.unpack(">3i", stream.read(12))
    if magic != TRR_MAGIC:
        raise OSError("a frame of it does not begin as those of a TRR")
    stream.seek(-(-length // 4) * 4, 1)
    numbers = struct.unpack(f">{TRR_SIZES + 3}i", stream.read(4 * (TRR_SIZES + 3)))
    sizes, num_atoms = numbers[:TRR_SIZES], numbers[TRR_SIZES]
    of_vectors = next((size // (3 * num_atoms) for size in sizes[7:] if size and num_atoms), 0) or sizes[2] // 9
    return stream.tell() - start + 2 * (of_vectors or 4) + sum(sizes)
