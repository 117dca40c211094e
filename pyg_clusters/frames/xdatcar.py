"""Reader of VASP's XDATCAR, with one cell for all frames or one per frame, also of several concatenated runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame, UnrecoverableFrame, cut_frame
from pyg_clusters.frames.text import (
    TextLines,
    atomic_number,
    check_num_atoms,
    is_number,
    split_text,
    text_table,
    unknown_label,
)

HEADER_LINES: int = 20  # maximum number of lines of a header


class Header(NamedTuple):
    """Cell and elements of the frames after a header."""

    cell: np.ndarray  #: Cell vectors in Å, ``[3, 3]``.
    numbers: np.ndarray  #: Atomic numbers ``[num_atoms]``.


def xdatcar_frames(path: Path) -> Iterator[Atoms | BadFrame]:
    """Read the frames of a file, or their faults.

    Blank lines between frames and repeated frame numbers are accepted. After an incomplete frame within the file, as
    left by a run that was killed and restarted, reading continues at the next frame.

    Raises:
        InputError: If the file is corrupted, or names no elements.
    """
    return split_text(path, _frames)


def _frames(lines: TextLines, kind: type[UnrecoverableFrame], index: int) -> Iterator[Atoms | BadFrame]:
    path, header, broken = lines.path, None, False
    while lines.skip_blank() or lines.cut:
        above = _lines_above(lines)
        if above is None:
            if header is None:
                raise InputError(
                    f"{path}: has no line 'Direct configuration='; an XDATCAR of VASP 4 names no elements, convert it "
                    "to XYZ"
                )
            yield cut_frame(kind, path, index)
            return
        if above or header is None:
            try:
                header = _header(path, index, above)
            except InputError:
                if not broken or header is None:  # otherwise these are the remains of a broken frame
                    raise
        lines.skip(1)
        atoms = lines.look(0, len(header.numbers))
        if atoms is None or _ends_within(lines, atoms):
            yield cut_frame(kind, path, index)
            return
        table = text_table(atoms, {"x": "R", "y": "R", "z": "R"}, len(header.numbers))
        if table is None:
            yield BadFrame(str(path), index, f"does not have {len(header.numbers)} lines of three numbers")
        else:
            lines.skip(len(header.numbers))
            scaled = np.stack([table.column(axis).to_numpy() for axis in "xyz"], axis=1)
            yield Atoms(header.numbers, positions=scaled @ header.cell, cell=header.cell, pbc=True)
        broken = table is None
        index += 1


def _lines_above(lines: TextLines) -> list[str] | None:
    """Skip to the next line "Direct configuration=" and return the lines before it; ``None`` at the end of the file."""
    above: list[str] = []
    first = lines.line
    while (line := lines.look(0)) is not None:
        if b"configuration=" in line:
            return above
        lines.skip(1)
        lines.check_skipped(lines.line - first)
        if line.strip():
            above = [*above, line.decode("latin-1").strip()][-HEADER_LINES:]
    return None


def _ends_within(lines: TextLines, atoms: bytes) -> bool:
    """Whether the file ends within the last line of a frame, which is then shorter than the others."""
    rows = atoms.splitlines()
    last = lines.look(0, len(rows) + 1) is None
    return last and lines.unended and len(rows) > 1 and len(rows[-1].rstrip()) < len(rows[-2].rstrip())


def _header(path: Path, index: int, above: list[str]) -> Header:
    words = [line.split() for line in above]
    try:
        counts = [int(word) for word in words[-1]]
        named = not is_number(words[-2][0])
        vectors, scale = (words[-5:-2], words[-6]) if named else (words[-4:-1], words[-5])
        cell = np.array(vectors, dtype=float)
        factors = np.array(scale, dtype=float)
        if cell.shape != (3, 3) or len(factors) not in (1, 3):
            raise ValueError
    except (ValueError, IndexError):
        text = " / ".join(above[-3:])[:60]
        raise InputError(
            f"{path}, frame {index}: expected a header of an XDATCAR, got {text!r}; fix the header"
        ) from None
    if not named:
        raise InputError(
            f"{path}, frame {index}: the header names no elements, as written by VASP 4; add a line of their symbols "
            f"above the counts {above[-1]!r}"
        )
    labels = [label.partition("/")[0] for label in words[-2]]  # VASP may write the hash of a POTCAR after it
    unknown = next((label for label in labels if atomic_number(label) is None), None)
    if unknown is not None or len(labels) != len(counts):
        reason = unknown_label(unknown) if unknown is not None else f"{len(labels)} elements, {len(counts)} counts"
        raise InputError(f"{path}, frame {index}: {reason}; fix the header")
    check_num_atoms(f"{path}, frame {index}", sum(counts))
    if len(factors) == 1 and factors[0] < 0:
        factors = (-factors / abs(np.linalg.det(cell))) ** (1 / 3)
    return Header(cell * factors, np.repeat([atomic_number(label) for label in labels], counts).astype(np.int64))
