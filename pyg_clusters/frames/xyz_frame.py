"""Frames of (extended) XYZ text, and their conversion by ASE."""

import math
import re
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.io.extxyz import read_xyz

from pyg_clusters.errors import describe_error
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.electronic_state import may_state
from pyg_clusters.frames.text import atomic_number, unknown_label, with_usual_exponents
from pyg_clusters.frames.xyz_comment import (
    FORCE_UNIT,
    UnusableText,
    check_in_angstrom,
    comment_for_ase,
    decoded,
    may_name_a_unit,
)
from pyg_clusters.units import force_unit, force_unit_in_name

NO_FLOAT: re.Pattern[str] = re.compile(r"could not convert string to float: '(.*)'$")
"""Matches the message about a word that is not a number."""

BY_NUMBER: dict[str, int] = {str(number): number for number in atomic_numbers.values()}
"""Atomic numbers by their text, as some files name elements."""

PROPERTIES: re.Pattern[bytes] = re.compile(rb'(?:^|\s)Properties=([^\s"\'{}\[\]\\]+)(?=\s|$)')
"""Matches the definition of columns in a comment that the fast parser supports."""

COLUMNS: re.Pattern[str] = re.compile(r"(?:^|\s)Properties\s*=\s*[\"'{\[]?([^\s\"'}\]]+)")
"""Matches the definition of columns in a comment."""

DEFAULT_COLUMNS: str = "species:S:1:pos:R:3"  # definition of the columns of a frame that does not define them


class TextFrame(NamedTuple):
    """Text of a frame."""

    comment: bytes  #: Comment line.
    atoms: bytes  #: Lines of the atoms, with line ends.
    num_atoms: int  #: Number of atoms, as stated by the first line.


def frame_by_ase(path: Path, number: int, frame: TextFrame, length: float = 1.0) -> Atoms | BadFrame:
    """Convert a frame by ASE, with elements from the labels of atoms, or return its fault.

    Values are converted from the unit of length that the frame states, see :func:`convert_to_angstrom`. A frame that
    states none is returned as it is; ``length`` is the unit in Å that the user states.
    """
    try:
        comment = comment_for_ase(frame.comment)
        if comment.length is None and length == 1:
            check_in_angstrom(frame.comment)
        elif comment.length is not None and length != 1:
            raise UnusableText("states its unit of length, and is converted from it; leave length_unit out")
        atom_lines = with_usual_exponents(decoded(frame.atoms)).split("\n")
        lines = [line.split() for line in atom_lines[: frame.num_atoms]]
        _name_elements(lines, comment.text, decoded(frame.comment))
        text = "\n".join([str(frame.num_atoms), comment.text, *map(" ".join, lines), ""])
        atoms = next(read_xyz(StringIO(text), index=0))
    except UnusableText as error:
        return BadFrame(str(path), number, str(error))
    except Exception as error:  # ASE raises errors of many kinds, depending on what is wrong
        return BadFrame(str(path), number, _wrong_number(frame, error) or f"cannot be read ({describe_error(error)})")
    atoms.info.update(comment.info)
    if comment.cell is not None:
        atoms.set_cell(comment.cell)
        atoms.pbc = True
    if comment.length is not None:
        convert_to_angstrom(atoms, comment.length)
    return atoms


def convert_to_angstrom(atoms: Atoms, length: float):
    """Convert positions, cell and forces of a frame from a unit of ``length`` in Å; the unit of energies stays.

    Forces are values per atom with "force" in their name. They stay as they are if their name states a unit, or if the
    frame states that they are per another unit of length; otherwise a unit that it states becomes that per Å.
    """
    atoms.set_cell(atoms.cell * length)
    atoms.positions *= length
    stated = {key: force_unit(str(value)) for key, value in atoms.info.items() if FORCE_UNIT.fullmatch(f"{key}=x")}
    if all(unit is not None and math.isclose(unit.length, length) for unit in stated.values()):
        atoms.info |= {key: f"{unit.energy}/Å" for key, unit in stated.items() if unit is not None}
        for values in (atoms.arrays, {} if atoms.calc is None else atoms.calc.results):
            names = [key for key in values if "force" in key.lower() and force_unit_in_name(key) is None]
            values |= {key: values[key] / length for key in names if np.asarray(values[key]).dtype.kind == "f"}
    if atoms.calc is not None:
        atoms.calc.atoms = atoms.copy()  # the positions of its results


def _wrong_number(frame: TextFrame, error: Exception) -> str | None:
    """Fault of the first line with a word that is not a number, if that is the error."""
    word = NO_FLOAT.search(str(error))
    lines = decoded(frame.atoms).split("\n")
    line = next((" ".join(line.split()) for line in lines if word and word[1] in line.split()[1:]), None)
    if word is None or line is None:
        return None
    return (
        f"cannot be read ({word[1][:40]!r} in {line[:60]!r} is not a number such as 1.5); the columns are element, "
        "x, y, z, or those of Properties=... in the comment"
    )


def _name_elements(lines: list[list[str]], comment: str, whole_comment: str):
    """Replace labels of atoms by element symbols."""
    named = COLUMNS.search(comment)
    fields = (named[1] if named else DEFAULT_COLUMNS).split(":")
    names, widths = fields[::3], [int(width) if width.isdigit() else 0 for width in fields[2::3]]
    short = next((words for words in lines if len(words) < sum(widths)), None)
    if short is not None:
        raise UnusableText(f"{' '.join(short)[:40]!r} has {len(short)} words, but there are {sum(widths)} columns")
    label, number = (
        next((sum(widths[:index]) for index, name in enumerate(names) if name in alike), None)
        for alike in (("species", "symbols"), ("Z", "numbers"))
    )
    if label is None:
        if number is None:
            raise UnusableText("its columns name no elements; call that of the symbols 'species' in Properties=...")
        return
    labels = {words[label] for words in lines}
    numbers = {text: BY_NUMBER.get(text, atomic_number(text)) for text in labels}
    if unknown := sorted(text for text in labels if numbers[text] is None):
        raise UnusableText(unknown_label(unknown[0]))
    types = sorted(int(text) for text in labels if text.isdecimal())
    if types and (types == list(range(1, len(types) + 1)) or whole_comment.startswith("Atoms")):
        some = ", ".join(map(str, types[:3]))
        raise UnusableText(f"its atoms are labelled {some}, which may be LAMMPS types; use element symbols")
    for words in lines:
        element = numbers[words[label]] or 0
        words[label] = chemical_symbols[element]
        if number is not None and float(words[number]) != element:
            raise UnusableText(
                f"an atom is {words[label]} in the column of symbols, but of atomic number {words[number]}; remove one"
            )


def columns_named(frame: TextFrame) -> str | None:
    """Definition of the columns of a frame; ``None`` if ASE has to read the frame."""
    if not frame.num_atoms or may_name_a_unit(frame.comment) or may_state(frame.comment):
        return None
    match = PROPERTIES.search(frame.comment)
    if match is None:
        return None if b"properties" in frame.comment.lower() and b"=" in frame.comment else DEFAULT_COLUMNS
    return decoded(match[1]) if frame.comment.count(b"Properties") == 1 else None
