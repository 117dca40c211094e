"""Comment lines of (extended) XYZ text: values, cells, and the units that they state."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from ase.geometry import cellpar_to_cell
from ase.io.extxyz import key_val_str_to_dict

from pyg_clusters.frames.block import column
from pyg_clusters.frames.electronic_state import BOTH, WITHOUT_EQUALS
from pyg_clusters.frames.provenance import EARLIER, INITIAL, SOURCE_FILE
from pyg_clusters.frames.text import with_usual_exponents
from pyg_clusters.units import LENGTH_NAMES

UNIT_WORDS: tuple[bytes, ...] = (b"unit", b"bohr", b"cell", b"a.u.", b"nanomet", b"picomet", b" nm")
"""Words of which every comment line that names a unit of length contains one, in lower case."""

LENGTH_KEY: re.Pattern[str] = re.compile(
    r"(?<!\S)(?:length|distance|pos|positions?|coords?|coordinates?)_units?\s*[=:]\s*\"?([^\s\"]+)\"?", re.IGNORECASE
)
"""Matches a key for the unit of positions, and its value."""

ANY_UNIT: re.Pattern[str] = re.compile(r"(?<!\S)units?\s*[=:]\s*\"?([^\s\"]+)\"?", re.IGNORECASE)
"""Matches a key for a unit of any quantity, and its value."""

OF_FORCES: str = r"(?:forces?_?units?|units?_?(?:of_)?forces?)\s*[=:]\s*(?:\"[^\"]*\"|\S+)"

FORCE_UNIT: re.Pattern[str] = re.compile(rf"(?<!\S){OF_FORCES}", re.IGNORECASE)
"""Matches a key for the unit of forces, and its value."""

NOT_OF_POSITIONS: re.Pattern[str] = re.compile(
    rf"(?<!\S)(?:(?:{EARLIER}|{INITIAL})?{OF_FORCES}|{SOURCE_FILE}=(?:\"[^\"]*\"|\S+))", re.IGNORECASE
)
"""Matches keys and values that may contain a unit of length, but not that of the positions."""

MENTIONED: re.Pattern[str] = re.compile(
    r"\bbohrs?\b|\b(?:coord|position|geometr|length|distance)\w*\b[^=]{0,20}\b(?:a\.u\.|atomic.units?|nanomet|nm\b|picomet)",
    re.IGNORECASE,
)
"""Matches words that suggest that positions are not in Å."""

I_PI_UNIT: re.Pattern[str] = re.compile(r"(\w+)\{(\w+)\}")  # matches a quantity and its unit, as written by i-PI

I_PI_CELL: re.Pattern[str] = re.compile(r"CELL[(\[{](\w+)[)\]}]:?((?:\s+[-+]?[0-9.]+(?:[eE][-+]?\d+)?)+)")
"""Matches a cell, as written by i-PI."""

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

IN_HARTREE: re.Pattern[str] = re.compile(
    r"i\s*=\s*\d+,(?:\s*time\s*=\s*[-.\d]+,)?\s*(E)\s*=\s*[^\s,]+(?:,.*)?|\S+/\S+\s+(ENERGY)\s*=\s*\S+"
)
"""Matches comments of CP2K and Molpro with an energy in hartree, and its key."""

KEY_AND_VALUE: re.Pattern[str] = re.compile(r"(?:^|\s)(\w+)=(\S+)")
"""Matches a key and its value in a comment line in which quoted texts contain no blanks."""


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
    text = BOTH.sub(r"charge=\1 multiplicity=\2", with_usual_exponents(decoded(line).strip()))
    if (of_i_pi := _of_i_pi(text)) is not None:
        return of_i_pi
    stating = WITHOUT_EQUALS.finditer(QUOTED.sub("", text) if "=" in text else text)
    info: dict[str, object] = {found[1] or found[3]: int(found[2] or found[4]) for found in stating}
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


def check_in_angstrom(comment: bytes):
    """Check that a comment without a unit of length does not suggest that positions are not in Å."""
    text = decoded(comment)
    found = ANY_UNIT.search(text)
    if found is None or LENGTH_NAMES.get(found[1].lower(), 1.0) == 1.0:
        found = MENTIONED.search(NOT_OF_POSITIONS.sub("", text))
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


LATTICE: re.Pattern[str] = re.compile(r'(?:^|\s)Lattice="([^"]*)"(?=\s|$)')
PBC: re.Pattern[str] = re.compile(r'(?:^|\s)pbc="([^"]*)"(?=\s|$)')
QUOTED: re.Pattern[str] = re.compile(r'"[^"]*"')


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
