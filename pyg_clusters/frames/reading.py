"""Frames from files, in blocks."""

import bz2
import gzip
import lzma
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from itertools import count, islice
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.io.extxyz import read_xyz

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame, FrameBlock

OPENERS: dict[str, Callable] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
"""How to open a compressed file, by its last suffix."""

XYZ_SUFFIXES: tuple[str, ...] = (".xyz", ".extxyz")
"""Suffixes of (extended) XYZ text, before that of a compression."""


def read_blocks(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    properties: Sequence[str] = (),
    atom_properties: Sequence[str] = (),
    with_atoms: bool = False,
    block_size: int = 1000,
    on_bad: Literal["stop", "skip"] = "stop",
) -> Iterator[FrameBlock]:
    """Reads the frames of files in blocks, each from one file.

    Everything that ASE reads is accepted. XYZ text, compressed (``.xz``, ``.gz``, ``.bz2``) or not, is streamed: no
    more than a block of it is held at a time.

    Args:
        paths: The files, or one.
        properties: Names of values per frame to read along (an ``energy``), from ``atoms.info`` or the results of its
            calculator, where ASE puts some.
        atom_properties: Names of values per atom to read along (``forces``), from ``atoms.arrays`` or the results.
        with_atoms: Keep each frame as ASE has it, too: :attr:`FrameBlock.atoms`.
        block_size: Number of frames in a block; the last of a file may have fewer.
        on_bad: What to do with a frame that cannot be read: ``"stop"`` raises (after the whole frames before it are
            yielded), ``"skip"`` lists it in :attr:`FrameBlock.unreadable`, which may come with a block of no frames.

    Raises:
        InputError: If a file is missing, empty or of no readable format, a frame is cut short, or a property is
            missing (the message lists those found).
    """
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for block in _blocks_of_file(Path(path), properties, atom_properties, block_size, on_bad):
            if not with_atoms:
                block.atoms = None
            yield block


def _blocks_of_file(
    path: Path, properties: Sequence[str], atom_properties: Sequence[str], block_size: int, on_bad: str
) -> Iterator[FrameBlock]:
    frames: dict[int, Atoms] = {}
    unreadable: list[BadFrame] = []
    number = -1
    for number, frame in enumerate(frames_of_file(path)):
        if isinstance(frame, Atoms):
            frames[number] = frame
        elif on_bad == "skip":
            unreadable.append(frame)
        else:
            if frames:
                yield block_of_frames(path, frames, properties, atom_properties)
            raise InputError(str(frame))
        if len(frames) + len(unreadable) == block_size:
            yield block_of_frames(path, frames, properties, atom_properties, unreadable)
            frames, unreadable = {}, []
    if frames or unreadable:
        yield block_of_frames(path, frames, properties, atom_properties, unreadable)
    if number < 0:
        raise InputError(f"{path}: no frames in it; give a file with at least one cluster")


def block_of_frames(
    path: Path,
    frames: dict[int, Atoms],
    properties: Sequence[str] = (),
    atom_properties: Sequence[str] = (),
    unreadable: Sequence[BadFrame] = (),
) -> FrameBlock:
    """The block of frames of a file by number."""
    sizes = [len(atoms) for atoms in frames.values()]
    values = {key: _stack(path, key, [_property(path, n, a, key) for n, a in frames.items()]) for key in properties}
    atom_values = {}
    for key in atom_properties:
        parts = [_atom_property(path, number, atoms, key) for number, atoms in frames.items()]
        atom_values[key] = np.concatenate(parts) if parts else np.zeros(0)
    return FrameBlock(
        file=str(path),
        number=np.fromiter(frames, dtype=np.int64),
        z=np.concatenate([np.zeros(0, dtype=np.int64), *(atoms.numbers for atoms in frames.values())]),
        pos=np.concatenate([np.zeros((0, 3)), *(atoms.positions for atoms in frames.values())]),
        ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        periodic=np.array([bool(a.pbc.any() and a.cell.any()) for a in frames.values()], dtype=bool),
        properties=values,
        atom_properties=atom_values,
        atoms=list(frames.values()),
        unreadable=list(unreadable),
    )


