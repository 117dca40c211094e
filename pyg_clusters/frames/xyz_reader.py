"""Reader of (extended) XYZ text in blocks of arrays."""

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
from ase import Atoms
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import (
    BadFrame,
    FrameBlock,
    Keep,
    LazyAtoms,
    ReadOptions,
    UnrecoverableFrame,
    cut_frame,
    join_blocks,
    offsets,
)
from pyg_clusters.frames.provenance import SOURCE_FRAME, stated_origins
from pyg_clusters.frames.text import (
    TextLines,
    atomic_number,
    check_num_atoms,
    is_number,
    max_atoms,
    split_text,
    text_table,
    warn_of_unended,
)
from pyg_clusters.frames.xyz_comment import cells_of, decoded, values_of
from pyg_clusters.frames.xyz_frame import TextFrame, columns_named, frame_by_ase

BYTE_ORDER_MARK: bytes = b"\xef\xbb\xbf"  # written at the beginning of UTF-8 by some editors


def text_frames(path: Path, number: int = 0, offset: int = 0) -> Iterator[TextFrame | BadFrame]:
    """Read the text, or the fault, of each frame, starting at a frame of the given index and offset in bytes.

    After a frame that has more or fewer atoms than its first line states, reading continues at the first line of the
    next frame. Only a few frames are in memory at a time.

    Raises:
        InputError: If the file is corrupted, is UTF-16, or exceeds a limit of :mod:`~pyg_clusters.frames.text`.
    """
    # ASE would end silently at a blank line, scan the whole file before the first frame, and seek in compressed files.
    return (frame for _, frame in split_text(path, _split, number, offset))


def offsets_of_frames(path: Path, step: int) -> list[int]:
    """Offsets in bytes of the first frame of uncompressed text, and of every ``step``-th frame after it."""
    return [0, *(offset for offset, _ in islice(split_text(path, _split), step, None, step))]


def _split(lines: TextLines, kind: type[UnrecoverableFrame], number: int) -> Iterator[tuple[int, TextFrame | BadFrame]]:
    """Yield the offset of each frame and its text or its fault; the index of the next frame is ``number``."""
    path = lines.path
    while lines.skip_blank():
        offset, num_atoms = lines.offset, _number_of_atoms(lines)
        problem = _problem(lines, num_atoms)
        frame: TextFrame | BadFrame
        if num_atoms is None or problem is not None:
            frame = _skip_bad(lines, number, str(problem))
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
    lines.has(1)  # reads on at the end of the chunk, which shows whether the last line has a newline
    return TextFrame(comment.rstrip(b"\r\n"), atoms, num_atoms)


# The number of atoms is assumed to be correct unless the text contradicts it. A line with a single number among the
# atoms is the first line of the next frame: there are too few atoms. An atom after the last one means that there are
# too many. Only short lines can hold a single number, so that the lines of many atoms need not be searched one by one.
def _problem(lines: TextLines, num_atoms: int | None) -> str | None:
    """Reason why the next lines cannot be a frame of ``num_atoms`` atoms, even if the file is still being written."""
    if num_atoms is None:
        start = decoded(lines.look(0) or b"").strip()[:40]
        return f"expected a line with the number of atoms, got {start!r}"
    whole = lines.has(2 + num_atoms)
    if any(line.strip().isdigit() for line in lines.short_lines(2, num_atoms)):
        return f"its first line states {num_atoms} atoms, but it has fewer"
    if not whole:
        return None
    after = lines.look(2 + num_atoms)
    if after is not None and not after.strip().isdigit() and _is_atom(after):
        return f"its first line states {num_atoms} atoms, but it has more"
    return None


def _skip_bad(lines: TextLines, number: int, problem: str) -> BadFrame:
    """Skip a bad frame up to the first line of the next frame."""
    first = lines.line
    lines.skip(1)
    while lines.skip_blank():
        if _begins_frame(lines):
            return BadFrame(str(lines.path), number, problem)
        lines.skip(1)
        lines.check_skipped(lines.line - first)
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
    return len(words) > 3 and sum(map(is_number, words)) >= 3


def _number_of_atoms(lines: TextLines) -> int | None:
    header = (lines.look(0) or b"").strip()
    if not lines.offset:
        if header.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in header:
            raise InputError(f"{lines.path}: is UTF-16 or not text; save it as UTF-8")
        header = header.removeprefix(BYTE_ORDER_MARK).strip()
    if not header.isdigit():
        return None
    number = int(header[:20])
    check_num_atoms(lines.path, number)
    return number


def _unended(path: Path, number: int, frame: TextFrame, kind: type[UnrecoverableFrame]) -> TextFrame | BadFrame:
    """The last frame of a text whose last line has no newline: with a warning if complete, otherwise as a fault."""
    if isinstance(frame_by_ase(path, number, frame), BadFrame):
        return cut_frame(kind, path, number)
    warn_of_unended(f"{path}, frame {number}")
    return frame


LEFT_TO_ASE: frozenset[str] = frozenset({"numbers", "move_mask", "initial_charges", "initial_magmoms"})
"""Columns that change how ASE interprets the others."""

ORIGIN: bytes = f"{SOURCE_FRAME}=".encode()  # text in the comment of every frame that states its origin


class Columns(NamedTuple):
    """Columns of a frame."""

    names: tuple[str, ...]  #: Name of each column: the name of its property, and its index in that property.
    kinds: tuple[str, ...]  #: Kind of each column: S, R, I or L.
    widths: dict[str, int]  #: Number of columns of each property, by its name in ASE.


