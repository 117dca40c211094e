"""Results of block after block of frames, for work that is gone on with after a stop."""

import json
import os
import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.resume import check_settings, write_settings


@dataclass(frozen=True)
class FinishedBlock:
    """A block whose results are on the disk.

    Attributes:
        file_number: Place of its file among those that are read, from 0.
        block_number: Its number in the file, from 0.
        frames: Number of its frames that were used.
        end: Length of the results in bytes, this block included.
        checksum: CRC-32 of the results of the block.
        bad: Frames that were left out.
    """

    file_number: int
    block_number: int
    frames: int
    end: int
    checksum: int
    bad: tuple[BadFrame, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Numbers of file and block, which order the blocks."""
        return self.file_number, self.block_number

    def to_json(self) -> str:
        """One line."""
        bad = [[frame.file, frame.number, frame.reason] for frame in self.bad]
        return json.dumps([self.file_number, self.block_number, self.frames, self.end, self.checksum, bad])

    @classmethod
    def from_json(cls, line: str) -> "FinishedBlock":
        """The block of a line.

        Raises:
            ValueError: If the line is not a whole one.
        """
        try:
            file_number, block_number, frames, end, checksum, bad = json.loads(line)
            return cls(file_number, block_number, frames, end, checksum, tuple(BadFrame(*frame) for frame in bad))
        except TypeError as error:
            raise ValueError(f"not the line of a block: {line[:80]!r}") from error


class BlockLog:
    """A folder with the results of the blocks that are finished, each on the disk as soon as it is there.

    It holds ``settings.json``, what the results depend on; ``results``, to which the bytes of each block are added; and
    ``blocks.jsonl`` with a line for each block. Opened again with the same settings, it goes on after the last block of
    which both are whole; what a kill has cut short, or a power failure has not written, is removed.

    Args:
        folder: It is made with the first block.
        settings: What the results depend on, in values that JSON knows.
        free: Names of settings that may be others when the log is opened again.
        head: What the results begin with.
        overwrite: Begin anew, whatever is there.

    Raises:
        InputError: If there are results of other settings, or it cannot be read or written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "log"
        >>> log = BlockLog(folder, {"model": "a"})
        >>> log.append((0, 0), 1000, b"the energies")
        >>> again = BlockLog(folder, {"model": "a"})
        >>> again.next_place, again.num_frames, again.results.read_bytes()
        ((0, 1), 1000, b'the energies')
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        free: Collection[str] = (),
        *,
        head: bytes = b"",
        overwrite: bool = False,
    ):
        self.folder = folder
        self.settings = folder / "settings.json"
        self.results = folder / "results"
        self.blocks = folder / "blocks.jsonl"
        self.num_blocks = self.num_frames = self._end = 0
        self.bad: list[BadFrame] = []
        self.next_place = (0, 0)
        self._settings = dict(settings)
        self._head = head
        if overwrite:
            self.remove()
        if self.settings.exists() or self.blocks.exists():
            check_settings(self.settings, settings, free, of=folder)
            try:
                self._recover()
            except OSError as error:
                raise InputError(f"{folder}: cannot be read or written ({error.strerror}); remove it") from error

    def begin(self):
        """Writes the settings and what the results begin with, if no block is finished yet.

        Raises:
            InputError: If the system refuses to write.
        """
        if self.num_blocks:
            return
        write_settings(self.settings, self._settings)
        try:
            self.blocks.write_bytes(b"")
            self.results.write_bytes(self._head)
        except OSError as error:
            raise self._refused(error) from error
        self._end = len(self._head)

    def _recover(self):
        """Takes what is whole, and cuts off the rest."""
        whole = 0
        if self.results.exists():
            with self.results.open("rb") as results:
                self._end = len(results.read(len(self._head)))
                for line, block in _finished(self.blocks):
                    if zlib.crc32(results.read(block.end - self._end)) != block.checksum:
                        break
                    whole += line
                    self._count(block)
        if self.num_blocks:
            write_settings(self.settings, self._settings)
            os.truncate(self.blocks, whole)
            os.truncate(self.results, self._end)

    def _refused(self, error: OSError) -> InputError:
        reason = f"cannot write {self.folder}: {error.strerror}"
        return InputError(f"{reason}; make room there, and the same command goes on")

    def _count(self, block: FinishedBlock):
        self.num_blocks += 1
        self.num_frames += block.frames
        self.bad += block.bad
        self.next_place = (block.file_number, block.block_number + 1)
        self._end = block.end

    def append(self, place: tuple[int, int], frames: int, results: bytes, bad: Sequence[BadFrame] = ()):
        """Adds a block that is finished.

        Args:
            place: Numbers of its file and of the block in it.
            frames: Number of its frames that were used.
            results: Added to the results.
            bad: Frames that were left out.

        Raises:
            InputError: If the system refuses to write.
        """
        self.begin()
        block = FinishedBlock(*place, frames, self._end + len(results), zlib.crc32(results), tuple(bad))
        try:
            with self.results.open("ab") as stream:
                stream.write(results)
            with self.blocks.open("a", encoding="utf-8") as stream:
                stream.write(block.to_json() + "\n")
        except OSError as error:
            raise self._refused(error) from error
        self._count(block)

    def finished(self) -> Iterator[FinishedBlock]:
        """The blocks that are finished, in their order."""
        return (block for _, block in _finished(self.blocks)) if self.num_blocks else iter(())

    def remove(self):
        """Removes the folder; the settings last, so that a kill leaves a log of fewer blocks."""
        for path in (self.blocks, self.results):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _finished(path: Path) -> Iterator[tuple[int, FinishedBlock]]:
    """The whole lines: length in bytes and block."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                block = FinishedBlock.from_json(line.decode())
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield len(line), block
