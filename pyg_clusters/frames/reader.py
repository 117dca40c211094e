"""Frames from files, in blocks."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import BadFrame, FrameBlock, UnlabelledFrame
from pyg_clusters.frames.formats import POSITIONS_ONLY, file_format
from pyg_clusters.frames.join import as_clusters, reporting_joined
from pyg_clusters.frames.mdanalysis_reader import check_trajectory, trajectory_blocks
from pyg_clusters.frames.one_by_one import frames_by_format
from pyg_clusters.frames.partition import Piece, Shard, pieces_of_file
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.prefetch import read_ahead
from pyg_clusters.frames.read_options import Keep, ReadOptions, TruncatedFrame, warn_of_half_frame
from pyg_clusters.frames.store import store_blocks
from pyg_clusters.frames.xyz_reader import xyz_blocks
from pyg_clusters.options.common import Fragments

BLOCK_SIZE: int = 1000
"""Default number of frames in a block."""

Place = tuple[int, int]
"""Number of a file among those given, and of a block in it, from 0."""


class Frames:
    """The frames of any number of files, of any formats and sizes, in blocks of arrays.

    Read are: frame stores (``.h5``, see :func:`write_store`); (extended) XYZ text, compressed (``.xz``, ``.gz``,
    ``.bz2``) or not, LAMMPS dumps and XDATCAR by parsers of their own; DCD, XTC and TRR by MDAnalysis, if a topology is
    given; everything else that ASE reads. The content of a file tells its format, or else its name. Periodic frames are
    joined over the faces of their cells, see :func:`~pyg_clusters.frames.join.join_frames`. No more than some blocks
    are held at a time, however many frames there are.

    Make one with :meth:`open`; going through it reads ahead in a thread.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        wanted: ReadOptions,
        on_bad: Literal["stop", "skip"] = "stop",
        on_missing: Literal["stop", "skip"] = "stop",
    ):
        self.paths = list(paths)
        self.wanted = wanted
        self.on_bad = on_bad
        self.on_missing = on_missing

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
    ) -> "Frames":
        """The frames of files, none of which is read yet.

        Args:
            paths: Files, folders and patterns, see :func:`~pyg_clusters.frames.expand_paths`; or one of them.
            properties: Names of values per frame to read along (an ``energy``): in XYZ text those of the comment line,
                else those in ``atoms.info`` or the results of its calculator, where ASE puts some.
            atom_properties: Names of values per atom to read along (``forces``).
            with_atoms: Give each frame as ASE has it, too, with all that its file says: :attr:`FrameBlock.atoms`.
            block_size: Number of frames in a block; the last of a file may have fewer.
            on_bad: What to do with a frame that cannot be read: ``"stop"`` raises (after the whole frames before it are
                given), ``"skip"`` lists it in :attr:`FrameBlock.unreadable`, which may come with a block of no frames.
                Where a text that is not compressed ends within its last frame, as while the program that writes it is
                at work, the whole frames are used with a warning in either case.
            topology: For formats that hold positions only: a file whose first frame has the same atoms in the same
                order.
            fragments: What to do with a periodic frame that stays in several pieces: ``"refuse"`` it, as one that
                cannot be read, or ``"keep"`` the pieces at their nearest images.
            on_missing: What to do with a frame without a property that is asked for: as ``on_bad``.

        Raises:
            InputError: If a file is missing, or nothing says what its atoms are.
            MissingExtra: If MDAnalysis is needed and not installed.
        """
        wanted = ReadOptions(
            tuple(properties),
            tuple(atom_properties),
            with_atoms,
            block_size,
            None if topology is None else Path(topology),
            fragments,
        )
        frames = cls(expand_paths(paths), wanted, on_bad, on_missing)
        for path in frames.paths:
            if path.exists() and file_format(path) in POSITIONS_ONLY:
                check_trajectory(path, wanted.topology)
        return frames

    def __iter__(self) -> Iterator[FrameBlock]:
        return self.blocks()

    def pieces(self, blocks: int, file_number: int) -> list[Piece]:
        """The pieces of a file that can be read apart from one another, each of so many blocks.

        Raises:
            InputError: If the file cannot be read.
        """
        path = self.paths[file_number]
        _check_file(path)
        return list(pieces_of_file(path, self.wanted, file_number, blocks))

    def blocks(
        self,
        *,
        ahead: int = 4,
        start: Place = (0, 0),
        shard: Shard | None = None,
        piece: Piece | None = None,
        report: bool = True,
    ) -> Iterator[FrameBlock]:
        """The blocks, each of one file, in order.

        Args:
            ahead: So many are read, in a thread, before they are asked for; none if 0.
            start: The first block to read.
            shard: Give the blocks of this part only.
            piece: Give the blocks of this piece only.
            report: Warn in the end of how many frames were joined over the faces of their cells.

        Raises:
            InputError: If a file is missing, empty or of no readable format, a frame is cut short, or a property is
                missing (the message lists those found).
        """
        pieces = [piece] if piece else [Piece(number) for number in range(start[0], len(self.paths))]
        blocks: Iterator[FrameBlock] = (block for part in pieces for block in self._blocks(part, start, shard))
        blocks = reporting_joined(blocks) if report else blocks
        return read_ahead(blocks, ahead) if ahead else blocks

    def _blocks(self, piece: Piece, start: Place, shard: Shard | None) -> Iterator[FrameBlock]:
        file_number, path = piece.file_index, self.paths[piece.file_index]

        def keep(number: int) -> bool:
            place = (file_number, number)
            return number >= piece.first and place >= start and (shard is None or shard.has(*place))

        first = piece.first if piece.offset else 0
        number = None
        for number, block in enumerate(blocks_of_file(path, self.wanted, keep, first, piece.offset), start=first):
            if block is not None:
                if self.wanted.length != 1:
                    block.pos, block.cell = block.pos * self.wanted.length, block.cell * self.wanted.length
                block.file_number, block.block_number = file_number, number
                yield from self._without_bad(as_clusters(block, self.wanted.fragments))
            if number + 1 == piece.end:
                return
        if number is None and not first:
            raise InputError(f"{path}: no frames in it; give a file with at least one cluster")

    def _without_bad(self, block: FrameBlock) -> Iterator[FrameBlock]:
        """The block; or its frames before the first bad one, then the error."""
        last = block.unreadable[-1] if block.unreadable else None
        if isinstance(last, TruncatedFrame) and last.number > 0:
            block.unreadable.pop()
            warn_of_half_frame(last)
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
        raise InputError(str(bad))

    def _stops(self, frame: BadFrame) -> bool:
        return (self.on_missing if isinstance(frame, UnlabelledFrame) else self.on_bad) == "stop"


