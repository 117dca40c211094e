"""Checks that ASE reads a file correctly, and the charge and spin of a file, which ASE does not read."""

import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ase.data import atomic_numbers
from ase.formula import Formula

from pyg_clusters.errors import InputError
from pyg_clusters.frames.text import check_num_atoms

REFUSED: Mapping[str, str] = {
    "qbox": "is in bohr, but ASE reads it as Å; convert it to XYZ in Å",
    "lammps-dump-binary": "names no elements, only LAMMPS types; write the dump as text, with a column 'element'",
    "bundletrajectory": "is a format of old ASE versions; convert it to .traj or .extxyz",
    "gromos": "names atoms in capitals, which ASE reads as other elements (CU as carbon); convert it to XYZ",
}
"""Formats that ASE reads incorrectly or incompletely, with the reason, by their names in ASE."""

BOHR_IN: Mapping[str, re.Pattern[str]] = {
    "gaussian-in": re.compile(r"^\s*#.*\bunits?\s*=?\s*\(?[^)\n]*\b(?:au|bohr)\b", re.IGNORECASE | re.MULTILINE),
    "gamess-us-in": re.compile(r"\bunits\s*=\s*bohr\b", re.IGNORECASE),
    "nwchem-in": re.compile(r"\bunits\s+(?:au|atomic|bohr|nm|nanometer|pm|picometer)\b", re.IGNORECASE),
    "turbomole": re.compile(r"^\s*\$coord\s+.*\b(?:angs\w*|frac\w*)", re.IGNORECASE | re.MULTILINE),
    "cube": re.compile(r"\A[^\n]*\n[^\n]*\n[^\n]*\n\s*-\d"),
    "lammps-data": re.compile(r"\A[^\n]*\bunits = (?!metal|real)\w+", re.IGNORECASE),
    "proteindatabank": re.compile(r"^TITLE.*\bpositions\{(?!angstrom)\w+\}", re.MULTILINE),
}
"""Matches text of files in units other than those that ASE assumes, by format."""

OF_AENET: re.Pattern[str] = re.compile(r"^#\s*total energy\s*=\s*([-+.\deE]+)\s*eV\b", re.MULTILINE)
"""Matches the energy in XSF files of ænet, whose forces are in eV/Å; ASE reads them as hartree/Å, as in XCrySDen."""

ONE_STRUCTURE: Mapping[str, re.Pattern[str]] = {
    "vasp": re.compile(
        r"^[ \t]*[-+.\deE]+[ \t]*\n(?:[ \t]*[-+.\deE]+(?:[ \t]+[-+.\deE]+){2}[ \t]*\n){3}[ \t]*[A-Za-z]", re.M
    ),
    "gen": re.compile(r"^\s*\d+\s+[CSF]\b", re.MULTILINE),
    "gromacs": re.compile(r"^\s*\d+\s*$", re.MULTILINE),
    **dict.fromkeys(("mol", "sdf"), re.compile(r"^M\s+END", re.MULTILINE)),
    "turbomole": re.compile(r"^\$coord\b", re.MULTILINE),
    "dmol-car": re.compile(r"^!BIOSYM", re.MULTILINE),
    "castep-cell": re.compile(r"^\s*%BLOCK\s+POSITIONS", re.IGNORECASE | re.MULTILINE),
    "lammps-data": re.compile(r"^\s*\d+\s+atoms\b", re.MULTILINE),
    "gaussian-out": re.compile(r"Entering Gaussian System"),
    "res": re.compile(r"^TITL\b", re.MULTILINE),
    "vasp-xml": re.compile(r"^<modeling>", re.MULTILINE),
    "xsf": re.compile(r"^\s*(?:CRYSTAL|SLAB|POLYMER|ATOMS)\s*$", re.MULTILINE),
}
"""Matches text that occurs once per structure or job, by format, for formats of which ASE reads only the first one."""

THREE: str = r"[-+.\deEdD]+(?:[ \t]+[-+.\deEdD]+){2}[^\n]*\n"  # three coordinates, and what follows them

