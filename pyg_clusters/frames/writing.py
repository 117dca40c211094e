"""Output of tables and frames, and protection of the outputs of verbs."""

import csv
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, write_xyz
from numpy.typing import ArrayLike

from pyg_clusters.errors import InputError, describe_error, one_line
from pyg_clusters.files import atomic_write, check_empty, output_lock
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.paths import OPENERS, XYZ_SUFFIXES, is_among
from pyg_clusters.frames.provenance import outdated
from pyg_clusters.options.parsing import command_words
from pyg_clusters.terminal import count_of

PLAIN: re.Pattern[str] = re.compile(r"(?!(?:t|f|true|false|nan|inf|infinity)$)[a-z_/][\w./:+-]*", re.IGNORECASE)
"""Matches texts that are read back unchanged without quotes."""

OWN_KEYS: frozenset[str] = frozenset({"lattice", "properties", "pbc"})  # keys that the format reserves, in lower case

COLUMN_NAME: re.Pattern[str] = re.compile(r"[^\s:=\"'{}\[\]\\]+")

LARGEST_COLUMN_INTEGER: int = 2**31 - 1

INPUTS: tuple[str, ...] = ("frames", "files", "minima")  # options of verbs that name files to read


@dataclass(frozen=True)
class WrittenFrames:
    """Result of a verb that writes frames or predictions."""

    num_frames: int  #: Number of frames in the file.
    file: str  #: The file.
    bad: list[BadFrame]  #: Frames that were left out.

    def __str__(self) -> str:
        return f"{count_of(self.num_frames, 'frame')} in {self.file}"


def extxyz_text(atoms: Atoms, where: str = "a frame") -> str:
    r"""Format a frame as extended XYZ by ASE, so that every text in it is read back unchanged.

    Texts that would break the line, or would be read as numbers, are written as JSON after ``_JSON``, which ASE and
    :class:`~pyg_clusters.frames.Frames` read.

    Args:
        atoms: The frame, with its ``info``, its ``arrays`` and the results of its calculator.
        where: Name of the frame, for messages.

    Raises:
        InputError: If a key or a value cannot be written; the message names it. Also if the results of the calculator
            belong to other positions, or contradict a value of the same name.

    Example:
        >>> print(extxyz_text(Atoms("Na", info={"note": "two\nlines"})), end="")
        1
        Properties=species:S:1:pos:R:3 note="_JSON \"two\\nlines\"" pbc="F F F"
        Na       0.00000000       0.00000000       0.00000000
    """
    checked = atoms.copy()
    checked.calc = atoms.calc
    _check_results(checked, where)
    checked.info = {_checked_key(key, where): _written(key, value, where) for key, value in checked.info.items()}
    for name, values in checked.arrays.items():
        _check_column(name, values, where)
        if values.dtype.kind == "u":
            checked.arrays[name] = values.astype(np.int64)
    text = StringIO()
    try:
        write_xyz(text, [checked])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{where}: cannot be written as extended XYZ ({describe_error(error)})") from error
    return text.getvalue()


def _check_results(atoms: Atoms, where: str):
    """Check the results of a calculator, and remove values of the same names from ``info`` and ``arrays``."""
    if problem := outdated(atoms):
        raise InputError(f"{where}: {problem}")
    results = getattr(atoms.calc, "results", None) or {}
    for name in all_properties:
        for holder in (atoms.info, atoms.arrays):
            if name not in holder or results.get(name) is None:
                continue
            stated, result = np.asarray(holder.pop(name)), np.asarray(results[name])
            if not (
                stated.dtype.kind in "iuf" and stated.shape == result.shape and np.allclose(stated, result, 1e-9, 1e-6)
            ):
                raise InputError(
                    f"{where}: {name!r} is {_short(stated)}, but {_short(result)} in the results of its calculator; "
                    "remove one"
                )


def _short(values: np.ndarray) -> str:
    return str(values.tolist()) if values.size < 4 else f"an array of shape {values.shape}"


