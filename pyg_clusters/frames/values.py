"""Values of frames and atoms as finite numbers and as names of groups."""

import math
import re
from typing import Any

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import FrameBlock, kind_of

MAX_ROUNDING: float = 1e-4
"""Kept values may be changed by so much in single precision."""

NUMBER: re.Pattern[str] = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""Texts that are numbers."""


def numbers(block: FrameBlock, key: str, *, finite: bool = True) -> np.ndarray:
    """Values of a property, ``[num_frames]`` in double precision.

    Raises:
        InputError: If one is not a number, or not finite unless ``finite`` is false; its frame is named.
    """
    values = block.properties[key]
    if values.dtype.kind in "iuf" and values.size == len(block):
        values = values.reshape(-1).astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(values)) if finite else np.zeros(0, dtype=np.int64)
    else:
        wrong = np.array([kind_of(value) != "a number" or np.size(value) != 1 for value in values], dtype=bool)
        wrong = np.flatnonzero(wrong) if wrong.any() else np.arange(len(block))
    if wrong.size:
        value = np.asarray(values[wrong[0]]).tolist()
        raise InputError(
            f"{block.file}, frame {block.number[wrong[0]]}: {key!r} must be a number, got {value!r}; fix or remove the "
            "frame"
        )
    return values


def atom_numbers(block: FrameBlock, key: str, *, finite: bool = True, single: bool = True) -> np.ndarray:
    """Values of an array of atoms in double precision, ``[num_atoms]``, or ``[num_atoms, ...]`` if not ``single``.

    Raises:
        InputError: If they are not numbers, or one is not finite unless ``finite`` is false; its atom is named.
    """
    values = block.atom_properties[key]
    if values.dtype.kind not in "iuf" or (single and values.ndim != 1):
        raise InputError(f"{block.file}: {key!r} is not {'one number' if single else 'numbers'} per atom")
    wrong = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if finite and wrong.size:
        atom = wrong[0]
        frame = block.frame_of_atom[atom]
        raise InputError(
            f"{block.file}, frame {block.number[frame]}: {key!r} of atom {atom - block.ptr[frame]} must be a number, "
            f"got {values[atom]}; fix or remove the frame"
        )
    return values.astype(np.float64)


def unrounded(parts: list[np.ndarray]) -> np.ndarray:
    """Values in single precision, or all in double where that would change one by more than 0.0001.

    Example:
        >>> unrounded([np.array([300.0]), np.array([0.1])]).dtype, unrounded([np.array([-2430000.0123])]).dtype
        (dtype('float32'), dtype('float64'))
    """
    values = np.concatenate(parts)
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        return values if (np.abs(values - single) > MAX_ROUNDING).any() else single


def group_labels(block: FrameBlock, key: str) -> np.ndarray:
    """Names of the groups of frames ``[num_frames]``: a number is the same group however it is written.

    ``1``, ``1.0`` and the text ``"1"`` are one group; so are they in files of which one has numbers and one texts.

    Raises:
        InputError: If a value is neither a number nor a text, or empty or not finite.
    """
    names = [group_label(value) for value in block.properties[key]]
    if None in names:
        frame = names.index(None)
        value = np.asarray(block.properties[key][frame]).tolist()
        raise InputError(
            f"{block.file}, frame {block.number[frame]}: the group {key!r} is {value!r}, not one number or text"
        )
    return np.array(names, dtype=object)


def group_label(value: Any) -> str | None:
    """The name of a group, none where it is no single number or text.

    Example:
        >>> [group_label(value) for value in (1, 1.0, "1", "1.0", 2.5, "2.50", "md", True)]
        ['1', '1', '1', '1', '2.5', '2.5', 'md', 'True']
    """
    if np.ndim(value) or kind_of(value) == "something else":
        return None
    value = np.asarray(value).item()
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        value = value.strip()
        if not NUMBER.fullmatch(value):
            return value or None
        value = int(value) if value.lstrip("+-").isdigit() else float(value)
    if not math.isfinite(value):
        return None
    return str(int(value)) if value == int(value) else repr(value)
