"""Where the last whole frame of a binary trajectory ends, which MDAnalysis leaves out or fails at without a word."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

XTC_HEADER: int = 52
"""Bytes of a frame of an XTC before the number of atoms that begins its positions."""

XTC_WIDE: int = 2023
"""First number of frames of an XTC whose size is stored in eight bytes."""

TRR_SIZES: int = 10
"""Parts of a frame of a TRR whose sizes its header holds."""


def whole_frames(path: Path, kind: str, offsets: Sequence[int]) -> tuple[int, bool]:
    """Number of whole frames of a trajectory, and whether a part of another one is behind them.

    Args:
        path: The file.
        kind: ``"DCD"``, ``"XTC"`` or ``"TRR"``.
        offsets: Where the frames of an XTC or TRR begin, the last of which may be cut.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if kind == "DCD":
            first, of_frame = _dcd_sizes(stream)
            return (size - first) // of_frame, (size - first) % of_frame != 0
        if not len(offsets):
            return 0, size > 0
        stream.seek(int(offsets[-1]))
        try:
            end = int(offsets[-1]) + (_xtc_size(stream) if kind == "XTC" else _trr_size(stream))
        except struct.error:
            end = size + 1
    return (len(offsets) - 1, True) if end > size else (len(offsets), end < size)


def check_first_frame(path: Path, kind: str):
    """Checks that the first frame of a trajectory is whole: MDAnalysis prints tracebacks where it is not.

    Raises:
        OSError: If it is not, or the file is of another format.
    """
    with path.open("rb") as stream:
        if kind == "DCD":
            _dcd_sizes(stream)
            return
        try:
            end = _xtc_size(stream) if kind == "XTC" else _trr_size(stream)
        except struct.error:
            end = path.stat().st_size + 1
    if end > path.stat().st_size:
        raise OSError("the file ends within its first frame")


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
    if num_atoms <= 9:  # not compressed
        return XTC_HEADER + 4 + 12 * num_atoms
    stream.seek(32, 1)  # precision, smallest and largest coordinates, index of the small numbers
    width = 8 if magic == XTC_WIDE else 4
    (length,) = struct.unpack(">q" if width == 8 else ">i", stream.read(width))
    return len(head) + 32 + width + -(-length // 4) * 4


def _trr_size(stream: BinaryIO) -> int:
    """Bytes of the frame of a TRR that begins here."""
    start = stream.tell()
    _, _, length = struct.unpack(">3i", stream.read(12))
    stream.seek(-(-length // 4) * 4, 1)
    numbers = struct.unpack(f">{TRR_SIZES + 3}i", stream.read(4 * (TRR_SIZES + 3)))
    sizes, num_atoms = numbers[:TRR_SIZES], numbers[TRR_SIZES]
    of_vectors = next((size // (3 * num_atoms) for size in sizes[7:] if size and num_atoms), 0) or sizes[2] // 9
    return stream.tell() - start + 2 * (of_vectors or 4) + sum(sizes)
