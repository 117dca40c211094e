"""Comment lines of (extended) XYZ text, and conversion of single frames by ASE."""

import re
from collections.abc import Sequence
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.geometry import cellpar_to_cell
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from pyg_clusters.errors import describe_error
from pyg_clusters.frames.block import BadFrame, column
from pyg_clusters.frames.electronic_state import WITHOUT_EQUALS, may_state
from pyg_clusters.frames.text import atomic_number, unknown_label, with_usual_exponents
from pyg_clusters.units import LENGTH_NAMES

UNIT_WORDS: tuple[bytes, ...] = (b"unit", b"bohr", b"cell", b"a.u.", b"nanomet", b"picomet", b" nm")
"""Words of which every comment line that names a unit of length contains one, in lower case."""

LENGTH_KEY: re.Pattern[str] = re.compile(
    r"(?<!\S)(?:length|distance|pos|positions?|coords?|coordinates?)_units?\s*[=:]\s*\"?([^\s\"]+)\"?", re.IGNORECASE
)
"""Matches a key for the unit of positions, and its value."""

ANY_UNIT: re.Pattern[str] = re.compile(r"(?<!\S)units?\s*[=:]\s*\"?([^\s\"]+)\"?", re.IGNORECASE)
"""Matches a key for a unit of any quantity, and its value."""

FORCE_UNIT: re.Pattern[str] = re.compile(
    r"(?<!\S)(?:forces?_?units?|units?_?(?:of_)?forces?)\s*[=:]\s*(?:\"[^\"]*\"|\S+)", re.IGNORECASE
)
"""Matches a key for the unit of forces, and its value."""

MENTIONED: re.Pattern[str] = re.compile(
    r"\bbohrs?\b|\b(?:coord|position|geometr|length|distance)\w*\b[^=]{0,20}\b(?:a\.u\.|atomic.units?|nanomet|nm\b|picomet)",
    re.IGNORECASE,
)
"""Matches words that suggest that positions are not in Å."""

I_PI_UNIT: re.Pattern[str] = re.compile(r"(\w+)\{(\w+)\}")  # matches a quantity and its unit, as written by i-PI

I_PI_CELL = re.compile(r"CELL[(\[{](\w+)[)\]}]:?((?:\s+[-+]?[0-9.]+(?:[eE][-+]?\d+)?)+)")  # matches a cell of i-PI

BARE: re.Pattern[str] = re.compile(r"\"[^\"]*\"|'[^']*'|(?<!\S)(?:Lattice|Properties|pbc)(?=\s|$)(?!\s*=)")
"""Matches keys of extended XYZ without a value, and also quoted texts, so that keys within these are not found."""

NINE_NUMBERS: str = r"\s*=\s*(?=[\"'{\[]\s*(?:[-+0-9.eE]+[\s,]+){8}[-+0-9.eE]+\s*[\"'}\]])"

LATTICE_KEY: re.Pattern[str] = re.compile(rf"(?<!\S)lattice{NINE_NUMBERS}", re.IGNORECASE)
"""Matches the key of a cell of nine numbers, in upper or lower case."""

OTHER_CELL_KEY: re.Pattern[str] = re.compile(rf"(?<!\S)(?:cell|unit_?cell|box){NINE_NUMBERS}", re.IGNORECASE)
"""Matches other keys of a cell, which are used if there is no ``Lattice``."""

PROPERTIES_KEY: re.Pattern[str] = re.compile(r"(?<!\S)properties\s*=\s*(?=[\"']?\w+:[SRIL]:\d)", re.IGNORECASE)
"""Matches the key of the columns, in upper or lower case."""

PROGRAM_ENERGY: re.Pattern[str] = re.compile(
    r"energy:\s+(-?\d+\.\d+)\s+gnorm:.*|Coordinates from ORCA-job .*\bE\s+(-?\d+\.\d+)"
)
"""Matches comments of xtb and ORCA with an energy in hartree."""

IN_HARTREE = re.compile(  # matches comments of CP2K and Molpro with an energy in hartree, and its key
    r"i\s*=\s*\d+,(?:\s*time\s*=\s*[-.\d]+,)?\s*(E)\s*=\s*\S+|\S+/\S+\s+(ENERGY)\s*=\s*\S+"
)

NO_FLOAT = re.compile(r"could not convert string to float: '(.*)'$")  # the message about a word that is not a number

BY_NUMBER: dict[str, int] = {str(number): number for number in atomic_numbers.values()}
"""Atomic numbers by their text, as some files name elements."""

KEY_AND_VALUE = re.compile(r"(?:^|\s)(\w+)=(\S+)")  # matches a key and its value in a comment without quotes


class UnusableText(ValueError):
    """The text of a frame is contradictory or ambiguous."""


