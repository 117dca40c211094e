"""Large text files: limits, lines, tables of numbers, and labels of atoms."""

import os
import re
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow
import pyarrow.csv
from ase.data import atomic_numbers

from pyg_clusters.errors import InputError, describe_error
from pyg_clusters.frames.block import TruncatedFrame, UnrecoverableFrame
from pyg_clusters.frames.paths import CORRUPTED, is_compressed, open_binary

BYTES_AT_ONCE: int = 1 << 20  # number of bytes read from a file at a time
SHORT: int = 20  # maximum number of bytes of a short line

VARIABLE: str = "PYG_CLUSTERS_MAX_ATOMS"
"""Environment variable that sets the maximum number of atoms of a frame."""

MAX_ATOMS: int = 250_000
"""Default maximum number of atoms of a frame."""


def max_atoms() -> int:
    """Maximum number of atoms of a frame: :data:`MAX_ATOMS`, or the environment variable :data:`VARIABLE`."""
    text = os.environ.get(VARIABLE, str(MAX_ATOMS))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{VARIABLE} must be a positive number of atoms, got {text!r}")
    return int(text)


def check_num_atoms(where: object, number: int):
    """Check that a frame has at most :func:`max_atoms` atoms."""
    if number > max_atoms():
        raise InputError(f"{where}: {number:,} atoms in a frame; {lifted_by()}")


def lifted_by() -> str:
    """Remedy in messages about limits that follow from :func:`max_atoms`."""
    return f"if the file is correct, set the environment variable {VARIABLE} higher (now {max_atoms()})"


Item = TypeVar("Item")


def split_text(
    path: Path,
    split: Callable[["TextLines", type[UnrecoverableFrame], int], Iterator[Item]],
    start: int = 0,
    offset: int = 0,
) -> Iterator[Item]:
    """Read the frames of a text file, compressed or not, one at a time.

    Args:
        path: The file.
        split: Function that generates frames from the lines, the kind of bad frame if the text ends within one (a
            compressed file is not still being written), and the index of the first frame.
        start: Index of the first frame.
        offset: Offset of the first frame in bytes; 0 for compressed text.
    """
    kind = UnrecoverableFrame if is_compressed(path) else TruncatedFrame
    index = start
    try:
        with open_binary(path) as stream:
            if offset:
                stream.seek(offset)
            for frame in split(TextLines(path, stream, offset), kind, start):
                yield frame
                index += 1
    except CORRUPTED as error:
        reason = f"cannot be read at frame {index} ({describe_error(error)})"
        raise InputError(f"{path}: {reason}; is it corrupted?") from error


FORTRAN: re.Pattern[str] = re.compile(r"(?<![\w.])([+-]?(?:\d+\.\d*|\.\d+))[dD]([+-]?\d+)(?![\w.])")
"""Matches a number with a decimal point and an exponent of double precision as Fortran writes it."""


def with_usual_exponents(text: str) -> str:
    """Text with the exponents of Fortran written as usual.

    Example:
        >>> with_usual_exponents("energy=-1.5D+01 state=3d10 Pd 0.d0")
        'energy=-1.5e+01 state=3d10 Pd 0.e0'
    """
    return FORTRAN.sub(r"\1e\2", text)


def is_number(word: str | bytes) -> bool:
    """Whether a word is a number."""
    try:
        float(with_usual_exponents(word.decode("latin-1")) if isinstance(word, bytes) else word)
    except ValueError:
        return False
    return True


def warn_of_unended(where: object):
    """Warn that the last line of a text has no newline."""
    warnings.warn(
        f"{where}: the last line has no newline; if the file is still being written, its last number may be truncated",
        stacklevel=3,
    )