ATOMS: Mapping[str, re.Pattern[str]] = {
    kind: re.compile(before + rf"(?P<rows>(?:[ \t]*{row})*)", re.MULTILINE)
    for kind, (before, row) in {
        "vasp": (
            r"\A(?:.*\n){5}(?:[ \t]*[A-Za-z].*\n)?[ \t]*(?P<counts>\d+(?:[ \t]+\d+)*)[ \t]*(?:!.*)?\n"
            r"(?:[ \t]*[Ss].*\n)?[ \t]*[A-Za-z].*\n",
            THREE,
        ),
        "gen": (r"\A\s*(?P<counts>\d+)[ \t]+[CSF]\b.*\n.*\n", rf"\d+[ \t]+\d+[ \t]+{THREE}"),
        "gromacs": (r"\A.*\n[ \t]*(?P<counts>\d+)[ \t]*\n", r".*[A-Za-z].*\n"),
        "xsf": (r"^[ \t]*PRIMCOORD.*\n[ \t]*(?P<counts>\d+)[ \t]+\d+[ \t]*\n", rf"\w+[ \t]+{THREE}"),
        "lammps-data": (r"^[ \t]*(?P<counts>\d+)[ \t]+atoms\b(?s:.*?)^[ \t]*Atoms\b.*\n[ \t]*\n", r"\d.*\n"),
        "espresso-in": (
            r"\bnat\s*=\s*(?P<counts>\d+)(?s:.*?)^[ \t]*ATOMIC_POSITIONS.*\n",
            rf"[A-Za-z]\w*[ \t]+{THREE}",
        ),
        **dict.fromkeys(
            ("mol", "sdf"),
            (
                r"^(?P<counts>[ \d]{2}\d)[ \d]{3}.*V2000.*\n",
                r"-?\d+\.\d+[ \t]*-?\d+\.\d+[ \t]*-?\d+\.\d+[ \t]+[A-Z].*\n",
            ),
        ),
    }.items()
}
"""Matches the numbers of atoms that a file states and the lines of its atoms, by format, for formats of which ASE reads
only as many lines as stated, or as many as there are."""

LACKING: Mapping[str, tuple[re.Pattern[str], str]] = {
    "lammps-data": (
        re.compile(r"^\s*Masses\b", re.MULTILINE),
        "names no elements, only LAMMPS types; add a section 'Masses', or convert it to XYZ",
    ),
    "netcdftrajectory": (
        re.compile(r"program[\x00-\x1f]+ASE"),  # the atom_types of other programs are not atomic numbers
        "names no elements; convert it to DCD, and give the elements by --topology FILE",
    ),
    "cp2k-restart": (
        re.compile(r"^\s*&SUBSYS\b.*^\s*&END SUBSYS\b", re.MULTILINE | re.DOTALL),
        "has no complete section &SUBSYS; copy it again",
    ),
    "nwchem-in": (
        re.compile(r"^\s*geometry\b.*^\s*end\b", re.IGNORECASE | re.MULTILINE | re.DOTALL),
        "has no complete section 'geometry'; copy it again",
    ),
}
"""Matches text without which ASE would guess, or never end, with the fault of a file that lacks it, by format."""

ENDS: Mapping[str, bytes] = {
    "vasp-xml": b"</modeling>",
    "vasp-out": b"Voluntary context switches",
    "espresso-out": b"JOB DONE.",
}
"""Text near the end of a complete file, by format."""