def xyz_blocks(
    path: Path, options: ReadOptions, keep: Keep, start: int = 0, offset: int = 0
) -> Iterator[FrameBlock | None]:
    """Read the blocks of a file from block ``start`` at ``offset`` bytes on, with ``None`` in place of skipped blocks.
    Frames with the usual columns are parsed together, without an object for each; other frames are parsed by ASE.
    """
    first = start * options.block_size
    numbered = enumerate(text_frames(path, first, offset), start=first)
    for number in count(start):
        frames = dict(islice(numbered, options.block_size))
        if not frames:
            return
        yield _parse_block(path, frames, options) if keep(number) else None


def _atoms_of(path: Path, number: int, frame: TextFrame) -> Atoms:
    atoms = frame_by_ase(path, number, frame)
    if isinstance(atoms, BadFrame):
        raise InputError(str(atoms))
    return atoms


def _parse_block(path: Path, frames: dict[int, TextFrame | BadFrame], options: ReadOptions) -> FrameBlock:
    """Parse a block: frames with the same columns together, others by ASE."""
    alike: dict[str, dict[int, TextFrame]] = {}
    for number, frame in frames.items():
        if isinstance(frame, TextFrame) and (named := columns_named(frame)) is not None:
            alike.setdefault(named, {})[number] = frame
    parts = [(group, _parse_alike(path, group, named, options)) for named, group in alike.items()]
    blocks = [block for _, block in parts if block is not None]
    parsed = {number for group, block in parts if block is not None for number in group}
    others = {
        number: frame_by_ase(path, number, frame, options.length) if isinstance(frame, TextFrame) else frame
        for number, frame in frames.items()
        if number not in parsed
    }
    by_ase = block_of_frames(path, others, options)
    if len(by_ase) or not blocks:
        blocks.append(by_ase)
    try:
        block = blocks[0] if len(blocks) == 1 else join_blocks(blocks)
    except ValueError as error:
        raise InputError(f"{path}: a property differs in shape between frames") from error
    block.unreadable = by_ase.unreadable
    return block


@lru_cache(maxsize=100)
def _columns(named: str) -> Columns | None:
    """Columns of a definition; ``None`` if the fast parser does not support them."""
    fields = named.split(":")
    names: list[str] = []
    kinds: list[str] = []
    widths: dict[str, int] = {}
    if any(len(width) > 4 for width in fields[2::3]):
        return None
    for name, kind, width in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        name = REV_PROPERTY_NAME_MAP.get(name, name)
        if kind not in "SRIL" or not width.isdigit() or name in widths or name in LEFT_TO_ASE:
            return None
        widths[name] = int(width)
        kinds += kind * int(width)
        names += [f"{name} {number}" for number in range(int(width))]
    if len(fields) % 3 or widths.get("symbols") != 1 or widths.get("positions") != 3:
        return None
    right = kinds[names.index("symbols 0")] == "S" and kinds[names.index("positions 0")] == "R"
    return Columns(tuple(names), tuple(kinds), widths) if right else None


def _parse_alike(path: Path, frames: dict[int, TextFrame], named: str, options: ReadOptions) -> FrameBlock | None:
    """Block of frames with the same columns; ``None`` if ASE has to read them."""
    columns = _columns(named)
    kinds = {} if columns is None else dict(zip(columns.names, columns.kinds, strict=True)) | {"symbols 0": "E"}
    if columns is None or any(kinds.get(f"{key} 0") not in ("R", "I") for key in options.atom_properties):
        return None
    sizes = [frame.num_atoms for frame in frames.values()]
    # The CSV parser is called once for the atoms of all frames: a call per frame would take longer than the parsing.
    table = text_table(b"".join(frame.atoms for frame in frames.values()), kinds, sum(sizes))
    if table is None:
        return None
    z = _atomic_numbers(table)
    comments = [frame.comment for frame in frames.values()]
    cells = cells_of(comments)
    properties = {key: values_of(key, comments) for key in options.properties}
    origin = None
    if any(ORIGIN in comment for comment in comments):
        try:
            origin = stated_origins(str(path), frames, [key_val_str_to_dict(decoded(comment)) for comment in comments])
        except (ValueError, IndexError):
            return None
    if z is None or cells is None or any(values is None for values in properties.values()):
        return None
    atom_properties = {key: _array(table, columns, key) for key in options.atom_properties}
    makers = (partial(_atoms_of, path, number, frame) for number, frame in frames.items())
    return FrameBlock(
        file=str(path),
        number=np.fromiter(frames, dtype=np.int64),
        z=z,
        pos=_array(table, columns, "positions"),
        ptr=offsets(sizes),
        cell=cells[0],
        pbc=cells[1],
        properties=properties,  # type: ignore[arg-type]
        atom_properties=atom_properties,
        atoms=LazyAtoms(makers) if options.with_atoms else None,
        origin=origin,
    )


def _atomic_numbers(table: pyarrow.Table) -> np.ndarray | None:
    symbols = table.column("symbols 0").combine_chunks()
    if isinstance(symbols, pyarrow.ChunkedArray):
        symbols = symbols.unify_dictionaries().chunk(0)
    numbers = [atomic_number(label) for label in symbols.dictionary.to_pylist()]
    if None in numbers:
        return None
    return np.array(numbers, dtype=np.int64)[symbols.indices.to_numpy()]


def _array(table: pyarrow.Table, columns: Columns, key: str) -> np.ndarray:
    """Values per atom, of the type that ASE gives them (integers beyond 32 bits are not rounded)."""
    parts = [table.column(f"{key} {number}").to_numpy() for number in range(columns.widths[key])]
    values = parts[0] if len(parts) == 1 else np.stack(parts, axis=1)
    small = values.dtype.kind == "i" and np.abs(values).max(initial=0) < 2**31
    return values.astype("i") if small else values
