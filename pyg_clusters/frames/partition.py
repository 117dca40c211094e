"""Partition of the frames of files: shards for job arrays, pieces for workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import ReadOptions
from pyg_clusters.frames.by_format import num_frames_of_file
from pyg_clusters.frames.paths import file_format, is_compressed
from pyg_clusters.frames.xyz_reader import offsets_of_frames


@dataclass(frozen=True)
class Shard:
    """Shard ``number`` (from 1) of ``count``: every ``count``-th block of frames.

    Blocks are dealt out in turn, the first block of each file to the next shard, so that the number of frames need not
    be known and many small files are spread evenly.
    """

    number: int
    count: int

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            raise InputError(f"--shard {self}: the parts are 1/{self.count} to {self.count}/{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse ``3/8``.

        Raises:
            InputError: If it is no part.
        """
        number, _, count = text.partition("/")
        if not (number.isdigit() and count.isdigit() and int(count)):
            raise InputError(f"--shard: {text!r} is not a part such as 3/8, the third of eight")
        return cls(int(number), int(count))

    def has(self, file_index: int, block_index: int) -> bool:
        """Whether a block of a file belongs to the shard."""
        return (file_index + block_index) % self.count == self.number - 1


@dataclass(frozen=True)
class Piece:
    """Consecutive blocks of one file, which a worker reads on its own.

    Attributes:
        file_index: Index of the file among the input.
        first: Index of the first block.
        end: Index after the last block; none if the piece reaches to the end of the file.
        offset: Offset of the first block in bytes in uncompressed text; 0 in other formats.
    """

    file_index: int
    first: int = 0
    end: int | None = None
    offset: int = 0


def pieces_of_file(path: Path, wanted: ReadOptions, file_index: int, blocks: int) -> Iterator[Piece]:
    """Pieces of a file of the given number of blocks; the last may have fewer.

    Stores, trajectories and uncompressed text can be read from any block on (the offsets of text are found by reading
    it without parsing). Any other file is one piece.

    Raises:
        InputError: If the file cannot be read.
    """
    step = blocks * wanted.block_size
    if file_format(path) == "xyz" and not is_compressed(path):
        offsets = offsets_of_frames(path, step)
    else:
        offsets = [0] * max(1, -(-(num_frames_of_file(path, wanted) or 0) // step))
    for index, offset in enumerate(offsets):
        end = (index + 1) * blocks if index + 1 < len(offsets) else None
        yield Piece(file_index, index * blocks, end, offset)
