"""Tables of energies for files of structures."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock
from pyg_clusters.frames.block import UnlabelledFrame
from pyg_clusters.frames.electronic_state import CHARGE_NAMES
from pyg_clusters.units import ENERGY_UNITS, is_per_atom, known_unit, unit_in_name, unit_of

NAME_COLUMNS: frozenset[str] = frozenset({"file", "filename", "file_name", "name", "path", "structure", "id", "xyz"})
FRAME_COLUMNS: frozenset[str] = frozenset({"frame", "index", "frame_index", "frame_number", "number", "#"})
UNIT_COLUMNS: frozenset[str] = frozenset({"unit", "units", "energy_unit"})

UNIT_IN_NAME: re.Pattern[str] = re.compile(r"(.*?)\s*[(\[](.*)[)\]]")
"""Pattern of a column name with unit, such as ``energy (Ha)``."""

SPACED_PER_ATOM: re.Pattern[str] = re.compile(
    r"\b(energy|energies|eV|Ha|Hartree|kcal/mol)\s+per\s+atom\b", re.IGNORECASE
)

FIX = "fix the table"


@dataclass(frozen=True)
class Row:
    """Row of a table: line number (from 1), name, frame index (from 0) and energy in eV."""

    line: int
    name: str | None
    frame: int | None
    energy: float


class LabelTable:
    """Table of energies by file, frame or both, with one row per structure.

    The columns are file (with or without suffix and folders), frame (index in the file, from 0), energy and unit. They
    are separated by commas, tabs, semicolons or white space, with or without a header. A table with several numeric
    columns needs a header that names the energy. The last line starting with ``#`` before the first row may be the
    header.

    Args:
        path: Path of the table.
        files: Files of structures.
        target: Name of the energy column. If there is no such column, the only remaining column is used.
        unit: Unit of the energies in eV, unless the table states it.

    Raises:
        InputError: If the table cannot be read, if a row matches no structure or several, or if two rows match the same
            structure; the message names the row.
    """

    def __init__(self, path: Path, files: Sequence[Path], target: str, unit: float = 1.0):
        self.path = path
        self.files = list(files)
        self.unit = unit
        self.column = target
        """Name of the column of the energies."""
        self._rows: dict[tuple[Path, int | None], Row] = {}
        self._used: set[tuple[Path, int | None]] = set()
        self._designated = designations(self.files)
        for row in self._rows_in(table_lines(path), target):
            key = (self._file_of(row), row.frame)
            same = self._rows.get(key)
            if same is not None:
                raise self._error(row.line, f"has the same structure as line {same.line} ({_named(key)})")
            self._rows[key] = row
        whole = {file for file, frame in self._rows if frame is None}
        if both := [row for (file, frame), row in self._rows.items() if frame is not None and file in whole]:
            raise self._error(both[0].line, "names a frame of a file that another row names as a whole")

    def energies(self, block: FrameBlock) -> tuple[np.ndarray, list[UnlabelledFrame]]:
        """Return the energies of the frames of a block in eV ``[num_frames]`` (NaN if missing), and the frames without.

        Raises:
            InputError: If the table has no frame index for a file of several frames.
        """
        file = Path(block.file)
        if (file, None) in self._rows:
            self._used.add((file, None))
            row = self._rows[file, None]
            if (block.number > 0).any():
                raise self._error(row.line, f"names {file.name}, which has several frames; add a column 'frame'")
            return np.full(len(block), row.energy), []
        keys = [(file, int(number)) for number in block.number]
        self._used |= {*keys, *((file, bad.number) for bad in block.unreadable)} & self._rows.keys()
        energies = np.array([self._rows[key].energy if key in self._rows else np.nan for key in keys])
        missing = block.number[np.isnan(energies)].tolist()
        return energies, [UnlabelledFrame(block.file, number, f"{self.path} has no row for it") for number in missing]

    def check_used(self):
        """Check that all rows were used, after all files have been read."""
        unused = [row for key, row in self._rows.items() if key not in self._used]
        if unused:
            row = min(unused, key=lambda row: row.line)
            more = f"; so do {len(unused) - 1} other rows" if len(unused) > 1 else ""
            raise self._error(row.line, f"names frame {row.frame}, which does not exist (frames count from 0){more}")

    def _error(self, line: int, fault: str) -> InputError:
        return InputError(f"{self.path}, line {line}: {fault}; {FIX}")

    def _rows_in(self, lines: list[tuple[int, list[str]]], target: str) -> list[Row]:
        if not lines:
            raise InputError(f"{self.path}: no rows; {FIX}")
        number, first = lines[0]
        named = not any(_number(cell) is not None for cell in first)
        names = first if named else _header_for(self.path, number, first, lines)
        rows = lines[1:] if named else lines
        if not rows:
            raise InputError(f"{self.path}: no rows below the header; {FIX}")
        columns = self._columns(names, target, [cells for _, cells in rows])
        return [self._row(line, cells, columns, len(names)) for line, cells in rows]

    def _columns(self, names: list[str], target: str, rows: list[list[str]]) -> dict[str, int | float | None]:
        """Find the columns of file, frame, energy and unit, and the unit stated in the header of the energy."""
        stated = [UNIT_IN_NAME.fullmatch(name.strip()) for name in names]
        plain = [match[1] if match else name.strip() for match, name in zip(stated, names, strict=True)]
        lower = [name.lower() for name in plain]
        if len(set(lower)) < len(lower):
            raise InputError(f"{self.path}: two columns have the same name ({', '.join(plain)}); {FIX}")
        indices = {
            kind: next((n for n, name in enumerate(lower) if name in known), None)
            for kind, known in (("file", NAME_COLUMNS), ("frame", FRAME_COLUMNS), ("unit", UNIT_COLUMNS))
        }
        others = [n for n in range(len(names)) if n not in indices.values()]
        energy = next((n for n in others if target in (names[n].strip(), plain[n])), None)
        if energy is None and indices["file"] is None and indices["frame"] is None and len(others) > 1:
            indices["file"] = others.pop(0)
        if energy is None and len(others) == 1:
            energy = others[0]
        if energy is None:
            raise InputError(
                f"{self.path}: no column {target!r} among {', '.join(plain)}; give that of the energies as target"
            )
        if indices["file"] is None and indices["frame"] is None:
            raise InputError(
                f"{self.path}: no column of files or frames among {', '.join(plain)}; name one 'file' or 'frame'"
            )
        key = indices["file"] if indices["file"] is not None else indices["frame"]
        cells = [row[key] for row in rows if key is not None and key < len(row)]
        if indices["file"] is None and len(self.files) > 1:  # numbers may be names of files
            indices["file"], indices["frame"] = indices["frame"], None
        elif indices["frame"] is None and len(self.files) == 1 and not any(self._match(cell) for cell in cells):
            if all(cell.isdigit() for cell in cells):
                indices["file"], indices["frame"] = None, indices["file"]
        self.column = names[energy]
        match = stated[energy]
        if is_per_atom(plain[energy]) or (match and is_per_atom(match[2])):
            raise InputError(
                f"{self.path}: {names[energy]!r} is an energy per atom; give the total energy of the cluster"
            )
        charge = next((n for n, name in enumerate(lower) if name in CHARGE_NAMES), None)
        if charge is not None and any(_number(row[charge]) for row in rows if charge < len(row)):
            raise InputError(
                f"{self.path}: the column {names[charge]!r} states charges, which are read from the structures only; "
                "write them there (charge=1 in the comment of XYZ)"
            )
        unit = match[2] if match else unit_in_name(plain[energy])
        if unit and not match and plain[energy].lower().endswith("au"):
            raise InputError(
                f"{self.path}: {plain[energy]!r} may be in atomic units, or that of gold; name its unit in the header, "
                "such as 'energy (Hartree)'"
            )
        if unit is None and indices["unit"] is None:
            self._check_comments()
        return {**indices, "energy": energy, "stated": None if unit is None else self._unit(unit, 1)}

    def _check_comments(self):
        """Check that no comment of a table states another unit than that in which its energies are read."""
        for line, text in enumerate(_text_of(self.path).splitlines(), start=1):
            if not text.lstrip().startswith("#"):
                continue
            for word in re.split(r"[\s,;:()\[\]]+", SPACED_PER_ATOM.sub(r"\1/atom", text)):
                known = None if word in ("Au", "AU", "atomic") else known_unit(word)
                if known is None and not is_per_atom(word):
                    continue
                if known is None or not math.isclose(ENERGY_UNITS[known], self.unit, rel_tol=1e-6):
                    read = f"the energies are read as totals in units of {self.unit:.6g} eV"
                    header = f"write their unit in the header, such as 'energy ({known or 'eV'})'"
                    raise self._error(line, f"names {word}, but {read}; {header}")

    def _row(self, line: int, cells: list[str], columns: dict, num_columns: int) -> Row:
        if len(cells) != num_columns:
            raise self._error(line, f"has {len(cells)} columns, not {num_columns}")
        energy = _number(cells[columns["energy"]])
        if energy is None or not np.isfinite(energy):
            raise self._error(line, f"the energy is {cells[columns['energy']]!r}, not a finite number")
        unit = columns["stated"] or self.unit
        if columns["unit"] is not None:
            unit = self._unit(cells[columns["unit"]], line)
        frame = None if columns["frame"] is None else cells[columns["frame"]]
        if frame is not None and not frame.isdigit():
            raise self._error(line, f"the frame is {frame!r}, not an index from 0")
        name = None if columns["file"] is None else cells[columns["file"]]
        return Row(line, name, None if frame is None else int(frame), energy * unit)

    def _unit(self, name: str, line: int) -> float:
        return unit_of(known_unit(name) or name, ENERGY_UNITS, f"{self.path}, line {line}: the unit")

    def _match(self, name: str) -> list[Path]:
        """Find the files that match the longest possible trailing part of a path."""
        parts = [part for part in re.split(r"[/\\]", name.strip()) if part not in ("", ".")]
        for first in range(len(parts)):
            if found := self._designated.get("/".join(parts[first:])):
                return found
        return []

    def _file_of(self, row: Row) -> Path:
        if row.name is None:
            return self.files[0]
        found = self._match(row.name)
        if not found:
            raise self._error(row.line, f"{row.name!r} is not one of the {len(self.files)} files")
        if len(found) > 1:
            raise self._error(row.line, f"{row.name!r} may be {found[0]} or {found[1]}; give more of the path")
        return found[0]


def table_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return line number and cells of each non-blank line."""
    text = _text_of(path)
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    rows = [(number, line) for number, line in numbered if not line.startswith("#")]
    if not rows:
        return []
    delimiter = next((mark for mark in "\t;," if mark in rows[0][1]), None)
    heads = [(number, line.lstrip("# ")) for number, line in numbered if line.startswith("#") and number < rows[0][0]]
    cells = [(number, _cells(line, delimiter)) for number, line in rows]
    if heads:
        head = _cells(heads[-1][1], delimiter)
        if len(head) == len(cells[0][1]) > 1 and any(_number(cell) is not None for cell in cells[0][1]):
            cells.insert(0, (heads[-1][0], head))
    return cells


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a table of energies") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text; give a table of energies as CSV or columns") from error