class Comment(NamedTuple):
    """Comment line, prepared for ASE."""

    text: str  #: Keys and values for ASE.
    info: dict[str, object]  #: Values that ASE would not read.
    length: float | None  #: Unit of the positions and the cell in Å, if the line states it.
    cell: np.ndarray | None  #: Periodic cell that ASE would not read, in the unit of the file, ``[3, 3]``.


def decoded(line: bytes) -> str:
    """Decode a line as UTF-8, otherwise as Latin-1."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def plain_comment(line: bytes) -> float | str | None:
    """Value of a comment line without keys: a number or a text; ``None`` if it is empty or has keys."""
    text = decoded(line).strip()
    if not text or "=" in text:
        return None
    try:
        return float(with_usual_exponents(text))
    except ValueError:
        return text


def may_name_a_unit(line: bytes) -> bool:
    """Whether a comment line may state a unit of length."""
    text = line.lower()
    patterns = (I_PI_CELL, LENGTH_KEY, ANY_UNIT, MENTIONED)
    return any(word in text for word in UNIT_WORDS) and any(pattern.search(decoded(line)) for pattern in patterns)


def comment_for_ase(line: bytes) -> Comment:
    """Prepare a comment line for ASE, and read the unit of the positions.

    Raises:
        UnusableText: If a key has two values, the unit of the positions is unknown, or the frame holds other
            quantities.
    """
    text = with_usual_exponents(decoded(line).strip())
    if (of_i_pi := _of_i_pi(text)) is not None:
        return of_i_pi
    info: dict[str, object] = {
        found[1] or found[3]: int(found[2] or found[4]) for found in WITHOUT_EQUALS.finditer(text)
    }
    length = None
    if stated := LENGTH_KEY.search(text):
        text, length = LENGTH_KEY.sub("", text), LENGTH_NAMES.get(stated[1].lower())
        if length is None:
            raise UnusableText(f"its unit of length is {stated[1]!r}; convert the positions to Å")
    if "=" not in text:
        value = plain_comment(text.encode())
        info |= {} if value is None else {"comment": value}
        if found := PROGRAM_ENERGY.fullmatch(text):
            info |= {"energy": float(found[1] or found[2]), "energy_unit": "Hartree"}
        return Comment("", info, length, None)
    if found := IN_HARTREE.fullmatch(text):
        info[f"{found[1] or found[2]}_unit"] = "Hartree"
    values: dict[str, str] = {}
    for key, value in KEY_AND_VALUE.findall(QUOTED.sub(lambda quoted: "_".join(quoted[0].split()), text)):
        if values.setdefault(key, value) != value:
            raise UnusableText(f"its comment line has {key}={values[key]} and {key}={value}; remove one of them")
    text = BARE.sub(lambda match: match[0] if match[0][0] in "\"'" else "", text)
    cell = LATTICE_KEY if LATTICE_KEY.search(text) else OTHER_CELL_KEY
    return Comment(PROPERTIES_KEY.sub("Properties=", cell.sub("Lattice=", text)), info, length, None)


def _check_in_angstrom(comment: bytes):
    """Check that a comment without a unit of length does not suggest that positions are not in Å."""
    text = decoded(comment)
    found = ANY_UNIT.search(text)
    if found is None or LENGTH_NAMES.get(found[1].lower(), 1.0) == 1.0:
        found = MENTIONED.search(FORCE_UNIT.sub("", text))
    if found:
        raise UnusableText(
            f"its positions may not be in Å, as its comment contains {found[0].strip()!r}; write "
            "length_unit=angstrom or length_unit=bohr there"
        )


def _of_i_pi(text: str) -> Comment | None:
    if (cell := I_PI_CELL.search(text)) is None:
        return None
    stated = {name.lower(): unit.lower() for name, unit in I_PI_UNIT.findall(text)}
    quantity = next((name for name in stated if name != "cell"), None)
    if quantity is None:
        raise UnusableText(
            "was written by i-PI without a unit of positions; add positions{angstrom} or positions{atomic_unit}"
        )
    if quantity != "positions" and not quantity.startswith("x"):
        raise UnusableText(f"holds {quantity} written by i-PI, not positions; give the file of positions")
    factors = {}
    for name in (quantity, "cell"):
        unit = stated.get(name, stated[quantity])
        if unit not in LENGTH_NAMES:
            raise UnusableText(f"its {name} are in {unit!r}, which is not a unit of length; convert them to Å")
        factors[name] = LENGTH_NAMES[unit]
    values = np.array(cell[2].split(), dtype=float)
    if cell[1].lower().startswith("abc") and len(values) == 6:
        vectors = cellpar_to_cell(values)
    elif len(values) == 9:
        vectors = values.reshape(3, 3).T
    else:
        raise UnusableText(f"its cell {cell[0][:60]!r} does not have the form that i-PI writes; fix it")
    info: dict[str, object] = {name.lower(): int(value) for name, value in re.findall(r"\b(Step|Bead):\s*(\d+)", text)}
    return Comment("", info, factors[quantity], vectors * (factors["cell"] / factors[quantity]))


COLUMNS = re.compile(r"(?:^|\s)Properties\s*=\s*[\"'{\[]?([^\s\"'}\]]+)")  # the definition of the columns

DEFAULT_COLUMNS: str = "species:S:1:pos:R:3"  # definition of the columns of a frame that does not define them


class TextFrame(NamedTuple):
    """Text of a frame."""

    comment: bytes  #: Comment line.
    atoms: bytes  #: Lines of the atoms, with line ends.
    num_atoms: int  #: Number of atoms, as stated by the first line.


def frame_by_ase(path: Path, number: int, frame: TextFrame, length: float = 1.0) -> Atoms | BadFrame:
    """Convert a frame by ASE, with elements from the labels of atoms, or return its fault.

    Positions, the cell, and values per atom with "force" in their name are converted from the unit of length that the
    frame states to Å. A frame that states none is returned as it is; ``length`` is the unit in Å that the user states.
    """
    try:
        comment = comment_for_ase(frame.comment)
        if comment.length is None and length == 1:
            _check_in_angstrom(frame.comment)
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
        for key in [key for key in atoms.info if FORCE_UNIT.fullmatch(f"{key}=x")]:
            unit = str(atoms.info[key])
            atoms.info[key] = f"{unit.rpartition('/')[0] or unit}/Å"
    return atoms


def convert_to_angstrom(atoms: Atoms, length: float):
    """Convert positions, cell and forces of a frame from a unit of ``length`` in Å; the unit of energies stays."""
    atoms.set_cell(atoms.cell * length)
    atoms.positions *= length
    results = {} if atoms.calc is None else atoms.calc.results
    for values in (atoms.arrays, results):
        forces = [key for key in values if "force" in key.lower() and np.asarray(values[key]).dtype.kind == "f"]
        values |= {key: values[key] / length for key in forces}
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


PROPERTIES: re.Pattern[bytes] = re.compile(rb'(?:^|\s)Properties=([^\s"\'{}\[\]\\]+)(?=\s|$)')
LATTICE: re.Pattern[str] = re.compile(r'(?:^|\s)Lattice="([^"]*)"(?=\s|$)')
PBC: re.Pattern[str] = re.compile(r'(?:^|\s)pbc="([^"]*)"(?=\s|$)')
QUOTED: re.Pattern[str] = re.compile(r'"[^"]*"')


def columns_named(frame: TextFrame) -> str | None:
    """Definition of the columns of a frame; ``None`` if ASE has to read the frame."""
    if not frame.num_atoms or may_name_a_unit(frame.comment) or may_state(frame.comment):
        return None
    match = PROPERTIES.search(frame.comment)
    if match is None:
        return None if b"properties" in frame.comment.lower() and b"=" in frame.comment else DEFAULT_COLUMNS
    return decoded(match[1]) if frame.comment.count(b"Properties") == 1 else None


def cells_of(comments: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray] | None:
    """Cells ``[num_frames, 3, 3]`` and periodic directions ``[num_frames, 3]``; ``None`` if ASE has to read them."""
    cell, pbc = np.zeros((len(comments), 3, 3)), np.zeros((len(comments), 3), dtype=bool)
    for index, comment in enumerate(comments):
        words = comment.lower()
        if b"=" in comment and (b"lattice" in words or b"cell" in words or b"box" in words):
            text = decoded(comment)
            if b"lattice" not in words and not OTHER_CELL_KEY.search(text):
                continue
            lattice, flags = LATTICE.search(text), PBC.search(text)
            several = max(text.count("Lattice"), text.count("pbc")) > 1
            if lattice is None or several or (flags is None and "pbc" in text):
                return None
            if (found := _cell(lattice[1], flags[1] if flags else "T T T")) is None:
                return None
            cell[index], pbc[index] = found
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


def values_of(key: str, comments: Sequence[bytes]) -> np.ndarray | None:
    """Values of a key, ``[num_frames]``; ``None`` if ASE has to read them (one is missing, quoted or in brackets)."""
    if not re.fullmatch(r"\w+", key) or key in ("pbc", "Lattice", "Properties"):
        return None
    pattern = re.compile(rf"(?:^|\s){key}=([^\s=,]+)(?=\s|$)")
    anywhere = re.compile(rf"\b{key}\b")
    values: list[object] = []
    for comment in comments:
        if key == "comment" and (plain := plain_comment(comment)) is not None:
            values.append(plain)
            continue
        outside = QUOTED.sub(",", decoded(comment))
        found = pattern.findall(outside)
        if len(found) != 1 or re.search(r"[\"'{}\[\]\\]", outside) or len(anywhere.findall(outside)) != 1:
            return None
        values.append(key_val_str_to_dict(f"{key}={with_usual_exponents(found[0])}")[key])
    return column(values)