STATES: Mapping[str, re.Pattern[str]] = {
    kind: re.compile(pattern, re.MULTILINE)
    for kind, pattern in {
        "aims-output": r"^\s*Charge\s*=\s*(?P<charge>[-+.\dE]+):",
        "castep-castep": r"^\s*net\s+charge of system\s*:\s*(?P<charge>[-+.\d]+)",
        "cp2k-restart": r"^\s*(?:CHARGE\s+(?P<charge>[-+]?\d+)|MULTIPLICITY\s+(?P<multiplicity>[1-9]\d*))\s*$",
        "espresso-in": r"^[^!\n]*\btot_charge\s*=\s*(?P<charge>[-+.\dEe]+)",
        "gamess-us-out": r"^\s*(?:CHARGE OF MOLECULE\s*=\s*(?P<charge>[-+]?\d+)"
        r"|(?:STATE|SPIN) MULTIPLICITY\s*=\s*(?P<multiplicity>\d+))",
        "gaussian-in": r"\A(?s:.*?)^\s*(?P<charge>[-+]?\d+)(?:[ \t]+|,)(?P<multiplicity>\d+)\s*$",
        "gaussian-out": r"\A(?s:.*?)^\s*Charge =\s*(?P<charge>-?\d+) Multiplicity =\s*(?P<multiplicity>\d+)",
        "gpaw-out": r"^\s*Total [Cc]harge:\s*(?P<charge>[-+.\d]+)",
        "nwchem-in": r"^\s*charge\s+(?P<charge>[-+.\d]+)\s*$",
        "nwchem-out": r"^\s*(?:(?:Charge\s*:|charge\s*=)\s*(?P<charge>-?\d+)(?:\.0*)?\s*$"
        r"|Spin multiplicity\s*:\s*(?P<multiplicity>\d+))",
        "orca-output": r"^\s*(?:Total Charge\s+Charge\s+\.+\s*(?P<charge>-?\d+)"
        r"|Multiplicity\s+Mult\s+\.+\s*(?P<multiplicity>\d+))",
        "turbomole": r"^\$(?:eht\s+charge\s*=|chrg)\s*(?P<charge>[-+]?\d+)(?:\s+unpaired\s*=\s*(?P<unpaired>\d+))?",
    }.items()
}
"""Matches the charge and spin multiplicity in a file, by format."""

ELECTRONS: Mapping[str, re.Pattern[str]] = {
    "vasp-out": re.compile(r"^\s*NELECT =\s*([\d.]+)", re.MULTILINE),
    "vasp-xml": re.compile(r"<i name=\"NELECT\">\s*([\d.]+)"),
    "espresso-out": re.compile(r"^\s*number of electrons\s*=\s*([\d.]+)", re.MULTILINE),
}
"""Matches the number of electrons, by format; the charge is the sum of the valences of the atoms minus this."""

CHARGED_ATOMS: re.Pattern[str] = re.compile(r"^M  CHG[ \t]*\d+((?:[ \t]+\d+[ \t]+[-+]?\d+)+)", re.MULTILINE)
"""Matches the charged atoms of MOL and SDF files and their charges."""

CHARGE_CODES: re.Pattern[str] = re.compile(r"^(?:[ \d-]{5}\.\d{4}){3} .{5}  ([1-7])\b", re.MULTILINE)
"""Matches the code of the charge, four minus the charge, in lines of atoms of MOL and SDF files without such rows."""

OF_ORCA: tuple[str, ...] = (
    "FINAL SINGLE POINT ENERGY",
    "CARTESIAN COORDINATES (ANGSTROEM)",
    "CARTESIAN GRADIENT",
)
"""Words above the energy, the geometry and the forces in outputs of ORCA."""

ENERGIES: Mapping[str, re.Pattern[str]] = {
    "gamess-us-out": re.compile(r"^\s*FINAL .+ ENERGY IS ", re.MULTILINE),
    "gamess-us-punch": re.compile(r"^\s*\$GRAD\b|DATA FROM NSERCH=", re.MULTILINE),
    "nwchem-out": re.compile(r"^\s+NWChem (?:SCF|DFT) Module\s*$", re.MULTILINE),
}
"""Matches the calculation of an energy, by format, for formats of which ASE mixes the energies and geometries."""


def text_of(copy: Path, kind: str) -> str:
    """Text of a file, of at most 64 MB, in which the other functions search; empty for formats in which none does."""
    if kind not in {*BOHR_IN, *ENERGIES, *ONE_STRUCTURE, *LACKING, *STATES, *ELECTRONS}:
        return ""
    with copy.open(encoding="latin-1") as stream:
        return stream.read(1 << 26)


