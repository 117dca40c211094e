"""Formats of files of frames: by content where it is unmistakable, else by name, in upper or lower case."""

import re
from pathlib import Path
from typing import Literal

from ase.io.formats import UnknownFileTypeError, extension2format, ioformats, match_magic

from pyg_clusters.errors import InputError
from pyg_clusters.frames.compression import first_bytes, inner_name, other_compression

Own = Literal["store", "xyz", "lammps-dump", "xdatcar", "DCD", "XTC", "TRR"]
"""Formats that are not left to ASE."""

POSITIONS_ONLY: tuple[str, ...] = ("DCD", "XTC", "TRR")
"""Formats that do not say what their atoms are, by the names that MDAnalysis has for them."""

SIGNATURES: dict[str, re.Pattern[bytes]] = {
    "store": re.compile(rb"\x89HDF\r\n\x1a\n"),
    "DCD": re.compile(rb".{4}(?:.{4})?CORD", re.DOTALL),
    "XTC": re.compile(rb"\x00\x00\x07[\xcb\xe3]"),
    "TRR": re.compile(rb"\x00\x00\x07\xc9"),
    "lammps-dump": re.compile(rb"\s*ITEM: [A-Z]+"),
    "lammps-data": re.compile(rb"[^\n]*\n\s*\d+[ \t]+atoms\b"),
    "xdatcar": re.compile(rb"(?:[^\n]*\n){5,9}?\s*Direct configuration=", re.IGNORECASE),
}
"""Beginnings that no other format has."""

SUFFIXES: dict[str, str] = {
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".h5": "store",
    ".hdf5": "store",
    ".lammpstrj": "lammps-dump",
    ".lammpsdump": "lammps-dump",
    ".dcd": "DCD",
    ".xtc": "XTC",
    ".trr": "TRR",
}
"""Formats by the suffix of a file, before that of a compression."""

OF_ASE: dict[str, str] = {
    "extxyz": "xyz",
    "xyz": "xyz",
    "lammps-dump-text": "lammps-dump",
    "vasp-xdatcar": "xdatcar",
}
"""Formats that ASE knows by a name of its own."""

NO_STRUCTURES: frozenset[str] = frozenset({"eps", "gif", "html", "mp4", "png", "pov", "py", "x3d"})
"""Formats of ASE that hold pictures or programs."""

REQUIRED: dict[str, re.Pattern[bytes]] = {
    "aims": re.compile(rb"^\s*atom(_frac)?\s", re.MULTILINE),
    "castep-md": re.compile(rb"\s*BEGIN header"),
    "json": re.compile(rb"\s*\{\s*\"(\d+|ids|nextid)\""),
}
"""Beginnings without which a suffix that other programs use too says nothing."""

ANYTHING: re.Pattern[bytes] = re.compile(rb"")

XYZ_START: re.Pattern[bytes] = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*\d+[ \t\r]*\n[^\n]*\n[ \t]*[A-Za-z0-9]\S*(?:[ \t]+[-+]?[0-9.]\S*){3}"
)
"""A number of atoms, a comment, and an atom."""


def file_format(path: Path) -> str:
    """One of :data:`Own`, or ASE's name of the format.

    Raises:
        InputError: If neither content nor name tells it.
    """
    content = first_bytes(path)
    name = Path(inner_name(path))
    known = next((kind for kind, start in SIGNATURES.items() if start.match(content)), None)
    known = known or SUFFIXES.get(name.suffix.lower())
    known = known or ("xyz" if XYZ_START.match(content) else _ase_format(name, content))
    if known is None and (packed := other_compression(content)):
        raise InputError(f"{path}: is compressed by {packed}, which is not read; unpack it, or use xz, gzip or bzip2")
    if known is None or known in NO_STRUCTURES:
        raise InputError(
            f"{path}: neither its content nor its name tells a format of structures; give it the suffix of its format, "
            ".xyz or .lammpstrj say"
        )
    return OF_ASE.get(known, known)


def holds_structures(path: Path) -> bool:
    """Whether the format of a file is known."""
    try:
        file_format(path)
    except InputError:
        return False
    return True


def _ase_format(name: Path, content: bytes) -> str | None:
    """ASE's name of a format, where it can read it."""
    names = (name.name, name.name.upper(), name.name.lower())
    found = next((kind for kind in ioformats.values() if any(map(kind.match_name, names))), None)
    if found is None:
        try:
            found = match_magic(content[:2000])
        except UnknownFileTypeError:
            suffix = name.suffix[1:].lower()
            found = extension2format.get(suffix) or ioformats.get(suffix)
    if found is None or not found.can_read or not REQUIRED.get(found.name, ANYTHING).search(content):
        return None
    return found.name