def read_blocks(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    properties: Sequence[str] = (),
    atom_properties: Sequence[str] = (),
    with_atoms: bool = False,
    block_size: int = BLOCK_SIZE,
    on_bad: Literal["stop", "skip"] = "stop",
    on_missing: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
    report: bool = True,
    length: float = 1.0,
) -> Iterator[FrameBlock]:
    """Reads the frames of files in blocks, each from one file: ``Frames.open(...).blocks()``, without a thread.

    Positions and cells are taken to be in units of ``length`` Å, where a file does not say its unit.
    """
    frames = Frames.open(
        paths,
        properties=properties,
        atom_properties=atom_properties,
        with_atoms=with_atoms,
        block_size=block_size,
        on_bad=on_bad,
        on_missing=on_missing,
        fragments=fragments,
    )
    frames.wanted = replace(frames.wanted, length=length)
    return frames.blocks(ahead=0, report=report)


def blocks_of_file(
    path: Path, wanted: ReadOptions, keep: Keep, start: int = 0, offset: int = 0
) -> Iterator[FrameBlock | None]:
    """Blocks of a file by the reader of its format, none in place of one that is passed over.

    Of a text that is not compressed, those from block ``start`` on, which begins ``offset`` bytes from the beginning.
    """
    _check_file(path)
    kind = file_format(path)
    if kind == "store":
        return store_blocks(path, wanted, keep)
    if kind == "xyz":
        return xyz_blocks(path, wanted, keep, start, offset)
    if kind in POSITIONS_ONLY:
        return trajectory_blocks(path, wanted, keep)
    return _blocks_of_frames(path, frames_by_format(path, kind, wanted.topology), wanted, keep)


def frames_of_file(path: Path, fragments: Fragments = "refuse") -> Iterator[Atoms | BadFrame]:
    """Each frame as its file has it, or what is wrong with it."""
    _check_file(path)
    kind = file_format(path)
    wanted = ReadOptions(with_atoms=True, fragments=fragments)
    if kind == "store":
        return _atoms_of_blocks(store_blocks(path, wanted, lambda number: True))
    if kind in POSITIONS_ONLY:
        return _atoms_of_blocks(trajectory_blocks(path, wanted, lambda number: True))
    return frames_by_format(path, kind)


def _check_file(path: Path):
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: no frames in it, the file is empty; give a file with at least one cluster")


def _blocks_of_frames(
    path: Path, frames: Iterable[Atoms | BadFrame], wanted: ReadOptions, keep: Keep
) -> Iterator[FrameBlock | None]:
    good: dict[int, Atoms] = {}
    unreadable: list[BadFrame] = []
    first = 0

    def block() -> FrameBlock | None:
        if not keep(first // wanted.block_size):
            return None
        found = block_of_frames(path, good, wanted.properties, wanted.atom_properties, unreadable)
        if not wanted.with_atoms:
            found.atoms = None
        return found

    for number, frame in enumerate(frames):
        if isinstance(frame, Atoms):
            good[number] = frame
        else:
            unreadable.append(frame)
        if number + 1 - first == wanted.block_size:
            yield block()
            good, unreadable, first = {}, [], number + 1
    if good or unreadable:
        yield block()


def _atoms_of_blocks(blocks: Iterable[FrameBlock | None]) -> Iterator[Atoms | BadFrame]:
    for block in blocks:
        if block is not None and block.atoms is not None:
            good = dict(zip(block.number.tolist(), range(len(block)), strict=True))
            bad = {frame.number: frame for frame in block.unreadable}
            for number in sorted([*good, *bad]):
                yield bad[number] if number in bad else block.atoms[good[number]]
