"""Blocks of frames as flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms


@dataclass(frozen=True)
class BadFrame:
    """A frame that cannot be used.

    Attributes:
        file: The file, as it was given.
        number: Number of the frame in the file, from 0.
        reason: What is wrong with it, and the value.
    """

    file: str
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, frame {self.number}: {self.reason}"


@dataclass
class FrameBlock:
    """Consecutive frames of one file, of any sizes, as flat arrays.

    Attributes:
        file: The file that they came from, as it was given.
        number: Number of each frame in the file, from 0, ``[num_frames]``.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å, in double precision.
        ptr: Offsets of the frames, ``[num_frames + 1]``.
        periodic: Whether a frame has periodic boundary conditions with a cell, ``[num_frames]``.
        properties: Values per frame that were asked for, ``[num_frames]`` each.
        atom_properties: Values per atom that were asked for, ``[num_atoms, ...]`` each.
        atoms: The frames as ASE has them, with everything that their file says, where they were asked for.
        unreadable: Frames of this stretch of the file that could not be read, where they are to be skipped.
    """

    file: str
    number: np.ndarray
    z: np.ndarray
    pos: np.ndarray
    ptr: np.ndarray
    periodic: np.ndarray
    properties: dict[str, np.ndarray] = field(default_factory=dict)
    atom_properties: dict[str, np.ndarray] = field(default_factory=dict)
    atoms: list[Atoms] | None = None
    unreadable: list[BadFrame] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.number)

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each frame, ``[num_frames]``."""
        return np.diff(self.ptr)

    @property
    def frame_of_atom(self) -> np.ndarray:
        """Place within the block of the frame of each atom, ``[num_atoms]``."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def select(self, frames: Sequence[int] | np.ndarray) -> "FrameBlock":
        """The block of the given frames (places within the block, or a boolean mask), in that order."""
        frames = np.arange(len(self))[np.asarray(frames)]
        parts = [np.arange(self.ptr[frame], self.ptr[frame + 1]) for frame in frames]
        atoms = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return FrameBlock(
            file=self.file,
            number=self.number[frames],
            z=self.z[atoms],
            pos=self.pos[atoms],
            ptr=np.concatenate([[0], np.cumsum(self.sizes[frames])]).astype(np.int64),
            periodic=self.periodic[frames],
            properties={key: values[frames] for key, values in self.properties.items()},
            atom_properties={key: values[atoms] for key, values in self.atom_properties.items()},
            atoms=None if self.atoms is None else [self.atoms[frame] for frame in frames],
        )
