"""Frames of files, in blocks or all in memory."""

import os
import threading
import warnings
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

import numpy as np
from ase import Atoms

from pyg_clusters.errors import InputError, MissingProperty
from pyg_clusters.frames.block import (
    BLOCK_SIZE,
    BadFrame,
    FrameBlock,
    ReadOptions,
    TruncatedFrame,
    UnlabelledFrame,
    flat_arrays,
    origins_of,
    states_of,
)
from pyg_clusters.frames.by_format import Piece, Shard, blocks_of_file, check_file, pieces_of_file
from pyg_clusters.frames.checks import check_block, finite_frames, group_labels, numbers
from pyg_clusters.frames.join import as_clusters, reporting_joined
from pyg_clusters.frames.mdanalysis_reader import check_trajectory
from pyg_clusters.frames.paths import POSITIONS_ONLY, expand_paths, file_format
from pyg_clusters.options import Fragments

T = TypeVar("T")

_END = object()


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """Prefetch items in a background thread, up to ``depth`` ahead, in order.

    An error in the thread is raised here, after the items before it. A generator is closed in the thread that ran it,
    so that its resources (an open file, a lock) are released there. The garbage collector may close an abandoned reader
    in the middle of any call of another one: readers therefore share no locks, unlike those of ``concurrent.futures``.

    Example:
        >>> list(read_ahead(range(5), depth=2))
        [0, 1, 2, 3, 4]
    """
    iterator = iter(items)
    results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    wanted, stopped, finished = threading.Semaphore(max(1, depth)), threading.Event(), threading.Event()

    def read():
        failure = None
        try:
            with closing(iterator) if isinstance(iterator, Generator) else nullcontext():
                while wanted.acquire() and not stopped.is_set() and (item := next(iterator, _END)) is not _END:
                    results.put((item, None))
        except BaseException as error:  # errors of any kind are raised in the thread of the consumer
            failure = error
        results.put((_END, failure))
        finished.set()

    thread = threading.Thread(target=read, name="read_ahead", daemon=True)
    thread.start()
    try:
        while (found := results.get())[0] is not _END:
            wanted.release()
            yield found[0]
        if found[1] is not None:
            raise found[1]
    finally:
        stopped.set()
        wanted.release()
        finished.wait()
        thread.join(timeout=1.0)  # the collector may have interrupted a call that holds the lock on the list of threads


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
        """Divide a file into pieces that can be read independently, of a number of blocks each.

        Raises:
            InputError: If the file cannot be read.
        """
        path = self.paths[file_number]
        check_file(path)
        return list(pieces_of_file(path, self.options, file_number, blocks))

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


@dataclass
class FrameSet:
    """Frames of any number of files, of any sizes.

    Attributes:
        file: File of each frame, ``[num_frames]``.
        number: Index of each frame in its file, from 0, ``[num_frames]``.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the frames ``[num_frames + 1]``.
        properties: Requested values per frame, ``[num_frames]`` each.
        bad: Frames that were left out.
        origins: File and index from which each frame was first read, ``[num_frames]`` each.
        states: Charge and spin of each frame as in :attr:`FrameBlock.states`, ``[num_frames]``; ``None`` if none states
            them.
    """

    file: np.ndarray
    number: np.ndarray
    z: np.ndarray
    pos: np.ndarray
    ptr: np.ndarray
    properties: dict[str, np.ndarray]
    bad: list[BadFrame]
    origins: tuple[np.ndarray, np.ndarray]
    states: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.number)

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each frame, ``[num_frames]``."""
        return np.diff(self.ptr)

    @property
    def charges(self) -> np.ndarray:
        """Charge of each frame in e, ``[num_frames]``; raises an error at a frame whose charge or spin is invalid."""
        charges = np.zeros(len(self), dtype=int)
        for frame, state in enumerate(self.states if self.states is not None else ()):
            if isinstance(state, str):
                raise BadFrame(str(self.file[frame]), int(self.number[frame]), state).error
            charges[frame] = 0 if state is None else state.charge
        return charges

    def atoms(self, frame: int) -> Atoms:
        """Structure of the frame of an index in the set."""
        inside = slice(self.ptr[frame], self.ptr[frame + 1])
        return Atoms(numbers=self.z[inside], positions=self.pos[inside])


def read_set(
    names: Sequence[str],
    *,
    target: str | None = None,
    group: str | None = None,
    sizes: Collection[int] | None = None,
    atomic_numbers: Collection[int] | None = None,
    state: tuple[int, bool] | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
) -> FrameSet:
    """Read and check all frames of files.

    Args:
        names: Files, folders and patterns, or names of shipped data (``gallium``).
        target: Name of a value per frame to read, which must be a finite number.
        group: Name of a value per frame to read, which identifies its group (see :func:`group_labels`).
        sizes: Numbers of atoms of the frames to keep; by default all.
        atomic_numbers: Elements that a model knows; by default all.
        state: Charge and spin that a model knows, see :func:`~pyg_clusters.frames.check_block`; by default all.
        on_bad: ``"stop"`` raises an error at a frame that cannot be used, ``"skip"`` leaves it out.
        fragments: See :meth:`Frames.open`.
    """
    bad: list[BadFrame] = []
    blocks = []
    found: set[int] = set()
    properties = [name for name in (target, group) if name]
    for read in read_blocks(names, properties=properties, on_bad=on_bad, on_missing=on_bad, fragments=fragments):
        found |= set(read.sizes.tolist())
        chosen = read if sizes is None else read.select(np.isin(read.sizes, list(sizes)))
        block, left_out = check_block(chosen, atomic_numbers=atomic_numbers, state=state, on_bad=on_bad)
        if target and on_bad == "skip":
            block, invalid = finite_frames(block, target)
            left_out += invalid
        if target:
            block.properties[target] = numbers(block, target)
        if group:
            block.properties[group] = group_labels(block, group)
        blocks.append(block)
        bad += sorted({*left_out, *read.unreadable}, key=lambda frame: frame.number)
    number = np.concatenate([block.number for block in blocks])
    if not len(number):
        reason = "no frame can be used" + (f"; the first: {bad[0]}" if bad else "")
        if sizes is not None and not set(sizes) & found:
            reason = f"no cluster of {', '.join(map(str, sizes))} atoms; there are {', '.join(map(str, sorted(found)))}"
        raise InputError(f"{', '.join(names)}: {reason}")
    z, pos, ptr = flat_arrays(blocks)
    return FrameSet(
        file=np.concatenate([np.full(len(block), block.file) for block in blocks]),
        number=number,
        z=z,
        pos=pos,
        ptr=ptr,
        properties={name: np.concatenate([block.properties[name] for block in blocks]) for name in properties},
        bad=bad,
        origins=origins_of(blocks),
        states=states_of(blocks),
    )