class TextLines:
    """Lines of a binary stream, one chunk in memory at a time.

    Args:
        path: Name of the file, for messages.
        stream: The stream, positioned at the first line to read.
        offset: Offset of this line in bytes.

    Attributes:
        offset (int): Offset of the next line in bytes.
        line (int): Number of the next line; that of the first line read is 1.
        cut (bool): Whether the compressed stream ends early.
        unended (bool): Whether the last line has no newline; known once the end of the stream has been read.

    Raises:
        InputError: From any method, if a line or frame is too long, see :func:`max_atoms`.
    """

    def __init__(self, path: Path, stream: BinaryIO, offset: int = 0):
        self.path = path
        self.stream = stream
        self.offset = offset
        self.line = 1
        self.cut = self.unended = False
        self._ended = False
        self._text = b""
        self._ends: list[int] = []
        self._short: list[int] = []
        self._next = 0  # of the lines in the text
        self._start = 0
        # Maximum bytes of a line (which may hold values of all atoms), bytes of a frame, and lines skipped in search
        # of a frame.
        self._max_line, self._max_text, self._max_skipped = (factor * max_atoms() for factor in (200, 2000, 10))

    def has(self, count: int) -> bool:
        """Whether at least ``count`` lines are left."""
        while self._next + count > len(self._ends):
            if self._ended:
                return False
            self._read()
        return True

    def look(self, first: int, count: int = 1) -> bytes | None:
        """Text of ``count`` lines with line ends, from ``first`` lines after the next one; ``None`` if there are fewer.

        The next line stays the same.
        """
        if not self.has(first + count):
            return None
        begin = self._next + first
        start = self._ends[begin - 1] + 1 if begin else 0
        return self._text[start : self._ends[begin + count - 1] + 1]

    def skip(self, count: int):
        """Move on by a number of lines, which have been looked at."""
        if not count:
            return
        self._next += count
        self.line += count
        start = self._ends[self._next - 1] + 1
        self.offset += start - self._start
        self._start = start

    def skip_blank(self) -> bool:
        """Skip blank lines; return whether a line follows."""
        first = self.line
        while (line := self.look(0)) is not None:
            if line.strip():
                return True
            self.skip(1)
            self.check_skipped(self.line - first)
        return False

    def check_skipped(self, count: int):
        """Raise an error if too many lines are skipped in search of a frame."""
        if count > self._max_skipped:
            raise InputError(f"{self.path}: no frame in {count - 1:,} lines before line {self.line:,}; {lifted_by()}")

    def short_lines(self, first: int, count: int) -> list[bytes]:
        """Short lines among the lines in memory of ``look(first, count)``."""
        begin = bisect_left(self._short, self._next + first)
        end = bisect_left(self._short, self._next + first + count)
        indices = self._short[begin:end]
        return [self._text[self._ends[index - 1] + 1 if index else 0 : self._ends[index] + 1] for index in indices]

    def _read(self):
        """Read more text: at least as much as is kept in memory."""
        rest = self._text[self._start :]
        if len(rest) > self._max_text:
            raise InputError(f"{self.path}: a frame has more than {self._max_text:,} bytes; {lifted_by()}")
        parts, size, most = [rest], 0, max(BYTES_AT_ONCE, len(rest))
        while size < most and not self._ended:
            try:
                part = self.stream.read1(most)  # type: ignore[attr-defined]
            except EOFError:
                part, self.cut = b"", True
            self._ended = not part
            parts.append(part)
            size += len(part)
        self._text = b"".join(parts)
        if self._ended and not self.cut and self._text and not self._text.endswith(b"\n"):
            self._text += b"\n"
            self.unended = True
        ends = np.flatnonzero(np.frombuffer(self._text, dtype=np.uint8) == ord("\n"))
        self._ends = ends.tolist()
        self._short = np.flatnonzero(np.diff(ends, prepend=-1) <= SHORT).tolist()
        self._next = self._start = 0
        if len(self._text) - (self._ends[-1] if self._ends else 0) > self._max_line:
            raise InputError(f"{self.path}: a line has more than {self._max_line:,} bytes; {lifted_by()}")


SPACE, NEWLINE = b" \n"

BLANKS_TO_SPACES: bytes = bytes.maketrans(b"\t\r", b"  ")

SPACED_AT_ONCE: int = 1 << 16  # number of bytes that are converted to single spaces at a time

TYPES: Mapping[str, pyarrow.DataType] = {
    "S": pyarrow.string(),
    "R": pyarrow.float64(),
    "I": pyarrow.int64(),
    "L": pyarrow.string(),
    "E": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
}
"""Types of columns: text, real numbers, integers, booleans (as text), and labels with few distinct values."""


def text_table(text: bytes, columns: Mapping[str, str], num_rows: int) -> pyarrow.Table | None:
    """Parse lines of words to a table; ``None`` if the number of lines, columns or a type is another.

    Args:
        text: The lines.
        columns: Kind of each column in :data:`TYPES`, by name.
        num_rows: Number of lines.
    """
    if any(blanks in text for blanks in (b"  ", b" \n", b"\n ", b"\t", b"\r")) or text.startswith(b" "):
        text = single_spaced(text)
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(text),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=list(columns)),
            pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(
                column_types={name: TYPES[kind] for name, kind in columns.items()},
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowException:
        return None
    return table if table.num_rows == num_rows else None


def single_spaced(text: bytes) -> bytes:
    r"""Separate the words of lines by single spaces, without leading or trailing spaces.

    Example:
        >>> single_spaced(b"  Ga\t 1   2\r\nNa 3 4 \n")
        b'Ga 1 2\nNa 3 4\n'
    """
    text = text.translate(BLANKS_TO_SPACES)
    pieces, start = [], 0
    while start < len(text):  # in pieces whose arrays fit into the cache
        end = text.find(b"\n", start + SPACED_AT_ONCE) + 1 or len(text)
        characters = np.frombuffer(text, dtype=np.uint8, count=end - start, offset=start)
        keep = characters != SPACE
        keep[:-1] |= keep[1:] & (characters[1:] != NEWLINE)  # the last blank before a word
        characters = characters[keep]
        leads = characters == SPACE
        leads[1:] &= characters[:-1] == NEWLINE
        pieces.append((characters[~leads] if leads.any() else characters).tobytes())
        start = end
    return b"".join(pieces)


LABEL: re.Pattern[str] = re.compile(r"([A-Za-z]{1,2})(?:[-_]?\d*[+-]?\d*[+-]?|_[a-zA-Z][A-Za-z0-9_]*|/[0-9a-f]+)")
"""Matches a symbol, alone or followed by a number, a charge, or the name of a potential: Ga, Ga1, Na+, Na_pv."""

LONGEST: int = 60  # maximum number of characters of a label


@lru_cache(maxsize=1000)
def atomic_number(label: str) -> int | None:
    """Atomic number of the element that a label names, 0 for the dummy atom X; ``None`` if it names none.

    Example:
        >>> [atomic_number(label) for label in ("Ga", "GA", "ga1", "Na_2", "Na+", "Na_pv", "31", "Q7")]
        [31, 31, 31, 11, 11, 11, None, None]
    """
    match = LABEL.fullmatch(label) if len(label) <= LONGEST else None
    return atomic_numbers.get(match[1].capitalize()) if match else None


def unknown_label(label: str) -> str:
    """Message about a label that does not name an element."""
    return f"{label[:40]!r} is not an element symbol; write symbols such as Ga or Ga1"
