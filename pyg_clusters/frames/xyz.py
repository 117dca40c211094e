"""(Extended) XYZ text in blocks of arrays."""

import bz2
import gzip
import lzma
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow
import pyarrow.csv
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict, read_xyz

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_blocks import block_of_frames, one_line
from pyg_clusters.frames.block import BadFrame, FrameBlock, LazyAtoms, join_blocks
from pyg_clusters.frames.columns import column
from pyg_clusters.frames.wanted import HalfFrame, Keep, LastFrame, Wanted, cut_frame

OPENERS: dict[str, Callable] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
"""How to open a compressed file, by its last suffix."""

XYZ_SUFFIXES: tuple[str, ...] = (".xyz", ".extxyz")
"""Suffixes of (extended) XYZ text, before that of a compression."""

BYTES_AT_ONCE: int = 1 << 20
"""So much text is taken from a file at a time."""

DEFAULT_COLUMNS: str = "species:S:1:pos:R:3"
"""Columns of a frame that names none."""

LEFT_TO_ASE: frozenset[str] = frozenset({"numbers", "move_mask", "initial_charges"})
"""Columns that change what ASE makes of the others."""


class TextFrame(NamedTuple):
    """A frame as text."""

    header: bytes
    """The line with the number of atoms."""
    comment: bytes
    """The line of the values per frame."""
    atoms: bytes
    """The lines of the atoms, with their ends."""
    num_atoms: int
    """Number of atoms that the first line says."""
    offset: int
    """Where the first line begins in the text, in bytes."""


class Columns(NamedTuple):
    """What the columns of a frame hold."""

    names: tuple[str, ...]
    """A name for each column, numbered from 0 where a property has several."""
    kinds: tuple[str, ...]
    """S, R, I or L for each column."""
    widths: dict[str, int]
    """Number of columns of each property, by the name that ASE gives it."""


def is_xyz(path: Path) -> bool:
    """Whether a file is (extended) XYZ text, compressed or not, by its name."""
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    return inner.suffix in XYZ_SUFFIXES


def is_plain_xyz(path: Path) -> bool:
    """Whether a file is (extended) XYZ text that is not compressed, by its name."""
    return path.suffix in XYZ_SUFFIXES


