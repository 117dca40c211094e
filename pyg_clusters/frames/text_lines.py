"""Lines of a text that is read in chunks."""

from bisect import bisect_left
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames.limits import lifted_by, max_atoms, max_frame, max_line

BYTES_AT_ONCE: int = 1 << 20
"""So much text is taken from a file at a time."""


SHORT: int = 20
"""Lines of no more bytes are short."""


class TextLines:
    """The lines of a binary stream; no more than some lines and a chunk are held at a time.

    Args:
        path: Name of the file, for messages.
        stream: Its content, from where reading begins.
        offset: Where that is, in bytes.

    Attributes:
        offset (int): Where the next line begins, in bytes.
        line (int): Number of the next line, from 1, counted from where reading began.
        cut (bool): Whether a compression broke off at the end of the text.
        unended (bool): Whether the last line of the text has no end; known once the end has been read.

    Raises:
        InputError: From any method, if a line is too long, see :mod:`~pyg_clusters.frames.limits`.
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
        self._max_line, self._max_text, self._max_passed_over = max_line(), max_frame(), 10 * max_atoms()

    def has(self, count: int) -> bool:
        """Whether there are so many lines."""
        while self._next + count > len(self._ends):
            if self._ended:
                return False
            self._read()
        return True

    def look(self, first: int, count: int = 1) -> bytes | None:
        """The text of ``count`` lines, the first of them ``first`` after the next line; none if there are not so many.

        Nothing is passed over. The lines have their ends.
        """
        if not self.has(first + count):
            return None
        begin = self._next + first
        start = self._ends[begin - 1] + 1 if begin else 0
        return self._text[start : self._ends[begin + count - 1] + 1]

    def skip(self, count: int):
        """Passes over lines that have been looked at."""
        if not count:
            return
        self._next += count
        self.line += count
        start = self._ends[self._next - 1] + 1
        self.offset += start - self._start
        self._start = start

    def take(self, count: int = 1) -> bytes | None:
        """As :meth:`look`, and passes over the lines."""
        text = self.look(0, count)
        if text is not None:
            self.skip(count)
        return text

    def skip_blank(self) -> bool:
        """Passes over lines without a word; whether there is a line after them."""
        first = self.line
        while (line := self.look(0)) is not None:
            if line.strip():
                return True
            self.skip(1)
            self.check_passed_over(self.line - first)
        return False

    def check_passed_over(self, count: int):
        """Refuses to pass over more lines than any frame has.

        Raises:
            InputError: If it is more.
        """
        if count > self._max_passed_over:
            raise InputError(f"{self.path}: no frame in {count - 1:,} lines before line {self.line:,}; {lifted_by()}")

    def short_lines(self, first: int, count: int) -> list[bytes]:
        """Those of the ``count`` lines from ``first`` after the next line that are short, as far as they are held."""
        begin = bisect_left(self._short, self._next + first)
        end = bisect_left(self._short, self._next + first + count)
        places = self._short[begin:end]
        return [self._text[self._ends[place - 1] + 1 if place else 0 : self._ends[place] + 1] for place in places]

    def _read(self):
        """Reads more text, at least as much again as is held."""
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