def _checked_key(key: object, where: str) -> str:
    if (
        isinstance(key, str)
        and (PLAIN.fullmatch(key) or _read_back(key, 0) == {key: 0})
        and key.lower() not in OWN_KEYS
    ):
        return key
    raise InputError(f"{where}: the key {key!r} cannot be written to extended XYZ; rename it")


def _written(key: str, value: object, where: str) -> object:
    """Value to pass to ASE, which is read back as the original value."""
    if isinstance(value, str):
        written = value if PLAIN.fullmatch(value) else _quoted(key, value)
        if written is None:
            raise InputError(f"{where}: {key!r} is {value!r}, which cannot be written to extended XYZ; change it")
        return written
    if (
        value is None
        or isinstance(value, list | tuple | dict)
        or (isinstance(value, np.ndarray) and value.dtype.kind not in "biuf")
    ):
        return _as_json(value)
    return value


@lru_cache(maxsize=1000)
def _quoted(key: str, value: str) -> str | None:
    """The text, or JSON if the text is not read back unchanged; ``None`` if JSON is not either."""
    alone = " " in value or re.fullmatch(r"[\w./:+-]+", value)  # ASE quotes it, or it needs no quotes
    for written in (*((value,) if alone else ()), _as_json(value)):
        found = _read_back(key, written)
        one_line_of_text = isinstance(written, str) and written.splitlines() == [written]
        if one_line_of_text and list(found) == [key] and isinstance(found[key], str) and found[key] == value:
            return written
    return None


def _as_json(value: object) -> object:
    """The value as JSON, or the value itself if JSON cannot represent it, since ASE may be able to write it."""
    try:
        text = json.dumps(value.tolist() if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError):
        return value
    return "_JSON " + text.replace("\\", "\\\\")


def _read_back(key: str, value: object) -> dict:
    try:
        return key_val_str_to_dict(key_val_dict_to_str({key: value}))
    except Exception:  # ASE raises errors of many kinds
        return {}


def _check_column(name: str, values: np.ndarray, where: str):
    if not COLUMN_NAME.fullmatch(name):
        raise InputError(f"{where}: the name {name!r} of values per atom cannot be written to extended XYZ; rename it")
    if values.ndim > 2 or values.dtype.kind not in "biufUSO":
        kind = f"{values.dtype} of shape {values.shape}"
        raise InputError(
            f"{where}: the values {name!r} per atom ({kind}) cannot be columns of extended XYZ; remove them"
        )
    if values.dtype.kind in "USO":
        wrong = next((value for value in values.ravel().tolist() if str(value).split() != [str(value)]), None)
        if wrong is not None:
            raise InputError(f"{where}: {name!r} of an atom is {wrong!r}, not one word; change or remove it")
    if values.dtype.kind in "iu" and name != "numbers" and values.size:
        largest = values.flat[np.abs(values.astype(float)).argmax()]
        if abs(int(largest)) > LARGEST_COLUMN_INTEGER:
            raise InputError(f"{where}: {name!r} of an atom is {largest}, too large an integer; use floating point")


TABLE_WRITERS = {".csv": pyarrow.csv.write_csv, ".parquet": pyarrow.parquet.write_table}
"""Functions that write a table, by file suffix."""


def write_table(path: str | Path, columns: Mapping[str, ArrayLike]):
    """Write columns of equal length to a ``.csv`` or ``.parquet`` file.

    Args:
        path: The file, whose suffix determines the format.
        columns: One-dimensional values (numbers or strings) by name.

    Raises:
        InputError: If the suffix is not supported, or the file cannot be written.
    """
    suffix = Path(path).suffix
    if suffix not in TABLE_WRITERS:
        raise InputError(f"{path}: cannot write a table of type {suffix!r}; use one of {', '.join(TABLE_WRITERS)}")
    table = pyarrow.table({name: np.asarray(values) for name, values in columns.items()})
    with atomic_write(path) as temporary:
        TABLE_WRITERS[suffix](table, temporary)