def _property(path: Path, number: int, atoms: Atoms, key: str):
    for values in (atoms.info, _results(atoms)):
        if key in values:
            return values[key]
    raise InputError(f"{path}, frame {number}: no property {key!r}; {_keys_found(atoms)}")


def _atom_property(path: Path, number: int, atoms: Atoms, key: str) -> np.ndarray:
    for values in (atoms.arrays, _results(atoms)):
        if key in values and np.shape(values[key])[:1] == (len(atoms),):
            return np.asarray(values[key])
    raise InputError(f"{path}, frame {number}: no property {key!r} per atom; {_keys_found(atoms)}")


def _results(atoms: Atoms) -> dict:
    return atoms.calc.results if atoms.calc is not None else {}


def _keys_found(atoms: Atoms) -> str:
    results = _results(atoms)
    of_atoms = {key for key, value in results.items() if np.shape(value)[:1] == (len(atoms),)}
    per_atom = sorted(of_atoms | (set(atoms.arrays) - {"numbers", "positions"}))
    per_frame = sorted(set(atoms.info) | set(results) - of_atoms)
    return f"found per frame: {', '.join(per_frame) or 'none'}; per atom: {', '.join(per_atom) or 'none'}"


def _stack(path: Path, key: str, values: list) -> np.ndarray:
    try:
        return np.array(values)
    except ValueError as error:  # values of different shapes
        raise InputError(f"{path}: property {key!r} has not the same shape in all frames") from error


def frames_of_file(path: Path) -> Iterator[Atoms | BadFrame]:
    """Each frame, or what is wrong with it."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: no frames in it, the file is empty; give a file with at least one cluster")
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    return _xyz_frames(path) if inner.suffix in XYZ_SUFFIXES else _ase_frames(path)


def _xyz_frames(path: Path) -> Iterator[Atoms | BadFrame]:
    # ASE alone would end silently at a blank line, look through the whole file before the first frame, and seek in
    # compressed files: it gets the text of one frame at a time.
    opener = OPENERS.get(path.suffix, open)
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            for number in count():
                frame = _xyz_frame(path, number, stream)
                if frame is None:
                    return
                yield frame
                if isinstance(frame, _LastFrame):
                    return
    except EOFError:
        yield _truncated(path, number)
    except (OSError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read at frame {number} ({_one_line(error)}); is it damaged?") from error


class _LastFrame(BadFrame):
    """A bad frame after which no other can be found."""


def _xyz_frame(path: Path, number: int, stream: TextIO) -> Atoms | BadFrame | None:
    header = next((line for line in stream if line.strip()), None)
    if header is None:
        return None
    try:
        num_atoms = int(header)
        if num_atoms < 0:
            raise ValueError("negative")
    except ValueError:
        reason = f"expected a line with the number of atoms, got {header.strip()[:40]!r}; mend the file from there on"
        return _LastFrame(str(path), number, reason)
    lines = list(islice(stream, num_atoms + 1))
    if len(lines) < num_atoms + 1:
        return _truncated(path, number)
    try:
        frame = next(read_xyz(StringIO("".join([header, *lines])), index=0))
    except Exception as error:  # ASE raises many kinds, by the part of the text that is wrong
        if not lines[-1].endswith("\n"):
            return _truncated(path, number)
        return BadFrame(str(path), number, f"cannot be read ({_one_line(error)})")
    if not lines[-1].endswith("\n"):
        warnings.warn(
            f"{path}, frame {number}: the last line has no end; if the file is still being written its last number may "
            "be cut short",
            stacklevel=2,
        )
    return frame


def _truncated(path: Path, number: int) -> _LastFrame:
    whole = "1 whole frame" if number == 1 else f"{number} whole frames"
    return _LastFrame(str(path), number, f"the file ends within this frame, after {whole}; cut or copy it anew")


def _ase_frames(path: Path) -> Iterator[Atoms | BadFrame]:
    frames = iread(str(path), index=":", do_not_split_by_at_sign=True)
    for number in count():
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception as error:  # ASE's readers raise many kinds
            if number == 0:
                raise InputError(f"{path}: ASE cannot read it ({_one_line(error)})") from error
            yield BadFrame(str(path), number, f"cannot be read ({_one_line(error)})")
            return
        yield atoms


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
