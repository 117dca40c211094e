"""Formats that ASE reads otherwise than their files say, and files that are not finished."""

import re
from collections.abc import Mapping
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.frames.limits import lifted_by, max_atoms

REFUSED: Mapping[str, str] = {
    "qbox": "is in Bohr, which ASE takes for Å; convert it to XYZ in Å",
    "lammps-dump-binary": "names no elements, only LAMMPS types; write the dump as text, with a column 'element'",
    "bundletrajectory": "is a format of old ASE versions; convert it to .traj or .extxyz",
}
"""Formats that cannot be read right, by ASE's names."""

BOHR_IN: Mapping[str, re.Pattern[str]] = {
    "gaussian-in": re.compile(r"^\s*#.*\bunits?\s*=?\s*\(?[^)\n]*\b(?:au|bohr)\b", re.IGNORECASE | re.MULTILINE),
    "gamess-us-in": re.compile(r"\bunits\s*=\s*bohr\b", re.IGNORECASE),
    "nwchem-in": re.compile(r"\bunits\s+(?:au|atomic|bohr|nm|nanometer|pm|picometer)\b", re.IGNORECASE),
    "turbomole": re.compile(r"^\s*\$coord\s+.*\b(?:angs\w*|frac\w*)", re.IGNORECASE | re.MULTILINE),
    "cube": re.compile(r"\A[^\n]*\n[^\n]*\n[^\n]*\n\s*-\d"),
    "lammps-data": re.compile(r"\A[^\n]*\bunits = (?!metal|real)\w+", re.IGNORECASE),
}
"""Words that say that a file is in other units than ASE reads it in."""

ENDS: Mapping[str, bytes] = {"vasp-xml": b"</modeling>", "vasp-out": b"Voluntary context switches"}
"""What stands near the end of a finished file."""


def check_format(path: Path, copy: Path, kind: str):
    """Checks that ASE reads a file as it is meant.

    Args:
        path: Name of the file, for messages.
        copy: Its content.
        kind: ASE's name of the format.

    Raises:
        InputError: If it is in other units than ASE takes it for, names no elements, or has too many atoms.
    """
    if kind in REFUSED:
        raise InputError(f"{path}: {REFUSED[kind]}")
    if kind not in BOHR_IN and kind != "vasp":
        return
    with copy.open(encoding="latin-1") as stream:
        text = stream.read(1 << 20)
    if kind == "vasp":
        counts = [line.split() for line in text.splitlines()[5:7]]
        number = sum(int(word) for words in counts for word in words if word.isdecimal())
        if number > max_atoms():
            raise InputError(f"{path}: {number:,} atoms; {lifted_by()}")
        return
    match = BOHR_IN[kind].search(text)
    if match:
        found = " ".join(match[0].split())[-40:]
        raise InputError(f"{path}: is in units that ASE does not convert ({found!r}); convert it to XYZ in Å")
    if kind == "lammps-data" and not re.search(r"^\s*Masses\b", text, re.MULTILINE):
        raise InputError(f"{path}: names no elements, only LAMMPS types; add a section 'Masses', or convert it to XYZ")


def is_unfinished(copy: Path, kind: str) -> bool:
    """Whether the program that writes a file has not finished."""
    if kind not in ENDS:
        return False
    with copy.open("rb") as stream:
        stream.seek(max(0, copy.stat().st_size - 4096))
        return ENDS[kind] not in stream.read()
