"""Stretches of files that are read apart from one another, for work that is spread over workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyg_clusters.frames.compression import is_compressed
from pyg_clusters.frames.formats import POSITIONS_ONLY, file_format
from pyg_clusters.frames.mdanalysis_reader import num_frames_of_trajectory
from pyg_clusters.frames.read_options import ReadOptions
from pyg_clusters.frames.store import num_frames_of_store
from pyg_clusters.frames.xyz_text import offsets_of_frames


@dataclass(frozen=True)
class Piece:
    """Consecutive blocks of one file.

    Attributes:
        file_number: Place of the file among those that are read, from 0.
        first: Number of the first block.
        end: Number after that of the last block; none where the piece goes on to the end of the file.
        offset: Where the first block begins in a text that is not compressed, in bytes; 0 in other formats.
    """

    file_number: int
    first: int = 0
    end: int | None = None
    offset: int = 0


def pieces_of_file(path: Path, wanted: ReadOptions, file_number: int, blocks: int) -> Iterator[Piece]:
    """The pieces of a file, each of so many blocks; the last may have fewer.

    Stores, trajectories and plain texts can be read from any block on (of a text the beginnings of the pieces are
    looked for, which takes a reading without the parsing). Any other file is one piece.

    Raises:
        InputError: If the file cannot be read.
    """
    step = blocks * wanted.block_size
    kind = file_format(path)
    if kind == "store":
        offsets = [0] * _parts(num_frames_of_store(path), step)
    elif kind == "xyz" and not is_compressed(path):
        offsets = offsets_of_frames(path, step)
    elif kind in POSITIONS_ONLY:
        offsets = [0] * _parts(num_frames_of_trajectory(path, wanted), step)
    else:
        offsets = [0]
    for number, offset in enumerate(offsets):
        end = (number + 1) * blocks if number + 1 < len(offsets) else None
        yield Piece(file_number, number * blocks, end, offset)


def _parts(num_frames: int, step: int) -> int:
    return max(1, -(-num_frames // step))
