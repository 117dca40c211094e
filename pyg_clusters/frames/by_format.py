"""Readers by format, and parts of files that can be read independently: shards for job arrays, pieces for workers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import ase_frames, block_of_frames
from pyg_clusters.frames.block import BadFrame, FrameBlock, Keep, ReadOptions, Topology
from pyg_clusters.frames.lammps import dump_frames
from pyg_clusters.frames.mdanalysis_reader import check_trajectory, num_frames_of_trajectory, trajectory_blocks
from pyg_clusters.frames.paths import POSITIONS_ONLY, file_format, is_compressed
from pyg_clusters.frames.store_reader import num_frames_of_store, store_blocks
from pyg_clusters.frames.xdatcar import xdatcar_frames
from pyg_clusters.frames.xyz_reader import offsets_of_frames, xyz_blocks


def blocks_of_file(
    path: Path, options: ReadOptions, keep: Keep, start: int = 0, offset: int = 0
) -> Iterator[FrameBlock | None]:
    """Read the blocks of a file with the reader of its format, with ``None`` in place of each skipped block.

    Uncompressed text is read from block ``start`` on, whose offset in bytes is ``offset``.
    """
    check_file(path)
    kind = file_format(path)
    if kind == "store":
        return store_blocks(path, options, keep)
    if kind == "xyz":
        return xyz_blocks(path, options, keep, start, offset)
    if kind in POSITIONS_ONLY:
        return trajectory_blocks(path, options, keep, _topology(path, options))
    if kind == "xdatcar":
        frames = xdatcar_frames(path)
    elif kind == "lammps-dump":
        topology = None if options.topology is None else read_topology(options.topology)
        frames = dump_frames(path, topology, options.length)
    else:
        frames = ase_frames(path, kind, options.length)
    return _blocks_of_frames(path, frames, options, keep)


def read_topology(path: Path) -> Topology:
    """Read the elements of the atoms, and their charge, from the first frame of a file."""
    if not path.exists():
        raise InputError(f"{path}: no such file, given as the topology; check its name")
    kind = file_format(path)
    if kind in POSITIONS_ONLY or kind == "store":
        raise InputError(f"{path}: a topology cannot be a file of format {kind}; give one in XYZ, for example")
    block = next(blocks_of_file(path, ReadOptions(with_atoms=True, block_size=1), lambda number: True), None)
    if block is None or not block.atoms:
        raise InputError(f"{path}: no frame with elements ({block.unreadable[0] if block else 'it is empty'})")
    state = None if block.states is None else block.states[0]
    if isinstance(state, str):
        raise InputError(f"{path}: {state}")
    stated = {} if state is None else state.info
    return Topology(path, block.z, block.pos, block.atoms[0].arrays.get("id"), stated)


def check_file(path: Path):
    """Raise an InputError if a file is missing or empty."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: no frames, the file is empty; give a file with at least one cluster")


def _blocks_of_frames(
    path: Path, frames: Iterable[Atoms | BadFrame], options: ReadOptions, keep: Keep
) -> Iterator[FrameBlock | None]:
    numbered = enumerate(frames)
    for number in count():
        read = dict(islice(numbered, options.block_size))
        if not read:
            return
        yield block_of_frames(path, read, options) if keep(number) else None


def _topology(path: Path, options: ReadOptions) -> Topology:
    """Elements of the atoms of a trajectory."""
    check_trajectory(path, options.topology)
    assert options.topology is not None
    return read_topology(options.topology)


@dataclass(frozen=True)
class Shard:
    """Shard ``number`` (from 1) of ``count``: every ``count``-th block of frames.

    The blocks of a file are assigned to the shards in turn, starting at the next shard for each file, so that the
    number of frames need not be known and many small files are distributed evenly.
    """

    number: int
    count: int

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            raise InputError(f"--shard {self}: the shards are 1/{self.count} to {self.count}/{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse ``3/8``.

        Raises:
            InputError: If the text does not have this form.
        """
        number, _, count = text.partition("/")
        if not (number.isdigit() and count.isdigit() and int(count)):
            raise InputError(f"--shard: {text!r} is not a shard such as 3/8, the third of eight")
        return cls(int(number), int(count))

    def has(self, file_index: int, block_index: int) -> bool:
        """Whether a block of a file belongs to the shard."""
        return (file_index + block_index) % self.count == self.number - 1


@dataclass(frozen=True)
class Piece:
    """Consecutive blocks of one file, read by one worker."""

    file_index: int  #: Index of the file among the input files.
    first: int = 0  #: Index of the first block.
    end: int | None = None  #: Index after the last block; ``None`` if the piece extends to the end of the file.
    offset: int = 0  #: Offset in bytes of the first block of uncompressed text; 0 for other formats.


def pieces_of_file(path: Path, options: ReadOptions, file_index: int, blocks: int) -> Iterator[Piece]:
    """Divide a file into pieces of a number of blocks each; the last may have fewer.

    Stores, trajectories and uncompressed text can be read from any block on; text is scanned for the offsets without
    parsing it. Any other file is one piece.
    """
    step, kind, num_frames = blocks * options.block_size, file_format(path), 0
    if kind == "store":
        num_frames = num_frames_of_store(path)
    elif kind in POSITIONS_ONLY:
        num_frames = num_frames_of_trajectory(path, _topology(path, options))
    if kind == "xyz" and not is_compressed(path):
        offsets = offsets_of_frames(path, step)
    else:
        offsets = [0] * max(1, -(-num_frames // step))
    for index, offset in enumerate(offsets):
        end = (index + 1) * blocks if index + 1 < len(offsets) else None
        yield Piece(file_index, index * blocks, end, offset)
