"""Structures as input files of other programs, a folder each."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from ase.io.formats import ioformats

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, check_empty

VACUUM: float = 7.5
"""Default vacuum in Å on each side of a cluster: periodic images are 15 Å apart."""

FILE_NAMES: dict[str, str] = {"vasp": "POSCAR", "aims": "geometry.in", "turbomole": "coord"}
"""Names that programs insist on, by ASE's name of the format."""


def write_folders(
    folder: str | Path, frames: Sequence[Atoms], file_format: str, vacuum: float = VACUUM, *, overwrite: bool = False
) -> list[str]:
    """Writes each structure to a folder of its own, ``0001_Ga46/POSCAR`` say, numbered from 1.

    Args:
        folder: Where the folders go.
        frames: The structures.
        file_format: ASE's name of the format: ``vasp``, ``aims``, ``gaussian-in``, ``xyz``, ...
        vacuum: See :func:`boxed`.
        overwrite: Whether the folder need not be empty.

    Returns:
        The names of the folders.

    Raises:
        InputError: If the folder is there and not empty, or ASE cannot write the format.
    """
    folder = Path(folder)
    check_format(file_format)
    if not overwrite:
        check_empty(folder)
    names = [f"{number:04d}_{atoms.symbols.get_chemical_formula()}" for number, atoms in enumerate(frames, start=1)]
    for name, atoms in zip(names, frames, strict=True):
        with atomic_write(folder / name / file_name(file_format)) as path:
            _write(path, boxed(atoms, vacuum), file_format)
    return names


def boxed(atoms: Atoms, vacuum: float = VACUUM) -> Atoms:
    """A copy in the middle of a cubic periodic box; atoms of one element stand together.

    Args:
        atoms: The structure.
        vacuum: In Å, between the cluster and each side where it is longest; with 0 there is no box, for programs that
            know isolated molecules.
    """
    copy = atoms[np.argsort(atoms.numbers, kind="stable")]
    copy.pbc = vacuum > 0
    if vacuum > 0:
        copy.cell = np.eye(3) * (float(np.ptp(copy.positions, axis=0).max()) + 2 * vacuum)
        copy.positions += copy.cell.diagonal() / 2 - (copy.positions.max(axis=0) + copy.positions.min(axis=0)) / 2
    else:
        copy.cell = None
    return copy


def check_format(file_format: str):
    """Check that structures can be written in a format.

    Raises:
        InputError: If ASE cannot write it.
    """
    known = ioformats.get(file_format)
    if known is None or not known.can_write:
        some = ", ".join(["vasp", "aims", "gaussian-in", "nwchem-in", "xyz"])
        raise InputError(f"ASE writes no format {file_format!r}; {some} are some that it does")
    with tempfile.TemporaryDirectory() as trial:
        _write(Path(trial) / file_name(file_format), boxed(Atoms("H")), file_format)


def file_name(file_format: str) -> str:
    """Name of the file of a structure in a format."""
    extensions = ioformats[file_format].extensions
    return FILE_NAMES.get(file_format, f"candidate.{extensions[0] if extensions else file_format}")


def _write(path: Path, atoms: Atoms, file_format: str):
    try:
        write(path, atoms, format=file_format)
    except OSError:
        raise
    except Exception as error:  # ASE's writers raise many kinds, for want of settings say
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"ASE cannot write format {file_format!r} without more ({reason}); use vasp or xyz") from error
