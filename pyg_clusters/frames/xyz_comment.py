"""Comment lines of XYZ text: encodings, units of length, lone numbers, plain words."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from ase import units
from ase.geometry import cellpar_to_cell

LENGTHS: Mapping[str, float] = {
    **dict.fromkeys(("angstrom", "angstroms", "angstroem", "ang", "a", "å"), 1.0),
    **dict.fromkeys(("bohr", "bohrs", "a0", "au", "a.u.", "atomic", "atomic_unit", "atomic_units"), units.Bohr),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), units.nm),
    **dict.fromkeys(("pm", "picometer", "picometre"), units.nm / 1000),
    **dict.fromkeys(("m", "meter", "metre"), units.m),
}
"""Å in a unit of length, by its names in lower case."""

UNIT_WORDS: tuple[bytes, ...] = (b"unit", b"bohr", b"cell", b"a.u.", b"nanomet", b"picomet", b" nm")
"""One of these stands in every comment that names a unit of length, in lower case."""

LENGTH_KEY: re.Pattern[str] = re.compile(
    r"(?<!\S)(?:length|distance|pos|positions?|coords?|coordinates?)_units?\s*[=:]\s*\"?([^\s\"]+)\"?", re.IGNORECASE
)
"""The unit of positions, as a key and its value."""

ANY_UNIT: re.Pattern[str] = re.compile(r"(?<!\S)units?\s*[=:]\s*\"?([^\s\"]+)\"?", re.IGNORECASE)
"""A unit of something."""

MENTIONED: re.Pattern[str] = re.compile(
    r"\bbohrs?\b|\b(?:coord|position|geometr|length|distance)\w*\b[^=]{0,20}\b(?:a\.u\.|atomic.units?|nanomet|nm\b|picomet)",
    re.IGNORECASE,
)
"""Words that may say that positions are not in Å."""

I_PI_UNIT: re.Pattern[str] = re.compile(r"(\w+)\{(\w+)\}")
"""A quantity and its unit, as i-PI writes them."""

I_PI_CELL: re.Pattern[str] = re.compile(r"CELL[(\[{](\w+)[)\]}]:?((?:\s+[-+]?[0-9.]+(?:[eE][-+]?\d+)?)+)")
"""The cell, as i-PI writes it."""

BARE: re.Pattern[str] = re.compile(r"\"[^\"]*\"|'[^']*'|(?<!\S)(?:Lattice|Properties|pbc)(?=\s|$)(?!\s*=)")
"""Words that are keys of extended XYZ, but stand without a value; quoted texts too, so that they are passed over."""

NINE_NUMBERS: str = r"\s*=\s*(?=[\"'{\[]\s*(?:[-+0-9.eE]+[\s,]+){8}[-+0-9.eE]+\s*[\"'}\]])"

LATTICE_KEY: re.Pattern[str] = re.compile(rf"(?<!\S)lattice{NINE_NUMBERS}", re.IGNORECASE)
"""The key of a cell of nine numbers, in upper or lower case."""

OTHER_CELL_KEY: re.Pattern[str] = re.compile(rf"(?<!\S)(?:cell|unit_?cell|box){NINE_NUMBERS}", re.IGNORECASE)
"""Other keys of a cell, which count where there is no ``Lattice``."""

PROPERTIES_KEY: re.Pattern[str] = re.compile(r"(?<!\S)properties\s*=\s*(?=[\"']?\w+:[SRIL]:\d)", re.IGNORECASE)
"""The key of the columns, in upper or lower case."""


class UnusableText(ValueError):
    """Text of a frame that says something that cannot be, or not clearly."""


class Comment(NamedTuple):
    """A comment line, made ready for ASE."""

    text: str
    """Keys and values that ASE reads."""
    info: dict[str, object]
    """Values that it does not."""
    length: float
    """Å in the unit of the positions and the cell."""
    cell: np.ndarray | None
    """Periodic cell that ASE does not read, in the unit of the file, ``[3, 3]``."""


def decoded(line: bytes) -> str:
    """The text of a line, by UTF-8 or else by Latin-1."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def plain_comment(line: bytes) -> float | str | None:
    """The value of a comment line that has no key: a number if it is one, else its text; none if it is empty."""
    text = decoded(line).strip()
    if not text or "=" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def may_name_a_unit(line: bytes) -> bool:
    """Whether a comment line may say anything of the unit of length."""
    text = line.lower()
    if not any(word in text for word in UNIT_WORDS):
        return False
    words = decoded(line)
    return any(pattern.search(words) for pattern in (I_PI_CELL, LENGTH_KEY, ANY_UNIT, MENTIONED))