def xyz_blocks(path: Path, wanted: Wanted, keep: Keep, start: int = 0, offset: int = 0) -> Iterator[FrameBlock | None]:
    """Blocks of a file, none in place of one that is passed over.

    Frames of the usual columns are parsed together, without an object for each; what is unusual goes through ASE.

    Args:
        path: The file.
        wanted: What is to be read.
        keep: Which blocks are to be read.
        start: Number of the first block.
        offset: Where that begins, in bytes.
    """
    block: list[TextFrame | BadFrame] = []
    first = start * wanted.block_size
    for frame in text_frames(path, first, offset):
        block.append(frame)
        if len(block) == wanted.block_size:
            yield _parse_block(path, first, block, wanted) if keep(first // wanted.block_size) else None
            first += len(block)
            block = []
    if block:
        yield _parse_block(path, first, block, wanted) if keep(first // wanted.block_size) else None


def xyz_frames(path: Path) -> Iterator[Atoms | BadFrame]:
    """Each frame of a file as ASE reads it, or what is wrong with it."""
    for number, frame in enumerate(text_frames(path)):
        yield frame if isinstance(frame, BadFrame) else _by_ase(path, number, frame)


def offsets_of_frames(path: Path, step: int) -> list[int]:
    """Where in a text that is not compressed the first and every ``step``-th frame after it begins, in bytes."""
    frames = islice(text_frames(path), step, None, step)
    return [0, *(frame.offset for frame in frames if isinstance(frame, TextFrame))]


def text_frames(path: Path, number: int = 0, offset: int = 0) -> Iterator[TextFrame | BadFrame]:
    """The text of each frame from one on; no more than a frame and some of the next are held at a time.

    Args:
        path: The file.
        number: Number of the first frame.
        offset: Where that begins, in bytes.
    """
    # ASE alone would end silently at a blank line, look through the whole file before the first frame, and seek in
    # compressed files.
    kind = LastFrame if path.suffix in OPENERS else HalfFrame
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as stream:
            if offset:
                stream.seek(offset)
            for frame in _split(path, stream, kind, number, offset):
                yield frame
                number += 1
    except (OSError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read at frame {number} ({one_line(error)}); is it damaged?") from error


def _split(
    path: Path, stream: BinaryIO, kind: type[LastFrame], number: int, offset: int
) -> Iterator[TextFrame | BadFrame]:
    """The frames of a stream, which stands at ``offset``, where frame ``number`` begins."""
    rest, ended = b"", False
    while not ended:
        text, ended, cut = _more(stream)
        text = rest + text
        if ended and not cut and text and not text.endswith(b"\n"):
            text += b"\n"
            unended = True
        else:
            unended = False
        position = 0
        ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")).tolist()
        line = 0
        while line < len(ends):
            header = text[position : ends[line]]
            if not header.strip():
                position, line = ends[line] + 1, line + 1
                continue
            num_atoms = _number_of_atoms(header)
            if num_atoms is None:
                start = header.decode().strip()[:40]
                reason = f"expected a line with the number of atoms, got {start!r}; mend the file from there on"
                yield LastFrame(str(path), number, reason)
                return
            last = line + 1 + num_atoms
            if last >= len(ends):
                break
            comment, atoms = text[ends[line] + 1 : ends[line + 1]], text[ends[line + 1] + 1 : ends[last] + 1]
            frame = TextFrame(header, comment, atoms, num_atoms, offset + position)
            if unended and last == len(ends) - 1:
                yield from _unended(path, number, frame, kind)
                return
            yield frame
            number += 1
            position, line = ends[last] + 1, last + 1
        rest = text[position:]
        offset += position
        if cut or (ended and rest.strip()):
            yield cut_frame(kind, path, number)
            return


def _more(stream: BinaryIO) -> tuple[bytes, bool, bool]:
    """Some text, whether it is the last, and whether the compression breaks off after it."""
    parts: list[bytes] = []
    size = 0
    while size < BYTES_AT_ONCE:
        try:
            part = stream.read1(BYTES_AT_ONCE)  # type: ignore[attr-defined]
        except EOFError:
            return b"".join(parts), True, True
        if not part:
            return b"".join(parts), True, False
        parts.append(part)
        size += len(part)
    return b"".join(parts), False, False


def _number_of_atoms(header: bytes) -> int | None:
    try:
        number = int(header)
    except ValueError:
        return None
    return number if number >= 0 else None


def _unended(path: Path, number: int, frame: TextFrame, kind: type[LastFrame]) -> Iterator[TextFrame | BadFrame]:
    """The last frame of a text whose last line has no end."""
    if isinstance(_by_ase(path, number, frame), BadFrame):
        yield cut_frame(kind, path, number)
        return
    warnings.warn(
        f"{path}, frame {number}: the last line has no end; if the file is still being written its last number may "
        "be cut short",
        stacklevel=2,
    )
    yield frame


def _by_ase(path: Path, number: int, frame: TextFrame) -> Atoms | BadFrame:
    try:
        text = b"\n".join([frame.header, frame.comment, frame.atoms]).decode()
        return next(read_xyz(StringIO(text), index=0))
    except Exception as error:  # ASE raises many kinds, by the part of the text that is wrong
        return BadFrame(str(path), number, f"cannot be read ({one_line(error)})")


def _atoms_of(path: Path, number: int, frame: TextFrame) -> Atoms:
    atoms = _by_ase(path, number, frame)
    if isinstance(atoms, BadFrame):
        raise InputError(str(atoms))
    return atoms


def _parse_block(path: Path, first: int, frames: Sequence[TextFrame | BadFrame], wanted: Wanted) -> FrameBlock:
    """A block: frames of the same columns together, the others by ASE."""
    unreadable: list[BadFrame] = []
    alike: dict[str | None, dict[int, TextFrame]] = {}
    for number, frame in enumerate(frames, start=first):
        if isinstance(frame, BadFrame):
            unreadable.append(frame)
        else:
            alike.setdefault(_columns_named(frame), {})[number] = frame
    parts = []
    for named, group in alike.items():
        part = None if named is None else _parse_alike(path, group, named, wanted)
        if part is None:
            part, bad = _parse_by_ase(path, group, wanted)
            unreadable += bad
        parts.append(part)
    block = _joined(path, parts) if parts else block_of_frames(path, {}, wanted.properties, wanted.atom_properties)
    block.unreadable = sorted(unreadable, key=lambda frame: frame.number)
    return block


def _joined(path: Path, parts: list[FrameBlock]) -> FrameBlock:
    if len(parts) == 1:
        return parts[0]
    parts = [part for part in parts if len(part)] or parts[:1]
    try:
        return join_blocks(parts)
    except ValueError as error:
        raise InputError(f"{path}: a property has not the same shape in all frames") from error


def _parse_by_ase(path: Path, frames: dict[int, TextFrame], wanted: Wanted) -> tuple[FrameBlock, list[BadFrame]]:
    read = {number: _by_ase(path, number, frame) for number, frame in frames.items()}
    good = {number: frame for number, frame in read.items() if isinstance(frame, Atoms)}
    bad = [frame for frame in read.values() if isinstance(frame, BadFrame)]
    block = block_of_frames(path, good, wanted.properties, wanted.atom_properties)
    if not wanted.with_atoms:
        block.atoms = None
    return block, bad


PROPERTIES: re.Pattern[bytes] = re.compile(rb'(?:^|\s)Properties=([^\s"\'{}\[\]\\]+)(?=\s|$)')
LATTICE: re.Pattern[str] = re.compile(r'(?:^|\s)Lattice="([^"]*)"(?=\s|$)')
PBC: re.Pattern[str] = re.compile(r'(?:^|\s)pbc="([^"]*)"(?=\s|$)')
QUOTED: re.Pattern[str] = re.compile(r'"[^"]*"')


def _columns_named(frame: TextFrame) -> str | None:
    """What the comment says of the columns; nothing where ASE has to look."""
    if not frame.num_atoms:
        return None
    match = PROPERTIES.search(frame.comment)
    if match is None:
        return None if b"Properties" in frame.comment else DEFAULT_COLUMNS
    return match[1].decode() if frame.comment.count(b"Properties") == 1 else None


@lru_cache(maxsize=100)
def _columns(named: str) -> Columns | None:
    """The columns, if they are usual ones."""
    fields = named.split(":")
    names: list[str] = []
    kinds: list[str] = []
    widths: dict[str, int] = {}
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


def _parse_alike(path: Path, frames: dict[int, TextFrame], named: str, wanted: Wanted) -> FrameBlock | None:
    """The block of frames of the same columns; nothing where ASE has to look."""
    columns = _columns(named)
    if columns is None or any(not _is_numeric(columns, key) for key in wanted.atom_properties):
        return None
    sizes = [frame.num_atoms for frame in frames.values()]
    table = _table(b"".join(frame.atoms for frame in frames.values()), columns, sum(sizes))
    if table is None:
        return None
    z = _atomic_numbers(table)
    comments = [frame.comment for frame in frames.values()]
    cells = _cells(comments)
    properties = {key: _values(key, comments) for key in wanted.properties}
    if z is None or cells is None or any(values is None for values in properties.values()):
        return None
    atom_properties = {key: _array(table, columns, key) for key in wanted.atom_properties}
    makers = (partial(_atoms_of, path, number, frame) for number, frame in frames.items())
    return FrameBlock(
        file=str(path),
        number=np.fromiter(frames, dtype=np.int64),
        z=z,
        pos=_array(table, columns, "positions"),
        ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        cell=cells[0],
        pbc=cells[1],
        properties=properties,  # type: ignore[arg-type]
        atom_properties=atom_properties,
        atoms=LazyAtoms(makers) if wanted.with_atoms else None,
    )


def _is_numeric(columns: Columns, key: str) -> bool:
    return f"{key} 0" in columns.names and columns.kinds[columns.names.index(f"{key} 0")] in "RI"


def _table(text: bytes, columns: Columns, num_atoms: int) -> pyarrow.Table | None:
    """The lines of atoms as a table, if each has all columns."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    if b"  " in text or b"\t" in text or b" \n" in text or text.startswith(b" ") or b"\n " in text:
        text = text.replace(b"\t", b" ").replace(b" " * 8, b" ")
        while b"  " in text:  # several times faster than a regular expression
            text = text.replace(b"  ", b" ")
        text = text.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    types = {"S": pyarrow.string(), "R": pyarrow.float64(), "I": pyarrow.int64(), "L": pyarrow.string()}
    column_types = {name: types[kind] for name, kind in zip(columns.names, columns.kinds, strict=True)}
    column_types["symbols 0"] = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(text),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=list(columns.names)),
            pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(column_types=column_types, null_values=[], strings_can_be_null=False),
        )
    except pyarrow.ArrowException:
        return None
    return table if table.num_rows == num_atoms else None


def _atomic_numbers(table: pyarrow.Table) -> np.ndarray | None:
    symbols = table.column("symbols 0").combine_chunks()
    if isinstance(symbols, pyarrow.ChunkedArray):
        symbols = symbols.unify_dictionaries().chunk(0)
    numbers = [atomic_numbers.get(symbol.capitalize()) for symbol in symbols.dictionary.to_pylist()]
    if None in numbers:
        return None
    return np.array(numbers, dtype=np.int64)[symbols.indices.to_numpy()]


def _array(table: pyarrow.Table, columns: Columns, key: str) -> np.ndarray:
    """A property of atoms, as ASE would have it."""
    parts = [table.column(f"{key} {number}").to_numpy() for number in range(columns.widths[key])]
    values = parts[0] if len(parts) == 1 else np.stack(parts, axis=1)
    return values if values.dtype.kind == "f" else values.astype("i")


def _cells(comments: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray] | None:
    """Lattice vectors ``[num_frames, 3, 3]``, periodic or not ``[num_frames, 3]``; nothing where ASE has to look."""
    cell, pbc = np.zeros((len(comments), 3, 3)), np.zeros((len(comments), 3), dtype=bool)
    for place, comment in enumerate(comments):
        if b"Lattice" in comment:
            text = comment.decode()
            lattice, flags = LATTICE.search(text), PBC.search(text)
            known = lattice is not None and (flags is not None or "pbc" not in text)
            if lattice is None or not known or text.count("Lattice") > 1 or text.count("pbc") > 1:
                return None
            found = _cell(lattice[1], flags[1] if flags else "T T T")
            if found is None:
                return None
            cell[place], pbc[place] = found
    return cell, pbc


@lru_cache(maxsize=100)
def _cell(lattice: str, pbc: str) -> tuple[np.ndarray, list[bool]] | None:
    try:
        cell = [float(value) for value in lattice.split()]
    except ValueError:
        return None
    flags = pbc.split()
    if len(cell) != 9 or len(flags) != 3 or not set(flags) <= {"T", "F"}:
        return None
    return np.array(cell).reshape(3, 3), [flag == "T" for flag in flags]


def _values(key: str, comments: Sequence[bytes]) -> np.ndarray | None:
    """Values per frame, if each is a single one that stands free of quotes and brackets."""
    if not re.fullmatch(r"\w+", key) or key in ("pbc", "Lattice", "Properties"):
        return None
    pattern = re.compile(rf"(?:^|\s){key}=([^\s=,]+)(?=\s|$)")
    anywhere = re.compile(rf"\b{key}\b")
    values = []
    for comment in comments:
        outside = QUOTED.sub(",", comment.decode())
        found = pattern.findall(outside)
        if len(found) != 1 or re.search(r"[\"'{}\[\]\\]", outside) or len(anywhere.findall(outside)) != 1:
            return None
        values.append(key_val_str_to_dict(f"{key}={found[0]}")[key])
    return column(values)
