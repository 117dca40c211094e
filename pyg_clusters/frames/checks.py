"""Checks that frames can be used, resemble the training set, and have finite values."""

import math
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols

from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import BadFrame, FrameBlock, UnlabelledFrame, kind_of
from pyg_clusters.frames.electronic_state import state_problem
from pyg_clusters.frames.join import as_clusters, pieces_without_cell
from pyg_clusters.frames.text import lifted_by, max_atoms
from pyg_clusters.options import Fragments
from pyg_clusters.positions import MAX_COORDINATE
from pyg_clusters.terminal import count_of, span

MAX_ROUNDING: float = 1e-4  # largest change of a value by single precision

NUMBER: re.Pattern[str] = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""Matches texts that are numbers."""


def numbers(block: FrameBlock, key: str) -> np.ndarray:
    """Values of a property, ``[num_frames]`` in double precision.

    Raises:
        InputError: If a value is not a finite number; the message names the frame.
    """
    values = block.properties[key]
    if values.dtype.kind in "iuf" and values.size == len(block):
        wrong = np.zeros(len(block), dtype=bool)
    else:
        wrong = np.array([kind_of(value) != "a number" or np.size(value) != 1 for value in values], dtype=bool)
    if not wrong.any():
        values = values.reshape(-1).astype(np.float64)
        wrong = ~np.isfinite(values)
    if wrong.any():
        frame = wrong.argmax()
        value = np.asarray(values[frame]).tolist()
        raise InputError(
            f"{block.file}, frame {block.number[frame]}: {key!r} must be a number, got {value!r}; fix or remove the "
            "frame"
        )
    return values


def atom_numbers(block: FrameBlock, key: str, *, finite: bool = True, single: bool = True) -> np.ndarray:
    """Values of a property per atom in double precision, ``[num_atoms]``, or ``[num_atoms, ...]`` if not ``single``.

    Raises:
        InputError: If a value is not a number, or with ``finite`` not a finite one; the message names the atom.
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


@dataclass(frozen=True)
class InvalidLabel(UnlabelledFrame):
    """A frame with a value that is not a finite number."""


def finite_frames(
    block: FrameBlock, key: str, per_atom: bool = False, *, single: bool = False
) -> tuple[FrameBlock, list[InvalidLabel]]:
    """Separate the frames in which a property is a finite number, or finite numbers of each atom, from the others.

    Raises:
        InputError: If a property per atom is not numbers, or not a ``single`` one per atom, in any frame.
    """
    if not len(block):
        return block, []
    reasons: dict[int, str] = {}
    if per_atom:
        values = atom_numbers(block, key, finite=False, single=single)
        for atom in np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)):
            frame = int(block.frame_of_atom[atom])
            reasons.setdefault(frame, f"{key!r} of atom {atom - block.ptr[frame]} is {values[atom].tolist()}")
    else:
        values = block.properties[key]
        if values.dtype.kind not in "iuf" or values.size != len(block) or not np.isfinite(values).all():
            for frame, value in enumerate(values):
                if kind_of(value) != "a number" or np.size(value) != 1:
                    reasons[frame] = f"{key!r} must be a number, got {np.asarray(value).tolist()!r}"
                elif not np.isfinite(value):
                    reasons[frame] = f"{key!r} is {value}"
    if not reasons:
        return block, []
    bad = [InvalidLabel(block.file, int(block.number[frame]), reason) for frame, reason in reasons.items()]
    block = block.select(np.setdiff1d(np.arange(len(block)), list(reasons)))
    if not per_atom:
        block.properties[key] = block.properties[key].astype(np.float64)
    return block, bad


def unrounded(parts: list[np.ndarray]) -> np.ndarray:
    """Values in single precision, or all in double precision if rounding would change one by more than 0.0001.

    Example:
        >>> unrounded([np.array([300.0]), np.array([0.1])]).dtype, unrounded([np.array([-2430000.0123])]).dtype
        (dtype('float32'), dtype('float64'))
    """
    values = np.concatenate(parts)
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        return values if (np.abs(values - single) > MAX_ROUNDING).any() else single


def group_labels(block: FrameBlock, key: str) -> np.ndarray:
    """Names of the groups of frames ``[num_frames]``; a number is the same group in any notation.

    The numbers ``1`` and ``1.0`` and the text ``"1"`` are one group, within a file and across files.

    Raises:
        InputError: If a value is neither a number nor a text, or is empty or not finite.
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
    """Name of a group; ``None`` if the value is not a single number or text.

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


