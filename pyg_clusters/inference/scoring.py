"""Predictions for the frames of files."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock, check_block, read_blocks
from pyg_clusters.inference.predictor import Predictor, domain_of


@dataclass
class ScoredBlock:
    """A block of frames and what a model says of them.

    Attributes:
        frames: The frames that could be used.
        energy: Their predicted energies in eV, ``[num_frames]``.
        bad: The frames of this stretch of the file that were left out.
        spread: Standard deviations of the energies in eV, ``[num_frames]``, of a model that gives them.
    """

    frames: FrameBlock
    energy: np.ndarray
    bad: list[BadFrame]
    spread: np.ndarray | None = None


def score_files(
    predictor: Predictor,
    paths: Iterable[str | PathLike],
    *,
    properties: Sequence[str] = (),
    with_atoms: bool = False,
    on_bad: Literal["stop", "skip"] = "stop",
    ignore_cell: bool = False,
) -> Iterator[ScoredBlock]:
    """Reads frames, checks them against what the model knows, and predicts their energies, block by block.

    Args:
        predictor: Of the model.
        paths: Files of frames, in any format that ASE reads.
        properties: Values per frame to read along.
        with_atoms: Keep the frames as ASE has them, with all their labels.
        on_bad: Stop at a frame that cannot be used, or leave it out.
        ignore_cell: Take frames with a periodic cell as isolated clusters.

    Raises:
        InputError: If a file or, with ``on_bad="stop"``, a frame cannot be used.
    """
    domain = domain_of(predictor.model)
    for block in read_blocks(paths, properties=properties, with_atoms=with_atoms, on_bad=on_bad):
        frames, bad = check_block(
            block,
            atomic_numbers=domain.atomic_numbers if domain else None,
            size_range=domain.size_range if domain else None,
            on_bad=on_bad,
            ignore_cell=ignore_cell,
        )
        bad = sorted({*bad, *block.unreadable}, key=lambda frame: frame.number)
        found = predictor(frames.z, frames.pos, frames.ptr)
        yield ScoredBlock(frames, found.energy.numpy(), bad, None if found.spread is None else found.spread.numpy())


def check_numbers(block: ScoredBlock, key: str) -> ScoredBlock:
    """The block, whose property ``key`` is a finite number in every frame.

    Raises:
        InputError: Naming the first frame where it is not.
    """
    frames = block.frames
    values = frames.properties[key]
    if values.ndim == 1 and values.dtype.kind in "iuf" and np.isfinite(values).all():
        return block
    place = next((place for place, value in enumerate(values) if not _is_finite_number(value)), 0)
    raise InputError(
        f"{frames.file}, frame {frames.number[place]}: {key!r} must be a number, got {values[place]!s}; mend the frame"
    )


def _is_finite_number(value: object) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
