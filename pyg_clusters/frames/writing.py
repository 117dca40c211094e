"""Tables and frames to files."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from ase import Atoms
from numpy.typing import ArrayLike

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.frames.compression import OPENERS
from pyg_clusters.frames.extxyz_text import extxyz_text
from pyg_clusters.frames.xyz_reader import XYZ_SUFFIXES

TABLE_WRITERS = {".csv": pyarrow.csv.write_csv, ".parquet": pyarrow.parquet.write_table}
"""How to write a table, by the suffix of the file."""


def write_table(path: str | Path, columns: Mapping[str, ArrayLike]):
    """Writes columns of equal length to a ``.csv`` or ``.parquet`` file.

    Args:
        path: The file; its suffix decides.
        columns: One-dimensional values (numbers or strings) by name.

    Raises:
        InputError: If the suffix is another, or the file cannot be written.
    """
    suffix = Path(path).suffix
    if suffix not in TABLE_WRITERS:
        raise InputError(f"{path}: cannot write a table of type {suffix!r}; use one of {', '.join(TABLE_WRITERS)}")
    table = pyarrow.table({name: np.asarray(values) for name, values in columns.items()})
    with atomic_write(path) as temporary:
        TABLE_WRITERS[suffix](table, temporary)


def write_extxyz(path: str | Path, frames: Iterable[Atoms]):
    """Writes frames, one by one, as extended XYZ; ``.xz``, ``.gz`` or ``.bz2`` at the end compresses it.

    Raises:
        InputError: If the suffix is another, a value cannot be written, or the file cannot.
    """
    path = Path(path)
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    if inner.suffix not in XYZ_SUFFIXES:
        raise InputError(f"{path}: cannot write frames of type {inner.suffix!r}; use one of {', '.join(XYZ_SUFFIXES)}")
    opener = OPENERS.get(path.suffix, open)
    with atomic_write(path) as temporary, opener(temporary, "wt", encoding="utf-8") as stream:
        for number, atoms in enumerate(frames):
            stream.write(extxyz_text(atoms, f"frame {number} for {path.name}"))


def read_columns(path: Path, names: Sequence[str], remedy: str) -> dict[str, np.ndarray]:
    """The columns of a CSV file of numbers, and of a ``composition`` as text.

    Args:
        path: The file.
        names: Columns that it has at least.
        remedy: What to do if it is corrupted, for the message.

    Raises:
        InputError: If it cannot be read, is cut, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
        columns = {
            name: np.array([row[place] if name == "composition" else float(row[place]) for row in rows])
            for place, name in enumerate(header)
        }
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path}: corrupted ({' '.join(str(error).split())[:200]}); {remedy}") from error
    missing = [name for name in names if name not in columns]
    if missing or not rows:
        raise InputError(f"{path}: corrupted ({f'no column {missing[0]}' if missing else 'no row'}); {remedy}")
    return columns
