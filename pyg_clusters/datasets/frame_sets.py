"""Sets of frames in memory."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, check_block, read_blocks
from pyg_clusters.frames.block import flat_arrays
from pyg_clusters.frames.checks import numbers
from pyg_clusters.geometry import check_radii
from pyg_clusters.options import Fragments

SHIPPED_TARGETS: dict[str, str] = {"gallium": "binding_energy", "copper_gold": "binding_energy"}
"""Names of the energies of the shipped data sets."""


@dataclass
class FrameSet:
    """Frames of any sizes from any number of files.

    Attributes:
        file: File of each frame ``[num_frames]``.
        number: Index of each frame in its file, from 0, ``[num_frames]``.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the frames ``[num_frames + 1]``.
        properties: Requested values per frame, ``[num_frames]`` each.
        bad: Frames that were left out.
    """

    file: np.ndarray
    number: np.ndarray
    z: np.ndarray
    pos: np.ndarray
    ptr: np.ndarray
    properties: dict[str, np.ndarray]
    bad: list[BadFrame]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each frame, ``[num_frames]``."""
        return np.diff(self.ptr)

    def atoms(self, frame: int) -> Atoms:
        """Structure of a frame, by its index in the set."""
        inside = slice(self.ptr[frame], self.ptr[frame + 1])
        return Atoms(numbers=self.z[inside], positions=self.pos[inside])


def read_set(
    names: Sequence[str],
    *,
    properties: Sequence[str] = (),
    target: str | None = None,
    sizes: Collection[int] | None = None,
    atomic_numbers: Collection[int] | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
) -> FrameSet:
    """Read and check all frames of files.

    Args:
        names: Files, folders and patterns, or names of shipped data (``gallium``).
        properties: Names of values per frame to read.
        target: Name of a value per frame to read, which must be a finite number.
        sizes: Numbers of atoms of the frames to keep; all by default.
        atomic_numbers: Elements that a model knows; all by default.
        on_bad: Stop at a frame that cannot be used, or leave it out.
        fragments: Refuse a periodic frame that stays in several pieces, or keep it with the pieces at their nearest
            images.
    """
    bad: list[BadFrame] = []
    blocks = []
    found: set[int] = set()
    properties = [*properties, *([target] if target else [])]
    for read in read_blocks(names, properties=properties, on_bad=on_bad, fragments=fragments):
        found |= set(read.sizes.tolist())
        chosen = read if sizes is None else read.select(np.isin(read.sizes, list(sizes)))
        block, left_out = check_block(chosen, atomic_numbers=atomic_numbers, on_bad=on_bad)
        if target:
            block.properties[target] = numbers(block, target)
        blocks.append(block)
        bad += sorted({*left_out, *read.unreadable}, key=lambda frame: frame.number)
    number = np.concatenate([block.number for block in blocks])
    if not len(number):
        reason = "no frame can be used" + (f"; the first: {bad[0]}" if bad else "")
        if sizes is not None and not set(sizes) & found:
            reason = f"no cluster of {', '.join(map(str, sizes))} atoms; there are {', '.join(map(str, sorted(found)))}"
        raise InputError(f"{', '.join(names)}: {reason}")
    z, pos, ptr = flat_arrays(blocks)
    return FrameSet(
        file=np.concatenate([np.full(len(block), block.file) for block in blocks]),
        number=number,
        z=z,
        pos=pos,
        ptr=ptr,
        properties={name: np.concatenate([block.properties[name] for block in blocks]) for name in properties},
        bad=bad,
    )


def parse_radii(text: str) -> tuple[float, ...]:
    """Parse radii in Å such as ``3.49,6.3``."""
    try:
        radii = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--radii: {text!r} is not a list of numbers separated by commas, as in 3.49,6.3") from error
    try:
        return check_radii(radii)
    except ValueError as error:
        raise InputError(f"--radii: {error}") from error
