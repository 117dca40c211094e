"""Frames of any number of files in memory, for the analysis."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, check_block, read_blocks
from pyg_clusters.frames.block import flat_arrays, origins_of
from pyg_clusters.frames.checks import finite_frames, group_labels, numbers
from pyg_clusters.options import Fragments


@dataclass
class FrameSet:
    """Frames of any number of files, of any sizes."""

    file: np.ndarray  #: File of each frame, ``[num_frames]``.
    number: np.ndarray  #: Index of each frame in its file, from 0, ``[num_frames]``.
    z: np.ndarray  #: Atomic numbers ``[num_atoms]``.
    pos: np.ndarray  #: Positions ``[num_atoms, 3]`` in Å.
    ptr: np.ndarray  #: Offsets of the frames ``[num_frames + 1]``.
    properties: dict[str, np.ndarray]  #: Requested values per frame, ``[num_frames]`` each.
    bad: list[BadFrame]  #: Frames that were left out.
    #: File and index from which each frame was first read, ``[num_frames]`` each.
    origins: tuple[np.ndarray, np.ndarray]
    #: Charge and spin of each frame ``[num_frames]``, see :attr:`~pyg_clusters.frames.FrameBlock.stated`.
    states: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each frame, ``[num_frames]``."""
        return np.diff(self.ptr)

    @property
    def charges(self) -> np.ndarray:
        """Charge of each frame in e, ``[num_frames]``; raises an error at a frame whose charge or spin is invalid."""
        charges = np.zeros(len(self), dtype=int)
        for frame, state in enumerate(self.states):
            if isinstance(state, str):
                raise BadFrame(str(self.file[frame]), int(self.number[frame]), state).error
            charges[frame] = 0 if state is None else state.charge
        return charges


def read_set(
    names: Sequence[str],
    *,
    target: str | None = None,
    group: str | None = None,
    sizes: Collection[int] | None = None,
    atomic_numbers: Collection[int] | None = None,
    state: tuple[int, bool] | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
) -> FrameSet:
    """Read and check all frames of files.

    Args:
        names: Files, folders and patterns, or names of shipped data (``gallium``).
        target: Name of a value per frame to read, which must be a finite number.
        group: Name of a value per frame to read, which identifies its group.
        sizes: Numbers of atoms of the frames to keep; by default all.
        atomic_numbers: Elements that a model knows; by default all.
        state: Charge and spin that a model knows, see :func:`~pyg_clusters.frames.check_block`; by default all.
        on_bad: ``"stop"`` raises an error at a frame that cannot be used, ``"skip"`` leaves it out.
        fragments: See :meth:`~pyg_clusters.frames.Frames.open`.
    """
    bad: list[BadFrame] = []
    blocks = []
    found: set[int] = set()
    properties = [name for name in (target, group) if name]
    for read in read_blocks(names, properties=properties, on_bad=on_bad, on_missing=on_bad, fragments=fragments):
        found |= set(read.sizes.tolist())
        chosen = read if sizes is None else read.select(np.isin(read.sizes, list(sizes)))
        block, left_out = check_block(chosen, atomic_numbers=atomic_numbers, state=state, on_bad=on_bad)
        if target and on_bad == "skip":
            block, invalid = finite_frames(block, target)
            left_out += invalid
        if target:
            block.properties[target] = numbers(block, target)
        if group:
            block.properties[group] = group_labels(block, group)
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
        origins=origins_of(blocks),
        states=np.concatenate([block.stated for block in blocks]),
    )