MIN_DISTANCE: float = 0.5
"""Atoms closer than this in Å are treated as an error in the file: no bond is that short."""


class ExtrapolationWarning(UserWarning):
    """Warning about clusters of sizes that the model was not trained on."""


def check_block(
    block: FrameBlock,
    *,
    atomic_numbers: Collection[int] | None = None,
    size_range: tuple[int, int] | None = None,
    state: tuple[int, bool] | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
) -> tuple[FrameBlock, list[BadFrame]]:
    """Leave out the frames that cannot be used, or raise an error at the first of them.

    A frame is bad if it could not be read, has fewer than two atoms, has positions that are not finite or beyond
    :data:`MAX_COORDINATE`, has dummy atoms, has two atoms closer than :data:`MIN_DISTANCE`, has an element that the
    model does not know, is periodic and not an isolated cluster (see :func:`~pyg_clusters.frames.join.join_frames`), or
    is in several pieces without a cell, unless :attr:`FrameBlock.fragments` is ``"keep"``.

    Args:
        block: The frames.
        atomic_numbers: Elements that the model knows; by default all.
        size_range: Numbers of atoms of the smallest and the largest cluster in the training set of the model. Other
            sizes give a warning, which names the file and the size but not the frame, so that Python shows it once.
        state: Charge of the clusters in the training set of the model, and whether some have a state other than the
            lowest spin; frames in other states are bad.
        on_bad: ``"stop"`` raises an error at the first bad frame, ``"skip"`` leaves bad frames out.
        fragments: See :meth:`~pyg_clusters.frames.Frames.open`.

    Returns:
        The block of good frames, and the bad frames in the order of the file.

    Raises:
        InputError: If a frame is bad and ``on_bad`` is ``"stop"``.
    """
    block = as_clusters(block, fragments)
    reasons: dict[int, str] = {}
    for frame, reason in _problems(block, atomic_numbers):
        reasons.setdefault(frame, reason)
    if block.fragments == "refuse":
        free = np.setdiff1d(np.flatnonzero(~block.periodic), list(reasons))
        reasons |= dict(pieces_without_cell(block.z, block.pos, block.ptr, free))
    if state is not None and (block.states is not None or state[0]):
        found = {frame: state_problem(of_frame, *state) for frame, of_frame in enumerate(block.stated)}
        reasons = {frame: reason for frame, reason in found.items() if reason} | reasons
    bad = [BadFrame(block.file, int(block.number[frame]), reason) for frame, reason in reasons.items()]
    bad = sorted([*bad, *block.unreadable], key=lambda frame: frame.number)
    stops = [frame for frame in bad if not isinstance(frame, UnlabelledFrame)]
    if stops and on_bad == "stop":
        raise stops[0].error
    if bad:
        good = np.ones(len(block), dtype=bool)
        good[list(reasons)] = False
        block = block.select(good)
    if size_range is not None and len(block):
        warn_of_sizes(block.file, block.sizes, size_range)
    return block, bad


def _problems(block: FrameBlock, atomic_numbers: Collection[int] | None) -> Iterator[tuple[int, str]]:
    """Index in the block and fault of each bad frame; only the first fault of a frame is reported."""
    for frame in np.flatnonzero(block.sizes < 2):
        yield int(frame), f"number of atoms is {block.sizes[frame]}, a cluster has at least two"
    for frame in np.flatnonzero(block.sizes > max_atoms()):
        yield int(frame), f"number of atoms is {block.sizes[frame]:,}; {lifted_by()}"
    yield from _not_finite(block)
    for atom in np.flatnonzero((block.z < 1) | (block.z >= len(chemical_symbols))):
        of_atom = int(block.frame_of_atom[atom])
        yield of_atom, f"atom {atom - block.ptr[of_atom]} is a dummy of atomic number {block.z[atom]}; remove it"
    if atomic_numbers is not None:
        yield from _unknown_elements(block, atomic_numbers)
    yield from too_close(block)


def _not_finite(block: FrameBlock) -> Iterator[tuple[int, str]]:
    """Positions that are not finite, or implausibly far from the origin."""
    for atom in np.flatnonzero(~(np.abs(block.pos).max(axis=1, initial=0.0) <= MAX_COORDINATE)):
        frame = int(block.frame_of_atom[atom])
        yield frame, f"the position of atom {atom - block.ptr[frame]} is {block.pos[atom].tolist()}"


