"""Reader of text dumps of LAMMPS."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import torch
from ase import Atoms
from ase.calculators.lammps import convert
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame, Topology, UnrecoverableFrame, cut_frame
from pyg_clusters.frames.text import (
    TextLines,
    atomic_number,
    check_num_atoms,
    split_text,
    text_table,
    unknown_label,
    warn_of_unended,
)
from pyg_clusters.pairs import nearest_distances

UNITS: tuple[str, ...] = ("metal", "real", "si", "cgs", "electron", "micro", "nano")
"""Systems of units that can be converted: all but ``lj``."""

COORDINATES: Mapping[tuple[str, str, str], bool] = {
    ("xu", "yu", "zu"): False,
    ("x", "y", "z"): False,
    ("xsu", "ysu", "zsu"): True,
    ("xs", "ys", "zs"): True,
}
"""Whether columns of positions are fractions of the box, in order of preference."""


LONGEST_CARBON_BOND: float = 1.8  # in Å; no carbon is bound at distances of metals

LENGTHS: Mapping[str, int] = {"UNITS": 1, "TIME": 1, "TIMESTEP": 1, "NUMBER OF ATOMS": 1, "BOX BOUNDS": 3}
"""Number of lines of each section other than ``ATOMS``."""

FIRST_LINES: tuple[bytes, ...] = (b"ITEM: UNITS", b"ITEM: TIMESTEP")  # possible beginnings of the first line of a frame


@dataclass
class Dump:
    """State of the reader of a dump, which states its units only once, and whose types are the same in all frames."""

    path: Path
    topology: Topology | None
    length: float
    units: str = "metal"
    elements: dict[str, int] = field(default_factory=dict)
    """Atomic numbers by type, according to the topology."""


@dataclass
class Sections:
    """Sections of a frame by name: the words after the name, and the lines below it."""

    words: dict[str, str] = field(default_factory=dict)
    text: dict[str, bytes] = field(default_factory=dict)


class BrokenFrame(Exception):
    """A frame cannot be read, for the reason in the message."""


def dump_frames(path: Path, topology: Topology | None = None, length: float = 1.0) -> Iterator[Atoms | BadFrame]:
    """Read the frames of a dump, or their faults, with the atoms of each in the order of their ids.

    Elements are those in the column ``element``, otherwise those of the topology; types are never interpreted as
    elements. Positions are unscaled and converted to Å from the units stated in the dump, by default ``metal``;
    ``length`` is the unit in Å that the user states.

    Raises:
        InputError: If the file is corrupted, in Lennard-Jones units, states its units in addition to the user, or the
            elements are not known.
    """
    return split_text(path, partial(_frames, Dump(path, topology, length)))


def _frames(dump: Dump, lines: TextLines, kind: type[UnrecoverableFrame], index: int) -> Iterator[Atoms | BadFrame]:
    while lines.skip_blank() or lines.cut:
        first = lines.line
        try:
            sections = _sections(dump, lines)
            if sections is None:
                yield cut_frame(kind, dump.path, index)
                return
            yield _atoms(dump, index, sections)
        except BrokenFrame as error:
            yield BadFrame(str(dump.path), index, str(error))
            while (line := lines.look(0)) is not None and (lines.line == first or not line.startswith(FIRST_LINES)):
                lines.skip(1)
                lines.check_skipped(lines.line - first)
        index += 1


def _sections(dump: Dump, lines: TextLines) -> Sections | None:
    """Read the sections of the next frame; ``None`` if the file ends within it."""
    sections, num_atoms = Sections(), None
    while (heading := lines.look(0)) is not None:
        if _is_last_and_cut(lines):
            return None
        name, words = _heading(heading, lines.line)
        if name in sections.words:
            raise BrokenFrame(f"has no section 'ITEM: ATOMS' above line {lines.line}")
        count = num_atoms if name == "ATOMS" else LENGTHS[name]
        if count is None:
            raise BrokenFrame("has no section 'ITEM: NUMBER OF ATOMS'")
        text = lines.look(1, count) if count else b""
        if text is None or (name == "ATOMS" and _is_cut(lines, text, words, count)):
            return None
        if b"ITEM:" in text:
            raise BrokenFrame(f"has fewer than {count} lines below 'ITEM: {name}'")
        lines.skip(1 + count)
        sections.words[name], sections.text[name] = words, text
        if name == "UNITS":
            dump.units = _units(dump, text)
        if name == "NUMBER OF ATOMS":
            num_atoms = _number_of_atoms(dump.path, text)
        if name == "ATOMS":
            after = lines.look(0)
            more = after is not None and after.strip() and not after.startswith(b"ITEM:")
            if more and not _is_last_and_cut(lines):
                raise BrokenFrame(f"has more than {num_atoms} lines below 'ITEM: ATOMS'")
            return sections
    return None


def _is_last_and_cut(lines: TextLines) -> bool:
    """Whether the next line is the last of the file and has no newline."""
    return not lines.has(2) and lines.unended


def _heading(line: bytes, number: int) -> tuple[str, str]:
    text = " ".join(line.decode("latin-1").split())
    name = next((name for name in (*LENGTHS, "ATOMS") if text == f"ITEM: {name}"), None)
    if name:
        return name, ""
    name = next((name for name in ("BOX BOUNDS", "ATOMS") if text.startswith(f"ITEM: {name} ")), None)
    if name is None:
        raise BrokenFrame(f"expected 'ITEM: ...' in line {number}, got {text[:40]!r}")
    return name, text.removeprefix(f"ITEM: {name} ")


def _is_cut(lines: TextLines, text: bytes, words: str, count: int) -> bool:
    """Whether the file ends within the last line of these atoms."""
    if not (count and lines.look(1 + count) is None and lines.unended):
        return False
    if len(text.splitlines()[-1].split()) < len(words.split()):
        return True
    warn_of_unended(lines.path)
    return False


def _units(dump: Dump, text: bytes) -> str:
    units = text.decode("latin-1").strip()
    if dump.length != 1:
        raise InputError(
            f"{dump.path}: states LAMMPS units {units!r}, and is converted from them; leave length_unit out"
        )
    if units not in UNITS:
        raise InputError(
            f"{dump.path}: uses LAMMPS units {units!r}, which cannot be converted to Å; convert the positions first"
        )
    return units


def _number_of_atoms(path: Path, text: bytes) -> int:
    if not text.strip().isdigit():
        raise BrokenFrame(f"the number of atoms is {text.decode('latin-1').strip()[:40]!r}")
    check_num_atoms(path, int(text))
    return int(text)


def _atoms(dump: Dump, index: int, sections: Sections) -> Atoms:
    names = sections.words["ATOMS"].split()
    kinds = {name: _kind(name) for name in names}
    num_atoms = int(sections.text["NUMBER OF ATOMS"])
    if not num_atoms:
        raise BrokenFrame("has no atoms")
    table = text_table(sections.text["ATOMS"], kinds, num_atoms)
    if table is None:
        raise BrokenFrame(f"does not have {num_atoms} lines of {len(names)} values below 'ITEM: ATOMS'")
    ids = table.column("id").to_numpy() if "id" in names else None
    if ids is not None:
        if len(np.unique(ids)) < len(ids):
            raise BrokenFrame("an atom id occurs twice")
        table = table.take(pyarrow.array(np.argsort(ids, kind="stable")))
        ids = np.sort(ids)
    cell, origin, pbc = _box(sections)
    cell, origin = (convert(part, "distance", dump.units, "ASE") for part in (cell, origin))
    pos = _positions(dump, table, cell, origin)
    numbers = _elements(dump, index, table, ids, pos)
    stated = {} if dump.topology is None else dump.topology.info
    atoms = Atoms(numbers, positions=pos, cell=cell, pbc=pbc, info=stated)
    _add_values(dump, atoms, table, sections)
    return atoms


def _kind(name: str) -> str:
    if name in ("element", "type", "typelabel"):
        return "E"
    return "I" if name in ("id", "mol", "ix", "iy", "iz") else "R"


def _elements(dump: Dump, index: int, table: pyarrow.Table, ids: np.ndarray | None, pos: np.ndarray) -> np.ndarray:
    """Atomic numbers of the atoms in the order of the table, at positions ``pos`` in Å."""
    where = f"{dump.path}, frame {index}"
    topology = _topology_numbers(dump, where, table.num_rows, ids)
    labels = [str(label) for label in table.column("element").to_pylist()] if "element" in table.column_names else []
    if not labels or _are_unset(labels, pos):
        if topology is None:
            raise InputError(
                f"{where}: the atoms have types, but no elements; give --topology FILE (for predict and convert; "
                "topology= in Python) with the same atoms, or write the dump with a column 'element' (dump_modify "
                "element)"
            )
        _check_types(dump, where, table, topology)
        return topology
    numbers = [atomic_number(label) for label in labels]
    if None in numbers:
        raise BrokenFrame(unknown_label(labels[numbers.index(None)]))
    found = np.array(numbers, dtype=np.int64)
    if topology is not None and (found != topology).any():
        atom = int(np.flatnonzero(found != topology)[0])
        name = f"atom {atom}" if ids is None else f"the atom of id {ids[atom]}"
        raise InputError(
            f"{where}: {name} is {chemical_symbols[found[atom]]} in the column 'element', but "
            f"{chemical_symbols[topology[atom]]} in {dump.topology and dump.topology.file}; read it without a "
            "topology, or with one that has the same atoms in the order of their ids"
        )
    return found


def _are_unset(labels: list[str], pos: np.ndarray) -> bool:
    """Whether all elements are C, as LAMMPS writes without ``dump_modify element``, but too far apart for carbon."""
    if len(labels) < 2 or set(labels) != {"C"} or not np.isfinite(pos).all():
        return False
    return float(nearest_distances(torch.from_numpy(pos)).median()) > LONGEST_CARBON_BOND


def _check_types(dump: Dump, where: str, table: pyarrow.Table, numbers: np.ndarray):
    """Check that the atoms of a type are of one element of the topology, as they are in the same order only."""
    types = table.column("type").to_pylist() if "type" in table.column_names else []
    for atom, (kind, number) in enumerate(zip(types, numbers.tolist(), strict=False)):
        if (known := dump.elements.setdefault(kind, number)) != number:
            assert dump.topology is not None
            raise InputError(
                f"{where}: atom {atom} is {chemical_symbols[number]} in {dump.topology.file}, but other atoms of its "
                f"type {kind} are {chemical_symbols[known]}; give a topology with the atoms in the order of their ids"
            )


def _topology_numbers(dump: Dump, where: str, num_atoms: int, ids: np.ndarray | None) -> np.ndarray | None:
    topology = dump.topology
    if topology is None:
        return None
    if ids is not None and topology.ids is not None:
        order = np.argsort(topology.ids)
        indices = np.searchsorted(topology.ids[order], ids).clip(max=len(order) - 1)
        missing = np.flatnonzero(topology.ids[order][indices] != ids)
        if missing.size:
            raise InputError(
                f"{where}: the atom of id {ids[missing[0]]} is not in {topology.file}; use one of the same atoms"
            )
        return topology.numbers[order][indices]
    if num_atoms != len(topology.numbers):
        raise InputError(f"{where}: {num_atoms} atoms, but {topology.file} has {len(topology.numbers)}")
    return topology.numbers


def _box(sections: Sections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell vectors ``[3, 3]``, their origin ``[3]``, and the periodic directions ``[3]``."""
    if "BOX BOUNDS" not in sections.text:
        return np.zeros((3, 3)), np.zeros(3), np.zeros(3, dtype=bool)
    words = sections.words["BOX BOUNDS"].split()
    try:
        bounds = np.array([line.split() for line in sections.text["BOX BOUNDS"].splitlines()], dtype=float)
    except ValueError:
        raise BrokenFrame("the box is not three lines of numbers") from None
    flags = words[-3:] if len(words) >= 3 and all(set(word) <= set("pfsm") for word in words[-3:]) else ["pp"] * 3
    pbc = np.array(["p" in flag for flag in flags])
    if words[:2] == ["abc", "origin"] and bounds.shape == (3, 4):
        return bounds[:, :3], bounds[:, 3], pbc
    if bounds.shape not in ((3, 2), (3, 3)):
        raise BrokenFrame("the box is not three lines of two or three numbers")
    tilt = bounds[:, 2] if bounds.size == 9 else np.zeros(3)
    xy, xz, yz = tilt
    low = bounds[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = bounds[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    x, y, z = high - low
    return np.array([[x, 0, 0], [xy, y, 0], [xz, yz, z]]), low, pbc


def _positions(dump: Dump, table: pyarrow.Table, cell: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Positions in Å, ``[num_atoms, 3]``."""
    names = table.column_names
    columns = next((columns for columns in COORDINATES if set(columns) <= set(names)), None)
    if columns is None:
        raise InputError(
            f"{dump.path}: no columns of positions (x y z, xu yu zu, xs ys zs or xsu ysu zsu); found {', '.join(names)}"
        )
    values = np.stack([table.column(name).to_numpy() for name in columns], axis=1)
    return origin + values @ cell if COORDINATES[columns] else convert(values, "distance", dump.units, "ASE")


def _add_values(dump: Dump, atoms: Atoms, table: pyarrow.Table, sections: Sections):
    """Add the remaining values of the frame, unchanged except for forces, which are converted to eV/Å."""
    used = {"element", *(name for columns in COORDINATES for name in columns)}
    forces = ("fx", "fy", "fz")
    if set(forces) <= set(table.column_names):
        values = np.stack([table.column(name).to_numpy() for name in forces], axis=1)
        atoms.calc = SinglePointCalculator(atoms, forces=convert(values, "force", dump.units, "ASE"))
        used.update(forces)
    for name in table.column_names:
        if name not in used:
            values = table.column(name)
            array = np.array(values.to_pylist()) if _kind(name) == "E" else values.to_numpy().copy()
            atoms.set_array(name, array.astype(int) if name == "type" and np.char.isdecimal(array).all() else array)
    for section, key in (("TIMESTEP", "timestep"), ("TIME", "time")):
        if section in sections.text:
            text = sections.text[section].decode("latin-1").strip()
            atoms.info[key] = int(text) if text.isdigit() else text