def write_extxyz(path: str | Path, frames: Iterable[Atoms]):
    """Write frames one by one as extended XYZ, compressed if the name ends in ``.xz``, ``.gz`` or ``.bz2``.

    Raises:
        InputError: If the suffix is not supported, or a value or the file cannot be written.
    """
    path = Path(path)
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    if inner.suffix not in XYZ_SUFFIXES:
        raise InputError(f"{path}: cannot write frames of type {inner.suffix!r}; use one of {', '.join(XYZ_SUFFIXES)}")
    opener = OPENERS.get(path.suffix, open)
    with atomic_write(path) as temporary, opener(temporary, "wt", encoding="utf-8") as stream:
        for number, atoms in enumerate(frames):
            stream.write(extxyz_text(atoms, f"frame {number} for {path.name}"))


def read_columns(path: Path, names: Sequence[str] = (), remedy: str = "write it again") -> dict[str, np.ndarray]:
    """Read the columns of a CSV file, which are numbers, except for a ``composition``, which is text.

    Raises:
        InputError: If the file cannot be read, is truncated, or lacks rows or one of the named columns; the message
            ends with the remedy.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
        columns = {
            name: np.array([row[index] if name == "composition" else float(row[index]) for row in rows])
            for index, name in enumerate(header)
        }
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path}: corrupted ({one_line(error)}); {remedy}") from error
    missing = [name for name in names if name not in columns]
    if missing or not rows:
        raise InputError(f"{path}: corrupted ({f'no column {missing[0]}' if missing else 'no row'}); {remedy}")
    return columns


@contextmanager
def open_output(
    options: Any,
    path: Path | None = None,
    *,
    overwrite: bool | None = None,
    results: Sequence[str] | None = None,
    new_folders: Sequence[Path] = (),
) -> Iterator[bool]:
    """Check that an output may be written, and lock it within the block.

    A command that ends before all of its results are written, even by a kill, leaves a note in the lock file, so that
    the same command may replace these results.

    Args:
        options: Options of the verb, which define the command, the input files, ``out`` and ``overwrite``.
        path: The file or folder; by default ``out``, without which nothing is written or locked.
        overwrite: Whether existing results may be replaced; by default as in the options.
        results: Names of the results in the folder; ``None`` if the output is a file.
        new_folders: Folders that must be empty or missing, even with ``overwrite``.

    Yields:
        Whether the same command left unfinished results.

    Raises:
        InputError: If another process is writing the output, or a result is one of the inputs, or exists and may not be
            replaced.
    """
    if path is None and getattr(options, "out", None) is None:
        yield False
        return
    path = Path(options.out) if path is None else path
    overwrite = getattr(options, "overwrite", False) if overwrite is None else overwrite
    command = command_words(options)
    inputs = [name for field in INPUTS for name in getattr(options, field, None) or ()]
    if "" in command:
        raise InputError(f"{command[command.index('') - 1]} is empty; give the name of a file or folder")
    folder = results is not None
    outputs = [path] if results is None else [path / name for name in results]
    text = shlex.join(word for word in command if word != "--overwrite")
    with output_lock(path, folder=folder) as lock:
        again = lock.unfinished == text
        for output in outputs:
            if lock.unfinished and not (overwrite or again) and output.exists():
                raise InputError(
                    f"{path} holds unfinished results of another command, {lock.unfinished!r}; run that command again, "
                    "or pass --overwrite to replace the results"
                )
            check_output(output, inputs, overwrite or again)
        for output in () if again else new_folders:
            check_empty(output)
        before = [_identity(output) for output in outputs]
        lock.begin(text)
        try:
            yield again
        except BaseException:
            after = [_identity(output) for output in outputs]
            if not any(after) or (after == before and not again):
                lock.finish()
            raise
        lock.finish()


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def check_output(path: str | Path, inputs: Iterable[str | Path], overwrite: bool = False):
    """Check that a file may be written: it is not a folder or an input, and does not exist unless ``overwrite``."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    for used in map(Path, inputs):
        if path.exists() and is_among(path, used):
            raise InputError(f"{path} is one of the inputs and would be lost; choose another --out")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; pass --overwrite to replace it, or choose another --out")
