"""Energies that come with structures in the comment line, in a table, or in the name of the file."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pyg_clusters.datasets.gnc_files import Structure
from pyg_clusters.errors import InputError, one_line

NUMBER: str = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

ENERGY_NAMES: tuple[str, ...] = (
    *("binding[ _-]?energy", "b\\.?e\\.?", "e[ _-]?b(?:ind(?:ing)?)?"),
    *("(?:ref|dft|total|free)?[ _-]?energy", "e[ _-]?tot(?:al)?", "e0?"),
)
"""Regular expressions for the names of energies, in order of preference."""

PLAIN_NAMES: tuple[str, ...] = ("POSCAR", "CONTCAR")
"""Names of files that say nothing: the folder has the name."""

DECIMAL: re.Pattern[str] = re.compile(r"[-+]?\d+\.\d+(?:[eE][-+]?\d+)?")


EnergySource = Literal["table", "comment", "name"]


def energies_of(
    structures: Sequence[Structure],
    tables: dict[str, Path],
    source: EnergySource | Literal["auto"] = "auto",
    key: str | None = None,
) -> tuple[EnergySource, list[float | None]]:
    """The energy of each structure from one source, or nothing for a structure that has none there.

    Args:
        structures: The structures.
        tables: Paths of the tables by name.
        source: Where the energies are; by default where most structures have one (of equals the first of table,
            comment and name).
        key: What the energy is called in the comment line or the first row of the table.

    Returns:
        The source, and the energies ``[num_structures]`` in the unit of the files.
    """
    rows = energies_in_tables(tables, {structure.file for structure in structures}, key)
    found: dict[EnergySource, list[float | None]] = {
        "table": [_nth(rows.get(structure.file, []), structure.number) for structure in structures],
        "comment": [energy_in_comment(structure.comment, key) for structure in structures],
        "name": [energy_in_name(structure.file) for structure in structures],
    }
    fullest = max(found, key=lambda each: len(structures) - found[each].count(None))
    chosen = fullest if source == "auto" else source
    return chosen, found[chosen]


def _nth(values: Sequence[float], number: int) -> float | None:
    return values[number] if number < len(values) else None


def energy_in_comment(comment: str, key: str | None = None) -> float | None:
    """The energy in a comment line: after a name of an energy, or the only number with a decimal point.

    Args:
        comment: The line, free text or the keys of extended XYZ.
        key: Name of the energy; by default the first of :data:`ENERGY_NAMES` that is there.

    Example:
        >>> energy_in_comment("Ga31 isomer 5  E(eV) = -75.125")
        -75.125
        >>> energy_in_comment('Lattice="20.5 0 0 0 20.5 0 0 0 20.5" energy=-75.1 binding_energy=-74.9')
        -74.9
        >>> energy_in_comment("Ga31   -75.25")
        -75.25
    """
    for name in ENERGY_NAMES if key is None else [re.escape(key)]:
        pattern = rf"(?<![\w.]){name}[\"']?\s*(?:\([^()]*\)|\[[^\[\]]*\])?\s*[=:]?\s*({NUMBER})(?![\w.])"
        if match := re.search(pattern, comment, re.IGNORECASE):
            return float(match[1])
    rest = re.sub(r"[\w-]+=(?:\"[^\"]*\"|'[^']*'|\S+)", " ", comment)
    bare = re.findall(rf"(?<![\w.]){DECIMAL.pattern}(?![\w.])", rest)
    return float(bare[0]) if len(bare) == 1 and key is None else None


def energy_in_name(name: str) -> float | None:
    """The energy in the name of a file, or in that of its folder where the file is a plain ``POSCAR``: the last number
    with a decimal point.

    Example:
        >>> energy_in_name("GNC/Ga31_17_-75.125.xyz"), energy_in_name("GNC/31_E-75.5/CONTCAR")
        (-75.125, -75.5)
    """
    path = PurePosixPath(name)
    stem = path.parent.name if path.name in PLAIN_NAMES else path.name
    stem = re.sub(r"\.(?:gz|xz|bz2)$", "", stem)
    stem = re.sub(r"\.(?:xyz|extxyz|vasp|poscar|traj)$", "", stem)
    found = DECIMAL.findall(stem)
    return float(found[-1]) if found else None


def energies_in_tables(
    tables: dict[str, Path], structures: Iterable[str], key: str | None = None
) -> dict[str, list[float]]:
    """Energies of structure files from tables with a row for each structure.

    A row has the name of a file (with or without its folders and its suffix) and its energy: in the column that a first
    row calls so, else the last number with a decimal point. Rows without the name of a file are passed over. The rows
    of one file are those of its frames, in order. Columns are set apart by commas, semicolons, tabs or blanks.

    Args:
        tables: Paths of the tables by name (relative to where the structures are).
        structures: Names of the files.
        key: Title of the column.

    Raises:
        InputError: If a table cannot be read, a name fits several files, or a row has no energy.
    """
    by_part = defaultdict(set)
    for name in structures:
        for part in _names_for(name):
            by_part[part].add(name)
    energies: dict[str, list[float]] = {}
    for table, path in tables.items():
        energies |= _energies_in_table(table, path, by_part, key)
    return energies


def _names_for(name: str) -> set[str]:
    """Names of a file in a table: with fewer folders, without the suffix, by its folder if its own name is plain."""
    path = PurePosixPath(name)
    paths = [path, path.with_suffix("")] if path.suffix else [path]
    if path.suffix in (".gz", ".xz", ".bz2"):
        paths.append(path.with_suffix("").with_suffix(""))
    if path.name in PLAIN_NAMES:
        paths.append(path.parent)
    return {"/".join(each.parts[start:]) for each in paths for start in range(len(each.parts))}


def _energies_in_table(table: str, path: Path, by_part: dict[str, set[str]], key: str | None) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    column = None
    for line, cells in enumerate(_rows(path), start=1):
        place = next((number for number, cell in enumerate(cells) if cell.removeprefix("./") in by_part), None)
        if place is None:
            if not found and column is None:
                column = _energy_column(cells, key)
            continue
        name = _the_one(by_part[cells[place].removeprefix("./")], table, line, cells[place])
        energy = _energy_of_row(cells, place, column)
        if energy is not None:
            found[name].append(energy)
        elif column is not None:
            raise InputError(f"{path}, line {line}: no energy for {cells[place]}, but {_cell(cells, column)!r}")
    return found


def _rows(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({one_line(error)})") from error
    text = "\n".join(lines[:20])
    delimiter = next((mark for mark in ",;\t" if mark in text), None)
    rows = csv.reader(lines, delimiter=delimiter) if delimiter else [line.split() for line in lines]
    return [[cell.strip() for cell in row] for row in rows]


def _energy_column(titles: Sequence[str], key: str | None) -> int | None:
    for name in ENERGY_NAMES if key is None else [re.escape(key)]:
        pattern = rf"{name}(?:[ _-]*(?:\(.*\)|\[.*\]|/.*|in .*|ev|kcal.*|hartree))?"
        for number, title in enumerate(titles):
            if re.fullmatch(pattern, title.lstrip("# "), re.IGNORECASE):
                return number
    return None


def _the_one(names: set[str], table: str, line: int, cell: str) -> str:
    """The file that a row means: if several have the name, the one in the folder of the table."""
    if len(names) > 1:
        folder = PurePosixPath(table).parent
        names = {name for name in names if PurePosixPath(name).parent == folder} or names
    if len(names) > 1:
        raise InputError(f"{table}, line {line}: {cell!r} may be any of {len(names)} files; write their folders too")
    return next(iter(names))


def _energy_of_row(cells: Sequence[str], place: int, column: int | None) -> float | None:
    if column is not None:
        text = _cell(cells, column)
        return float(text) if re.fullmatch(NUMBER, text) else None
    numbers = [cell for number, cell in enumerate(cells) if number != place and re.fullmatch(NUMBER, cell)]
    decimals = [cell for cell in numbers if not cell.lstrip("+-").isdecimal()]
    return float((decimals or numbers)[-1]) if numbers else None


def _cell(cells: Sequence[str], column: int) -> str:
    return cells[column] if column < len(cells) else ""
