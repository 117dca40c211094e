"""A frame of XYZ text by ASE."""

import re
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.io.extxyz import read_xyz

from pyg_clusters.frames.ase_reader import one_line
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.elements import atomic_number, unknown_label
from pyg_clusters.frames.xyz_comment import UnusableText, comment_for_ase, decoded

COLUMNS: re.Pattern[str] = re.compile(r"(?:^|\s)Properties\s*=\s*[\"'{\[]?([^\s\"'}\]]+)")
"""What a comment says of the columns."""

DEFAULT_COLUMNS: str = "species:S:1:pos:R:3"
"""Columns of a frame that names none."""


class TextFrame(NamedTuple):
    """A frame as text."""

    comment: bytes
    """The line of the values per frame."""
    atoms: bytes
    """The lines of the atoms, with their ends."""
    num_atoms: int
    """Number of atoms that the first line says."""


def frame_by_ase(path: Path, number: int, frame: TextFrame) -> Atoms | BadFrame:
    """A frame as ASE reads it, in Å and with the elements that its labels stand for; or what is wrong with it."""
    try:
        comment = comment_for_ase(frame.comment)
        lines = [line.split() for line in decoded(frame.atoms).split("\n")[: frame.num_atoms]]
        _name_elements(lines, comment.text, decoded(frame.comment))
        text = "\n".join([str(frame.num_atoms), comment.text, *map(" ".join, lines), ""])
        atoms = next(read_xyz(StringIO(text), index=0))
    except UnusableText as error:
        return BadFrame(str(path), number, str(error))
    except Exception as error:  # ASE raises many kinds, by the part of the text that is wrong
        return BadFrame(str(path), number, f"cannot be read ({one_line(error)})")
    atoms.info.update(comment.info)
    if comment.cell is not None:
        atoms.set_cell(comment.cell)
        atoms.pbc = True
    if comment.length != 1:
        atoms.set_cell(atoms.cell * comment.length)
        atoms.positions *= comment.length
    return atoms


def _name_elements(lines: list[list[str]], comment: str, whole_comment: str):
    """Replaces labels of atoms by symbols.

    Raises:
        UnusableText: If one stands for no element, or for a LAMMPS type, or there are fewer columns than named.
    """
    named = COLUMNS.search(comment)
    fields = (named[1] if named else DEFAULT_COLUMNS).split(":")
    column = place = 0
    for name, width in zip(fields[::3], fields[2::3], strict=False):
        if name in ("species", "symbols"):
            place = column
            break
        column += int(width) if width.isdigit() else 0
    else:
        place = -1
    columns = sum(int(width) for width in fields[2::3] if width.isdigit())
    short = next((words for words in lines if len(words) < columns), None)
    if short is not None:
        raise UnusableText(f"{' '.join(short)[:40]!r} has {len(short)} words, not {columns} as its columns need")
    if place < 0:
        return
    labels = {words[place] for words in lines}
    if all(label.capitalize() in atomic_numbers for label in labels):
        return
    numbers = {label: atomic_number(label) for label in labels}
    unknown = next((label for label in sorted(labels) if numbers[label] is None), None)
    if unknown is not None:
        raise UnusableText(unknown_label(unknown))
    types = sorted(int(label) for label in labels if label.isdecimal())
    if types and (types == list(range(1, len(types) + 1)) or whole_comment.startswith("Atoms")):
        some = ", ".join(map(str, types[:3]))
        raise UnusableText(f"its atoms are called {some}, which may be LAMMPS types; write symbols of elements")
    for words in lines:
        words[place] = chemical_symbols[numbers[words[place]] or 0]
