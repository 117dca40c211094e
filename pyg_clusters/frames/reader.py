"""Frames of files in blocks: readers by format, and parts of files that are read independently (shards, pieces)."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from pyg_clusters.concurrency import read_ahead
from pyg_clusters.errors import InputError, MissingProperty
from pyg_clusters.frames.ase_reader import ase_frames, block_of_frames
from pyg_clusters.frames.block import (
    BLOCK_SIZE,
    BadFrame,
    FrameBlock,
    Keep,
    ReadOptions,
    Topology,
    TruncatedFrame,
    UnlabelledFrame,
)
from pyg_clusters.frames.join import as_clusters, reporting_joined
from pyg_clusters.frames.lammps import dump_frames
from pyg_clusters.frames.mdanalysis_reader import check_trajectory, num_frames_of_trajectory, trajectory_blocks
from pyg_clusters.frames.paths import POSITIONS_ONLY, expand_paths, file_format, is_compressed
from pyg_clusters.frames.store_reader import num_frames_of_store, store_blocks
from pyg_clusters.frames.xdatcar import xdatcar_frames
from pyg_clusters.frames.xyz_reader import offsets_of_frames, xyz_blocks
from pyg_clusters.options import Fragments


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
    state = block.stated[0]
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


@dataclass(eq=False)
class Frames:
    """Frames of any number of files, of any formats and sizes, in blocks of arrays.

    Supported formats are frame stores (``.h5``, see :func:`write_store`); (extended) XYZ text, compressed (``.xz``,
    ``.gz``, ``.bz2``) or not; LAMMPS dumps; XDATCAR; DCD, XTC and TRR with MDAnalysis and a topology; and all other
    formats that ASE reads. The format is identified by the content of a file, otherwise by its name. Periodic frames
    are joined across the faces of their cells, see :func:`~pyg_clusters.frames.join.join_frames`. Only a few blocks are
    in memory at a time, whatever the number of frames.

    Create an instance with :meth:`open`. Iteration prefetches blocks in a thread.
    """

    paths: list[Path]
    options: ReadOptions
    on_bad: Literal["stop", "skip"]
    on_missing: Literal["stop", "skip"]

    @classmethod
    def open(
        cls,
        paths: str | os.PathLike | Iterable[str | os.PathLike],
        *,
        properties: Sequence[str] = (),
        atom_properties: Sequence[str] = (),
        with_atoms: bool = False,
        block_size: int = BLOCK_SIZE,
        on_bad: Literal["stop", "skip"] = "stop",
        topology: str | os.PathLike | None = None,
        fragments: Fragments = "refuse",
        on_missing: Literal["stop", "skip"] = "stop",
        length: float = 1.0,
    ) -> "Frames":
        """Open files of frames, without reading them yet.

        Args:
            paths: Files, folders and patterns, or one of them, see :func:`~pyg_clusters.frames.expand_paths`.
            properties: Names of values per frame to read (an ``energy``): from the comment line of XYZ text, otherwise
                from ``atoms.info`` or the results of the calculator, where ASE puts some of them.
            atom_properties: Names of values per atom to read (``forces``).
            with_atoms: Also provide each frame as an ASE object with all contents of the file, in
                :attr:`FrameBlock.atoms`.
            block_size: Number of frames in a block; the last block of a file may have fewer.
            on_bad: ``"stop"`` raises an error at a frame that cannot be read, after yielding the complete frames before
                it; ``"skip"`` lists the frame in :attr:`FrameBlock.unreadable`, possibly of a block without frames. If
                uncompressed text ends within its last frame, as it does while it is being written, the complete frames
                are used with a warning in either case.
            topology: For formats that hold positions only: a file whose first frame has the same atoms in the same
                order.
            fragments: Treatment of a periodic frame that remains in several pieces: ``"refuse"`` it, like a frame that
                cannot be read, or ``"keep"`` the pieces at their nearest images. Frames without a cell are examined by
                :func:`check_block`.
            on_missing: Treatment of a frame without a requested property; same values as ``on_bad``.
            length: Factor in Å by which positions and cells are multiplied, for files that do not state their unit.

        Raises:
            InputError: If a path is invalid, or a topology is missing.
            MissingExtra: If MDAnalysis is needed but not installed.
        """
        options = ReadOptions(
            tuple(properties),
            tuple(atom_properties),
            with_atoms,
            block_size,
            None if topology is None else Path(topology),
            fragments,
            length,
        )
        frames = cls(expand_paths(paths), options, on_bad, on_missing)
        for path in frames.paths:
            if path.exists() and file_format(path) in POSITIONS_ONLY:
                check_trajectory(path, options.topology)
        return frames

    def __iter__(self) -> Iterator[FrameBlock]:
        return self.blocks()

    def pieces(self, blocks: int, file_number: int) -> list[Piece]:
        """Divide a file into pieces of a number of blocks each that can be read independently; the last may have fewer.

        Stores, trajectories and uncompressed text can be read from any block on; text is scanned for the offsets
        without parsing it. Any other file is one piece.

        Raises:
            InputError: If the file cannot be read.
        """
        path = self.paths[file_number]
        check_file(path)
        step, kind, num_frames = blocks * self.options.block_size, file_format(path), 0
        if kind == "store":
            num_frames = num_frames_of_store(path)
        elif kind in POSITIONS_ONLY:
            num_frames = num_frames_of_trajectory(path, _topology(path, self.options))
        if kind == "xyz" and not is_compressed(path):
            offsets = offsets_of_frames(path, step)
        else:
            offsets = [0] * max(1, -(-num_frames // step))
        ends = [*range(blocks, blocks * len(offsets), blocks), None]
        return [
            Piece(file_number, index * blocks, end, offset)
            for index, (end, offset) in enumerate(zip(ends, offsets, strict=True))
        ]

    def blocks(
        self,
        *,
        ahead: int = 4,
        start: tuple[int, int] = (0, 0),
        shard: Shard | None = None,
        piece: Piece | None = None,
        report: bool = True,
    ) -> Iterator[FrameBlock]:
        """Read the blocks, each of one file, in order.

        Args:
            ahead: Number of blocks to prefetch in a thread; with 0 there is no thread.
            start: Position of the first block to read, see :attr:`FrameBlock.position`.
            shard: Read only the blocks of this shard.
            piece: Read only the blocks of this piece.
            report: Warn at the end how many frames were joined across the faces of their cells.

        Raises:
            InputError: If a file is missing, empty or of an unsupported format, a frame cannot be read, or a property
                is missing (the message lists the existing ones).
        """
        pieces = [piece] if piece else [Piece(number) for number in range(start[0], len(self.paths))]
        blocks: Iterator[FrameBlock] = (block for part in pieces for block in self._blocks(part, start, shard))
        blocks = reporting_joined(blocks) if report else blocks
        return read_ahead(blocks, ahead) if ahead else blocks

    def _blocks(self, piece: Piece, start: tuple[int, int], shard: Shard | None) -> Iterator[FrameBlock]:
        file_number, path = piece.file_index, self.paths[piece.file_index]

        def keep(number: int) -> bool:
            position = (file_number, number)
            return number >= piece.first and position >= start and (shard is None or shard.has(*position))

        first = piece.first if piece.offset else 0
        number = None
        for number, block in enumerate(blocks_of_file(path, self.options, keep, first, piece.offset), start=first):
            if block is not None:
                if self.options.length != 1:
                    block.pos, block.cell = block.pos * self.options.length, block.cell * self.options.length
                block.file_number, block.block_number = file_number, number
                if block.joined is None:  # a store holds frames that were checked
                    block.fragments = self.options.fragments
                yield from self._without_bad(as_clusters(block, self.options.fragments))
            if number + 1 == piece.end:
                return
        if number is None and not first:
            raise InputError(f"{path}: no frames; give a file with at least one cluster")

    def _without_bad(self, block: FrameBlock) -> Iterator[FrameBlock]:
        """Yield the block, or yield its frames before the first bad one at which to stop, and raise the error."""
        last = block.unreadable[-1] if block.unreadable else None
        if isinstance(last, TruncatedFrame) and last.number > 0:
            block.unreadable.pop()
            warnings.warn(
                f"{last.file}: the file ends within frame {last.number} and is perhaps still being written; "
                "the complete frames before it are used",
                stacklevel=2,
            )
        stops = [bad for bad in block.unreadable if self._stops(bad)]
        if not stops:
            if len(block) or block.unreadable:
                yield block
            return
        bad = stops[0]
        before = block.number < bad.number
        if before.any():
            whole = block.select(before)
            whole.partial = True
            yield whole
        raise MissingProperty(str(bad)) if isinstance(bad, UnlabelledFrame) else bad.error

    def _stops(self, frame: BadFrame) -> bool:
        return (self.on_missing if isinstance(frame, UnlabelledFrame) else self.on_bad) == "stop"


def read_blocks(
    paths: str | os.PathLike | Iterable[str | os.PathLike], *, report: bool = True, **kwargs: Any
) -> Iterator[FrameBlock]:
    """Read the frames of files in blocks, as ``Frames.open(...).blocks()`` does, but without a thread.

    Args:
        paths: Files, folders and patterns.
        report: Warn at the end how many frames were joined across the faces of their cells.
        kwargs: Further arguments of :meth:`Frames.open`.
    """
    return Frames.open(paths, **kwargs).blocks(ahead=0, report=report)