def _unknown_elements(block: FrameBlock, atomic_numbers: Collection[int]) -> Iterator[tuple[int, str]]:
    known = ", ".join(chemical_symbols[number] for number in sorted(atomic_numbers))
    atoms = np.flatnonzero(~np.isin(block.z, list(atomic_numbers)))
    for frame, atom in zip(block.frame_of_atom[atoms], atoms, strict=True):
        symbol = chemical_symbols[block.z[atom]]
        yield int(frame), f"atom {atom - block.ptr[frame]} is {symbol}, but the model knows only {known}"


def too_close(block: FrameBlock) -> Iterator[tuple[int, str]]:
    """Index and fault of each frame with two atoms closer than :data:`MIN_DISTANCE`."""
    first, second, distance = close_pairs(block, MIN_DISTANCE)
    for a, b, apart in zip(first, second, distance, strict=True):
        frame = int(block.frame_of_atom[a])
        i, j = sorted((int(a - block.ptr[frame]), int(b - block.ptr[frame])))
        yield frame, f"two atoms ({i} and {j}) are {apart:.2f} Å apart"


def close_pairs(block: FrameBlock, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all pairs of atoms of a frame that are closer than ``cutoff`` in Å, without a loop over all pairs.

    The atoms of each frame are sorted by x and compared with their first neighbours in this order, then with the second
    ones and so on, until no pair is within the cutoff along x.

    Returns:
        First and second atom of each pair, as indices in the block, and their distance in Å, ``[num_pairs]`` each.
    """
    order = _order_by_x(block)
    frame = block.frame_of_atom
    pos = block.pos[order]
    x, y, z = pos.T.copy()
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for lag in range(1, int(block.sizes.max(initial=0))):
        (start,) = np.nonzero((x[lag:] - x[:-lag] < cutoff) & (frame[lag:] == frame[:-lag]))
        if not start.size:
            break
        start = start[np.abs(y[start + lag] - y[start]) < cutoff]
        start = start[np.abs(z[start + lag] - z[start]) < cutoff]
        distance = np.linalg.norm(pos[start + lag] - pos[start], axis=1)
        close = distance < cutoff
        found.append((order[start[close]], order[start[close] + lag], distance[close]))
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    first, second, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, distances


def _order_by_x(block: FrameBlock) -> np.ndarray:
    """Indices that sort the atoms of each frame by x, ``[num_atoms]``."""
    x, sizes = block.pos[:, 0], block.sizes
    if not len(x) or (sizes != sizes[0]).any():
        return np.lexsort((x, block.frame_of_atom))
    size = int(sizes[0])
    return (np.argsort(x.reshape(-1, size), axis=1) + block.ptr[:-1, None]).ravel()


def warn_of_sizes(file: str, sizes: np.ndarray, size_range: tuple[int, int]):
    """Warn about clusters that are smaller or larger than those of a training set.

    Args:
        file: Name of the file or files, for the message.
        sizes: Numbers of atoms ``[num_frames]``.
        size_range: Numbers of atoms of the smallest and the largest cluster of the training set.
    """
    smallest, largest = size_range
    beyond = np.maximum(smallest / sizes, sizes / largest)
    size, factor = sizes[beyond.argmax()], beyond.max()
    if factor <= 1:
        return
    trained = f"the {span(size_range)} atoms that the model was trained on"
    text = f"{file}: clusters of {size} atoms are outside {trained}: expect larger errors"
    if factor > 2:
        text = f"{file}: clusters of {size} atoms are far outside {trained}: do not trust these predictions"
    warnings.warn(text, ExtrapolationWarning, stacklevel=3)


def listed(bad: Sequence[BadFrame]) -> Iterator[str]:
    """Yield a text for each frame; advice (after a semicolon) that successive frames share follows them once."""
    for advice, frames in groupby(bad, key=lambda frame: frame.reason.partition("; ")[2]):
        texts = [str(frame) for frame in frames]
        if advice and len(texts) > 1:
            texts = [*(text.removesuffix(f"; {advice}") for text in texts), advice]
        yield from texts


def no_usable_frame(files: Sequence[str], bad: Sequence[BadFrame]) -> InputError:
    """Error to raise if all frames of files were left out."""
    return InputError(f"no frame of {', '.join(files)} can be used" + (f"; the first: {bad[0]}" if bad else ""))


def list_bad(bad: Sequence[BadFrame]):
    """Print the frames that were left out to standard error."""
    if bad:
        print(
            f"{count_of(len(bad), 'frame')} {'was' if len(bad) == 1 else 'were'} left out:",
            *(f"  {text}" for text in listed(bad)),
            sep="\n",
            file=sys.stderr,
        )
