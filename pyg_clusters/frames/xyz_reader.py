"""(Extended) XYZ text in blocks of arrays."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
from ase import Atoms
from ase.io.extxyz import REV_PROPERTY_NAME_MAP, key_val_str_to_dict

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import BadFrame, FrameBlock, LazyAtoms, join_blocks
from pyg_clusters.frames.columns import column
from pyg_clusters.frames.elements import atomic_number
from pyg_clusters.frames.provenance import SOURCE_FRAME, origins_of
from pyg_clusters.frames.read_options import Keep, ReadOptions
from pyg_clusters.frames.text_table import text_table
from pyg_clusters.frames.xyz_comment import OTHER_CELL_KEY, decoded, may_name_a_unit, plain_comment
from pyg_clusters.frames.xyz_frame import DEFAULT_COLUMNS, TextFrame, frame_by_ase
from pyg_clusters.frames.xyz_text import text_frames

XYZ_SUFFIXES: tuple[str, ...] = (".xyz", ".extxyz")
"""Suffixes of (extended) XYZ text, before that of a compression."""

LEFT_TO_ASE: frozenset[str] = frozenset({"numbers", "move_mask", "initial_charges"})
"""Columns that change what ASE makes of the others."""


ORIGIN: bytes = f"{SOURCE_FRAME}=".encode()
"""This stands in the comment of every frame that says where it was first read."""


class Columns(NamedTuple):
    """What the columns of a frame hold."""

    names: tuple[str, ...]
    """A name for each column, numbered from 0 where a property has several."""
    kinds: tuple[str, ...]
    """S, R, I or L for each column."""
    widths: dict[str, int]
    """Number of columns of each property, by the name that ASE gives it."""


def xyz_blocks(
    path: Path, wanted: ReadOptions, keep: Keep, start: int = 0, offset: int = 0
) -> Iterator[FrameBlock | None]:
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
        yield frame if isinstance(frame, BadFrame) else frame_by_ase(path, number, frame)


def _atoms_of(path: Path, number: int, frame: TextFrame) -> Atoms:
    atoms = frame_by_ase(path, number, frame)
    if isinstance(atoms, BadFrame):
        raise InputError(str(atoms))
    return atoms


def _parse_block(path: Path, first: int, frames: Sequence[TextFrame | BadFrame], wanted: ReadOptions) -> FrameBlock:
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


def _parse_by_ase(path: Path, frames: dict[int, TextFrame], wanted: ReadOptions) -> tuple[FrameBlock, list[BadFrame]]:
    read = {number: frame_by_ase(path, number, frame) for number, frame in frames.items()}
    good = {number: frame for number, frame in read.items() if isinstance(frame, Atoms)}
    bad = [frame for frame in read.values() if isinstance(frame, BadFrame)]
    block = block_of_frames(path, good, wanted.properties, wanted.atom_properties)
    if not wanted.with_atoms:
        block.atoms = None
    return block, bad + block.unreadable


PROPERTIES: re.Pattern[bytes] = re.compile(rb'(?:^|\s)Properties=([^\s"\'{}\[\]\\]+)(?=\s|$)')
LATTICE: re.Pattern[str] = re.compile(r'(?:^|\s)Lattice="([^"]*)"(?=\s|$)')
PBC: re.Pattern[str] = re.compile(r'(?:^|\s)pbc="([^"]*)"(?=\s|$)')
QUOTED: re.Pattern[str] = re.compile(r'"[^"]*"')


def _columns_named(frame: TextFrame) -> str | None:
    """What the comment says of the columns; nothing where ASE has to look."""
    if not frame.num_atoms or may_name_a_unit(frame.comment):
        return None
    match = PROPERTIES.search(frame.comment)
    if match is None:
        return None if b"properties" in frame.comment.lower() and b"=" in frame.comment else DEFAULT_COLUMNS
    return decoded(match[1]) if frame.comment.count(b"Properties") == 1 else None


@lru_cache(maxsize=100)
def _columns(named: str) -> Columns | None:
    """The columns, if they are usual ones."""
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


def _parse_alike(path: Path, frames: dict[int, TextFrame], named: str, wanted: ReadOptions) -> FrameBlock | None:
    """The block of frames of the same columns; nothing where ASE has to look."""
    columns = _columns(named)
    if columns is None or any(not _is_numeric(columns, key) for key in wanted.atom_properties):
        return None
    sizes = [frame.num_atoms for frame in frames.values()]
    kinds = dict(zip(columns.names, columns.kinds, strict=True)) | {"symbols 0": "E"}
    table = text_table(b"".join(frame.atoms for frame in frames.values()), kinds, sum(sizes))
    if table is None:
        return None
    z = _atomic_numbers(table)
    comments = [frame.comment for frame in frames.values()]
    cells = _cells(comments)
    properties = {key: _values(key, comments) for key in wanted.properties}
    origin = None
    if any(ORIGIN in comment for comment in comments):
        try:
            origin = origins_of(str(path), frames, [key_val_str_to_dict(decoded(comment)) for comment in comments])
        except (ValueError, IndexError):
            return None
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
        origin=origin,
    )


def _is_numeric(columns: Columns, key: str) -> bool:
    return f"{key} 0" in columns.names and columns.kinds[columns.names.index(f"{key} 0")] in "RI"


def _atomic_numbers(table: pyarrow.Table) -> np.ndarray | None:
    symbols = table.column("symbols 0").combine_chunks()
    if isinstance(symbols, pyarrow.ChunkedArray):
        symbols = symbols.unify_dictionaries().chunk(0)
    labels = symbols.dictionary.to_pylist()
    numbers = [None if label.isdecimal() else atomic_number(label) for label in labels]
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
        words = comment.lower()
        if b"=" in comment and (b"lattice" in words or b"cell" in words or b"box" in words):
            text = decoded(comment)
            if b"lattice" not in words and not OTHER_CELL_KEY.search(text):
                continue
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
    values: list[object] = []
    for comment in comments:
        plain = plain_comment(comment) if key == "comment" else None
        if plain is not None:
            values.append(plain)
            continue
        outside = QUOTED.sub(",", decoded(comment))
        found = pattern.findall(outside)
        if len(found) != 1 or re.search(r"[\"'{}\[\]\\]", outside) or len(anywhere.findall(outside)) != 1:
            return None
        values.append(key_val_str_to_dict(f"{key}={found[0]}")[key])
    return column(values)