def stated_in(path: Path, text: str, kind: str) -> dict[str, float]:
    """Charge and spin multiplicity of the frames of a file, by their names in the ``info`` of a frame.

    Raises:
        InputError: If a file states two charges, numbers of electrons or multiplicities.
    """
    if kind in ELECTRONS:
        numbers, neutral = dict.fromkeys(map(float, ELECTRONS[kind].findall(text))), sum(_valences(text, kind))
        if len(numbers) > 1:
            raise InputError(f"{path}: states {' and '.join(map(str, numbers))} electrons; split it into two files")
        charge = neutral - next(iter(numbers)) if numbers and neutral else 0
        charge = round(charge) if abs(charge - round(charge)) < 0.05 else round(charge, 2)
        return {"charge": charge} if charge else {}
    if kind in ("mol", "sdf"):
        charges = [int(charge) for row in CHARGED_ATOMS.findall(text) for charge in row.split()[1::2]]
        charges = charges or [4 - int(code) for code in CHARGE_CODES.findall(text)]
        return {"charge": sum(charges)} if charges else {}
    stated: dict[str, float] = {}
    for match in STATES[kind].finditer(text) if kind in STATES else ():
        for name, value in match.groupdict().items():
            if value is not None and stated.setdefault(name, float(value)) != float(value):
                raise InputError(f"{path}: states the {name} {stated[name]:g} and {value}; split it into two files")
    return stated


def _valences(text: str, kind: str) -> list[float]:
    """Number of valence electrons of each atom, or of all atoms of each type."""
    if kind == "espresso-out":
        of_label = dict(re.findall(r"^\s+([A-Z]\S*)\s+(\d+\.\d\d)\s+\d+\.\d+\s+\w+\s*\(", text, re.MULTILINE))
        labels = dict(re.findall(r"^\s+(\d+)\s+(\S+)\s+tau\(", text, re.MULTILINE)).values()
        return [float(of_label[label]) for label in labels] if of_label.keys() >= set(labels) else []
    if kind == "vasp-xml":
        rows = re.findall(r"<rc><c>\s*(\d+)</c><c>[^<]*</c><c>[^<]*</c><c>\s*([\d.]+)</c>", text)
    else:
        atoms = re.search(r"^\s*ions per type =((?:[ \t]+\d+)+)", text, re.MULTILINE)
        valences = re.search(r"Ionic Valenz\s*\n\s*ZVAL\s*=((?:[ \t]+[\d.]+)+)", text)
        rows = list(zip(atoms[1].split(), valences[1].split(), strict=False)) if atoms and valences else []
    return [int(count) * float(valence) for count, valence in rows]


def are_forces_rotated(path: Path, text: str, kind: str) -> bool:
    """Whether a file of Gaussian has its forces in another orientation than its positions; with a warning."""
    if kind != "gaussian-out":
        return False
    rotated = "Standard orientation:" in text and not re.search(r"(?:Input|Z-Matrix) orientation:", text)
    if rotated and "Forces (Hartrees/Bohr)" in text:
        warnings.warn(
            f"{path}: the forces are left out: they are in the input orientation, and the positions only in the "
            "standard orientation; calculate with nosymm for both",
            stacklevel=3,
        )
    return rotated