def _cells(line: str, delimiter: str | None) -> list[str]:
    spaced = line if delimiter else " ".join(line.split())
    row = next(csv.reader([spaced], delimiter=delimiter or " ", skipinitialspace=True))
    return [cell.strip() for cell in row]


def _number(cell: str) -> float | None:
    try:
        return float(re.sub(r"(?<=\d)[dD](?=[+-]?\d)", "e", cell)) if "_" not in cell else None
    except ValueError:
        return None


def _header_for(path: Path, line: int, first: list[str], lines: list[tuple[int, list[str]]]) -> list[str]:
    """Infer a header from the number and contents of the columns."""
    if len(first) == 2:
        return ["file", "energy"]
    if len(first) == 3:
        if all(len(cells) == 3 and cells[2].lower() in map(str.lower, ENERGY_UNITS) for _, cells in lines):
            return ["file", "energy", "unit"]
        if all(len(cells) == 3 and cells[1].isdigit() for _, cells in lines):
            return ["file", "frame", "energy"]
    if len(first) == 4:
        return ["file", "frame", "energy", "unit"]
    raise InputError(
        f"{path}, line {line}: {len(first)} columns without a header; add one, such as file,frame,energy,unit"
    )


def designations(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Map all names that may refer to files (trailing parts of paths, with or without suffixes, folders) to files."""
    found: dict[str, list[Path]] = {}
    alike = len(files) > 1 and len({file.name for file in files}) == 1
    for file in files:
        stem, names = file.name, {file.name}
        while (shorter := Path(stem).stem) != stem and len(names) < 3:
            stem = shorter
            names.add(stem)
        folders = file.parts[:-1]
        ends = {"/".join((*folders[len(folders) - depth :], name)) for depth in range(len(folders)) for name in names}
        if alike:
            ends |= {"/".join(folders[-depth:]) for depth in range(1, len(folders))}
        for end in ends:
            found.setdefault(end, []).append(file)
    return found


def _named(key: tuple[Path, int | None]) -> str:
    return key[0].name if key[1] is None else f"{key[0].name}, frame {key[1]}"