def comment_for_ase(line: bytes) -> Comment:
    """A comment line as ASE reads it, with the unit of the positions.

    Raises:
        UnusableText: If the positions may be in another unit than Å and it is not clear in which, or are none.
    """
    text = decoded(line).strip()
    of_i_pi = _of_i_pi(text)
    if of_i_pi is not None:
        return of_i_pi
    text, length = _length(text)
    if "=" not in text:
        value = plain_comment(text.encode())
        return Comment("", {} if value is None else {"comment": value}, length, None)
    text = BARE.sub(lambda match: match[0] if match[0][0] in "\"'" else "", text)
    cell = LATTICE_KEY if LATTICE_KEY.search(text) else OTHER_CELL_KEY
    return Comment(PROPERTIES_KEY.sub("Properties=", cell.sub("Lattice=", text)), {}, length, None)


def _length(text: str) -> tuple[str, float]:
    """The text without what it says of the unit of length, and Å in that."""
    match = LENGTH_KEY.search(text)
    if match:
        if match[1].lower() not in LENGTHS:
            raise UnusableText(f"its unit of length is {match[1]!r}; convert the positions to Å")
        return LENGTH_KEY.sub("", text), LENGTHS[match[1].lower()]
    match = ANY_UNIT.search(text)
    strange = match is not None and LENGTHS.get(match[1].lower(), 1.0) != 1.0
    mentioned = MENTIONED.search(text)
    if strange or mentioned:
        words = match[0] if match and strange else mentioned[0] if mentioned else ""
        raise UnusableText(
            f"its comment says {words.strip()!r}, so that its positions may not be in Å; say length_unit=angstrom or "
            "length_unit=bohr there"
        )
    return text, 1.0


def _of_i_pi(text: str) -> Comment | None:
    cell = I_PI_CELL.search(text)
    if cell is None:
        return None
    stated = {name.lower(): unit.lower() for name, unit in I_PI_UNIT.findall(text)}
    quantity = next((name for name in stated if name != "cell"), None)
    if quantity is None:
        raise UnusableText("is of i-PI and states no unit of its positions; add positions{angstrom} or {atomic_unit}")
    if quantity != "positions" and not quantity.startswith("x"):
        raise UnusableText(f"holds {quantity} of i-PI, not positions; give the file of positions")
    factors = {}
    for name in (quantity, "cell"):
        unit = stated.get(name, stated[quantity])
        if unit not in LENGTHS:
            raise UnusableText(f"its {name} are in {unit!r}, which is no unit of length; convert them to Å")
        factors[name] = LENGTHS[unit]
    values = np.array(cell[2].split(), dtype=float)
    if cell[1].lower().startswith("abc") and len(values) == 6:
        vectors = cellpar_to_cell(values)
    elif len(values) == 9:
        vectors = values.reshape(3, 3).T
    else:
        raise UnusableText(f"its cell {cell[0][:60]!r} is not one of i-PI")
    info: dict[str, object] = {name.lower(): int(value) for name, value in re.findall(r"\b(Step|Bead):\s*(\d+)", text)}
    return Comment("", info, factors[quantity], vectors * (factors["cell"] / factors[quantity]))
