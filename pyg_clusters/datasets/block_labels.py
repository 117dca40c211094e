"""Labels out of blocks of frames, checked."""

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock


def numbers(block: FrameBlock, key: str) -> np.ndarray:
    """Values of a property, ``[num_frames]`` in double precision.

    Raises:
        InputError: If they are not numbers.
    """
    values = block.properties[key]
    if values.dtype.kind not in "iuf" or values.size != len(block):
        raise InputError(f"{block.file}, frame {block.number[0]}: {key!r} is not a number but {values[0]!r}")
    return values.reshape(-1).astype(np.float64)


def atom_numbers(block: FrameBlock, key: str) -> np.ndarray:
    """Values of an array of atoms, ``[num_atoms, ...]`` in double precision.

    Raises:
        InputError: If they are not numbers, or not finite.
    """
    values = block.atom_properties[key]
    if values.dtype.kind not in "iuf":
        raise InputError(f"{block.file}, frame {block.number[0]}: {key!r} are not numbers but {values[0]!r}")
    return finite(block, key, values.astype(np.float64))


def number_of_each_atom(block: FrameBlock, key: str) -> np.ndarray:
    """Values of an array of one number per atom, ``[num_atoms]`` in double precision.

    Raises:
        InputError: If that is not what it is, or one is not finite.
    """
    values = block.atom_properties[key]
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(f"{block.file}: {key!r} is not one number per atom")
    return finite(block, key, values.astype(np.float64))


def finite(block: FrameBlock, key: str, values: np.ndarray) -> np.ndarray:
    """The values per frame or per atom.

    Raises:
        InputError: If one is not finite; its frame is named.
    """
    wrong = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if wrong.size:
        frame = wrong[0] if len(values) == len(block) else block.frame_of_atom[wrong[0]]
        raise InputError(f"{block.file}, frame {block.number[frame]}: {key!r} is {values[wrong[0]]}; remove the frame")
    return values
