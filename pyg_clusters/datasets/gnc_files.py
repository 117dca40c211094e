"""Structures and energies of the GNC data set from files, folders, and untrusted archives."""

import lzma
import math
import re
import tarfile
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Literal

from ase import Atoms
from ase.io import iread

from pyg_clusters.datasets.label_table import designations, table_lines
from pyg_clusters.errors import InputError, describe_error
from pyg_clusters.frames import BadFrame, check_block
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import ReadOptions
from pyg_clusters.frames.paths import OPENERS, XYZ_SUFFIXES
from pyg_clusters.frames.xyz_frame import TextFrame, decoded, frame_by_ase
from pyg_clusters.frames.xyz_reader import text_frames

POSCAR_SUFFIXES: tuple[str, ...] = (".vasp", ".poscar")
TABLE_SUFFIXES: tuple[str, ...] = (".csv", ".tsv", ".txt", ".dat")
ARCHIVE_SUFFIXES: tuple[str, ...] = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_UNPACKED: int = 4 * 2**30
"""Maximum size of an unpacked archive in bytes."""

MAX_DEPTH: int = 3
"""Maximum depth of archives within archives."""

NUMBER: str = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

DECIMAL: re.Pattern[str] = re.compile(r"[-+]?\d+\.\d+(?:[eE][-+]?\d+)?")

ENERGY_NAMES: tuple[str, ...] = (
    *("binding[ _-]?energy", "b\\.?e\\.?", "e[ _-]?b(?:ind(?:ing)?)?"),
    *("(?:ref|dft|total|free)?[ _-]?energy", "e[ _-]?tot(?:al)?", "e0?"),
)
"""Regular expressions for the names of energies, in order of preference."""

EnergySource = Literal["table", "comment", "name"]


@dataclass(eq=False)
class Structure:
    """A structure of a file.

    Attributes:
        file: Name of the file relative to the folder of all; a member of an archive is below the name of the archive.
        number: Index of the frame in the file, from 0.
        atoms: The cluster, joined and not periodic; empty if it cannot be used.
        comment: The comment line.
        fault: Reason why it cannot be used, if so.
        energy: Its energy; NaN if it has none.
    """

    file: str
    number: int
    atoms: Atoms
    comment: str
    fault: str = ""
    energy: float = math.nan


