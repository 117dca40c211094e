"""Where the frames of (extended) XYZ text begin and end, also behind one that has not the atoms that it says."""

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.compression import DAMAGED, is_compressed, open_binary
from pyg_clusters.frames.limits import lifted_by, max_atoms
from pyg_clusters.frames.read_options import TruncatedFrame, UnrecoverableFrame, cut_frame
from pyg_clusters.frames.text_lines import TextLines
from pyg_clusters.frames.xyz_comment import decoded
from pyg_clusters.frames.xyz_frame import TextFrame, frame_by_ase

BYTE_ORDER_MARK: bytes = b"\xef\xbb\xbf"
"""With which some editors begin UTF-8."""


def text_frames(path: Path, number: int = 0, offset: int = 0) -> Iterator[TextFrame | BadFrame]:
    """The text of each frame from one on, or what is wrong with it; some frames are held at a time, no more.

    Behind a frame that has more or fewer atoms than its first line says, reading goes on at the next first line.

    Args:
        path: The file.
        number: Number of the first frame.
        offset: Where that begins, in bytes.

    Raises:
        InputError: If the file is damaged, is UTF-16, or passes a bound of :mod:`~pyg_clusters.frames.limits`.
    """
    # ASE alone would end silently at a blank line, look through the whole file before the first frame, and seek in
    # compressed files.
    return (frame for _, frame in _with_offsets(path, number, offset))


def _with_offsets(path: Path, number: int, offset: int) -> Iterator[tuple[int, TextFrame | BadFrame]]:
    """Each frame, and where it begins."""
    kind = UnrecoverableFrame if is_compressed(path) else TruncatedFrame
    try:
        with open_binary(path) as stream:
            if offset:
                stream.seek(offset)
            for start, frame in _split(TextLines(path, stream, offset), kind, number):
                yield start, frame
                number += 1
    except DAMAGED as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}: cannot be read at frame {number} ({text}); is it damaged?") from error


def offsets_of_frames(path: Path, step: int) -> list[int]:
    """Where in a text that is not compressed the first and every ``step``-th frame after it begins, in bytes."""
    return [0, *(offset for offset, _ in islice(_with_offsets(path, 0, 0), step, None, step))]


def _split(lines: TextLines, kind: type[UnrecoverableFrame], number: int) -> Iterator[tuple[int, TextFrame | BadFrame]]:
    """The frames of a text, of which frame ``number`` is the next, and where they begin."""
    path, most = lines.path, max_atoms()
    while lines.skip_blank():
        offset, num_atoms = lines.offset, _number_of_atoms(lines, most)
        problem = _problem(lines, num_atoms)
        frame: TextFrame | BadFrame
        if num_atoms is None or problem is not None:
            frame = _pass_over(lines, number, str(problem))
        else:
            frame = _frame(lines, num_atoms) or cut_frame(kind, path, number)
        if isinstance(frame, TextFrame) and lines.unended and not lines.has(1):
            frame = _unended(path, number, frame, kind)
        yield offset, frame
        if isinstance(frame, UnrecoverableFrame):
            return
        number += 1
    if lines.cut:
        yield lines.offset, cut_frame(kind, path, number)


def _frame(lines: TextLines, num_atoms: int) -> TextFrame | None:
    comment, atoms = lines.look(1), lines.look(2, num_atoms) if num_atoms else b""
    if comment is None or atoms is None:
        return None
    lines.skip(2 + num_atoms)
    lines.has(1)  # reads on at the end of the chunk: whether the last line has an end is known then
    return TextFrame(comment.rstrip(b"\r\n"), atoms, num_atoms)


def _problem(lines: TextLines, num_atoms: int | None) -> str | None:
    """Why the next lines are not a frame of so many atoms; nothing if they are, or may be when the file is whole."""
    if num_atoms is None:
        start = decoded(lines.look(0) or b"").strip()[:40]
        return f"expected a line with the number of atoms, got {start!r}"
    whole = lines.has(2 + num_atoms)
    if any(line.strip().isdigit() for line in lines.short_lines(2, num_atoms)):
        return f"its first line says {num_atoms} atoms, but it has fewer"
    if not whole:
        return None
    after = lines.look(2 + num_atoms)
    if after is not None and not after.strip().isdigit() and _is_atom(after):
        return f"its first line says {num_atoms} atoms, but it has more"
    return None


def _pass_over(lines: TextLines, number: int, problem: str) -> BadFrame:
    """The frame that is wrong; the next line is then the first of the next frame."""
    first = lines.line
    lines.skip(1)
    while lines.skip_blank():
        if _begins_frame(lines):
            return BadFrame(str(lines.path), number, problem)
        lines.skip(1)
        lines.check_passed_over(lines.line - first)
    count = lines.line - first
    reason = f"{problem}; no further frame is found in the {count} lines from there to the end of the file"
    return UnrecoverableFrame(str(lines.path), number, reason)


def _begins_frame(lines: TextLines) -> bool:
    header = lines.look(0) or b""
    num_atoms = int(header) if header.strip().isdigit() else 0
    if not 0 < num_atoms <= max_atoms():
        return False
    first, last = lines.look(2), lines.look(1 + num_atoms)
    return first is not None and _is_atom(first) and (last is None or _is_atom(last))


def _is_atom(line: bytes) -> bool:
    """Whether a line has at least four words, three of which are numbers."""
    words = line.split()
    return len(words) > 3 and sum(map(_is_number, words)) >= 3


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _number_of_atoms(lines: TextLines, most: int) -> int | None:
    header = (lines.look(0) or b"").strip()
    if not lines.offset:
        if header.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in header:
            raise InputError(f"{lines.path}: is UTF-16 text or no text; save it as UTF-8")
        header = header.removeprefix(BYTE_ORDER_MARK).strip()
    if not header.isdigit():
        return None
    number = int(header) if len(header) < 20 else most + 1
    if number > most:
        raise InputError(f"{lines.path}: {decoded(header)[:20]} atoms in a frame; {lifted_by()}")
    return number


def _unended(path: Path, number: int, frame: TextFrame, kind: type[UnrecoverableFrame]) -> TextFrame | BadFrame:
    """The last frame of a text whose last line has no end."""
    if isinstance(frame_by_ase(path, number, frame), BadFrame):
        return cut_frame(kind, path, number)
    warnings.warn(
        f"{path}, frame {number}: the last line has no end; if the file is still being written its last number may "
        "be cut short",
        stacklevel=2,
    )
    return frame