def check_format(path: Path, text: str, kind: str):
    """Check that ASE reads a file correctly.

    Raises:
        InputError: If the file is in units other than those that ASE assumes, names no elements, has several structures
            of which ASE would read one, more atoms than it states, or too many atoms.
    """
    if kind in REFUSED:
        raise InputError(f"{path}: {REFUSED[kind]}")
    contents = "jobs" if kind in ("gaussian-out", "vasp-xml") else "structures"
    if kind in ONE_STRUCTURE and (count := len(ONE_STRUCTURE[kind].findall(text))) > 1:
        raise InputError(
            f"{path}: contains {count} {contents}, but ASE reads only the first; write each "
            "to its own file, or all to one XYZ file"
        )
    if kind == "vasp-out":
        _check_runs(path, text)
    if kind == "orca-output":
        _check_orca(path, text)
    steps_of_nwchem = kind == "nwchem-out" and "ENERGY GRADIENTS" in text
    if kind in ENERGIES and not steps_of_nwchem and (count := len(ENERGIES[kind].findall(text))) > 1:
        raise InputError(
            f"{path}: contains {count} calculations, of which ASE mixes the energies and geometries; write each to its "
            "own file, or all to one XYZ file"
        )
    for section in ATOMS[kind].finditer(f"{text}\n") if kind in ATOMS else ():
        stated, found = sum(map(int, section["counts"].split())), section["rows"].count("\n")
        if found > stated or (kind == "gromacs" and found < stated):  # other formats fail if there are fewer
            raise InputError(f"{path}: states {stated} atoms, but has {found}; correct their number, or copy it again")
    if kind == "vasp":
        _check_poscar(path, [line.split() for line in text.splitlines()[:7]])
        return
    match = BOHR_IN[kind].search(text) if kind in BOHR_IN else None
    if match:
        found = " ".join(match[0].split())[-40:]
        raise InputError(f"{path}: is in units that ASE does not convert ({found!r}); convert it to XYZ in Å")
    if kind in LACKING and not LACKING[kind][0].search(text):
        raise InputError(f"{path}: {LACKING[kind][1]}")


def _check_runs(path: Path, text: str):
    """Check that concatenated runs of VASP are of the same atoms and charge, since ASE reads these from the first."""
    parts = text.split("ions per type =")
    elements = [re.findall(r"(?:POTCAR:|VRHFIN =).*", part) for part in parts]
    counts = [part.partition("\n")[0].split() for part in parts[1:]]
    electrons = [ELECTRONS["vasp-out"].findall(part)[:1] for part in parts[1:]]
    runs = list(zip(elements, counts, electrons, strict=False))
    if any(run != runs[0] for run in runs):
        raise InputError(
            f"{path}: contains {len(runs)} runs of different atoms or charges, but ASE reads these from the first "
            "only; give each run as its own file"
        )


def _check_orca(path: Path, text: str):
    """Check that each part of an output of ORCA that ASE reads as a frame is one calculation."""
    dynamics = re.search(r"^\|\s*\d+>\s*%md\b", text, re.IGNORECASE | re.MULTILINE)
    for part in re.split("ORCA TERMINATED NORMALLY|ORCA GEOMETRY RELAXATION STEP", text):
        energies, *others = (part.count(words) for words in OF_ORCA)
        if energies > 1 and (dynamics or max(others) > 1):
            raise InputError(
                f"{path}: contains molecular dynamics or several jobs, of which ASE mixes the energies, geometries and "
                "forces; give the trajectory as XYZ, or each job as its own file"
            )


def _check_poscar(path: Path, lines: list[list[str]]):
    """Check the number of atoms of a POSCAR, and that it names elements, in a line above the counts or as its title."""
    check_num_atoms(path, sum(int(word) for words in lines[5:] for word in words if word.isdecimal()))
    above = lines[5] if len(lines) > 5 else []
    counts = [int(word) for word in above if word.isdecimal()]
    if not counts:
        unknown = [label for label in above if re.split("[/_]", label)[0] not in atomic_numbers]
        if unknown:
            raise InputError(
                f"{path}: {unknown[0]!r} is not an element symbol; write symbols such as Ga above the counts"
            )
        return
    title = lines[0]
    named = len(title) == len(counts) and set(title) <= set(atomic_numbers)  # Au Cu
    with suppress(ValueError, IndexError):
        named = named or list(Formula(title[0]).count().values()) == counts  # Au7Cu13 relaxed
    if not named:  # ASE would also find indium in the title "In a box"
        raise InputError(
            f"{path}: names no elements, as written by VASP 4; add a line of their symbols above the counts "
            f"{' '.join(lines[5])!r}"
        )


def is_unfinished(copy: Path, kind: str) -> bool:
    """Whether a file lacks its end, as it does while it is being written."""
    if kind not in ENDS:
        return False
    with copy.open("rb") as stream:
        stream.seek(max(0, copy.stat().st_size - 4096))
        return ENDS[kind] not in stream.read()