def files_below(folder: Path) -> list[Path]:
    """All files below a folder in the order of their names, except hidden files of operating systems."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [folder / name for name in names if not any(part.startswith(("__MACOSX", ".")) for part in name.parts)]


def gather(folder: Path, scratch: Path, depth: int = 0) -> dict[str, Path]:
    """Paths of the files below a folder and of the members of archives among them, by name.

    Args:
        folder: The folder.
        scratch: A folder in which archives are unpacked.
        depth: Number of archives around the folder.

    Raises:
        InputError: If an archive cannot be unpacked safely.
    """
    gathered: dict[str, Path] = {}
    for file in files_below(folder):
        name = file.relative_to(folder).as_posix()
        if depth < MAX_DEPTH and file.name.lower().endswith(ARCHIVE_SUFFIXES):
            unpacked = Path(mkdtemp(dir=scratch))
            _unpack(file, unpacked)
            gathered |= {f"{name}/{each}": path for each, path in gather(unpacked, scratch, depth + 1).items()}
        else:
            gathered[name] = file
    return gathered


def _unpack(path: Path, folder: Path):
    """Unpack the files of an archive into a folder; links and devices are left out.

    Raises:
        InputError: If the archive is truncated, damaged or encrypted, has a member that would be written outside of
            the folder, or is larger than :data:`MAX_UNPACKED`.
    """
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                _check_members(path, {member.filename: member.file_size for member in archive.infolist()})
                archive.extractall(folder)
            return
        with tarfile.open(path) as tar:
            files = [member for member in tar if member.isfile()]
            _check_members(path, {member.name: member.size for member in files})
            # Only the block of zeros at its end distinguishes a complete file from one cut between two members.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end of the archive")
            tar.extractall(folder, files, filter="data")
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cut short or damaged ({describe_error(error)}); download it again") from error


def _check_members(archive: Path, sizes: dict[str, int]):
    for name in sizes:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
            raise InputError(f"{archive}: its member {name!r} would be written elsewhere; do not trust this archive")
    if sum(sizes.values()) > MAX_UNPACKED:
        limit = f"{MAX_UNPACKED / 2**30:.0f} GiB"
        raise InputError(f"{archive}: unpacks to more than {limit}; replace it by its unpacked files")


def _is_table(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES


def _is_poscar(path: PurePosixPath) -> bool:
    plain = any(word in path.name.upper() for word in ("POSCAR", "CONTCAR"))
    return path.suffix.lower() in POSCAR_SUFFIXES or (plain and not _is_table(path.name))


def read_structures(name: str, path: Path) -> Iterator[Structure]:
    """Structures of a file, with their faults; none if it is neither XYZ, POSCAR nor CONTCAR.

    Args:
        name: Name of the file for the results.
        path: Path of the file.
    """
    named = PurePosixPath(name)
    if _is_poscar(named):
        frames = _poscar(path)
    elif (named.with_suffix("") if named.suffix in OPENERS else named).suffix in XYZ_SUFFIXES:
        frames = _xyz(path)
    else:
        return
    for number, (frame, comment) in enumerate(frames):
        structure = Structure(name, number, Atoms(), comment)
        if isinstance(frame, str):
            structure.fault = frame
        else:
            block = block_of_frames(Path(name), {number: frame}, ReadOptions(with_atoms=True))
            good, bad = check_block(block, on_bad="skip")
            structure.atoms = good.atoms[0] if good.atoms else structure.atoms
            structure.fault = bad[0].reason if bad else ""
        yield structure


def _xyz(path: Path) -> Iterator[tuple[Atoms | str, str]]:
    """Frame, or the reason why it cannot be read, and comment line of each frame."""
    texts: list[TextFrame | BadFrame] = []
    fault = ""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*the last line has no end")  # no file of a data set is still growing
            texts.extend(text_frames(path))
    except InputError as error:
        fault = str(error).removeprefix(f"{path}: ")
    for number, text in enumerate(texts):
        frame = text if isinstance(text, BadFrame) else frame_by_ase(path, number, text)
        comment = "" if isinstance(text, BadFrame) else decoded(text.comment).strip()
        yield frame.reason if isinstance(frame, BadFrame) else frame, comment
    if fault or not texts:
        yield fault or "no frames in it", ""


def _poscar(path: Path) -> Iterator[tuple[Atoms | str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > 5 and all(word.isdecimal() for word in lines[5].split()):
            lines.insert(5, " ".join("Ga" for _ in lines[5].split()))  # VASP 4 does not write the elements
        yield next(iread(StringIO("\n".join(lines) + "\n"), format="vasp")), lines[0].strip()
    except Exception as error:  # ASE's reader raises many kinds
        yield f"cannot be read as a POSCAR ({describe_error(error)}); is it cut short?", ""


def set_energies(
    structures: Sequence[Structure],
    files: dict[str, Path],
    source: EnergySource | Literal["auto"] = "auto",
    key: str | None = None,
) -> EnergySource:
    """Set the energy of each structure from one source, in the unit of the files; NaN if it is missing there.

    Args:
        structures: The structures.
        files: Paths of all files by name, among them the tables.
        source: Source of the energies; by default the one that most structures have (in a tie the first of table,
            comment and name).
        key: Name of the energy in the comment line or the header of the table.

    Returns:
        The source.
    """
    known = designations([Path("/", name) for name in dict.fromkeys(structure.file for structure in structures)])
    rows: dict[str, list[float]] = {}
    for name in filter(_is_table, files):
        rows |= energies_in_table(name, files[name], known, key)
    found: dict[EnergySource, list[float | None]] = {
        "table": [dict(enumerate(rows.get(each.file, ()))).get(each.number) for each in structures],
        "comment": [energy_in_comment(each.comment, key) for each in structures],
        "name": [energy_in_name(each.file) for each in structures],
    }
    fullest = max(found, key=lambda each: len(structures) - found[each].count(None))
    chosen = fullest if source == "auto" else source
    for structure, energy in zip(structures, found[chosen], strict=True):
        structure.energy = math.nan if energy is None else energy
    return chosen


def energy_in_comment(comment: str, key: str | None = None) -> float | None:
    """Energy in a comment line: after the name of an energy, or the only number with a decimal point.

    Args:
        comment: The line, free text or the keys of extended XYZ.
        key: Name of the energy; by default the first match of :data:`ENERGY_NAMES`.

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
    """Energy in the name of a file, or of the folder of a plain ``POSCAR``: the last number with a decimal point.

    Example:
        >>> energy_in_name("GNC/Ga31_17_-75.125.xyz"), energy_in_name("GNC/31_E-75.5/CONTCAR")
        (-75.125, -75.5)
    """
    path = PurePosixPath(name)
    stem = path.parent.name if path.name in ("POSCAR", "CONTCAR") else path.name
    found = DECIMAL.findall(re.sub(r"(?:\.(?:xyz|extxyz|vasp|poscar|traj))?(?:\.(?:gz|xz|bz2))?$", "", stem))
    return float(found[-1]) if found else None


def energies_in_table(
    table: str, path: Path, files: dict[str, list[Path]], key: str | None = None
) -> dict[str, list[float]]:
    """Energies of structure files from a table with a row for each structure.

    A row has the name of a file (with or without its folders and suffix) and its energy: in the column named by a
    header, else the last number with a decimal point. Rows without the name of a file are skipped. Several rows of one
    file belong to its frames, in order.

    Args:
        table: Name of the table.
        path: Path of the table.
        files: Files by all names that may refer to them.
        key: Header of the column.

    Raises:
        InputError: If the table cannot be read, a name matches several files, or a row has no energy.
    """
    found: dict[str, list[float]] = defaultdict(list)
    column = None
    for line, cells in table_lines(path):
        named = next((n for n, cell in enumerate(cells) if cell.removeprefix("./") in files), None)
        if named is None:
            column = column if found or column is not None else _energy_column(cells, key)
            continue
        meant = files[cells[named].removeprefix("./")]
        meant = [file for file in meant if file.parent == Path("/", table).parent] or meant  # beside the table
        if len(meant) > 1:
            raise InputError(
                f"{table}, line {line}: {cells[named]!r} may be any of {len(meant)} files; write their folders too"
            )
        if column is not None:
            text = cells[column] if column < len(cells) else ""
            if not re.fullmatch(NUMBER, text):
                raise InputError(f"{path}, line {line}: no energy for {cells[named]}, but {text!r}")
            numbers = [text]
        else:
            numbers = [cell for n, cell in enumerate(cells) if n != named and re.fullmatch(NUMBER, cell)]
        decimals = [number for number in numbers if not number.lstrip("+-").isdecimal()]
        if numbers:
            found[meant[0].relative_to("/").as_posix()].append(float((decimals or numbers)[-1]))
    return found


def _energy_column(titles: Sequence[str], key: str | None) -> int | None:
    for name in ENERGY_NAMES if key is None else [re.escape(key)]:
        pattern = rf"{name}(?:[ _-]*(?:\(.*\)|\[.*\]|/.*|in .*|ev|kcal.*|hartree))?"
        for number, title in enumerate(titles):
            if re.fullmatch(pattern, title.lstrip("# "), re.IGNORECASE):
                return number
    return None
